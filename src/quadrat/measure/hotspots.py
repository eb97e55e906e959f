"""Windows of a given area with most objects: exact, and in a fixed order (pure).

Circles: the centre of a best circle can be moved until it is at the radius from an object (or,
after the first window, at the least distance from an earlier one). So the centres at the radius
around each object are swept, with the arcs on which each other object is within reach. Circles are
closed; what lies within 1e-12 of the radius counts. Squares have sides along the slide's and are
half-open; their columns are kept in a tree of maxima while their rows are swept.

Of windows with equally many objects the one with the smallest row of its centre is taken, then with
the smallest column: of a circle over all centres that give the count, of a square over those with
an object on their left and upper side (or an earlier window at a side). Several windows are taken
one after the other, each without overlap with those before; an object counts in one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from quadrat.core.kernel import kernel

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
REACH = 1 + 1e-12
"""How many times farther than the radius an object may be."""
_CELLS, _GRID = 4, 2048
"""Cells of the first look: in a radius, and at most along a side of the slide."""
_FINE, _FINEST, _SHRINKS = 16, 512, 0.7
"""Cells are quartered until so many are in a radius; from the first number on only as long as less
than this share stays."""
_DECIMALS = 6
"""Of centres: what differs by less is a tie."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window with most objects."""

    x: float
    """Column of its centre."""
    y: float
    """Row of its centre."""
    count: int
    """Objects in it."""


def best_circles(xy: F64, radius: float, *, best: int) -> list[Window]:
    """Up to ``best`` circles with most of the points (n, 2) x, y that do not overlap."""
    points = np.ascontiguousarray(xy[np.lexsort((xy[:, 0], xy[:, 1]))])
    found: list[Window] = []
    while len(points) and len(found) < best:
        window = _next_circle(points, radius, found)
        if window is None:
            break
        found.append(window)
        apart = np.hypot(points[:, 0] - window.x, points[:, 1] - window.y)
        points = points[apart > radius + 10.0**-_DECIMALS]
    return found


def _next_circle(points: F64, radius: float, taken: list[Window]) -> Window | None:
    centres = np.array([(w.x, w.y) for w in taken], np.float64).reshape(-1, 2)
    tree = cKDTree(points)
    anchors = np.concatenate([points[_worth(points, tree, radius, centres)], centres])
    radii = np.full(len(anchors), radius)
    radii[len(anchors) - len(centres) :] = 2 * radius
    best = (0, math.inf, math.inf)
    for start in range(0, len(anchors), 256):
        some = slice(start, start + 256)
        near = tree.query_ball_point(anchors[some], (radii[some] + radius) * REACH)
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in near])]).astype(np.int64)
        members = np.concatenate([np.asarray(one, np.int64) for one in near])
        swept = _sweep_circles(
            anchors[some], radii[some], points, offsets, members, radius, centres
        )
        for count, y, x in zip(*(column.tolist() for column in swept), strict=True):
            if count > 0:
                best = min(best, (-count, round(y, _DECIMALS), round(x, _DECIMALS)))
    return Window(best[2], best[1], -best[0]) if best[0] else None


def _worth(points: F64, tree: cKDTree, radius: float, taken: F64) -> Ids:
    """The points that can be at the radius from the centre of a best circle: at that distance from
    a cell of centres with at least as many points in reach as some circle surely holds. Cells are
    quartered as long as that leaves many out."""
    middle, side = _cells(points, radius)
    floor, area = 1, math.inf
    while True:
        half = side * math.sqrt(0.5) * REACH
        apart = np.full(len(middle), np.inf)
        for centre in taken:
            apart = np.minimum(apart, np.hypot(*(middle - centre).T))
        free = middle[apart >= 2 * radius]
        surely = tree.query_ball_point(free, radius, return_length=True)
        floor = max(floor, int(surely.max(initial=0)))
        middle = middle[apart >= 2 * radius - half]
        at_most = tree.query_ball_point(middle, radius * REACH + half, return_length=True)
        middle = middle[at_most >= floor]
        before, area = area, len(middle) * side * side
        stays = side <= radius / _FINE and area > _SHRINKS * before
        if stays or side < radius / _FINEST or not len(middle):
            break
        side /= 2
        quarter = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]) * (side / 2)
        middle = (middle[:, None] + quarter).reshape(-1, 2)
    if not len(middle):
        return np.zeros(0, np.int64)
    near = cKDTree(middle)
    outer = near.query_ball_point(points, radius * REACH + half, return_length=True)
    if radius <= half:
        return np.flatnonzero(outer)
    inner = near.query_ball_point(points, radius - half, return_length=True)
    return np.flatnonzero(outer > inner)


