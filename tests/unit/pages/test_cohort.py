"""Slides that stand out of their cohort."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers import shown
from helpers.summaries import summary_of
from quadrat.outputs.summary import PackageNote
from quadrat.pages.cohort import Entry, compare, outliers_first, robust_z
from quadrat.pages.folder import Finished


def entry(name, weights="0" * 64, **figures):
    summary = summary_of(shown.frame())
    package = PackageNote(weights)
    made_by = replace(summary.provenance, package=package)
    return Entry(Finished(Path(name), replace(summary, provenance=made_by), None), figures)


def test_the_robust_z_is_that_of_scipy():
    values = np.random.default_rng(0).normal(5, 2, 41)
    want = (values - np.median(values)) / stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values.tolist()), want, rtol=1e-4)


def test_one_that_differs_where_most_are_equal_still_stands_out():
    scores = robust_z([3.0] * 20 + [9.0])
    assert scores[:20] == [0.0] * 20
    assert scores[20] > 3.5
    assert robust_z([3.0] * 6) == [0.0] * 6


def test_the_farthest_slide_stands_first_and_says_by_what():
    entries = [entry(f"s{i}", count=100.0 + i, sharp=5.0 + 0.1 * i) for i in range(8)]
    entries.append(entry("odd", count=2000.0, sharp=5.4))
    compare(entries)
    ordered = outliers_first(entries)
    assert ordered[0].slide.name == "odd"
    assert ordered[0].flags == ["count"]
    assert all(not one.flags for one in ordered[1:])


def test_slides_of_another_model_and_too_few_are_not_compared():
    entries = [entry(f"s{i}", count=100.0 + i) for i in range(8)]
    entries += [entry(f"t{i}", weights="1" * 64, count=9000.0 + i) for i in range(4)]
    compare(entries)
    assert all(not one.flags for one in entries)
    assert all(one.z == {} for one in entries[8:])


@pytest.mark.parametrize("missing", [0, 4])
def test_a_figure_that_a_slide_lacks_is_no_reason(missing):
    entries = [entry(f"s{i}", count=1.0 + i) for i in range(8)]
    entries[missing] = entry("bare")
    compare(entries)
    assert entries[missing].z == {}
    assert entries[7].z["count"] > 0
