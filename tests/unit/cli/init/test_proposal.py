"""What is proposed for what was found."""

import re

import pytest

from quadrat.cli.init.finding import AnnotationFound, SlideFound
from quadrat.cli.init.proposal import bounding_class, colours, model_mpp, propose
from quadrat.core.errors import ConfigError


def test_the_bounding_class_is_an_roi_before_a_region_before_include():
    drawn = {
        ("region", "outline", n): 1 for n in ("Include", "Region 2", "Region*", "roi", "Tumor")
    }
    assert bounding_class(AnnotationFound("QuPath GeoJSON", drawn)) == "roi"
    del drawn["region", "outline", "roi"]
    assert bounding_class(AnnotationFound("QuPath GeoJSON", drawn)) == "Region 2"
    assert (
        bounding_class(AnnotationFound("QuPath GeoJSON", {("object", "outline", "ROI"): 1})) == ""
    )


def test_colours_differ_however_many_classes_there_are():
    assert len(set(colours(40))) == 40
    assert all(0 <= value <= 255 for color in colours(40) for value in color)


@pytest.mark.parametrize(
    ("stated", "task", "mpp"),
    [
        (0.25, "instance", 0.5),
        (0.987, "instance", 0.99),
        (None, "semantic", 2.0),
        (0.5, "detection", 0.5),
        (12.34, "semantic", 13.0),
    ],
)
def test_the_proposed_mpp_is_the_usual_one_or_just_coarser_than_the_coarsest_slide(
    stated, task, mpp
):
    assert model_mpp(task, [SlideFound((10, 10), stated), SlideFound((10, 10), 0.2)]) == mpp


def test_pictures_and_drawn_annotations_are_not_mixed():
    found = {
        "a.png": AnnotationFound("picture", values={1: 5}),
        "b.json": AnnotationFound("COCO", {("object", "outline", "x"): 1}),
    }
    with pytest.raises(ConfigError, match=r"a\.png is a picture and b\.json is COCO"):
        propose("instance", found)


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        ({}, ["stray"]),
        ({"a.svs": AnnotationFound("ASAP XML", {("", "outline", "tumour"): 2})}, []),
        ({"a.svs": AnnotationFound("picture", values={255: 9})}, []),
    ],
)
def test_a_classification_of_one_class_is_refused(found, labels):
    with pytest.raises(ConfigError, match=r"two or more classes apart.*a CSV \(slide, label\)"):
        propose("classification", found, labels)


@pytest.mark.parametrize(
    ("task", "want", "words"),
    [
        ("instance", "objects", "outlines are learnt.*3 points on 1 of 2 slides \\(p.png\\)"),
        ("detection", "points", "points are learnt.*2 outlines on 1 of 2 slides \\(o.png\\)"),
    ],
)
def test_points_among_outlines_are_told(task, want, words):
    found = {
        "s/o.png": AnnotationFound("COCO", {("object", "outline", "x"): 2}),
        "s/p.png": AnnotationFound("CSV", {("", "point", "x"): 3}),
    }
    proposal = propose(task, found)
    assert proposal.annotations == want
    assert any(re.search(words, note) for note in proposal.notes)
    alone = [propose("detection", {key: one}).notes for key, one in found.items()]
    assert "are learnt" not in str(alone)
