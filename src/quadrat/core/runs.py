"""Masks as horizontal runs of pixels: small to store, fast to paint, and independent of any
block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from quadrat.core.columns import Columns
from quadrat.core.geometry import Box
from quadrat.core.kernel import kernel


@dataclass(frozen=True, slots=True)
class Runs(Columns):
    """Pixels of objects as horizontal runs in grid px, each (m,)."""

    object: npt.NDArray[np.int32]
    """0-based index of the object."""
    row: npt.NDArray[np.int32]
    """Row of the pixels."""
    col0: npt.NDArray[np.int32]
    """First column."""
    col1: npt.NDArray[np.int32]
    """Column behind the last one."""

    COLUMNS: ClassVar = dict.fromkeys(("object", "row", "col0", "col1"), ((), np.int32))


def runs_of(labels: npt.NDArray[np.integer], *, n: int, origin: tuple[int, int]) -> Runs:
    """Runs of each label 1..n of a (h, w) int32 or uint32 array, sorted by object (label - 1), row,
    column.

    Args:
        labels: (h, w), 0 is background.
        n: number of labels.
        origin: (row, col) of ``labels[0, 0]`` in grid px.

    Raises:
        ValueError: a label outside 0..n.
    """
    if labels.ndim != 2 or labels.dtype not in (np.int32, np.uint32):
        raise ValueError(f"labels is {labels.dtype}{labels.shape}, want int32 or uint32 (h, w)")
    own = np.ascontiguousarray(labels).view(np.int32)
    counts = np.zeros(n + 1, np.int64)
    wrong = _count_runs(own, counts)
    if wrong:
        raise ValueError(f"labels holds {wrong}, want 0 to {n}")
    starts = np.cumsum(counts)
    out = np.empty((4, int(starts[-1])), np.int32)
    _fill_runs(own, origin[0], origin[1], starts, out)
    return Runs(object=out[0], row=out[1], col0=out[2], col1=out[3])


def paint(
    runs: Runs,
    ids: npt.NDArray[np.integer],
    box: Box,
    dtype: npt.DTypeLike = np.uint32,
    *,
    onto: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Label array of ``box`` with ``ids[object]`` painted in each run, 0 elsewhere.

    Where runs overlap, the greatest id is visible, whatever their order. Runs outside ``box`` are
    ignored.

    Args:
        runs: what to paint.
        ids: (objects,) the value of each object, 1 or more.
        box: the part of the plane to paint, grid px.
        dtype: integer type of the result.
        onto: an array of ``box`` and ``dtype`` that is painted on and returned, instead of a new
            one.

    Raises:
        ValueError: an id that is not positive or does not fit ``dtype``, or a run of an object
            without id.
    """
    limit = int(np.iinfo(np.dtype(dtype)).max)
    if len(ids) and (int(ids.min()) < 1 or int(ids.max()) > limit):
        raise ValueError(
            f"ids run from {ids.min()} to {ids.max()}, want 1 to {limit} for {np.dtype(dtype)}"
        )
    if len(runs) and (runs.object.min() < 0 or runs.object.max() >= len(ids)):
        raise ValueError(
            f"runs name objects {runs.object.min()} to {runs.object.max()}, but there are "
            f"{len(ids)} ids"
        )
    out = np.zeros(box.shape, dtype) if onto is None else onto
    if out.shape != box.shape or out.dtype != dtype:
        raise ValueError(
            f"the array to paint on is {out.dtype}{out.shape}, want {np.dtype(dtype)}{box.shape}"
        )
    _paint(
        runs.object,
        runs.row,
        runs.col0,
        runs.col1,
        ids.astype(dtype, copy=False),
        box.row0,
        box.col0,
        out,
    )
    return out


@kernel
def _count_runs(labels: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> int:
    """Add the number of runs of label i to ``counts[i]``. Returns the first label out of range,
    else 0."""
    for r in range(labels.shape[0]):
        before = np.int32(0)
        for c in range(labels.shape[1]):
            here = labels[r, c]
            if here != before:
                if here < 0 or here >= len(counts):
                    return int(here)
                if here > 0:
                    counts[here] += 1
                before = here
    return 0


@kernel
def _fill_runs(
    labels: npt.NDArray[np.int32],
    row0: int,
    col0: int,
    starts: npt.NDArray[np.int64],
    out: npt.NDArray[np.int32],
) -> None:
    """Write the runs in raster order, each to the next place of its label (``starts`` by label; one
    less is used)."""
    place = starts[:-1].copy()
    for r in range(labels.shape[0]):
        before = np.int32(0)
        for c in range(labels.shape[1]):
            here = labels[r, c]
            if here != before:
                if before > 0:
                    out[3, place[before - 1] - 1] = col0 + c
                if here > 0:
                    at = place[here - 1]
                    out[0, at], out[1, at], out[2, at] = here - 1, row0 + r, col0 + c
                    place[here - 1] = at + 1
                before = here
        if before > 0:
            out[3, place[before - 1] - 1] = col0 + labels.shape[1]


@kernel
def _paint(
    objects: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int32],
    col0: npt.NDArray[np.int32],
    col1: npt.NDArray[np.int32],
    ids: npt.NDArray[np.integer],
    box_row: int,
    box_col: int,
    out: npt.NDArray[np.integer],
) -> None:
    for i in range(len(objects)):
        r = rows[i] - box_row
        if r < 0 or r >= out.shape[0]:
            continue
        value = ids[objects[i]]
        for c in range(max(col0[i] - box_col, 0), min(col1[i] - box_col, out.shape[1])):
            if out[r, c] < value:
                out[r, c] = value
