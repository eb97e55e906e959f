"""The account of a slide's area: what was analysed, what was left out and why, and what could not
be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quadrat.core.geometry import Box
from quadrat.engine.work import SlidePlan, SlideWork

DAMAGED = "damaged tiles"


@dataclass(frozen=True, slots=True)
class AnalysedArea:
    """``analysed_mm2`` of tissue; ``excluded``: (reason, mm2) of the rest; ``lost``: damaged tiles
    in grid px, raster order."""

    analysed_mm2: float
    excluded: tuple[tuple[str, float], ...]
    lost: tuple[Box, ...]

    def to_json(self, plan: SlidePlan) -> dict[str, Any]:
        """The account as it stands in summary.json; boxes in level-0 px (x0, y0, x1, y1)."""
        scale = plan.frame.scale
        return {
            "tissue_mm2": round(self.analysed_mm2, 6),
            "excluded_mm2": {reason: round(mm2, 6) for reason, mm2 in self.excluded},
            "damaged_tiles_l0": [[round(v, 3) for v in scale.box_l0(b)] for b in self.lost],
        }


def analysed_area(work: SlideWork, plan: SlidePlan, lost: Sequence[Box]) -> AnalysedArea:
    """The account after reading: tissue inside damaged tiles was not analysed.

    ``lost``: boxes met anywhere while reading, in any order, also twice. Those that no analysed
    window touches depend on how the slide was read, and are left out.
    """
    lattice, cells = work.spec.lattice, set(plan.cells)
    met = sorted(
        b
        for b in set(lost)
        if any(cell in cells for cell in b.pad(lattice.halo).cells(lattice.core))
    )
    if not met:
        return AnalysedArea(plan.tissue_mm2, plan.excluded, ())
    tissue = work.load_tissue()
    rows, cols = tissue.frame.centres_in(plan.frame)
    gone = np.zeros(tissue.mask.shape, np.bool_)
    for b in met:
        gone |= ((rows >= b.row0) & (rows < b.row1))[:, None] & (
            (cols >= b.col0) & (cols < b.col1)
        )[None, :]
    mm2 = float((gone & tissue.mask).sum()) * (tissue.um_per_px / 1000) ** 2
    return AnalysedArea(plan.tissue_mm2 - mm2, (*plan.excluded, (DAMAGED, mm2)), tuple(met))
