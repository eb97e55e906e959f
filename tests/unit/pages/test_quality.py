"""Figures that show whether something is wrong with a slide."""

import numpy as np
import pytest
from scipy import ndimage

from helpers import shown
from quadrat.pages.folder import read_run
from quadrat.pages.quality import area_and_counts, crowding, sharpness, stain
from quadrat.pages.things import read_things


def test_areas_and_counts_are_those_of_the_summary(tmp_path):
    run = read_run(shown.make_run(tmp_path, ("one",), objects=40))
    found = area_and_counts(run.slides["one"])
    assert found["excluded_mm2"] == pytest.approx(0.002)  # glass is no exclusion
    assert (found["tissue_mm2"], found["count"], found["per_mm2"]) == (0.02, 40, 2000)
    assert found["count_tumour"] + found["count_<i>stroma</i>"] == 40


def test_a_classified_slide_has_probabilities(tmp_path):
    run = read_run(shown.make_run(tmp_path, ("one",), task="classification"))
    assert area_and_counts(run.slides["one"])["p_tumour"] == 0.5


def test_a_finder_that_stops_at_a_limit_has_many_full_squares(tmp_path):
    free = read_run(shown.make_run(tmp_path / "a", ("one",), objects=3)).slides["one"]
    places = read_things(free).places
    found = crowding(free, places)
    assert found["fullest_square"] == 3
    assert found["full_squares"] == 1


def test_a_blurred_picture_is_less_sharp():
    rng = np.random.default_rng(0)
    crisp = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = ndimage.gaussian_filter(crisp, (2, 2, 0))
    assert sharpness([blurred])["sharpness"] < 0.1 * sharpness([crisp])["sharpness"]
    assert sharpness([]) == {}


def test_the_stain_is_that_of_stained_pixels_alone():
    picture = np.full((10, 10, 3), 255, np.uint8)
    picture[:5] = (99, 24, 49)
    found = stain(picture)
    assert found["od_red"] == pytest.approx(-np.log10(100 / 256))
    assert found["od_green"] == pytest.approx(-np.log10(25 / 256))
    assert stain(np.full((4, 4, 3), 250, np.uint8)) == {}
