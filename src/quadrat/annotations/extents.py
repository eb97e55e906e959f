"""Finding the few among many extents that may meet a box, without looking at all of them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.annotations.types import F64

FEW = 2048
"""So many extents are looked at one by one: it takes less time than a tree."""
SLACK = 1.0
"""By how much a box is widened. It is far more than rounding, and costs next to nothing."""


class Extents:
    """Bounding boxes (n, 4) x0, y0, x1, y1 in level-0 px; NaN for what has no extent.

    Many are held in an R-tree (Guttman 1984; packed as by Leutenegger et al. 1997), which is made
    when it is first asked.
    """

    def __init__(self, xyxy: F64) -> None:
        self.xyxy = xyxy

    def near(self, x0: float, y0: float, x1: float, y1: float) -> npt.NDArray[np.intp]:
        """Indices, ascending, of all extents that meet or touch a box, and maybe of others."""
        if len(self.xyxy) <= FEW:
            return np.arange(len(self.xyxy))
        box = shapely.box(x0 - SLACK, y0 - SLACK, x1 + SLACK, y1 + SLACK)
        return np.sort(self._held[self._tree.query(box)])

    @cached_property
    def _held(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(~np.isnan(self.xyxy).any(axis=1))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        """Of the diagonals: their extents are the boxes, and they take less memory than these."""
        return shapely.STRtree(shapely.linestrings(self.xyxy[self._held].reshape(-1, 2, 2)))
