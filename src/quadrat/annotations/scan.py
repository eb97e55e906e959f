"""The compiled loops over vertices and pixels: filling polygons, renumbering labels, centres of
area."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@kernel
def scan_fill(
    out: npt.NDArray[np.int32],
    row0: int,
    col0: int,
    scale_row: float,
    scale_col: float,
    xy: F64,
    ring_starts: Ids,
    polygon_starts: Ids,
    index: npt.NDArray[np.intp],
    values: npt.NDArray[np.int32],
) -> None:
    """Paint the polygons ``index`` with ``values`` into ``out`` (h, w). Its first pixel is grid
    (row0, col0).

    Even-odd rule: on every row, an edge that crosses the row's centre line toggles all pixels from
    the crossing on. A running XOR along the row then tells what is inside. A crossing depends on
    the edge and the row alone, never on the crop.
    """
    height, width = out.shape
    toggles = np.zeros((height, width), np.bool_)
    for k in range(len(index)):
        top, bottom, left, right = height, 0, width, 0
        for ring in range(polygon_starts[index[k]], polygon_starts[index[k] + 1]):
            for i in range(ring_starts[ring], ring_starts[ring + 1] - 1):
                xa, ya, xb, yb = xy[i, 0], xy[i, 1], xy[i + 1, 0], xy[i + 1, 1]
                if ya > yb:  # one direction for both polygons that share an edge
                    xa, ya, xb, yb = xb, yb, xa, ya
                first = max(0, math.ceil(ya / scale_row - 0.5) - row0)
                end = min(height, math.ceil(yb / scale_row - 0.5) - row0)
                for r in range(first, end):
                    x = xa + ((r + row0 + 0.5) * scale_row - ya) * ((xb - xa) / (yb - ya))
                    c = max(0, math.ceil(x / scale_col - 0.5) - col0)
                    right = max(right, min(c, width))
                    if c < width:
                        toggles[r, c] ^= True
                        left = min(left, c)
                if end > first:
                    top, bottom = min(top, first), max(bottom, end)
        for r in range(top, bottom):
            inside = False
            for c in range(left, right):
                inside ^= toggles[r, c]
                toggles[r, c] = False
                if inside:
                    out[r, c] = values[k]
            if right < width:
                toggles[r, right] = False


@kernel
def compact(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.intp]:
    """Renumber ``labels`` (ids 0..count) in place, so that those present are 1..k in order. Returns
    their old ids minus one."""
    new = np.zeros(count + 1, np.int32)
    flat = labels.ravel()
    for i in range(flat.size):
        new[flat[i]] = 1
    new[0] = 0
    present = np.flatnonzero(new[1:])
    for k in range(len(present)):
        new[present[k] + 1] = k + 1
    for i in range(flat.size):
        flat[i] = new[flat[i]]
    return present


@kernel
def centroids(
    xy: F64, ring_starts: Ids, polygon_starts: Ids, index: npt.NDArray[np.intp]
) -> tuple[F64, F64]:
    """For the polygons ``index``, without their holes: the centre of area (k, 2) x, y and the area
    (k,).

    The centre is computed by the shoelace formula; it is the mean vertex if the area is 0.
    """
    out = np.full((len(index), 2), np.nan)
    areas = np.zeros(len(index))
    for k in range(len(index)):
        first_ring, end_ring = polygon_starts[index[k]], polygon_starts[index[k] + 1]
        if end_ring == first_ring:
            continue
        # coordinates relative to a near point keep more digits
        ox, oy = (xy[ring_starts[first_ring], 0], xy[ring_starts[first_ring], 1])
        area, sx, sy = 0.0, 0.0, 0.0
        for ring in range(first_ring, end_ring):
            ring_area, ring_x, ring_y = 0.0, 0.0, 0.0
            for i in range(ring_starts[ring], ring_starts[ring + 1] - 1):
                xa, ya, xb, yb = xy[i, 0] - ox, xy[i, 1] - oy, xy[i + 1, 0] - ox, xy[i + 1, 1] - oy
                cross = xa * yb - xb * ya
                ring_area += cross
                ring_x += (xa + xb) * cross
                ring_y += (ya + yb) * cross
            sign = 1.0 if (ring_area >= 0) == (ring == first_ring) else -1.0
            area += sign * ring_area
            sx += sign * ring_x
            sy += sign * ring_y
        if area > 0:
            out[k, 0], out[k, 1] = ox + sx / (3 * area), oy + sy / (3 * area)
        else:
            vertices = xy[ring_starts[first_ring] : ring_starts[first_ring + 1]]
            out[k, 0], out[k, 1] = vertices[:, 0].mean(), vertices[:, 1].mean()
        areas[k] = max(area, 0.0) / 2
    return out, areas
