"""Agreement of two class maps, from a confusion matrix that is added up block by block.

Dice: L. R. Dice, Ecology 26(3), 1945; IoU: P. Jaccard, 1912. Pooled: pixels of all blocks first, then the ratio.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def confusion(truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer], *, n_values: int) -> Counts:
    """Pixels of each pair of values: int64 (n_values, n_values), rows truth, columns found; matrices may be added.

    Raises:
        ValueError: shapes that differ, or a value outside 0..n_values - 1.
    """
    if truth.shape != found.shape:
        raise ValueError(f"maps of shapes {truth.shape} and {found.shape} cannot be compared")
    for name, values in (("truth", truth), ("found", found)):
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < n_values:
            raise ValueError(f"{name} holds values {values.min()}..{values.max()}, want 0..{n_values - 1}")
    code = truth.astype(np.intp).ravel() * n_values + found.ravel()
    return np.bincount(code, minlength=n_values**2).reshape(n_values, n_values).astype(np.int64)


def dice(matrix: Counts) -> npt.NDArray[np.float64]:
    """Dice of every value, float64 (n_values,); NaN where it is neither in truth nor in result."""
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def iou(matrix: Counts) -> npt.NDArray[np.float64]:
    """Intersection over union of every value, float64 (n_values,); NaN where it is in neither."""
    shared = np.diag(matrix)
    return _ratio(shared, matrix.sum(axis=0) + matrix.sum(axis=1) - shared)


def _ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio
