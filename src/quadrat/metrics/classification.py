"""Figures of classification from class indices and scores.

Balanced accuracy: Brodersen et al., ICPR 2010. AUROC by ranks: Hanley and McNeil, Radiology 143(1), 1982.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from quadrat.metrics.semantic import Counts, confusion

__all__ = ["auroc", "balanced_accuracy", "confusion", "recalls"]


def recalls(matrix: Counts) -> npt.NDArray[np.float64]:
    """Share of each true class (row) that was found as such; NaN for a class that does not occur."""
    planted = matrix.sum(axis=1)
    share: npt.NDArray[np.float64] = np.divide(np.diag(matrix), planted, out=np.full(len(matrix), np.nan), where=planted > 0)
    return share


def balanced_accuracy(matrix: Counts) -> float:
    """Mean recall of the classes that occur in truth; NaN where none does."""
    found = recalls(matrix)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN unless both occur. Both (n,)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
