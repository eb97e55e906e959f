"""How much of a region was analysed: exact areas of regions cut with the pixels of the tissue mask
(pure).

The mask is taken as rectangles of its pixels, and areas are of polygons that are clipped by them.
So the areas of regions that cover the slide without overlap add up to that of the slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.core.kernel import kernel
from quadrat.core.objects import Frame
from quadrat.slides.tissue.overview import ANALYSED, FILLED, is_tissue

F64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tissue:
    """The analysed part of a slide."""

    codes: Codes
    """uint8 (h, w), as in tissue.png."""
    frame: Frame
    """Where they lie."""
    filled_counts: bool = True
    """Whether gaps and holes that were filled count as analysed."""

    @cached_property
    def mask(self) -> Mask:
        """bool (h, w): what counts as analysed."""
        mask = is_tissue(self.codes) if self.filled_counts else self.codes == ANALYSED
        return np.asarray(mask)

    @property
    def scale(self) -> tuple[float, float]:
        """Level-0 px per px of the mask: of x, and of y."""
        return self.frame.scale_col, self.frame.scale_row

    @property
    def px_mm2(self) -> float:
        """Area of a px of the mask."""
        return (self.frame.mpp / 1000) ** 2

    @cached_property
    def analysed(self) -> F64:
        """(k, 4) x0, y0, x1, y1 of rectangles that are the analysed pixels; px of the mask."""
        return rectangles(self.mask)

    @cached_property
    def filled(self) -> F64:
        """The same of the pixels that were filled."""
        return rectangles(self.codes == FILLED)

    @property
    def analysed_mm2(self) -> float:
        """Area of all of it."""
        return float(np.count_nonzero(self.mask)) * self.px_mm2

    @property
    def filled_mm2(self) -> float:
        """How much was filled."""
        return float(np.count_nonzero(self.codes == FILLED)) * self.px_mm2

    def areas_in(self, shape: shapely.Geometry) -> tuple[float, float]:
        """mm² of a region (valid, in px of the mask) that were analysed, and that were filled."""
        analysed, filled = (clipped_area(shape, kind) for kind in (self.analysed, self.filled))
        return analysed * self.px_mm2, filled * self.px_mm2

    def on_filled(self, xy_l0: F64) -> Mask:
        """Which points (n, 2) x, y in level-0 px lie in a filled pixel; bool (n,)."""
        return self._at(xy_l0, self.codes == FILLED)

    def holds(self, xy_l0: F64) -> Mask:
        """Which points lie in an analysed pixel."""
        return self._at(xy_l0, self.mask)

    def _at(self, xy_l0: F64, mask: Mask) -> Mask:
        cols, rows = np.floor(xy_l0 / np.array(self.scale)).astype(np.int64).T
        height, width = mask.shape
        within = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        out = np.zeros(len(xy_l0), np.bool_)
        out[within] = mask[rows[within], cols[within]]
        return out

    def without_filled(self) -> Tissue:
        """The same where what was filled does not count."""
        return Tissue(self.codes, self.frame, filled_counts=False)


def clipped_area(shape: shapely.Geometry, boxes: F64) -> float:
    """Area that a valid geometry shares with rectangles (k, 4) that do not overlap."""
    x0, y0, x1, y1 = shapely.bounds(shape)
    if not len(boxes) or np.isnan(x0):
        return 0.0
    near = boxes[(boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)]
    drawn = shapely.box(*near.T)
    shapely.prepare(shape)
    within = shapely.contains(shape, drawn)
    crossing = drawn[~within & shapely.intersects(shape, drawn)]
    sides = near[within]
    whole = float(((sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])).sum())
    if not len(crossing):
        return whole
    return whole + float(shapely.area(shapely.intersection(shape, shapely.union_all(crossing))))


def rectangles(mask: Mask) -> F64:
    """The pixels of a mask as rectangles (k, 4) x0, y0, x1, y1 that do not overlap: runs of a row,
    joined with equal runs of the rows below."""
    found: F64 = _rectangles(np.ascontiguousarray(mask)).astype(np.float64)
    return found


@kernel
def _rectangles(mask: Mask) -> npt.NDArray[np.int64]:
    height, width = mask.shape
    count = 0
    for r in range(height):
        for c in range(width):
            if mask[r, c] and (c == 0 or not mask[r, c - 1]):
                count += 1
    out = np.empty((count, 4), np.int64)
    at = np.full(width + 1, -1, np.int64)  # the open rectangle that begins at a column
    used = 0
    for r in range(height):
        c = 0
        while c < width:
            if not mask[r, c]:
                at[c] = -1
                c += 1
                continue
            begin = c
            while c < width and mask[r, c]:
                if c > begin:
                    at[c] = -1
                c += 1
            k = at[begin]
            if k >= 0 and out[k, 2] == c and out[k, 3] == r:
                out[k, 3] = r + 1
            else:
                out[used, 0], out[used, 1], out[used, 2], out[used, 3] = begin, r, c, r + 1
                at[begin] = used
                used += 1
    return out[:used]
