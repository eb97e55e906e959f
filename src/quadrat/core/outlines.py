"""Outlines of labels along pixel edges, from one array or from pieces of any cut: the polygons are
the same.

A pixel owns those of its four edges across which the label changes, directed so that the pixel lies
on the right-hand side. So each edge belongs to exactly one piece. The whole algorithm is to link
the edges of all pieces; a complete array is the case of one piece. Where two pixels of a label meet
only at a corner, the outline turns left. This keeps the rings of a 4-connected label simple (they
touch each other at most in points), so polygons are valid by OGC Simple Features (06-103r4,
6.1.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from quadrat.core.columns import Columns
from quadrat.core.kernel import kernel
from quadrat.core.objects import Polygons
from quadrat.core.runs import Runs

EAST, SOUTH, WEST, NORTH = 0, 1, 2, 3
"""Directions of travel; +1 turns right, -1 turns left (rows grow downwards)."""

IntArray = npt.NDArray[np.integer]
"""int32 or uint32, checked where it enters."""


@dataclass(frozen=True, slots=True)
class Edges(Columns):
    """Straight runs of directed label boundary, the object on the right-hand side; each (m,). Order
    carries no meaning."""

    label: npt.NDArray[np.int64]
    """At least 1."""
    row: npt.NDArray[np.int32]
    """Row of the vertex where the run starts; grid px, corner-based."""
    col: npt.NDArray[np.int32]
    """Column of that vertex."""
    direction: npt.NDArray[np.uint8]
    """EAST, SOUTH, WEST or NORTH."""
    length: npt.NDArray[np.int32]
    """Grid px, at least 1."""

    COLUMNS: ClassVar = {
        "label": ((), np.int64),
        "row": ((), np.int32),
        "col": ((), np.int32),
        "direction": ((), np.uint8),
        "length": ((), np.int32),
    }


def trace(labels: IntArray, *, n: int, origin: tuple[int, int]) -> Polygons:
    """Outline each label 1..n of a complete array.

    Args:
        labels: (h, w) int32 or uint32; 0 is background; each label is one 4-connected component,
            holes allowed.
        n: number of labels; polygon i outlines label i + 1 (empty if that label has no pixel).
        origin: (row, col) of ``labels[0, 0]`` in grid px.

    Returns:
        Polygons in grid px, corner-based, corners only, shell before holes. Each ring starts at its
            top-left vertex. Shells have positive signed area in (x, y), holes negative.

    Raises:
        ValueError: a label outside 0..n, or one that is not 4-connected.
    """
    return link_edges(boundary_edges(np.pad(labels, 1), origin=origin), n=n)


def boundary_edges(labels: IntArray, *, origin: tuple[int, int], runs: Runs | None = None) -> Edges:
    """The directed boundary edges that the pixels of one piece own.

    Args:
        labels: (h + 2, w + 2) int32 or uint32, the piece with one pixel of true context on each
            side (0 outside the slide); a label must mean the same in all pieces.
        origin: (row, col) in grid px of the first pixel of the piece, ``labels[1, 1]``.
        runs: where labelled pixels are, in raster order and grid px, if this is known; then the
            background is skipped.
    """
    if labels.ndim != 2 or labels.dtype not in (np.int32, np.uint32) or min(labels.shape) < 2:
        raise ValueError(
            f"labels is {labels.dtype}{labels.shape}, want int32 or uint32 (h + 2, w + 2)"
        )
    own = np.ascontiguousarray(labels).view(np.int32)
    if runs is None:
        if own.size and own.min() < 0:
            raise ValueError("labels holds a value below 0 or above 2147483647")
        places = _labelled_runs(own)
    else:
        places = np.stack([runs.row - origin[0], runs.col0 - origin[1], runs.col1 - origin[1]])
    found = np.empty((8 * places.shape[1] + 64, 5), np.int64)
    count = _scan_edges(own, places, origin[0], origin[1], found)
    if count > len(found):
        found = np.empty((count, 5), np.int64)
        _scan_edges(own, places, origin[0], origin[1], found)
    return _edges(found[:count])


def link_edges(edges: Edges, *, n: int) -> Polygons:
    """Join boundary edges to polygons. ``edges`` must hold every edge of each label 1..n that
    occurs in it.

    Returns and raises as ``trace``. Edges that do not close (a piece is missing) raise ValueError,
    too.
    """
    if len(edges) and (edges.label.min() < 1 or edges.label.max() > n):
        raise ValueError(
            f"labels run from {edges.label.min()} to {edges.label.max()}, want 1 to {n}"
        )
    order = _start_order(edges)
    label = edges.label[order]
    starts = np.searchsorted(label, np.arange(1, n + 2)).astype(np.int64)
    xy = np.empty((len(edges) + len(edges) // 4 + 1, 2), np.float64)
    rings = np.zeros(len(edges) // 4 + 1, np.int64)
    polygons = np.zeros(n + 1, np.int64)
    row, col = edges.row[order], edges.col[order]
    status, bad = _link(
        starts, row, col, edges.direction[order], edges.length[order], xy, rings, polygons
    )
    if status == _OPEN:
        raise ValueError(
            f"the edges of label {bad} do not close: a piece of it is missing or its context is "
            "wrong"
        )
    if status == _MANY:
        raise ValueError(f"label {bad} is not one 4-connected component")
    count = int(polygons[-1])
    return Polygons(
        xy=xy[: rings[count]].copy(), ring_starts=rings[: count + 1].copy(), polygon_starts=polygons
    )


def take_polygons(polygons: Polygons, index: npt.NDArray[np.integer]) -> Polygons:
    """The polygons of an index array (n,), in its order."""
    rings, polygon_starts = _gather(polygons.polygon_starts, index)
    points, ring_starts = _gather(polygons.ring_starts, rings)
    return Polygons(xy=polygons.xy[points], ring_starts=ring_starts, polygon_starts=polygon_starts)


def concatenate_polygons(parts: Sequence[Polygons]) -> Polygons:
    """All polygons of several parts, in order."""
    return Polygons(
        xy=np.concatenate([np.zeros((0, 2)), *(p.xy for p in parts)]),
        ring_starts=_joined_offsets([p.ring_starts for p in parts]),
        polygon_starts=_joined_offsets([p.polygon_starts for p in parts]),
    )


def _joined_offsets(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.cumsum(np.concatenate([np.zeros(1, np.int64), *(np.diff(p) for p in parts)]))


def _gather(
    starts: npt.NDArray[np.int64], index: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Members of the chosen groups of a ragged array, group after group, and the new offsets."""
    sizes = starts[index + 1] - starts[index]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    members = np.arange(offsets[-1]) + np.repeat(starts[index] - offsets[:-1], sizes)
    return members, offsets


