"""Polygons to pixels, in integers: what lies inside does not depend on rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.core.predictions import BOX_UNIT


def fill(xy: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Polygons (n, k, 2) x, y in 1/16 grid px, filled by the even-odd rule; they close themselves.

    A pixel is inside if its centre is. A centre that lies on an edge is inside on a polygon's left
    and upper side only.

    Returns:
        inside (m,) uint8 and bounds (n, 4) row0, col0, row1, col1 in grid px, as
            :func:`quadrat.stitching.masks.pack` takes them. Bounds may be empty.
    """
    low, high = xy.min(axis=1) // BOX_UNIT, -(-xy.max(axis=1) // BOX_UNIT)
    bounds = np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1)
    sides = bounds[:, 2:] - bounds[:, :2]
    inside = np.zeros(int(sides.prod(axis=1).sum()), np.uint8)
    _fill(np.ascontiguousarray(xy), bounds, inside)
    return inside, bounds


@kernel
def _fill(xy, bounds, inside):  # type: ignore[no-untyped-def]
    """Each edge turns over the pixels to its right, row by row."""
    first = 0
    for i in range(xy.shape[0]):
        row0, col0, row1, col1 = bounds[i]
        width = col1 - col0
        corners = xy.shape[1]
        for k in range(corners):
            x0, y0 = xy[i, k]
            x1, y1 = xy[i, (k + 1) % corners]
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            rise = y1 - y0
            for r in range(y0 // BOX_UNIT, -(-y1 // BOX_UNIT)):
                y = r * BOX_UNIT + BOX_UNIT // 2
                if not y0 <= y < y1:
                    continue
                # the first column with its centre on the edge or to the right of it
                at = x0 * rise + (y - y0) * (x1 - x0) - rise * (BOX_UNIT // 2)
                c = -(-at // (rise * BOX_UNIT))
                for to in range(c, col1):
                    inside[first + (r - row0) * width + to - col0] ^= 1
        first += (row1 - row0) * width
