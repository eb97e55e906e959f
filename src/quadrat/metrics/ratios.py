"""Ratios and means that are NaN where they are not defined, and sums over slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def ratio(part: float, whole: float) -> float:
    """part / whole; NaN where ``whole`` is 0."""
    return part / whole if whole else float("nan")


def ratios(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> F64:
    """part / whole of each element, float64; NaN where ``whole`` is 0."""
    out: F64 = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return out


def mean_defined(values: Sequence[float] | F64) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def summed(measured: Sequence[Any], name: str, shape: tuple[int, ...]) -> Ids:
    """The field ``name`` summed over slides, int64 of ``shape``; zeros for no slide."""
    total: Ids = np.zeros(shape, np.int64)
    for one in measured:
        total = total + getattr(one, name)
    return total