def _cells(points: F64, radius: float) -> tuple[F64, float]:
    """Middles of the cells in which a circle's centre can lie that holds a point, and their
    side."""
    low, high = points.min(axis=0) - radius, points.max(axis=0) + radius
    side = max(radius / _CELLS, float((high - low).max()) / _GRID)
    shape = np.ceil((high - low) / side).astype(int) + 1
    grid = np.zeros(shape, np.bool_)
    grid[tuple(np.floor((points - low) / side).astype(int).T)] = True
    reach = 2 * (math.ceil(radius / side) + 1) + 1
    cells = np.argwhere(ndimage.maximum_filter(grid, size=reach, mode="constant"))
    return low + (cells + 0.5) * side, side


@kernel
def _sweep_circles(
    anchors: F64, radii: F64, points: F64, offsets: Ids, members: Ids, radius: float, taken: F64
) -> tuple[Ids, F64, F64]:
    """Of each circle of centres: the most points in reach of one, and its row and column."""
    n = len(anchors)
    counts, rows, cols = np.zeros(n, np.int64), np.full(n, np.inf), np.full(n, np.inf)
    for i in range(n):
        ax, ay, around = anchors[i, 0], anchors[i, 1], radii[i]
        others = offsets[i + 1] - offsets[i]
        size = others + len(taken)
        angle, weight = np.zeros(2 * size + 2), np.zeros(2 * size + 2, np.int64)
        angle[1], used, depth = 1.5 * np.pi, 2, 0  # the topmost centre: the smallest row of an arc
        for k in range(size):
            if k < others:
                px, py = points[members[offsets[i] + k], 0], points[members[offsets[i] + k], 1]
                reach, worth = radius * (1 + 1e-12), 1
            else:  # centres that are too near to an earlier window
                px, py = taken[k - others, 0], taken[k - others, 1]
                reach, worth = 2 * radius * (1 - 1e-12), -(1 << 40)
            d = math.sqrt((px - ax) ** 2 + (py - ay) ** 2)
            if d + around <= reach:
                depth += worth
                continue
            if d == 0.0 or abs(d - around) > reach:
                continue
            cosine = (around * around + d * d - reach * reach) / (2 * around * d)
            half = math.acos(min(max(cosine, -1.0), 1.0))
            middle = math.atan2(py - ay, px - ax)
            low, high = (middle - half) % (2 * np.pi), (middle + half) % (2 * np.pi)
            angle[used], weight[used] = low, worth
            angle[used + 1], weight[used + 1] = high, -worth
            used += 2
            if low > high:  # it goes through angle 0
                depth += worth
        order = np.argsort(angle[:used], kind="mergesort")
        j = 0
        while j < used:
            here = angle[order[j]]
            gain, loss = 0, 0
            while j < used and angle[order[j]] == here:
                gain += max(weight[order[j]], 0)
                loss += min(weight[order[j]], 0)
                j += 1
            value = depth + gain  # arcs of points are closed, and those of earlier windows open
            if value > 0 and value >= counts[i]:
                y, x = ay + around * math.sin(here), ax + around * math.cos(here)
                if value > counts[i] or y < rows[i] or (y == rows[i] and x < cols[i]):
                    counts[i], rows[i], cols[i] = value, y, x
            depth += gain + loss
    return counts, rows, cols


