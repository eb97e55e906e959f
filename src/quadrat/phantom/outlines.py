"""From nuclei to pixels and back to polygons: painting, what stays visible, outlines along pixel
edges.

A pixel belongs to the topmost nucleus over it. Of each nucleus the largest 4-connected piece is
kept, if it has MIN_AREA_PX, no hole, and no two pixels that meet only at a corner; its other pixels
are set to 0. So a nucleus depends only on the nuclei that overlap it, and the polygon of its edges
is simple.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadrat.core.kernel import kernel
from quadrat.phantom.nuclei import STROMAL
from quadrat.phantom.spec import MIN_AREA_PX


@kernel
def depth_at(n: np.void, x: float, y: float) -> float:
    """Place of a point in a nucleus: 0 at its centre, 1 on its outline, larger outside."""
    dx, dy = x - n["x"], y - n["y"]
    u, v = (dx * n["cos"] + dy * n["sin"]) / n["a"], (dy * n["cos"] - dx * n["sin"]) / n["b"]
    if n["kind"] == STROMAL:
        v += n["bend"] * (u * u - 0.4) * 2.0
        return float(math.sqrt(u * u + v * v) * (1.0 + 0.10 * u * u))
    r = math.sqrt(u * u + v * v)
    if r < 1e-6:
        return 0.0
    c, s = u / r, v / r
    wave = (
        c * (c * c - 3.0 * s * s)
        + 0.8 * (1.0 - 8.0 * c * c * s * s)
        + 0.7 * s * (3.0 * c * c - s * s)
    )
    return float(r / (1.0 + n["lobe"] * wave))


@kernel
def paint(
    table: NDArray[np.void],
    x0: int,
    y0: int,
    labels: NDArray[np.int32],
    depth: NDArray[np.float32],
    extent: int,
) -> None:
    """Write index + 1 of the topmost nucleus, and the depth in it, into (h, w) arrays with corner
    (x0, y0)."""
    rows, cols = labels.shape
    for k in np.argsort(table["z"]):
        n = table[k]
        cx, cy = math.floor(n["x"]) - x0, math.floor(n["y"]) - y0
        for r in range(max(0, cy - extent), min(rows, cy + extent + 1)):
            for c in range(max(0, cx - extent), min(cols, cx + extent + 1)):
                d = depth_at(n, x0 + c + 0.5, y0 + r + 0.5)
                if d < 1.0:
                    labels[r, c] = k + 1
                    depth[r, c] = d


@kernel
def _largest_piece(mask: NDArray[np.uint8], stack: NDArray[np.int32]) -> int:
    """Keep the largest 4-connected piece of a 0/1 mask (first in raster order on a tie); returns
    its area."""
    rows, cols = mask.shape
    best, best_area, piece = 0, 0, 1
    for start in range(rows * cols):
        if mask[start // cols, start % cols] != 1:
            continue
        piece += 1
        area, top = 1, 1
        mask[start // cols, start % cols] = piece
        stack[0] = start
        while top > 0:
            top -= 1
            r, c = stack[top] // cols, stack[top] % cols
            for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
                if mask[r + dr, c + dc] == 1:
                    mask[r + dr, c + dc] = piece
                    stack[top] = (r + dr) * cols + c + dc
                    top += 1
                    area += 1
        if area > best_area:
            best, best_area = piece, area
    for r in range(rows):
        for c in range(cols):
            mask[r, c] = 1 if best_area > 0 and mask[r, c] == best else 0
    return best_area


@kernel
def _cut_pinches(mask: NDArray[np.uint8]) -> bool:
    """Clear one pixel of each pair that meets at a corner only; returns whether there was one."""
    found = False
    for r in range(mask.shape[0] - 1):
        for c in range(mask.shape[1] - 1):
            a, b, d, e = mask[r, c], mask[r, c + 1], mask[r + 1, c], mask[r + 1, c + 1]
            if a == e and b == d and a != b:
                found = True
                mask[r + 1, c + (1 if a == 1 else 0)] = 0
    return found


@kernel
def _count_edges(mask: NDArray[np.uint8]) -> int:
    """Unit edges between the piece and its outside (the mask has an empty rim)."""
    edges = 0
    for r in range(mask.shape[0] - 1):
        for c in range(mask.shape[1] - 1):
            edges += (mask[r, c] != mask[r, c + 1]) + (mask[r, c] != mask[r + 1, c])
    return edges


@kernel
def trace(
    names: NDArray[Any],
    owner: int,
    x0: int,
    y0: int,
    ring: NDArray[np.int32],
    done: NDArray[np.bool_],
) -> tuple[int, int]:
    """Walk an outline of piece `owner` from the top-left corner of pixel (x0, y0) along its top,
    the piece on the right.

    names: (h, w) labels with an empty rim; the pixel above (x0, y0) is not the owner's. Writes the
    turning points (x, y) into `ring`, open, and marks in `done` each pixel whose top was walked;
    returns (points, unit steps). Where two pixels meet at a corner only, the walk keeps them apart
    (4-connected foreground).
    """
    x, y, dx, dy = x0, y0, 1, 0
    points, steps = 0, 0
    while steps == 0 or x != x0 or y != y0 or dx != 1:
        if dx == 1:
            done[y, x] = True
        x, y, steps = x + dx, y + dy, steps + 1
        right = names[y + (dx + dy - 1) // 2, x + (dx - dy - 1) // 2] == owner
        left = names[y + (dy - dx - 1) // 2, x + (dx + dy - 1) // 2] == owner
        if right and not left:
            continue
        dx, dy = (dy, -dx) if right else (-dy, dx)
        ring[points, 0], ring[points, 1] = x, y
        points += 1
    return points, steps


@kernel
def _lift(
    labels: NDArray[np.int32], name: int, left: int, top: int, mask: NDArray[np.uint8]
) -> None:
    """Move the pixels of one label out of `labels` into `mask`, a window at (left, top) that may
    leave the array."""
    side = mask.shape[0]
    mask[:] = 0
    for r in range(max(0, top), min(labels.shape[0], top + side)):
        for c in range(max(0, left), min(labels.shape[1], left + side)):
            if labels[r, c] == name:
                mask[r - top, c - left] = 1
                labels[r, c] = 0


@kernel
def _lay(
    labels: NDArray[np.int32], name: int, left: int, top: int, mask: NDArray[np.uint8]
) -> None:
    """Write the pixels of `mask` back as one label: the reverse of `_lift`."""
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            if mask[r, c] == 1:
                labels[r + top, c + left] = name


@kernel
def keep_visible(
    table: NDArray[np.void], x0: int, y0: int, labels: NDArray[np.int32], extent: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Reduce `labels` in place to the kept piece of each nucleus; outline those.

    Returns rings (n, 2) int32 of (x, y) in level-0 px, open, and starts (len(table) + 1) into them;
    a nucleus that is not kept has an empty ring. Within 2 extents of the array's border the result
    is not certain, unless the border is the slide's own.
    """
    side = 2 * extent + 3
    mask = np.zeros((side, side), np.uint8)
    stack = np.zeros(side * side, np.int32)
    done = np.zeros((side, side), np.bool_)
    ring = np.zeros((2 * side * side, 2), np.int32)
    rings = np.zeros((max(1, len(table)) * 64, 2), np.int32)
    starts = np.zeros(len(table) + 1, np.int64)
    for k in range(len(table)):
        left = math.floor(table[k]["x"]) - x0 - extent - 1
        top = math.floor(table[k]["y"]) - y0 - extent - 1
        _lift(labels, k + 1, left, top, mask)
        area = _largest_piece(mask, stack)
        while area > 0 and _cut_pinches(mask):
            area = _largest_piece(mask, stack)
        starts[k + 1] = starts[k]
        if area < MIN_AREA_PX:
            continue
        first = int(np.argmax(mask))
        done[:] = False
        points, steps = trace(mask, 1, first % side, first // side, ring, done)
        if steps != _count_edges(mask):  # a hole
            continue
        if starts[k] + points > len(rings):
            more = np.zeros((2 * len(rings) + points, 2), np.int32)
            more[: starts[k]] = rings[: starts[k]]
            rings = more
        starts[k + 1] = starts[k] + points
        for i in range(points):
            rings[starts[k] + i, 0] = ring[i, 0] + left + x0
            rings[starts[k] + i, 1] = ring[i, 1] + top + y0
        _lay(labels, k + 1, left, top, mask)
    return rings[: starts[-1]], starts
