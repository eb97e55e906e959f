"""Agreement of counts, true against found, over slides, cases or fields.

Bias and limits of agreement: Bland and Altman, Lancet 327, 1986. ICC(2,1): Shrout and Fleiss,
Psychological Bulletin 86(2), 1979, which is ICC(A,1) of McGraw and Wong, Psychological Methods
1(1), 1996: two-way random effects, absolute agreement, single rater; the raters are the annotator
and the model. True objects are called "planted", as in the files of an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from quadrat.metrics.ratios import F64, Ids, mean_defined, ratio, summed

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]
LIMITS_SD = 1.96
"""Limits of agreement lie this many standard deviations from the bias."""


@runtime_checkable
class Counted(Protocol):
    """What a slide leaves of a task that counts objects."""

    @property
    def planted(self) -> Ids:
        """(classes,) true objects."""

    @property
    def found(self) -> Ids:
        """(classes,) found objects."""


def relative_error(planted: float, found: float) -> float:
    """(found - planted) / planted, signed; 0 where both are 0, infinite where only the planted
    count is 0."""
    if planted:
        return (found - planted) / planted
    return float("inf") if found else 0.0


def differences(planted: Numbers, found: Numbers) -> F64:
    """found - planted, float64 (n,).

    Raises:
        ValueError: the lengths differ.
    """
    if len(planted) != len(found):
        raise ValueError(f"{len(planted)} planted counts and {len(found)} found ones")
    return np.asarray(found, np.float64) - np.asarray(planted, np.float64)


def limits_of_agreement(planted: Numbers, found: Numbers) -> tuple[float, float]:
    """Bias -+ 1.96 standard deviations (n - 1) of the differences; NaN below two units."""
    difference = differences(planted, found)
    if len(difference) < 2:
        return float("nan"), float("nan")
    spread = LIMITS_SD * float(difference.std(ddof=1))
    return float(difference.mean()) - spread, float(difference.mean()) + spread


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """A two-way analysis of variance of ratings (n units, k raters)."""

    n: int
    """Units."""
    k: int
    """Raters."""
    units: float
    """Mean square between units."""
    raters: float
    """Mean square between raters."""
    error: float
    """Residual mean square."""

    @staticmethod
    def of(ratings: Numbers) -> MeanSquares | None:
        """Of ratings (n, k); None below two units or raters."""
        n, k = ratings.shape
        if n < 2 or k < 2:
            return None
        x = np.asarray(ratings, np.float64)
        grand, rows, columns = x.mean(), x.mean(axis=1), x.mean(axis=0)
        rest = x - rows[:, None] - columns[None, :] + grand
        return MeanSquares(
            n,
            k,
            k * float(((rows - grand) ** 2).sum()) / (n - 1),
            n * float(((columns - grand) ** 2).sum()) / (k - 1),
            float((rest**2).sum()) / ((n - 1) * (k - 1)),
        )

    @property
    def icc_2_1(self) -> float:
        """ICC(2,1); NaN where nothing varies."""
        whole = (
            self.units + (self.k - 1) * self.error + self.k * (self.raters - self.error) / self.n
        )
        return (self.units - self.error) / whole if whole else float("nan")


def icc_2_1(ratings: Numbers) -> float:
    """ICC(2,1) of ratings (n units, k raters); NaN below two units or raters, or where nothing
    varies."""
    found = MeanSquares.of(ratings)
    return float("nan") if found is None else found.icc_2_1


def count_agreement(planted: Numbers, found: Numbers) -> dict[str, float]:
    """All figures of one set of units; NaN where a figure is not defined.

    planted, found: counts (n,), one per unit (slide or case).
    """
    difference, (low, high) = differences(planted, found), limits_of_agreement(planted, found)
    size, some = np.abs(difference), np.asarray(planted) > 0
    errors = size[some] / np.asarray(planted, np.float64)[some]
    total, total_found = float(np.sum(planted)), float(np.sum(found))
    return {
        "units": float(len(planted)),
        "planted": total,
        "found": total_found,
        "total_relative_error": ratio(total_found - total, total),
        "bias": mean_defined(difference),
        "mae": mean_defined(size),
        "relative_error_median": float(np.median(errors)) if len(errors) else float("nan"),
        "relative_error_mean": mean_defined(errors),
        "units_without_truth": float(np.sum(~some)),
        "icc": icc_2_1(np.stack([planted, found], axis=1).astype(np.float64)),
        "limit_low": low,
        "limit_high": high,
    }


def count_sizes(measured: Sequence[Counted], *, classes: Sequence[str]) -> dict[str, float]:
    """``count_planted`` and ``count_found``: objects of all classes and slides together, and of
    each class."""
    sizes: dict[str, float] = {}
    for name in ("planted", "found"):
        of_class = summed(measured, name, (len(classes),)).tolist()
        sizes[f"count_{name}"] = float(sum(of_class))
        sizes |= {f"count_{name}.{of}": float(n) for of, n in zip(classes, of_class, strict=True)}
    return sizes
