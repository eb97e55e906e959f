"""Agreement of counts, planted against found, over slides or fields (Bland and Altman, Lancet 327, 1986: bias)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]


def relative_error(planted: float, found: float) -> float:
    """(found - planted) / planted, signed; 0 where both are 0, infinite where only the planted count is."""
    if planted:
        return (found - planted) / planted
    return float("inf") if found else 0.0


def bias(planted: Numbers, found: Numbers) -> float:
    """Mean of found - planted over slides; NaN for none."""
    return float(_difference(planted, found).mean()) if len(planted) else float("nan")


def mean_absolute_error(planted: Numbers, found: Numbers) -> float:
    """Mean of |found - planted| over slides; NaN for none."""
    return float(np.abs(_difference(planted, found)).mean()) if len(planted) else float("nan")


def _difference(planted: Numbers, found: Numbers) -> npt.NDArray[np.float64]:
    if len(planted) != len(found):
        raise ValueError(f"{len(planted)} planted counts and {len(found)} found ones")
    return np.asarray(found, np.float64) - np.asarray(planted, np.float64)
