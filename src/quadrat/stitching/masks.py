"""Masks of single objects, which may overlap: pasted into their boxes, packed to bits, and measured
one by one.

A mask is decided on quantised probabilities and integer boxes, in float64 and in a fixed order. It
is one 4-connected component, so it has one outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.outlines import concatenate_polygons, trace
from quadrat.core.predictions import BOX_UNIT, SCORE_MAX, MaskCandidates, mask_boxes, mask_bytes
from quadrat.core.runs import Runs, runs_of
from quadrat.stitching.features import Moments, measure

CANVAS_ROWS = 4096
"""Masks are measured on a canvas of about so many rows, and as many columns as the widest mask."""
LEVEL = 127.5
"""A pixel belongs to the mask if the interpolated probability (0-255) reaches this."""


def paste(
    probability: npt.NDArray[np.uint8], box: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Masks with a fixed number of cells (n, side, side), laid into boxes (n, 4) x0, y0, x1, y1 in
    1/16 grid px.

    Values are bilinear between cell centres and constant beyond the outermost ones. A pixel is
    inside if its centre is. Of several 4-connected components the largest stays; of equal ones, the
    first in raster order.

    Returns:
        area (n,) int32 in px (0: nothing was left), starts (n + 1,) int64 and bits (m,) uint8, as
            in :class:`quadrat.core.predictions.MaskCandidates`.
    """
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask_bytes(box))])
    bits = np.zeros(int(starts[-1]), np.uint8)
    area = np.zeros(len(box), np.int32)
    _paste(probability, box.astype(np.int64), mask_boxes(box), starts, bits, area)
    return area, starts, bits


def pack(
    inside: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]
) -> tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.uint8]
]:
    """Masks that are given pixel by pixel: 0 or 1 (m,), mask after mask, row by row over its bounds
    (n, 4) row0, col0, row1, col1 in grid px, none of them empty.

    Of several 4-connected components the largest stays, as in :func:`paste`.

    Returns:
        box (n, 4) int32 in 1/16 grid px, then area, starts and bits as in :func:`paste`.
    """
    box = (bounds[:, [1, 0, 3, 2]] * BOX_UNIT).astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask_bytes(box))])
    bits = np.zeros(int(starts[-1]), np.uint8)
    area = np.zeros(len(box), np.int32)
    _pack(inside, bounds.astype(np.int64), starts, bits, area)
    return box, area, starts, bits


def outlines(masks: MaskCandidates) -> tuple[ObjectTable, Polygons, Runs]:
    """Each candidate as an object with its own whole mask: table, outlines and runs in grid px, in
    the given order.

    Raises:
        ValueError: a mask without pixels, or one that is not 4-connected.
    """
    tables, polygons, runs = [ObjectTable.empty()], [], []
    for first, last in _canvases(masks):
        part = masks.take(np.arange(first, last))
        labels, shift = _canvas(part)
        n = len(part)
        measured = measure(labels, n=n, origin=(0, 0))
        tables.append(
            _moved(measured, shift).table(
                class_id=part.class_id,
                score=(part.score / np.float64(SCORE_MAX)).astype(np.float32),
                anchor=part.cell.astype(np.int64),
                flags=part.flags,
            )
        )
        outline = trace(labels, n=n, origin=(0, 0))
        vertices = np.diff(outline.ring_starts[outline.polygon_starts])
        polygons.append(
            replace(outline, xy=outline.xy + np.repeat(shift[:, ::-1], vertices, axis=0))
        )
        own = runs_of(labels, n=n, origin=(0, 0))
        row, col = shift[own.object].astype(np.int32).T
        moved = Runs(
            object=own.object + np.int32(first),
            row=own.row + row,
            col0=own.col0 + col,
            col1=own.col1 + col,
        )
        runs.append(moved)
    return ObjectTable.concatenate(tables), concatenate_polygons(polygons), Runs.concatenate(runs)


def _canvases(masks: MaskCandidates) -> Iterator[tuple[int, int]]:
    """Index ranges of the masks that share a canvas."""
    row0, _, row1, _ = mask_boxes(masks.box).T
    sheet = np.cumsum(row1 - row0 + 1) // CANVAS_ROWS
    edges = np.flatnonzero(np.diff(sheet)) + 1
    bounds = [0, *edges.tolist(), len(masks)]
    yield from (pair for pair in pairwise(bounds) if pair[0] < pair[1])


