"""Agreement of two ways to count, with intervals: for papers that compare a method with people.

Intervals of the limits of agreement: Bland and Altman, Statistical Methods in Medical Research 8,
1999, 2.1. Of ICC(2,1): McGraw and Wong, Psychological Methods 1(1), 1996, table 7, ICC(A,1).
Passing-Bablok regression: Passing and Bablok, J. Clin. Chem. Clin. Biochem. 21, 1983, 709-720.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from quadrat.metrics.counts import (
    LIMITS_SD,
    MeanSquares,
    Numbers,
    differences,
    limits_of_agreement,
)
from quadrat.metrics.ratios import F64

CONFIDENCE = 0.95
MOST_UNITS = 5_000
"""Passing-Bablok takes a slope of every pair of units: 12.5 million at most."""
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval of 95 %; NaN where it is not defined."""

    value: float
    """The figure."""
    low: float = NAN
    """Lower end."""
    high: float = NAN
    """Upper end."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one way to count agrees with another."""

    units: int
    """Slides that both counted."""
    bias: Estimate
    """Mean of found - reference."""
    sd: float
    """Standard deviation (n - 1) of the differences."""
    limit_low: Estimate
    """Bias - 1.96 standard deviations."""
    limit_high: Estimate
    """Bias + 1.96 standard deviations."""
    icc: Estimate
    """ICC(2,1): two-way random effects, absolute agreement, single rater."""
    spearman: float
    """Rank correlation; ties have their mean rank."""
    slope: Estimate
    """Passing-Bablok, of found over reference."""
    intercept: Estimate
    """The same."""


def agreement(reference: Numbers, found: Numbers) -> Agreement:
    """All figures of one set of units, (n,) each.

    Raises:
        ValueError: the lengths differ.
    """
    difference = differences(reference, found)
    n = len(difference)
    sd = float(difference.std(ddof=1)) if n > 1 else NAN
    bias = float(difference.mean()) if n else NAN
    low, high = limits_of_agreement(reference, found)
    of_bias, of_limit = limit_reach(sd, n)
    slope, intercept = passing_bablok(reference, found)
    return Agreement(
        units=n,
        bias=Estimate(bias, bias - of_bias, bias + of_bias),
        sd=sd,
        limit_low=Estimate(low, low - of_limit, low + of_limit),
        limit_high=Estimate(high, high - of_limit, high + of_limit),
        icc=icc_interval(np.stack([reference, found], axis=1).astype(np.float64)),
        spearman=spearman(reference, found),
        slope=slope,
        intercept=intercept,
    )


def limit_reach(sd: float, n: int) -> tuple[float, float]:
    """Half the interval of the bias, and of a limit of agreement; NaN below two units."""
    if n < 2:
        return NAN, NAN
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    of_limit = math.sqrt(1 / n + LIMITS_SD**2 / (2 * (n - 1)))
    return t * sd / math.sqrt(n), t * sd * of_limit


def icc_interval(ratings: F64) -> Estimate:
    """ICC(2,1) of ratings (n units, k raters) with its interval."""
    found = MeanSquares.of(ratings)
    if found is None or math.isnan(r := found.icc_2_1):
        return Estimate(NAN)
    if r >= 1:
        return Estimate(1.0, 1.0, 1.0)
    n, k, rows, columns, error = found.n, found.k, found.units, found.raters, found.error
    a = k * r / (n * (1 - r)) * columns
    b = (1 + k * r * (n - 1) / (n * (1 - r))) * error
    spread = a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1))
    if not spread:
        return Estimate(r)
    freedom, tail = (a + b) ** 2 / spread, (1 + CONFIDENCE) / 2
    down, up = (float(stats.f.ppf(tail, *of)) for of in ((n - 1, freedom), (freedom, n - 1)))
    rest = k * columns + (k * n - k - n) * error
    return Estimate(
        r,
        n * (rows - down * error) / (down * rest + n * rows),
        n * (up * rows - error) / (rest + n * up * rows),
    )


def spearman(reference: Numbers, found: Numbers) -> float:
    """Spearman's rank correlation; NaN below two units or where one side does not vary."""
    if len(reference) < 2 or np.ptp(reference) == 0 or np.ptp(found) == 0:
        return NAN
    return float(stats.spearmanr(reference, found).statistic)


def passing_bablok(reference: Numbers, found: Numbers) -> tuple[Estimate, Estimate]:
    """Slope and intercept of found = intercept + slope * reference, both (n,).

    The slope is the shifted median of the slopes of all pairs. Pairs that are equal have none, and
    slopes of -1 are left out; pairs with one reference have an infinite slope.

    Raises:
        ValueError: more than ``MOST_UNITS`` units.
    """
    n = len(reference)
    if n > MOST_UNITS:
        raise ValueError(f"{n} units; Passing-Bablok regression takes at most {MOST_UNITS}")
    x, y = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    i, j = np.triu_indices(n, 1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    some = (dx != 0) | (dy != 0)
    slopes = np.divide(
        dy[some], dx[some], out=np.full(int(some.sum()), np.inf), where=dx[some] != 0
    )
    slopes = np.sort(slopes[slopes != -1])
    count, shift = len(slopes), int((slopes < -1).sum())
    slope = _ranked(slopes, (count + 1) / 2 + shift)
    if not math.isfinite(slope):
        return Estimate(NAN), Estimate(NAN)
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    reach = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((count - reach) / 2)
    low, high = (_ranked(slopes, rank + shift) for rank in (first, count - first + 1))
    if first < 1:
        low = high = NAN
    middles = [float(np.median(y - b * x)) if math.isfinite(b) else NAN for b in (slope, high, low)]
    return Estimate(slope, low, high), Estimate(*middles)


def _ranked(ordered: F64, rank: float) -> float:
    """The value of a rank from 1; between two ranks, the mean of both; NaN beyond them."""
    low, high = math.floor(rank), math.ceil(rank)
    if low < 1 or high > len(ordered):
        return NAN
    return float(ordered[low - 1] + ordered[high - 1]) / 2
