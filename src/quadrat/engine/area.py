"""The account of a slide's area: what was analysed, what was left out and why, and what could not
be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.engine.work import SlidePlan, SlideWork
from quadrat.outputs.summary import AreaFigures
from quadrat.slides.tissue.mask import TissueMap
from quadrat.slides.tissue.overview import FILLED

DAMAGED = "damaged tiles"


@dataclass(frozen=True, slots=True)
class AnalysedArea:
    """What of a slide was analysed."""

    analysed_mm2: float
    """Tissue."""
    excluded: tuple[tuple[str, float], ...]
    """(reason, mm2) of the rest."""
    lost: tuple[Box, ...]
    """Damaged tiles in grid px, in raster order."""
    filled_mm2: float
    """How much of the tissue is gaps and holes that were filled."""

    def figures(self, frame: Frame) -> AreaFigures:
        """The account as results state it, in level-0 px."""
        corners = (frame.scale.box_l0(box) for box in self.lost)
        return AreaFigures(
            tissue_mm2=round(self.analysed_mm2, 6),
            tissue_filled_mm2=round(self.filled_mm2, 6),
            excluded_mm2={reason: round(mm2, 6) for reason, mm2 in self.excluded},
            damaged_tiles_l0=tuple(
                (round(x0, 3), round(y0, 3), round(x1, 3), round(y1, 3))
                for x0, y0, x1, y1 in corners
            ),
        )


def analysed_area(work: SlideWork, plan: SlidePlan, lost: Sequence[Box]) -> AnalysedArea:
    """The account after reading: tissue inside damaged tiles was not analysed.

    ``lost``: boxes met anywhere while reading, in any order, also twice. Those that no analysed
    window touches depend on how the slide was read, and are left out.
    """
    lattice, cells = work.spec.lattice, set(plan.cells)
    met = sorted(
        b for b in set(lost) if any(cell in cells for cell in lattice.cores(b.pad(lattice.halo)))
    )
    if not met:
        return AnalysedArea(plan.tissue_mm2, plan.excluded, (), plan.filled_mm2)
    tissue = work.load_tissue()
    gone = lost_pixels(tissue, met, plan.frame)
    mm2 = float((gone & tissue.mask).sum()) * tissue.px_mm2
    filled = float((gone & (tissue.codes == FILLED)).sum()) * tissue.px_mm2
    return AnalysedArea(
        plan.tissue_mm2 - mm2,
        (*plan.excluded, (DAMAGED, mm2)),
        tuple(met),
        plan.filled_mm2 - filled,
    )


def lost_pixels(tissue: TissueMap, lost: Sequence[Box], frame: Frame) -> npt.NDArray[np.bool_]:
    """The pixels of the mask with their centre in a damaged tile (px of ``frame``)."""
    rows, cols = tissue.frame.centres_in(frame)
    gone = np.zeros(tissue.mask.shape, np.bool_)
    for b in lost:
        gone |= ((rows >= b.row0) & (rows < b.row1))[:, None] & (
            (cols >= b.col0) & (cols < b.col1)
        )[None, :]
    return gone
