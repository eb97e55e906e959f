"""Agreement with intervals, against examples printed in papers and a direct computation."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from quadrat.metrics.agreement import (
    Estimate,
    agreement,
    icc_interval,
    limit_reach,
    passing_bablok,
    spearman,
)

WRIGHT = (494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427)
MINI = (512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451)
"""Peak flow by two meters: Bland and Altman, Lancet 1986, table 1, first measurements."""


def test_bias_and_spread_are_those_of_the_peak_flow_example_of_bland_and_altman():
    got = agreement(np.array(MINI), np.array(WRIGHT))
    assert (got.units, got.bias.value, got.sd) == (
        17, pytest.approx(-2.1, abs=0.05), pytest.approx(38.8, abs=0.05),
    )  # fmt: skip
    assert (got.bias.low, got.bias.high) == pytest.approx((-22.0, 17.8), abs=0.1)


def test_intervals_of_the_limits_are_those_of_the_blood_pressure_example_of_bland_and_altman():
    of_bias, of_limit = limit_reach(19.61, 85)  # the paper of 1999: -16.29, limits -54.7 and 22.1
    assert (-16.29 - of_bias, -16.29 + of_bias) == pytest.approx((-20.5, -12.1), abs=0.05)
    assert (-54.7 - of_limit, -54.7 + of_limit) == pytest.approx((-61.9, -47.5), abs=0.1)


def test_the_interval_of_icc_is_the_one_known_for_the_example_of_shrout_and_fleiss():
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    )
    got = icc_interval(ratings.astype(np.float64))
    assert astuple(got) == pytest.approx((0.29, 0.019, 0.761), abs=0.001)


def test_rank_correlation_is_that_of_the_known_example_of_iq_and_television():
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(np.array(iq), np.array(hours)) == pytest.approx(-29 / 165)
    assert math.isnan(spearman(np.array([1, 1]), np.array([1, 2])))


def directly(x, y):
    """Passing and Bablok 1983, step by step."""
    slopes = []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if x[i] == x[j] and y[i] == y[j]:
                continue
            slope = math.inf if x[i] == x[j] else (y[i] - y[j]) / (x[i] - x[j])
            if slope != -1:
                slopes.append(slope)
    slopes.sort()
    big, k, n = len(slopes), sum(s < -1 for s in slopes), len(x)
    if big % 2:
        b = slopes[(big + 1) // 2 + k - 1]
    else:
        b = (slopes[big // 2 + k - 1] + slopes[big // 2 + k]) / 2
    c = 1.959964 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    m1 = round((big - c) / 2)
    low, high = slopes[m1 + k - 1], slopes[big - m1 + k]

    def middle(slope):
        return float(np.median([v - slope * u for u, v in zip(x, y, strict=True)]))

    return (b, low, high), (middle(b), middle(high), middle(low))


@pytest.mark.parametrize("seed", range(6))
def test_passing_bablok_is_what_its_paper_says_step_by_step(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(10, 200, 30 + seed)
    y = np.round(1.2 * x - 4 + rng.normal(0, 12, len(x))).astype(int)
    slope, intercept = passing_bablok(x, y)
    want = directly(x.tolist(), y.tolist())
    assert astuple(slope) == pytest.approx(want[0])
    assert astuple(intercept) == pytest.approx(want[1])
    order = rng.permutation(len(x))
    assert passing_bablok(x[order], y[order]) == (slope, intercept)


def test_a_line_without_error_is_found_as_it_is_drawn():
    x = np.arange(10, 30)
    slope, intercept = passing_bablok(x, 3 * x - 7)
    assert (astuple(slope), astuple(intercept)) == ((3, 3, 3), (-7, -7, -7))


def test_figures_that_are_not_defined_are_nan_and_never_a_number():
    one = agreement(np.array([5]), np.array([6]))
    assert (one.units, one.bias.value) == (1, 1)
    for value in (one.bias.low, one.sd, one.limit_low.value, one.icc.value, one.spearman):
        assert math.isnan(value)
    same = agreement(np.array([5, 5, 5]), np.array([5, 5, 5]))
    assert math.isnan(same.slope.value)
    equal = agreement(np.array([3, 50, 17]), np.array([3, 50, 17]))
    assert (equal.icc, equal.bias) == (Estimate(1.0, 1.0, 1.0), Estimate(0.0, 0.0, 0.0))
