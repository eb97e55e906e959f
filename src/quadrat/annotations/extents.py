"""Finding the few among many extents that may meet a box, without looking at all of them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

F64 = npt.NDArray[np.float64]

FEW = 2048
"""So many extents are looked at one by one: it takes less time than a tree."""


class Extents:
    """Bounding boxes (n, 4) row0, col0, row1, col1, in any frame; NaN for what has no extent.

    Many are held in an R-tree (Guttman 1984; packed as by Leutenegger et al. 1997), which is made
    when it is first asked.
    """

    def __init__(self, rows_cols: F64) -> None:
        self.all = rows_cols

    def near(self, box: F64) -> npt.NDArray[np.intp]:
        """Indices, ascending, of all extents that meet or touch a box (4,), and maybe of others."""
        if len(self.all) <= FEW:
            return np.arange(len(self.all))
        row0, col0, row1, col1 = (float(v) for v in box)
        found = self._tree.query(shapely.box(col0, row0, col1, row1))
        return np.sort(self._held[found])

    @cached_property
    def _held(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(~np.isnan(self.all).any(axis=1))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        """Of the diagonals: their extents are the boxes, and they take a third of the memory."""
        diagonals = self.all[self._held][:, [1, 0, 3, 2]].reshape(-1, 2, 2)
        return shapely.STRtree(shapely.linestrings(diagonals))
