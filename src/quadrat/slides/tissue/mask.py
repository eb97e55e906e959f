"""The tissue mask of a slide: what is analysed, what is left out and why, and the cores that tissue
touches.

``overview.classify_overview`` gives every pixel of a low-power overview a code. This module reads
the overview, keeps the codes with the frame that places them on the slide, and adds up areas.
``annotations.regions`` lays on top what users draw to include or exclude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, plan_read
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.objects import Frame
from quadrat.core.unit import plain_area
from quadrat.slides.protocol import Slide
from quadrat.slides.source import PixelSource, SlideSource
from quadrat.slides.tissue.absorption import dark_field
from quadrat.slides.tissue.overview import (
    ANALYSED,
    FILL_UM,
    FILLED,
    GLASS,
    HOLE_MAX_MM2,
    REASONS,
    SPECK_MAX_MM2,
    THRESHOLD,
    Codes,
    classify_overview,
    is_tissue,
)

OVERVIEW_MPP = 8.0
OVERVIEW_MIN_PX = 256
"""Small images are looked at more closely, until their shorter side has this many px."""
OVERVIEW_MAX_PX = 4_000_000
"""A larger overview (256 mm2 at 8 um/px) gets coarser, so that memory stays bounded."""
STRIP_ROWS = 256
MAX_MASK_PX = 4096
"""Longer side of the mask of a whole slide."""

LOST, USER_EXCLUSION, OUTSIDE_INCLUSION = 32, 64, 128
"""Bits that damaged tiles (in results) and user regions add to a code. The lower bits keep what the
picture itself showed."""
USER_REASONS = {USER_EXCLUSION: "user exclusion", OUTSIDE_INCLUSION: "outside user inclusion"}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Excluded:
    """An area of a slide that is not analysed."""

    reason: str
    """Why not."""
    mm2: float
    """How large it is."""


@dataclass(frozen=True, slots=True)
class TissueMap:
    """Tissue on its own coarse grid."""

    mask: Mask
    """bool (h, w): what is analysed."""
    frame: Frame
    """Places the mask on the slide."""
    reasons: Codes | None = None
    """uint8 (h, w): why a pixel is not analysed; ANALYSED or FILLED where it is. The lower bits are
    an index into ``overview.REASONS``, or FILLED; USER_EXCLUSION and OUTSIDE_INCLUSION are added.
    None: everything outside the mask is glass."""

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.mask.shape != (self.frame.height, self.frame.width):
            raise ValueError(
                f"TissueMap.mask is {self.mask.dtype}{self.mask.shape}, its frame {self.frame}"
            )
        if self.reasons is not None and not np.array_equal(is_tissue(self.reasons), self.mask):
            raise ValueError("TissueMap.reasons must name tissue where the mask is, only there")

    @staticmethod
    def of_codes(codes: Codes, *, frame: Frame) -> TissueMap:
        """The map of codes uint8 (h, w), as ``codes`` returns them."""
        return TissueMap(is_tissue(codes), frame, codes)

    @property
    def codes(self) -> Codes:
        """Why each pixel is what it is, uint8 (h, w). Codes and frame are all that has
        to be stored."""
        return (
            np.where(self.mask, np.uint8(ANALYSED), np.uint8(GLASS))
            if self.reasons is None
            else self.reasons
        )

    @property
    def allowed(self) -> Mask:
        """bool (h, w): where user regions allow analysis, tissue or not."""
        return np.asarray(self.codes < USER_EXCLUSION)

    @property
    def um_per_px(self) -> float:
        """Size of a mask px."""
        return self.frame.mpp

    @property
    def px_mm2(self) -> float:
        """Area of a mask px."""
        return (self.frame.mpp / 1000) ** 2

    @property
    def area_mm2(self) -> float:
        """Analysed area: tissue inside the regions of the user."""
        return float(np.count_nonzero(self.mask)) * self.px_mm2

    @property
    def filled_mm2(self) -> float:
        """How much of it is gaps and holes that were filled."""
        return float(np.count_nonzero(self.codes == FILLED)) * self.px_mm2

    @property
    def slide_mm2(self) -> float:
        """Area of the whole mask: that of the slide, except for less than one mask px at its right
        and lower edge."""
        return self.mask.size * self.px_mm2

    @property
    def excluded(self) -> tuple[Excluded, ...]:
        """What is not analysed, by reason, without reasons of no area. Together with ``area_mm2``
        it adds up to ``slide_mm2``.

        A pixel has one reason. What the picture shows comes first (glass, pen ...). So only tissue
        is excluded by the user. Tissue that is both excluded and outside every inclusion counts as
        excluded.
        """
        counts = np.bincount(self.codes.ravel(), minlength=256).reshape(4, 64)
        by_picture = counts.sum(axis=0)
        found = [
            Excluded(REASONS[code], float(by_picture[code]) * self.px_mm2)
            for code in range(1, len(REASONS))
        ]
        tissue = counts[:, [ANALYSED, FILLED]].sum(axis=1)
        found.append(
            Excluded(USER_REASONS[USER_EXCLUSION], float(tissue[1] + tissue[3]) * self.px_mm2)
        )
        found.append(Excluded(USER_REASONS[OUTSIDE_INCLUSION], float(tissue[2]) * self.px_mm2))
        return tuple(part for part in found if part.mm2 > 0)

    def account(self) -> str:
        """Where the area of the slide went, in one line. Parts below 0.005 mm2 (or Mpx, in pixel
        work) are not named."""
        filled = f" ({self.filled_mm2:.2f} of them filled)" if self.filled_mm2 >= 0.005 else ""
        unit = plain_area(self.frame.unit)
        parts = [f"{self.area_mm2:.2f} of {self.slide_mm2:.2f} {unit} analysed{filled}"]
        parts += [f"{part.reason} {part.mm2:.2f}" for part in self.excluded if part.mm2 >= 0.005]
        return "; ".join(parts)

    def pixels_of(self, box: Box, frame: Frame) -> Box:
        """The mask pixels that a box (px of ``frame``) touches; at least one, even beyond the last
        whole mask pixel."""
        ratio = frame.scale.per(self.frame.scale)
        touched = box.scale_out(ratio.row, ratio.col)
        row0, col0 = (
            min(touched.row0, self.frame.height - 1),
            min(touched.col0, self.frame.width - 1),
        )
        row1, col1 = (
            min(max(touched.row1, row0 + 1), self.frame.height),
            min(max(touched.col1, col0 + 1), self.frame.width),
        )
        return Box(max(row0, 0), max(col0, 0), max(row1, 1), max(col1, 1))


def find_tissue(
    slide: Slide,
    *,
    slide_mpp: float,
    min_mm2: float = SPECK_MAX_MM2,
    fill_um: float = FILL_UM,
    hole_mm2: float = HOLE_MAX_MM2,
    margin_um: float = 0.0,
    threshold: float = THRESHOLD,
    damaged: Literal["fail", "mark"] = "fail",
) -> TissueMap:
    """The tissue of a slide of ``slide_mpp`` um/px at level 0, from an overview read in strips
    (bounded memory).

    min_mm2, fill_um, hole_mm2, margin_um, threshold: see ``overview.classify_overview``; damaged:
    see ``SlideSource``. A slide without tissue gives a map without tissue; its ``excluded`` says
    what is there instead.

    Raises:
        SlideError: the slide cannot be read, or is not transmitted light (fluorescence).
    """
    shorter_um = min(slide.levels[0].box.shape) * slide_mpp
    coarsest = math.sqrt(slide.levels[0].box.area * slide_mpp**2 / OVERVIEW_MAX_PX)
    mpp = max(slide_mpp, min(OVERVIEW_MPP, shorter_um / OVERVIEW_MIN_PX), coarsest)
    source = SlideSource(
        slide,
        plan_read(slide.levels, slide_mpp=slide_mpp, mpp=mpp, slide=slide.name),
        damaged=damaged,
    )
    rgb = read_strips(source)
    dark = dark_field(rgb)
    if dark is not None:
        raise SlideError(
            f"{slide.name}: this is not a bright-field slide: {dark}, so tissue cannot be told "
            "from glass; analyse everything "
            "with --set slide.tissue=all, alone or together with a file of regions to include"
        )
    codes = classify_overview(
        rgb,
        mpp=source.frame.mpp,
        min_mm2=min_mm2,
        fill_um=fill_um,
        hole_mm2=hole_mm2,
        margin_um=margin_um,
        threshold=threshold,
    )
    return TissueMap.of_codes(codes, frame=source.frame)


def read_strips(source: PixelSource) -> npt.NDArray[np.uint8]:
    """A whole (coarse) source, strip by strip; uint8 (h, w, 3)."""
    whole = source.frame.box
    out = np.empty((*whole.shape, 3), np.uint8)
    for row in range(0, whole.height, STRIP_ROWS):
        strip = Box(row, 0, min(row + STRIP_ROWS, whole.height), whole.width)
        out[strip.slices_in(whole)] = source.read(strip)
    return out


def whole_slide(frame: Frame) -> TissueMap:
    """A map where everything is tissue, for images that are known to be."""
    factor = math.ceil(max(frame.height, frame.width) / MAX_MASK_PX)
    coarse = replace(
        frame,
        height=max(1, frame.height // factor),
        width=max(1, frame.width // factor),
        mpp=frame.mpp * factor,
        scale_row=frame.scale_row * factor,
        scale_col=frame.scale_col * factor,
    )
    return TissueMap(np.ones((coarse.height, coarse.width), np.bool_), coarse)


def tissue_cells(
    tissue: TissueMap, *, lattice: Lattice, frame: Frame, min_fraction: float = 0.0
) -> list[CoreIndex]:
    """Cores of the lattice that hold more than ``min_fraction`` (0-1) of tissue (0: any tissue), in
    raster order.

    The fraction is that of the part of the core inside the slide. There are no cores beyond the
    slide.
    """
    counted = _counted(tissue, lattice=lattice, frame=frame)
    return [cell for cell, count, area in counted if count > min_fraction * area]


def fullest_cells(
    tissue: TissueMap, *, lattice: Lattice, frame: Frame, most: int
) -> list[CoreIndex]:
    """The cores with most tissue, up to ``most`` of them, the fullest first."""
    counted = [one for one in _counted(tissue, lattice=lattice, frame=frame) if one[1]]
    return [cell for cell, _, _ in sorted(counted, key=lambda one: (-one[1], one[0]))[:most]]


def _counted(
    tissue: TissueMap, *, lattice: Lattice, frame: Frame
) -> Iterator[tuple[CoreIndex, int, int]]:
    """Each core in raster order, with its pixels of the map that are tissue, and all of them."""
    sums = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = tissue.mask.cumsum(axis=0).cumsum(axis=1)
    for cell in lattice.cores(frame.box):
        box = tissue.pixels_of(lattice.core_box(cell).intersect(frame.box), frame)
        count = (
            sums[box.row1, box.col1]
            - sums[box.row0, box.col1]
            - sums[box.row1, box.col0]
            + sums[box.row0, box.col0]
        )
        yield cell, int(count), box.area
