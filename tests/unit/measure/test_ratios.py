"""Ratios: the grammar, and the interval against its published example and its definition."""

import numpy as np
import pytest
from scipy import stats

from quadrat.core.errors import ConfigError
from quadrat.measure.ratios import parse_ratio, wilson

CLASSES = ("positive", "negative", "in doubt")


def parse(text):
    return parse_ratio("ki67", text, classes=CLASSES)


def test_a_ratio_is_two_sums_of_classes():
    ratio = parse('positive / (positive + negative + "in doubt")')
    assert (ratio.above, ratio.below) == (("positive",), CLASSES)
    assert ratio.is_proportion
    assert ratio.counts({"positive": 3, "negative": 4, "in doubt": 5}) == (3, 12)


def test_classes_apart_make_a_ratio_that_is_no_proportion():
    ratio = parse("(positive)/negative")
    assert (ratio.above, ratio.below, ratio.is_proportion) == (("positive",), ("negative",), False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("positive / (positive + negativ)", "no class 'negativ'.*did you mean 'negative'"),
        ("positive", "is no ratio"),
        ("positive / negative + positive", "put sums in brackets"),
        ("positive / (negative", "bracket is not closed"),
        ("positive / (negative) / positive", "nothing may stand after the second sum"),
        ("positive / (negative + negative)", "stands twice"),
        ("positive * 2 / negative", r"cannot be read at '\* 2"),
        ("__import__('os').system('ls')", "is no ratio|cannot be read"),
        ("/ negative", "a class must stand where '/' is"),
        ("", "a class must stand where the end is"),
    ],
)
def test_what_is_no_ratio_is_refused_in_one_sentence(text, says):
    with pytest.raises(ConfigError, match=says):
        parse(text)


@pytest.mark.parametrize(("part", "whole"), [(0, 10), (10, 10), (1, 3), (81, 263), (15, 148)])
def test_the_interval_is_that_of_scipy(part, whole):
    want = stats.binomtest(part, whole).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(part, whole), (want.low, want.high), rtol=1e-9, atol=1e-12)


def test_the_interval_of_nothing_is_not_defined():
    assert np.isnan(wilson(0, 0)).all()
