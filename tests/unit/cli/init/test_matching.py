"""Slides and annotations are paired by their names, or not at all."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.cli.init.matching import bare, context, match_names, match_pictures, without_marks


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("b/A.ome.tif", "a"),
        ("a.svs.geojson", "a"),
        ("a.svs - Series 0.geojson", "a"),
        ("TCGA-A7_0.9824.png", "tcga-a7_0.9824"),
        (".png", ".png"),
        ("s.ome.zarr", "s"),
        (unicodedata.normalize("NFD", "Jörg.svs"), unicodedata.normalize("NFC", "jörg")),
    ],
)
def test_a_name_is_bare_of_folders_and_suffixes(path, name):
    assert bare(path) == name


@pytest.mark.parametrize(
    ("name", "core"),
    [
        ("a_annotations", "a"),
        ("a-labels", "a"),
        ("a_gt_class_coords", "a"),
        ("mask_7", "7"),
        ("masks", "masks"),
        ("case_1-2", "case_1-2"),
        ("tumor_cells", "tumor"),
    ],
)
def test_words_that_say_what_a_file_is_are_taken_off_its_name(name, core):
    assert without_marks(name) == core


def test_slides_and_annotations_are_paired_by_the_nearest_agreement():
    found = match_names(
        ["a.svs", "B.ome.tif", "tumor_cells.svs", "c.svs", "e.svs"],
        [
            "a_annotations.geojson",
            "a.geojson",
            "b-labels.png",
            "tumor_cells.geojson",
            "d.xml",
            "e.xml",
            "e.csv",
        ],
    )
    assert found.pairs == {
        "a.svs": "a.geojson",
        "B.ome.tif": "b-labels.png",
        "tumor_cells.svs": "tumor_cells.geojson",
    }
    assert found.slides_alone == ("c.svs",)
    assert found.annotations_alone == ("a_annotations.geojson", "d.xml")
    assert found.doubtful == (("e.svs", ("e.xml", "e.csv")),)


def test_a_longer_name_is_never_taken_for_a_shorter_one():
    assert match_names(["case1.svs"], ["case1-2.geojson", "case10.geojson"]).pairs == {}


def test_files_of_one_name_are_told_apart_by_their_folders_or_not_matched():
    own = match_names(["x/images/1.png", "y/images/1.png"], ["x/labels/1.png", "y/labels/1.png"])
    assert own.pairs == {"x/images/1.png": "x/labels/1.png", "y/images/1.png": "y/labels/1.png"}
    assert match_names(["x/1.png", "y/1.png"], ["1.png"]).pairs == {}
    assert context("x/images/1.png") == ("x",)


def test_a_whole_name_decides_before_one_without_suffixes():
    found = match_names(
        ["x.png", "x.tif", "y.svs"],
        ["x.png.geojson", "x.tif.geojson", "y.svs - Series 0.geojson", "y.xml"],
    )
    assert found.pairs == {
        "x.png": "x.png.geojson",
        "x.tif": "x.tif.geojson",
        "y.svs": "y.svs - Series 0.geojson",
    }
    assert match_names(["x.png", "x.tif"], ["x.png"]).pairs == {"x.png": "x.png"}


def test_a_name_that_several_slides_share_is_given_to_none():
    found = match_names(["x.png", "x.tif", "y.png"], ["x.geojson", "y.geojson"])
    assert found.pairs == {"y.png": "y.geojson"}
    assert found.annotations_alone == ("x.geojson",)


@pytest.mark.parametrize(
    ("names", "slides", "mine"),
    [
        (
            ["train/1.png", "val/1.png"],
            ["s/train/1.png", "s/val/1.png"],
            {0: ["train/1.png"], 1: ["val/1.png"]},
        ),
        (["train/1.png"], ["s/train/1.png", "s/val/1.png"], {0: ["train/1.png"]}),
        (["val\\1.png"], ["s/train/1.png", "s/val/1.png"], {1: ["val\\1.png"]}),
        (["1.png"], ["s/train/1.png", "s/val/1.png"], {}),
        (["x.png", "y"], ["x.png", "x.tif", "y.png"], {0: ["x.png"], 2: ["y"]}),
    ],
)
def test_a_picture_that_a_file_names_is_one_slide_or_none(names, slides, mine):
    assert match_pictures(names, slides) == {slides[k]: found for k, found in mine.items()}


NAMES = st.lists(
    st.sampled_from(
        [
            f"{a}{b}"
            for a in ("a", "b", "a_mask", "labels_b", "c")
            for b in (".svs", ".png", ".xml", ".ome.tif")
        ]
    ),
    unique=True,
)


@given(NAMES, NAMES, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_matching_never_uses_a_file_twice_for_one_slide_and_does_not_heed_the_order(
    left, right, random
):
    found = match_names(left, right)
    told = [*found.pairs, *found.slides_alone, *(s for s, _ in found.doubtful)]
    assert sorted(told) == sorted(left)
    used = {
        *found.pairs.values(),
        *found.annotations_alone,
        *(a for _, several in found.doubtful for a in several),
    }
    assert used == set(right)
    again = list(left), list(right)
    for names in again:
        random.shuffle(names)
    assert match_names(*again).pairs == found.pairs