def _edges(runs: npt.NDArray[np.int64]) -> Edges:
    return Edges(
        label=runs[:, 0].copy(),
        row=runs[:, 1].astype(np.int32),
        col=runs[:, 2].astype(np.int32),
        direction=runs[:, 3].astype(np.uint8),
        length=runs[:, 4].astype(np.int32),
    )


def _start_order(edges: Edges) -> npt.NDArray[np.intp]:
    """Order by (label, row, col, direction) of the start. No two runs are equal."""
    if not len(edges):
        return np.zeros(0, np.intp)
    keys = [
        edges.label,
        edges.row.astype(np.int64) - edges.row.min(),
        edges.col.astype(np.int64) - edges.col.min(),
    ]
    bits = [int(key.max()).bit_length() for key in keys]
    if sum(bits) + 2 > _KEY_BITS:
        return np.lexsort((edges.direction, keys[2], keys[1], keys[0]))
    packed = (((keys[0] << bits[1]) | keys[1]) << (bits[2] + 2)) | (keys[2] << 2) | edges.direction
    return np.argsort(packed)


_KEY_BITS = 63
"""A key of at most so many bits sorts as one int64, several times faster than four columns."""
_CLOSED, _OPEN, _MANY = 0, 1, 2


@kernel
def _labelled_runs(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """(3, m) row, col0, col1 of the horizontal runs of labelled pixels inside a padded array, in
    raster order."""
    height, width = labels.shape[0] - 2, labels.shape[1] - 2
    count = 0
    for r in range(height):
        for c in range(width):
            count += (labels[r + 1, c + 1] > 0) and (c == 0 or labels[r + 1, c] <= 0)
    out = np.empty((3, count), np.int32)
    at = 0
    for r in range(height):
        c = 0
        while c < width:
            if labels[r + 1, c + 1] <= 0:
                c += 1
                continue
            out[0, at], out[1, at] = r, c
            while c < width and labels[r + 1, c + 1] > 0:
                c += 1
            out[2, at] = c
            at += 1
    return out


@kernel
def _scan_edges(
    labels: npt.NDArray[np.int32],
    places: npt.NDArray[np.int32],
    row0: int,
    col0: int,
    runs: npt.NDArray[np.int64],
) -> int:
    """Write (label, row, col, direction, length) of each run until ``runs`` is full. Returns how
    many there are."""
    height, width = labels.shape[0] - 2, labels.shape[1] - 2
    west_from = np.zeros(width + 2, np.int64)
    east_from = np.zeros(width + 2, np.int64)
    count = 0
    for i in range(places.shape[1]):
        r = places[0, i] + 1
        top_from = bottom_from = 0
        for c in range(places[1, i] + 1, places[2, i] + 1):
            a = labels[r, c]
            up, down, left, right = (
                labels[r - 1, c],
                labels[r + 1, c],
                labels[r, c - 1],
                labels[r, c + 1],
            )
            if up == a and down == a and left == a and right == a:
                continue
            first_col, last_col = c == 1 or left != a, c == width or right != a
            first_row, last_row = r == 1 or up != a, r == height or down != a
            if up != a:
                if first_col or labels[r - 1, c - 1] == a:
                    top_from = c
                if last_col or labels[r - 1, c + 1] == a:
                    _put(runs, count, a, row0 + r - 1, col0 + top_from - 1, EAST, c - top_from + 1)
                    count += 1
            if down != a:
                if first_col or labels[r + 1, c - 1] == a:
                    bottom_from = c
                if last_col or labels[r + 1, c + 1] == a:
                    _put(runs, count, a, row0 + r, col0 + c, WEST, c - bottom_from + 1)
                    count += 1
            if left != a:
                if first_row or labels[r - 1, c - 1] == a:
                    west_from[c] = r
                if last_row or labels[r + 1, c - 1] == a:
                    _put(runs, count, a, row0 + r, col0 + c - 1, NORTH, r - west_from[c] + 1)
                    count += 1
            if right != a:
                if first_row or labels[r - 1, c + 1] == a:
                    east_from[c] = r
                if last_row or labels[r + 1, c + 1] == a:
                    _put(
                        runs,
                        count,
                        a,
                        row0 + east_from[c] - 1,
                        col0 + c,
                        SOUTH,
                        r - east_from[c] + 1,
                    )
                    count += 1
    return count


@njit(nogil=True, inline="always")
def _put(
    runs: npt.NDArray[np.int64],
    at: int,
    label: int,
    row: int,
    col: int,
    direction: int,
    length: int,
) -> None:
    if at < len(runs):
        runs[at, 0] = label
        runs[at, 1] = row
        runs[at, 2] = col
        runs[at, 3] = direction
        runs[at, 4] = length


@kernel
def _next(
    rows: npt.NDArray[np.int32],
    cols: npt.NDArray[np.int32],
    directions: npt.NDArray[np.uint8],
    span: tuple[int, int],
    at: int,
    length: int,
) -> int:
    """Index of the run that follows run ``at`` within the label's ``span``; -1 if there is none."""
    heading = directions[at]
    row = rows[at] + (length if heading == SOUTH else -length if heading == NORTH else 0)
    col = cols[at] + (length if heading == EAST else -length if heading == WEST else 0)
    low, high = span
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row or (rows[middle] == row and cols[middle] < col):
            low = middle + 1
        else:
            high = middle
    if low >= span[1] or rows[low] != row or cols[low] != col:
        return -1
    left = (heading + 3) % 4
    also = low + 1 < span[1] and rows[low + 1] == row and cols[low + 1] == col
    return low + 1 if also and directions[low + 1] == left else low


@kernel
def _link(
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    cols: npt.NDArray[np.int32],
    directions: npt.NDArray[np.uint8],
    lengths: npt.NDArray[np.int32],
    xy: npt.NDArray[np.float64],
    rings: npt.NDArray[np.int64],
    polygons: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Walk along every ring of every label and fill the ragged arrays. Returns a status and the
    label that it concerns."""
    ring_of = np.zeros(len(rows), np.int64)
    ring, vertex = 0, 0
    for label in range(len(starts) - 1):
        span = (starts[label], starts[label + 1])
        for first in range(span[0], span[1]):
            if ring_of[first]:
                continue
            ring += 1
            start, at, heading, twice_area = vertex, first, -1, 0
            while ring_of[at] == 0:
                ring_of[at] = ring
                if directions[at] != heading:  # a corner; the first vertex of a ring is always one
                    heading = directions[at]
                    xy[vertex, 0], xy[vertex, 1] = cols[at], rows[at]
                    vertex += 1
                if heading == EAST:
                    twice_area -= 2 * np.int64(rows[at]) * lengths[at]
                elif heading == WEST:
                    twice_area += 2 * np.int64(rows[at]) * lengths[at]
                at = _next(rows, cols, directions, span, at, lengths[at])
                if at < 0:
                    return _OPEN, label + 1
            if at != first:
                return _OPEN, label + 1
            # the first ring is the shell, all others are holes
            if (twice_area > 0) != (first == span[0]):
                return _MANY, label + 1
            xy[vertex] = xy[start]
            vertex += 1
            rings[ring] = vertex
        # a ring that meets itself holds two parts joined by a corner only
        for i in range(span[0] + 1, span[1]):
            if ring_of[i] == ring_of[i - 1] and rows[i] == rows[i - 1] and cols[i] == cols[i - 1]:
                return _MANY, label + 1
        polygons[label + 1] = ring
    return _CLOSED, 0
