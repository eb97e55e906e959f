"""Names of slides, and the case that a path tells."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.cli.init.naming import FIRST_WORD, case_in, pattern_of, tcga_participant, unique_names
from quadrat.core.errors import ConfigError


def test_the_case_of_a_tcga_slide_is_its_participant():
    assert tcga_participant("TCGA-A7-A0DA-01Z-00-DX1_63501") == "TCGA-A7-A0DA"
    assert tcga_participant("TCGA-A7-A0DA") == "TCGA-A7-A0DA"
    assert tcga_participant("S12-345_2") == ""
    assert tcga_participant("TCGA-A7-A0DAX") == ""


@pytest.mark.parametrize(
    ("pattern", "path", "case"),
    [
        ("^[^/]+", "P1/scan/a.svs", "P1"),
        ("^([^/]+)/", "P1/a.svs", "P1"),
        (r"P\d+", "a/P12_3.svs", "P12"),
        ("([^/_]+)_[^/]*$", "a/P12_3.svs", "P12"),
        (FIRST_WORD, "high-grade/image/GT12-1.png", "GT12"),
    ],
)
def test_a_pattern_finds_the_case_in_the_path(pattern, path, case):
    assert case_in(path, pattern_of(pattern)) == case


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "not a regular expression"), (r"P(\d*)", "no case in the slide 'a/P_1.svs'")],
)
def test_a_pattern_that_finds_no_case_is_refused(pattern, words):
    with pytest.raises(ConfigError, match=words):
        case_in("a/P_1.svs", pattern_of(pattern))


@pytest.mark.parametrize(
    ("own", "names"),
    [
        ({"x/a.png": "a", "b.png": "b"}, ["a", "b"]),
        ({"x/a.png": "a", "y/a.png": "a", "x-a.png": "x-a"}, ["x-a.png", "y-a", "x-a"]),
        ({"x.png": "x", "X.tif": "X"}, ["x.png", "X.tif"]),
        ({"p:1/a.png": "a", "p_1/a.png": "a"}, ["a-2", "a-3"]),
        ({'.a"b\n.png': '.a"b\n', " .png": " "}, ["_a_b_", "_"]),
    ],
)
def test_every_slide_has_a_name_of_its_own_that_can_be_a_folders(own, names):
    assert list(unique_names(own).values()) == names


PATHS = st.lists(
    st.sampled_from(["a", "A", "b", "x-a", "x_a", "x:a", ".", ".a", "a-2", "a.b"]),
    min_size=1,
    max_size=3,
).map("/".join)


@given(st.lists(st.tuples(PATHS, st.sampled_from([".png", ".tif"])), unique=True))
@settings(max_examples=80, deadline=None)
def test_names_are_unique_whatever_the_paths(paths):
    own = {path + suffix: path.split("/")[-1] for path, suffix in paths}
    names = unique_names(own)
    assert list(names) == list(own)
    assert len({name.casefold() for name in names.values()}) == len(own)
