"""Which points lie in a region, with half-open borders: of regions that share a border, each point
on it belongs to exactly one (pure).

A point is inside if a ray from it to the right meets the rings an odd number of times (even-odd).
An edge counts where its upper end is at or above the point and its lower end below it, and the
point lies strictly to the left. So left and upper borders belong to a region, and right and lower
ones do not. Every edge is looked at from its upper end to its lower one, whichever way it was
drawn: two regions that share it decide alike, also where rounding decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_BANDS = 1 << 16


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of rings, sorted into bands of rows, so that a point looks at few of them."""

    ends: F64
    """(m, 4) upper x, y, lower x, y; upper y < lower y."""
    band_starts: Ids
    """(bands + 1,) offsets into ``members``."""
    members: Ids
    """The edges that meet each band."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 of all rings."""

    @staticmethod
    def of(xy: F64, ring_starts: Ids) -> Edges:
        """Of closed rings: (m, 2) x, y and (rings + 1,) offsets."""
        first = np.ones(len(xy), np.bool_)
        first[ring_starts[1:] - 1] = False  # the last vertex of a ring begins no edge
        begin = np.flatnonzero(first[:-1]) if len(xy) else np.zeros(0, np.int64)
        a, b = xy[begin], xy[begin + 1]
        swap = (a[:, 1] > b[:, 1])[:, None]
        ends = np.concatenate([np.where(swap, b, a), np.where(swap, a, b)], axis=1)
        ends = np.ascontiguousarray(ends[ends[:, 1] < ends[:, 3]])
        if not len(ends):
            return Edges(ends, np.zeros(2, np.int64), np.zeros(0, np.int64), (0.0, 0.0, 0.0, 0.0))
        (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
        bands = int(min(max(len(ends), 1), _BANDS))
        low = _band(ends[:, 1], y0, y1, bands)
        high = _band(ends[:, 3], y0, y1, bands)
        counts = high - low + 1
        band = np.repeat(low, counts) + _ranks(counts)
        order = np.argsort(band, kind="stable")
        members = np.repeat(np.arange(len(ends)), counts)[order].astype(np.int64)
        starts = np.searchsorted(band[order], np.arange(bands + 1)).astype(np.int64)
        return Edges(ends, starts, members, (x0, y0, x1, y1))

    def inside(self, xy: F64) -> Ids:
        """Indices, ascending, of the points (n, 2) x, y that lie inside."""
        x0, y0, x1, y1 = self.box
        x, y = xy[:, 0], xy[:, 1]
        near = np.flatnonzero((x >= x0) & (x < x1) & (y >= y0) & (y < y1))
        if not len(near) or not len(self.ends):
            return np.zeros(0, np.int64)
        points = np.ascontiguousarray(xy[near])
        bands = _band(points[:, 1], y0, y1, len(self.band_starts) - 1)
        found = _even_odd(points, bands, self.band_starts, self.members, self.ends)
        mine: Ids = near[found].astype(np.int64)
        return mine


def _band(y: F64, y0: float, y1: float, bands: int) -> Ids:
    """The band of rows that each y falls into."""
    return np.clip((y - y0) / (y1 - y0) * bands, 0, bands - 1).astype(np.int64)


def _ranks(counts: Ids) -> Ids:
    """0 to count - 1 for each count, one after the other."""
    ends = np.cumsum(counts)
    ranks: Ids = np.arange(int(ends[-1]), dtype=np.int64) - np.repeat(ends - counts, counts)
    return ranks


@kernel
def _even_odd(points: F64, bands: Ids, band_starts: Ids, members: Ids, ends: F64) -> Mask:
    out = np.zeros(len(points), np.bool_)
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        odd = False
        for k in range(band_starts[bands[i]], band_starts[bands[i] + 1]):
            ax, ay, bx, by = ends[members[k]]
            if ay <= y < by and (bx - ax) * (y - ay) - (x - ax) * (by - ay) > 0.0:
                odd = not odd
        out[i] = odd
    return out
