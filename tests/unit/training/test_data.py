"""What is known of slides before a training, and which material nothing can be learnt from."""

from dataclasses import replace

import pytest
from PIL import Image

from helpers.places import SIDE
from quadrat.config.manifest import SlideRef
from quadrat.core.errors import AnnotationError, SlideError
from quadrat.training.data import NOTES_SHOWN, Known, check_material, known_of

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