def best_squares(xy: F64, side: float, *, best: int) -> list[Window]:
    """Up to ``best`` squares with most of the points (n, 2) x, y that do not overlap."""
    found: list[Window] = []
    corners: list[tuple[float, float]] = []
    while len(xy) and len(found) < best:
        taken = np.array(corners, np.float64).reshape(-1, 2)
        cols, rows = (
            np.unique(np.concatenate([xy[:, k], taken[:, k] - side, taken[:, k] + side]))
            for k in (0, 1)
        )
        held = [_range(values, xy[:, k], side) for k, values in ((0, cols), (1, rows))]
        kept_off = [_forbidden(values, taken[:, k], side) for k, values in ((0, cols), (1, rows))]
        ranges = np.concatenate(
            [np.column_stack([*held[0], *held[1]]), np.column_stack([*kept_off[0], *kept_off[1]])]
        )
        worth = np.where(np.arange(len(ranges)) < len(xy), 1, -(1 << 40)).astype(np.int64)
        count, row, col = _sweep_squares(ranges.astype(np.int64), worth, len(rows), len(cols))
        if count < 1:
            break
        corners.append((float(cols[col]), float(rows[row])))
        found.append(Window(corners[-1][0] + side / 2, corners[-1][1] + side / 2, int(count)))
    return found


def _range(values: F64, at: F64, side: float) -> tuple[Ids, Ids]:
    """The sides (first, behind the last) of squares that hold a coordinate: in (at - side, at]."""
    return np.searchsorted(values, at - side, "right"), np.searchsorted(values, at, "right")


def _forbidden(values: F64, at: F64, side: float) -> tuple[Ids, Ids]:
    """The sides that are less than a side away from that of an earlier square."""
    return np.searchsorted(values, at - side, "right"), np.searchsorted(values, at + side, "left")


@kernel
def _sweep_squares(ranges: Ids, worth: Ids, n_rows: int, n_cols: int) -> tuple[int, int, int]:
    """The most points in a square, and the first row, then column, that has as many. ``ranges``:
    (m, 4) half-open columns and rows of upper left corners that hold each point."""
    size = 1
    while size < n_cols:
        size *= 2
    most, added = np.zeros(2 * size, np.int64), np.zeros(2 * size, np.int64)
    for k in range(n_cols, size):
        most[size + k] = -(1 << 60)
    for k in range(size - 1, 0, -1):
        most[k] = max(most[2 * k], most[2 * k + 1])
    begins, ends = np.argsort(ranges[:, 2]), np.argsort(ranges[:, 3])
    best, best_row, best_col = 0, 0, 0
    b, e = 0, 0
    for row in range(n_rows):
        while b < len(begins) and ranges[begins[b], 2] == row:
            k = begins[b]
            b += 1
            if ranges[k, 2] < ranges[k, 3]:
                _add(most, added, size, ranges[k, 0], ranges[k, 1], worth[k])
        while e < len(ends) and ranges[ends[e], 3] <= row:
            k = ends[e]
            e += 1
            if ranges[k, 2] < ranges[k, 3]:
                _add(most, added, size, ranges[k, 0], ranges[k, 1], -worth[k])
        if most[1] > best:
            at = 1
            while at < size:
                at = 2 * at if most[2 * at] >= most[2 * at + 1] else 2 * at + 1
            best, best_row, best_col = most[1], row, at - size
    return best, best_row, best_col


@kernel
def _add(most: Ids, added: Ids, size: int, begin: int, end: int, worth: int) -> None:
    """Add to the leaves begin to end (half-open) of a tree whose nodes hold the maximum below."""
    low, high = begin + size, end + size
    left, right = low, high - 1
    if begin >= end:
        return
    while low < high:
        if low & 1:
            most[low] += worth
            added[low] += worth
            low += 1
        if high & 1:
            high -= 1
            most[high] += worth
            added[high] += worth
        low //= 2
        high //= 2
    for leaf in (left, right):
        at = leaf // 2
        while at >= 1:
            most[at] = max(most[2 * at], most[2 * at + 1]) + added[at]
            at //= 2
