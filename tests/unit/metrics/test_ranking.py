"""Average precision of rankings worked by hand; the whole is held against pycocotools in the tests
of detection and of instances."""

import numpy as np
import pytest

from quadrat.metrics.ranking import average_precision


def test_average_precision_of_a_hand_worked_ranking():
    # hits at ranks 1 and 3 of 3, two planted: precision 1 up to recall 1/2, then 2/3
    got = average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), planted=2)
    assert got == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_average_precision_is_not_defined_where_nothing_is_planted():
    assert np.isnan(average_precision(np.array([0.9]), np.array([False]), planted=0))
    assert average_precision(np.zeros(0), np.zeros(0, bool), planted=3) == 0
