"""Exact non-maximum suppression over a whole slide.

The order is strict and total: score descending, then row, column, class. So greedy suppression has
one answer, the lexicographically first maximal independent set of the overlap graph. A box is
decided after all better ones, kept boxes are found by a spatial hash, and overlap is compared in
integers. So neither the order of boxes nor the schedule can change it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.core.predictions import Candidates, MaskCandidates, mask_boxes

IOU_DENOMINATOR = 1000


def suppress(
    candidates: Candidates, *, iou: float, class_aware: bool = False, by_mask: bool = False
) -> npt.NDArray[np.int64]:
    """Indices of the kept candidates, best first.

    Two boxes conflict if their intersection over union exceeds ``iou`` (compared exactly, in
    thousandths). With ``class_aware``, only boxes of the same class conflict. With ``by_mask``, the
    pixels that both masks hold are counted in place of the boxes' areas.

    Raises:
        TypeError: ``by_mask`` without masks.
    """
    if by_mask and not isinstance(candidates, MaskCandidates):
        raise TypeError("by_mask needs candidates with masks")
    n = len(candidates)
    if n == 0:
        return np.zeros(0, np.int64)
    cell, box = candidates.cell, candidates.box.astype(np.int64)
    order = np.lexsort(
        (candidates.class_id, cell[:, 1], cell[:, 0], -candidates.score.astype(np.int64))
    )
    bin_size = max(
        1, int(np.percentile(np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 95))
    )
    kept = _greedy(
        box[order],
        candidates.class_id[order],
        np.int64(round(iou * IOU_DENOMINATOR)),
        np.int64(bin_size),
        class_aware,
        *_masks(candidates if by_mask else None, order),
    )
    result: npt.NDArray[np.int64] = order[kept]
    return result


def _masks(
    found: Candidates | None, order: npt.NDArray[np.int64]
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]
]:
    """Bounds (n, 4), areas (n,) and first bytes (n,) of masks in an order, and their bits; without
    masks, none of each."""
    if not isinstance(found, MaskCandidates):
        none = np.zeros(0, np.int64)
        return none.reshape(0, 4), none, none, np.zeros(0, np.uint8)
    area = found.area.astype(np.int64)
    return mask_boxes(found.box)[order], area[order], found.starts[:-1][order], found.bits


@kernel
def _shared(bounds, start, bits, i, j):  # type: ignore[no-untyped-def]
    """How many pixels two masks have in common."""
    row0, col0 = max(bounds[i, 0], bounds[j, 0]), max(bounds[i, 1], bounds[j, 1])
    row1, col1 = min(bounds[i, 2], bounds[j, 2]), min(bounds[i, 3], bounds[j, 3])
    count = 0
    for r in range(row0, row1):
        first = (r - bounds[i, 0]) * (bounds[i, 3] - bounds[i, 1]) - bounds[i, 1]
        other = (r - bounds[j, 0]) * (bounds[j, 3] - bounds[j, 1]) - bounds[j, 1]
        for c in range(col0, col1):
            a, b = first + c, other + c
            count += (
                (bits[start[i] + (a >> 3)] >> (7 - (a & 7)))
                & (bits[start[j] + (b >> 3)] >> (7 - (b & 7)))
                & 1
            )
    return count


@kernel
def _greedy(  # type: ignore[no-untyped-def]
    box, class_id, threshold, bin_size, class_aware, bounds, areas, start, bits
):
    """Boxes (n, 4) int64 x0, y0, x1, y1, best first, to bool (n,). Each kept box is entered in
    every bin that it meets. Masks (:func:`_masks`) decide where they are given."""
    n = box.shape[0]
    x_min, y_min = box[:, 0].min(), box[:, 1].min()
    bins_x = (box[:, 2].max() - x_min) // bin_size + 1
    bins_y = (box[:, 3].max() - y_min) // bin_size + 1
    table = 1
    while table < 2 * n:
        table *= 2
    table = min(table, 1 << 24)
    head = np.full(table, -1, np.int64)
    entries = 0
    entry_box = np.empty(4 * n + 16, np.int64)
    entry_next = np.empty(4 * n + 16, np.int64)
    keep = np.zeros(n, np.bool_)
    for i in range(n):
        x0, y0, x1, y1 = box[i]
        bx0, by0 = (x0 - x_min) // bin_size, (y0 - y_min) // bin_size
        bx1, by1 = (
            min((x1 - x_min) // bin_size, bins_x - 1),
            min((y1 - y_min) // bin_size, bins_y - 1),
        )
        area = (x1 - x0) * (y1 - y0)
        free = True
        for by in range(by0, by1 + 1):
            for bx in range(bx0, bx1 + 1):
                slot = ((by * bins_x + bx) * 0x9E3779B1) & (table - 1)
                entry = head[slot]
                while entry >= 0 and free:
                    j = entry_box[entry]
                    entry = entry_next[entry]
                    if class_aware and class_id[i] != class_id[j]:
                        continue
                    w = min(x1, box[j, 2]) - max(x0, box[j, 0])
                    h = min(y1, box[j, 3]) - max(y0, box[j, 1])
                    if w <= 0 or h <= 0:
                        continue
                    inter = w * h
                    union = area + (box[j, 2] - box[j, 0]) * (box[j, 3] - box[j, 1]) - inter
                    if len(areas):
                        inter = _shared(bounds, start, bits, i, j)
                        union = areas[i] + areas[j] - inter
                    if inter * 1000 > threshold * union:
                        free = False
                if not free:
                    break
            if not free:
                break
        if not free:
            continue
        keep[i] = True
        for by in range(by0, by1 + 1):
            for bx in range(bx0, bx1 + 1):
                if entries == entry_box.shape[0]:
                    entry_box = np.concatenate((entry_box, np.empty(entries, np.int64)))
                    entry_next = np.concatenate((entry_next, np.empty(entries, np.int64)))
                slot = ((by * bins_x + bx) * 0x9E3779B1) & (table - 1)
                entry_box[entries] = i
                entry_next[entries] = head[slot]
                head[slot] = entries
                entries += 1
    return keep
