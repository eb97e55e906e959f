"""Size and shape of objects from their outlines (pure).

Moments, hull and calipers are those of the polygon, which for outlined objects follows the edges of
its pixels (docs/measure.md has the formulas). Perimeters are not taken from it, because the sum of
pixel edges is up to 4/pi too long: they come from the object table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from quadrat.core.columns import Columns
from quadrat.core.kernel import kernel
from quadrat.core.objects import Polygons

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shapes(Columns):
    """Of each object, (n,) float64; NaN where an outline encloses nothing."""

    major_axis_um: F64
    """Major axis of the ellipse with the same second moments."""
    minor_axis_um: F64
    """Its minor axis."""
    eccentricity: F64
    """Of that ellipse: 0 is a circle."""
    solidity: F64
    """Area over that of the convex hull."""
    max_diameter_um: F64
    """Largest distance between two points of it (Feret, caliper)."""
    min_diameter_um: F64
    """Least distance of two parallel lines with the object between them."""

    COLUMNS: ClassVar = dict.fromkeys(
        (
            "major_axis_um",
            "minor_axis_um",
            "eccentricity",
            "solidity",
            "max_diameter_um",
            "min_diameter_um",
        ),
        ((), np.float64),
    )


def shapes_of(polygons: Polygons) -> Shapes:
    """The shapes of polygons in um. Each ring is closed; shells and holes turn either way."""
    out = _shapes(polygons.xy, polygons.ring_starts, polygons.polygon_starts)
    return Shapes(*(np.ascontiguousarray(column) for column in out.T))


def circularity(area: F64, perimeter: F64) -> F64:
    """4 pi area / perimeter²; NaN without a perimeter."""
    out: F64 = np.full(len(area), np.nan)
    known = perimeter > 0
    out[known] = 4 * np.pi * area[known] / perimeter[known] ** 2
    return out


@kernel
def _shapes(xy: F64, ring_starts: Ids, polygon_starts: Ids) -> F64:
    n = len(polygon_starts) - 1
    out = np.full((n, 6), np.nan)
    longest = 0
    for i in range(n):
        first = polygon_starts[i]
        if polygon_starts[i + 1] > first:
            longest = max(longest, ring_starts[first + 1] - ring_starts[first])
    hull = np.empty((2 * longest + 2, 2))
    for i in range(n):
        if polygon_starts[i + 1] == polygon_starts[i]:
            continue
        _ellipse(xy, ring_starts, polygon_starts[i], polygon_starts[i + 1], out[i])
        begin, end = ring_starts[polygon_starts[i]], ring_starts[polygon_starts[i] + 1]
        k = _hull(xy[begin:end], hull)
        if k >= 3:
            _calipers(hull[:k], out[i])
    return out


@kernel
def _ellipse(xy: F64, ring_starts: Ids, first: int, last: int, out: F64) -> None:
    """Axes and eccentricity; the area goes to out[3] until the hull is known."""
    x0, y0 = xy[ring_starts[first], 0], xy[ring_starts[first], 1]
    m = np.zeros(6)  # area, x, y, xx, xy, yy
    for ring in range(first, last):
        own = np.zeros(6)
        for k in range(ring_starts[ring], ring_starts[ring + 1] - 1):
            ax, ay = xy[k, 0] - x0, xy[k, 1] - y0
            bx, by = xy[k + 1, 0] - x0, xy[k + 1, 1] - y0
            cross = ax * by - bx * ay
            own[0] += cross / 2
            own[1] += cross * (ax + bx) / 6
            own[2] += cross * (ay + by) / 6
            own[3] += cross * (ax * ax + ax * bx + bx * bx) / 12
            own[4] += cross * (ax * by + 2 * ax * ay + 2 * bx * by + bx * ay) / 24
            own[5] += cross * (ay * ay + ay * by + by * by) / 12
        sign = 1.0 if own[0] >= 0 else -1.0
        if ring > first:
            sign = -sign
        m += sign * own
    if m[0] <= 0:
        return
    cx, cy = m[1] / m[0], m[2] / m[0]
    a, b, c = m[3] / m[0] - cx * cx, m[4] / m[0] - cx * cy, m[5] / m[0] - cy * cy
    root = np.sqrt(((a - c) / 2) ** 2 + b * b)
    big, small = (a + c) / 2 + root, max((a + c) / 2 - root, 0.0)
    out[0], out[1] = 4 * np.sqrt(big), 4 * np.sqrt(small)
    out[2] = np.sqrt(max(1 - small / big, 0.0))
    out[3] = m[0]


@kernel
def _hull(ring: F64, hull: F64) -> int:
    """The convex hull of a closed ring, counter-clockwise in x, y (Andrew 1979); its corners."""
    n = len(ring) - 1
    order = np.argsort(ring[:n, 0], kind="mergesort")
    begin = 0
    while begin < n:  # equal x: by y
        end = begin + 1
        while end < n and ring[order[end], 0] == ring[order[begin], 0]:
            end += 1
        if end - begin > 1:
            part = order[begin:end].copy()
            order[begin:end] = part[np.argsort(ring[part, 1], kind="mergesort")]
        begin = end
    k = 0
    for step in range(2):
        floor = k
        for j in range(n):
            p = ring[order[j] if step == 0 else order[n - 1 - j]]
            while k >= floor + 2 and _turn(hull[k - 2], hull[k - 1], p) <= 0:
                k -= 1
            hull[k, 0], hull[k, 1] = p[0], p[1]
            k += 1
        k -= 1  # the last one begins the other half
    return k


@kernel
def _turn(a: F64, b: F64, c: F64) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


@kernel
def _calipers(hull: F64, out: F64) -> None:
    """Solidity (from the area in out[3]), largest and least diameter."""
    n = len(hull)
    area = 0.0
    widest = 0.0
    narrowest = np.inf
    for i in range(n):
        j = (i + 1) % n
        dx, dy = hull[j, 0] - hull[i, 0], hull[j, 1] - hull[i, 1]
        area += (hull[i, 0] - hull[0, 0]) * (hull[j, 1] - hull[0, 1])
        area -= (hull[j, 0] - hull[0, 0]) * (hull[i, 1] - hull[0, 1])
        length = np.sqrt(dx * dx + dy * dy)
        reach = 0.0
        for k in range(n):
            ex, ey = hull[k, 0] - hull[i, 0], hull[k, 1] - hull[i, 1]
            widest = max(widest, ex * ex + ey * ey)
            reach = max(reach, (dx * ey - dy * ex) / length)
        narrowest = min(narrowest, reach)
    out[3] = out[3] / (area / 2)
    out[4], out[5] = np.sqrt(widest), narrowest
