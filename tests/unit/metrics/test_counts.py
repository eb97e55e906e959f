"""Agreement of counts against examples worked by hand and printed in papers."""

import numpy as np
import pytest

from quadrat.metrics import counts


def test_counts_agree_as_bias_error_and_relative_error():
    got = counts.count_agreement(np.array([100, 50]), np.array([90, 52]))
    assert got["bias"] == pytest.approx(-4)
    assert got["mae"] == pytest.approx(6)
    assert counts.relative_error(100, 90) == pytest.approx(-0.1)
    assert counts.relative_error(0, 0) == 0
    assert counts.relative_error(0, 3) == float("inf")


def test_icc_is_that_of_the_worked_example_of_shrout_and_fleiss():
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    )
    assert counts.icc_2_1(ratings) == pytest.approx(0.29, abs=0.005)  # table 4 of the paper


def test_icc_of_equal_counts_is_one_and_of_constant_ones_not_defined():
    planted = np.array([3, 50, 17])
    assert counts.icc_2_1(np.stack([planted, planted], axis=1)) == 1
    assert np.isnan(counts.icc_2_1(np.full((4, 2), 5)))
    assert (
        counts.icc_2_1(np.stack([planted, planted + 20], axis=1)) < 0.8
    )  # agreement, not consistency


def test_count_agreement_of_a_worked_table():
    got = counts.count_agreement(np.array([100, 50, 0]), np.array([90, 52, 2]))
    assert got["bias"] == -2
    assert got["mae"] == pytest.approx(14 / 3)
    assert got["relative_error_median"] == pytest.approx((0.1 + 0.04) / 2)
    assert got["units_without_truth"] == 1
    spread = 1.96 * np.std([-10, 2, 2], ddof=1)
    assert (got["limit_low"], got["limit_high"]) == pytest.approx((-2 - spread, -2 + spread))
    assert got["total_relative_error"] == pytest.approx(-6 / 150)
