"""Agreement of counts, planted against found, over slides, cases or fields.

Bias and limits of agreement: Bland and Altman, Lancet 327, 1986. ICC(2,1): Shrout and Fleiss,
Psychological Bulletin 86(2), 1979, which is ICC(A,1) of McGraw and Wong, Psychological Methods
1(1), 1996: two-way random effects, absolute agreement, single rater; the raters are the annotator
and the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]
F64 = npt.NDArray[np.float64]
LIMITS_SD = 1.96
"""Limits of agreement lie this many standard deviations from the bias."""


def relative_error(planted: float, found: float) -> float:
    """(found - planted) / planted, signed; 0 where both are 0, infinite where only the planted
    count is."""
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


def relative_errors(planted: Numbers, found: Numbers) -> F64:
    """|found - planted| / planted of the units where anything was planted; (m,), m <= n."""
    difference = np.abs(_difference(planted, found))
    some = np.asarray(planted) > 0
    return difference[some] / np.asarray(planted, np.float64)[some]


def limits_of_agreement(planted: Numbers, found: Numbers) -> tuple[float, float]:
    """Bias -+ 1.96 standard deviations (n - 1) of the differences; NaN below two units."""
    difference = _difference(planted, found)
    if len(difference) < 2:
        return float("nan"), float("nan")
    spread = LIMITS_SD * float(difference.std(ddof=1))
    return float(difference.mean()) - spread, float(difference.mean()) + spread


def icc_2_1(ratings: Numbers) -> float:
    """ICC(2,1) of ratings (n units, k raters); NaN below two units or raters, or where nothing
    varies."""
    n, k = ratings.shape
    if n < 2 or k < 2:
        return float("nan")
    x = np.asarray(ratings, np.float64)
    grand, rows, columns = x.mean(), x.mean(axis=1), x.mean(axis=0)
    between = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    raters = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    error = float(((x - rows[:, None] - columns[None, :] + grand) ** 2).sum()) / ((n - 1) * (k - 1))
    whole = between + (k - 1) * error + k * (raters - error) / n
    return (between - error) / whole if whole else float("nan")


def count_agreement(planted: Numbers, found: Numbers) -> dict[str, float]:
    """All figures of one set of units: planted and found are counts (n,), a row a unit; NaN where
    not defined."""
    errors, (low, high) = relative_errors(planted, found), limits_of_agreement(planted, found)
    total = float(np.sum(planted))
    return {
        "units": float(len(planted)),
        "planted": total,
        "found": float(np.sum(found)),
        "total_relative_error": (float(np.sum(found)) - total) / total if total else float("nan"),
        "bias": bias(planted, found),
        "mae": mean_absolute_error(planted, found),
        "relative_error_median": float(np.median(errors)) if len(errors) else float("nan"),
        "relative_error_mean": float(errors.mean()) if len(errors) else float("nan"),
        "units_without_truth": float(np.sum(np.asarray(planted) == 0)),
        "icc": icc_2_1(np.stack([planted, found], axis=1).astype(np.float64)),
        "limit_low": low,
        "limit_high": high,
    }


def count_figures(planted: Numbers, found: Numbers, *, classes: Sequence[str]) -> dict[str, float]:
    """``count_<figure>`` over slides of all classes together, and ``count_<figure>.<class>``; both
    (slides, classes)."""
    figures = {
        f"count_{name}": v
        for name, v in count_agreement(planted.sum(axis=1), found.sum(axis=1)).items()
    }
    for k, of in enumerate(classes):
        figures |= {
            f"count_{name}.{of}": v
            for name, v in count_agreement(planted[:, k], found[:, k]).items()
        }
    return figures
