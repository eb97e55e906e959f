"""Where the tissue is: a mask of a low-power overview, and the cores of the canonical lattice that it touches.

The mask works on optical densities against the slide's own background (Beer-Lambert; Ruifrok and Johnston 2001): tissue
stained with H&E absorbs, and absorbs green more than red and blue; glass does not absorb, shadows and dust absorb all
colours alike, and pens absorb in their own proportions. The threshold is the slide's (Otsu 1979) within fixed bounds,
so that an empty slide gives an empty mask and a slide full of tissue a full one. Lengths and areas are in um and mm2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.geometry import Box, plan_read
from quadrat.grid import Cell, Lattice
from quadrat.results import Frame
from quadrat.slides.protocol import Slide
from quadrat.slides.source import PixelSource, SlideSource

OVERVIEW_MPP = 8.0
OVERVIEW_MIN_PX = 256
"""Small images are looked at more closely, until the shorter side has this many px."""
STRIP_ROWS = 256
MAX_MASK_PX = 4096
"""Longer side of the mask of a whole slide."""

SMOOTH_UM = 12.0
THRESHOLD_BOUNDS = 0.10, 0.22
"""Least and greatest threshold of the tissue score, in units of optical density (natural logarithm)."""
CHROMA_MIN = 0.03
"""Less difference than this between the colours' densities is grey: shadow, dust, black ink."""
DARK = 64
"""Pixels darker than this in every colour; a slide that is mostly so is not bright field."""
PEN_DENSITY = 0.6
PEN_MIN_MM2, PEN_MARGIN_UM = 0.01, 32.0
CLOSE_UM, OPEN_UM = 32.0, 10.0
HOLE_MAX_MM2, SPECK_MAX_MM2 = 0.05, 0.02
SPECK_MAX_SHARE = 0.05
"""In small images, a speck is at most this share of the image."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TissueMap:
    """Tissue on its own coarse grid: ``mask`` bool (h, w) and the frame that places it on the slide."""

    mask: Mask
    frame: Frame

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.mask.shape != (self.frame.height, self.frame.width):
            raise ValueError(f"TissueMap.mask is {self.mask.dtype}{self.mask.shape}, its frame {self.frame}")

    @property
    def um_per_px(self) -> float:
        """Size of a mask px."""
        return self.frame.mpp

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.mask.sum()) * (self.frame.mpp / 1000) ** 2

    def pixels_of(self, box: Box, frame: Frame) -> Box:
        """The mask pixels that a box (px of ``frame``) touches; at least one, also beyond the last whole mask pixel."""
        rows, cols = frame.scale_row / self.frame.scale_row, frame.scale_col / self.frame.scale_col
        touched = box.scale_out(rows, cols)
        row0, col0 = min(touched.row0, self.frame.height - 1), min(touched.col0, self.frame.width - 1)
        row1, col1 = (
            min(max(touched.row1, row0 + 1), self.frame.height),
            min(max(touched.col1, col0 + 1), self.frame.width),
        )
        return Box(max(row0, 0), max(col0, 0), max(row1, 1), max(col1, 1))

    def covers(self, box: Box, *, frame: Frame) -> float:
        """The share (0-1) of the mask pixels touched by a box (px of ``frame``, inside the slide) that is tissue."""
        rows, cols = self.pixels_of(box, frame).slices_in(Box(0, 0, *self.mask.shape))
        return float(self.mask[rows, cols].mean())


def tissue_mask(rgb: npt.NDArray[np.uint8], *, mpp: float) -> Mask:
    """Tissue of an overview, uint8 (h, w, 3) at ``mpp`` um/px (best 4-16), as bool (h, w).

    Leaves out glass, pen strokes (blue, green, red, black), black borders, grey shadows and specks; closes small holes.
    For bright field only: a picture that is mostly black has no tissue here.
    """
    if (rgb.max(axis=2) < DARK).mean() > 0.5:  # dark field (fluorescence): absorption says nothing here
        return np.zeros(rgb.shape[:2], np.bool_)
    density = _optical_density(rgb)
    pen = _pen(density, mpp=mpp)
    smooth = ndimage.gaussian_filter(density, (SMOOTH_UM / mpp, SMOOTH_UM / mpp, 0), mode="nearest")
    chroma = smooth.max(axis=2) - smooth.min(axis=2)
    score = smooth[..., 1] + chroma
    mask = (score > _threshold(score[~pen])) & (chroma > CHROMA_MIN) & ~pen
    mask = _open(mask, OPEN_UM / mpp)
    mask = _close(mask, CLOSE_UM / mpp) & ~pen
    per_mm2 = (1000 / mpp) ** 2
    mask = ~_without_small(~mask, HOLE_MAX_MM2 * per_mm2) & ~pen
    return _without_small(mask, min(SPECK_MAX_MM2 * per_mm2, SPECK_MAX_SHARE * mask.size))


def find_tissue(slide: Slide, *, slide_mpp: float) -> TissueMap:
    """The tissue of a slide of ``slide_mpp`` um/px at level 0, from an overview read in strips (bounded memory).

    Raises:
        SlideError: the slide cannot be read.
    """
    shorter_um = min(slide.levels[0].box.shape) * slide_mpp
    mpp = max(slide_mpp, min(OVERVIEW_MPP, shorter_um / OVERVIEW_MIN_PX))
    source = SlideSource(slide, plan_read(slide.levels, slide_mpp=slide_mpp, mpp=mpp, slide=slide.name))
    return TissueMap(mask=tissue_mask(read_strips(source), mpp=source.frame.mpp), frame=source.frame)


def read_strips(source: PixelSource) -> npt.NDArray[np.uint8]:
    """A whole (coarse) source, strip by strip; uint8 (h, w, 3)."""
    whole = source.frame.box
    out = np.empty((*whole.shape, 3), np.uint8)
    for row in range(0, whole.height, STRIP_ROWS):
        strip = Box(row, 0, min(row + STRIP_ROWS, whole.height), whole.width)
        out[strip.slices_in(whole)] = source.read(strip)
    return out


def whole_slide(frame: Frame) -> TissueMap:
    """Everything is tissue: for images that are known to be."""
    factor = math.ceil(max(frame.height, frame.width) / MAX_MASK_PX)
    coarse = Frame(
        height=max(1, frame.height // factor),
        width=max(1, frame.width // factor),
        mpp=frame.mpp * factor,
        scale_row=frame.scale_row * factor,
        scale_col=frame.scale_col * factor,
    )
    return TissueMap(mask=np.ones((coarse.height, coarse.width), np.bool_), frame=coarse)


def tissue_cells(tissue: TissueMap, *, lattice: Lattice, frame: Frame, min_fraction: float = 0.0) -> list[Cell]:
    """Cores of the canonical lattice with any tissue, or with more than ``min_fraction`` (0-1) of it; raster order.

    The share is that of the core's part inside the slide; cores beyond the slide are none.
    """
    sums = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = tissue.mask.cumsum(axis=0).cumsum(axis=1)
    cells = []
    for cell in frame.box.cells(lattice.core):
        box = tissue.pixels_of(lattice.core_box(cell).intersect(frame.box), frame)
        count = sums[box.row1, box.col1] - sums[box.row0, box.col1] - sums[box.row1, box.col0] + sums[box.row0, box.col0]
        if count > min_fraction * box.area:
            cells.append(cell)
    return cells


def _optical_density(rgb: npt.NDArray[np.uint8]) -> Floats:
    """Natural-logarithm optical density, float32 (h, w, 3), against the slide's own background; never negative."""
    bright, dark = rgb.max(axis=2), rgb.min(axis=2)
    glass = (dark >= 200) & (bright - dark <= 16)
    background = np.full(3, 245.0)
    if glass.sum() > 0.01 * glass.size:
        background = np.maximum(np.median(rgb[glass], axis=0), 215.0)
    table = np.log(np.arange(256, dtype=np.float64) + 1)
    density = np.log(background + 1) - table[rgb]
    return np.asarray(np.maximum(density, 0), np.float32)