def _canvas(masks: MaskCandidates) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Labels 1..n of masks one below the other with a free row in between, and (n, 2) the shift
    from there to grid px."""
    boxes = mask_boxes(masks.box)
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    top = np.concatenate([np.zeros(1, np.int64), np.cumsum(heights + 1)])
    labels = np.zeros((int(top[-1]), int(widths.max(initial=0))), np.int32)
    _unpack(masks.bits, masks.starts, heights, widths, top, labels)
    return labels, np.stack([boxes[:, 0] - top[:-1], boxes[:, 1]], axis=1)


def _moved(moments: Moments, shift: npt.NDArray[np.int64]) -> Moments:
    """Moments of objects that are moved by (n, 2) rows and columns."""
    return replace(
        moments,
        sums=moments.sums + moments.area[:, None] * shift,
        bbox=moments.bbox + np.tile(shift, (1, 2)),
        first=moments.first + shift,
    )


@kernel
def _unpack(bits, starts, heights, widths, top, labels):  # type: ignore[no-untyped-def]
    for i in range(heights.shape[0]):
        for r in range(heights[i]):
            for c in range(widths[i]):
                at = r * widths[i] + c
                if bits[starts[i] + (at >> 3)] & (128 >> (at & 7)):
                    labels[top[i] + r, c] = i + 1


@kernel
def _paste(probability, box, pixels, starts, bits, area):  # type: ignore[no-untyped-def]
    for i in range(box.shape[0]):
        x0, y0, x1, y1 = box[i]
        row0, col0, row1, col1 = pixels[i]
        height, width = row1 - row0, col1 - col0
        inside = np.zeros(height * width, np.uint8)
        for r in range(height):
            y = (row0 + r) * BOX_UNIT + BOX_UNIT // 2
            for c in range(width):
                x = (col0 + c) * BOX_UNIT + BOX_UNIT // 2
                if y0 <= y < y1 and x0 <= x < x1:
                    inside[r * width + c] = (
                        _value(probability[i], (y - y0) / (y1 - y0), (x - x0) / (x1 - x0)) >= LEVEL
                    )
        area[i] = _keep_largest(inside, height, width)
        _write(inside, bits, starts[i])


@kernel
def _pack(inside, bounds, starts, bits, area):  # type: ignore[no-untyped-def]
    first = 0
    for i in range(bounds.shape[0]):
        height, width = bounds[i, 2] - bounds[i, 0], bounds[i, 3] - bounds[i, 1]
        own = inside[first : first + height * width].copy()
        area[i] = _keep_largest(own, height, width)
        _write(own, bits, starts[i])
        first += height * width


@kernel
def _write(inside, bits, start):  # type: ignore[no-untyped-def]
    """Pack a flat mask (0 and 1) to bits from byte ``start``."""
    for at in range(inside.shape[0]):
        if inside[at]:
            bits[start + (at >> 3)] |= 128 >> (at & 7)


@kernel
def _value(cells, v, u):  # type: ignore[no-untyped-def]
    """Bilinear value of cells (side, side) at (v, u) in 0-1, row and column."""
    side = cells.shape[0]
    y, x = min(max(v * side - 0.5, 0.0), side - 1.0), min(max(u * side - 0.5, 0.0), side - 1.0)
    r, c = min(int(y), side - 2), min(int(x), side - 2)
    fy, fx = y - r, x - c
    above = cells[r, c] * (1 - fx) + cells[r, c + 1] * fx
    below = cells[r + 1, c] * (1 - fx) + cells[r + 1, c + 1] * fx
    return above * (1 - fy) + below * fy


@kernel
def _keep_largest(inside, height, width):  # type: ignore[no-untyped-def]
    """Keep only the largest 4-connected component of a flat mask (0 and 1), in place. Returns its
    area."""
    seen = np.zeros(inside.shape[0], np.int32)
    stack = np.empty(inside.shape[0], np.int64)
    best, best_area, count = 0, 0, 0
    for start in range(inside.shape[0]):
        if not inside[start] or seen[start]:
            continue
        count += 1
        seen[start] = count
        stack[0], depth, size = start, 1, 0
        while depth:
            depth -= 1
            at = stack[depth]
            size += 1
            r, c = at // width, at % width
            for step in range(4):
                rr, cc = r + (step == 0) - (step == 1), c + (step == 2) - (step == 3)
                if 0 <= rr < height and 0 <= cc < width:
                    to = rr * width + cc
                    if inside[to] and not seen[to]:
                        seen[to] = count
                        stack[depth] = to
                        depth += 1
        if size > best_area:
            best, best_area = count, size
    for at in range(inside.shape[0]):
        inside[at] = seen[at] == best and best > 0
    return best_area
