"""Intervals over cases."""

import numpy as np

from quadrat.metrics.bootstrap import case_intervals


def test_intervals_are_drawn_by_case_and_repeat():
    value = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.5])
    cases = ["p", "p", "p", "q", "q", "r"]

    def mean(index):
        return {"mean": float(value[index].mean())}

    one = case_intervals(cases, mean, draws=200)
    assert one == case_intervals(cases, mean, draws=200)
    assert one["mean"] == (
        0.0,
        1.0,
    )  # the whole of a case or none of it: units alone would be less spread
    assert case_intervals(["p", "p", "q"], lambda index: {"mean": 1.0}) == {}