def _pen(density: Floats, *, mpp: float) -> Mask:
    """Strokes of blue, green, red or black ink, and black borders, with a margin.

    H&E absorbs green most; ink of blue and green absorbs red more, red ink takes blue along, black ink all alike.
    """
    red, green, blue = (density[..., i] for i in range(3))
    strongest, weakest = density.max(axis=2), density.min(axis=2)
    cool = (red > 1.2 * green + 0.05) & (strongest > PEN_DENSITY)
    warm = (green > 1.3) & (blue > 0.8 * green) & (red < 0.4 * green)
    black = (weakest > 1.0) & (strongest - weakest < 0.25 * strongest)
    strokes = _without_small(cool | warm | black, PEN_MIN_MM2 * (1000 / mpp) ** 2)
    if not strokes.any():
        return strokes
    return np.asarray(ndimage.distance_transform_edt(~strokes) <= PEN_MARGIN_UM / mpp)


def _threshold(score: Floats) -> float:
    """Otsu's threshold of the tissue score, kept within its bounds."""
    low, high = THRESHOLD_BOUNDS
    if score.size == 0:
        return high
    counts, edges = np.histogram(score, bins=256, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (total / below - (total[-1] - total) / above) ** 2
    if not np.isfinite(spread).any():
        return high
    return float(np.clip(edges[int(np.nanargmax(spread)) + 1], low, high))


def _open(mask: Mask, radius: float) -> Mask:
    """Remove what a disc of ``radius`` px does not fit in; what leaves the image is taken to go on."""
    core = _distance(mask) > radius
    return np.asarray(_distance(~core) <= radius) if core.any() else core


def _close(mask: Mask, radius: float) -> Mask:
    """Fill what a disc of ``radius`` px does not fit in."""
    return ~_open(~mask, radius)


def _distance(mask: Mask) -> Floats:
    """Distance of each px of ``mask`` to the nearest px that is not, in px; infinite if there is none."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(mask), np.float32)


def _without_small(mask: Mask, min_px: float) -> Mask:
    """The 4-connected components of at least ``min_px`` px."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    keep[0] = False
    return np.asarray(keep[labels])
