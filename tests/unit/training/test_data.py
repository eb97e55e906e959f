"""What is known of slides before a training, and which material nothing can be learnt from."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers.known import CELLS, LEFT, slide_of
from helpers.places import SIDE
from helpers.trainings import spec_for
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import ClassSection, ModelSection, Pipeline
from quadrat.core.errors import AnnotationError, SlideError
from quadrat.core.geometry import Box, Scale
from quadrat.tasks import get_task
from quadrat.training.data import (
    NOTES_SHOWN,
    Known,
    check_material,
    known_of,
    training_slide,
    window_set,
)
from quadrat.training.truth import truth_window

LABELLED = Known(frozenset({0}), background=True, notes=())


def ref_of(place, number=0, **changes):
    picture = place.pictures / f"{number}.png"
    labels = place.pictures / f"{number}.labels.png"
    ref = SlideRef(str(number), str(picture), mpp=0.5, annotation=str(labels), annotated="all")
    return replace(ref, **changes)


def of_regions(pipeline, *names):
    classes = tuple(replace(pipeline.classes[0], name=name) for name in names)
    return replace(pipeline, classes=classes, data=replace(pipeline.data, annotations="regions"))


# -- of one slide


def test_of_a_label_image_its_class_is_known_and_the_rest_is_background(place):
    known = known_of(ref_of(place), place.load())
    assert known == Known(frozenset({0}), background=True, notes=())


def test_a_slide_label_is_a_class_that_is_known(place):
    pipeline = place.load("data.annotations=none", "classes=[{name: a}, {name: b}]")
    known = known_of(ref_of(place, label="b", annotated=""), pipeline)
    assert known.classes == {1}
    assert not known.background


def test_a_label_image_of_another_picture_is_refused(place):
    other = ref_of(place, annotation=str(place.folder / "other.png"))
    Image.new("L", (SIDE + 40, SIDE)).save(place.folder / "other.png")
    with pytest.raises(AnnotationError, match=rf"{SIDE + 40} x {SIDE} px, but the slide 0 has"):
        known_of(other, place.load())


def test_a_slide_that_states_no_mpp_is_refused(place):
    with pytest.raises(SlideError, match="states no mpp"):
        known_of(ref_of(place, mpp=None), place.load())


# -- of all together


def test_a_set_in_which_every_class_is_shown_is_taken_without_a_word(place):
    assert check_material([LABELLED], place.load()) == []


def test_a_set_that_shows_nothing_is_refused(place):
    nothing = [replace(LABELLED, classes=frozenset())] * 2
    with pytest.raises(AnnotationError, match="none of the 2 training slides shows anything"):
        check_material(nothing, place.load())


def test_a_class_without_an_example_is_named(place):
    pipeline = place.load("classes=[{name: a}, {name: b}, {name: c}]")
    notes = check_material([replace(LABELLED, classes=frozenset({1}))], pipeline)
    assert notes == [f"no training slide shows '{name}'; it cannot be learnt" for name in "ac"]


def test_a_classifier_needs_two_classes(place):
    with pytest.raises(AnnotationError, match="the only one is 'nucleus'; name what else there is"):
        check_material([LABELLED], replace(place.load(), task="classification"))


def test_one_class_of_regions_needs_something_that_is_not_of_it(place):
    one, two = (of_regions(place.load(), *names) for names in (["a"], ["a", "b"]))
    everything = replace(LABELLED, background=False)
    with pytest.raises(AnnotationError, match=r"everything that is known of .* is 'a'"):
        check_material([everything] * 3, one)
    assert check_material([everything, LABELLED], one) == []
    assert check_material([replace(everything, classes=frozenset({0, 1}))], two) == []


def test_of_many_notes_the_first_are_shown_and_the_rest_counted(place):
    def notes(count):
        return tuple(f"slide: note {i}" for i in range(count))

    some = check_material([replace(LABELLED, notes=notes(NOTES_SHOWN))], place.load())
    assert some == list(notes(NOTES_SHOWN))
    many = [replace(LABELLED, notes=notes(4)) for _ in range(2)]
    assert check_material(many, place.load()) == [*notes(4), "slide: note 0", "and 3 more"]


# -- a slide and its truth


def pipeline_for(task):
    return Pipeline(
        name="p",
        task=task,
        classes=(ClassSection(name="a"), ClassSection(name="b")),
        model=ModelSection(package="x"),
    )


@pytest.mark.parametrize("annotated", ["all", "ROI", ""])
def test_the_manifests_word_decides_what_is_known(annotated, tmp_path):
    (tmp_path / "s.csv").write_text(
        'wkt,class,kind\n"POLYGON ((2 2, 9 2, 9 9, 2 9, 2 2))",a,region\n"POLYGON ((0 0, 20 0, 20 '
        '30, 0 30, 0 0))",ROI,region\n'
    )
    pipeline = pipeline_for("semantic")
    data = replace(
        pipeline.data, annotations="regions", ignore=() if annotated == "ROI" else ("ROI",)
    )
    ref = SlideRef(path="s.tiff", name="s", annotation=str(tmp_path / "s.csv"), annotated=annotated)
    slide = training_slide(ref, replace(pipeline, data=data), slide_of(LEFT).source, CELLS)
    known = truth_window(slide, Box(0, 0, 40, 40)).known
    want = np.full((40, 40), annotated == "all")
    want[
        {"": (slice(2, 9), slice(2, 9)), "ROI": (slice(30), slice(20)), "all": slice(None)}[
            annotated
        ]
    ] = True
    assert np.array_equal(known, want)


def test_points_in_um_are_learnt_where_they_lie_in_px_of_the_slide(tmp_path):
    (tmp_path / "s.tsv").write_text("Image\tClass\tCentroid X um\tCentroid Y um\ns\ta\t3\t2\n")
    pipeline = pipeline_for("detection")
    data = replace(pipeline.data, annotations="points", point_diameter_um=8.0)
    ref = SlideRef("s", "s.tiff", annotation=str(tmp_path / "s.tsv"), annotated="all")
    source = slide_of(LEFT).source
    slide = training_slide(ref, replace(pipeline, data=data), source, CELLS)
    points, _ = slide.truth.objects.points(Box(0, 0, 40, 40), Scale(1.0, 1.0))
    np.testing.assert_allclose(points, [[3 / source.frame.mpp_l0, 2 / source.frame.mpp_l0]])


def test_objects_without_a_word_on_where_all_are_drawn_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "s.csv").write_text('wkt,class\n"POLYGON ((2 2, 9 2, 9 9, 2 9, 2 2))",a\n')
    ref = SlideRef(path="folder/s.tiff", name="s", annotation=str(tmp_path / "s.csv"), annotated="")
    with pytest.raises(
        AnnotationError,
        match=r"^folder/s\.tiff: .*fill its column 'annotated' with 'all', or with the class",
    ):
        training_slide(ref, pipeline_for("instance"), slide_of(LEFT).source, CELLS)
    everything = replace(ref, annotated="all")
    training_slide(everything, pipeline_for("instance"), slide_of(LEFT).source, CELLS)


@pytest.mark.parametrize("options", [{"bounds": True}, {"bounds": False, "complete": False}])
def test_mask_models_refuse_a_slide_that_is_not_annotated_completely_before_the_first_step(options):
    pipeline, spec = pipeline_for("instance_masks"), spec_for("instance_masks")
    slide = replace(slide_of(LEFT, **options), cells=[(0, 0)])  # all of this window is known
    with pytest.raises(
        AnnotationError,
        match=r"^s: the task instance_masks learns from slides that are annotated completely",
    ):
        window_set([slide], get_task("instance_masks"), spec, pipeline)
    window_set([slide_of(LEFT, bounds=False)], get_task("instance_masks"), spec, pipeline)
    for task in ("semantic", "instance", "detection", "classification"):
        window_set([slide], get_task(task), spec_for(task), pipeline)
