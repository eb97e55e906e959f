"""The types of QuPath's objects, however they are spelt."""

import pytest

from quadrat.annotations.formats.qupath import meaning_of


@pytest.mark.parametrize(
    ("object_type", "meaning"),
    [
        ("annotation", "region"),
        ("Annotation", "region"),
        ("ANNOTATION", "region"),
        ("PathAnnotationObject", "region"),
        ("pathannotationobject", "region"),
        ("detection", "object"),
        ("Detection", "object"),
        ("PathDetectionObject", "object"),
        ("Cell", "object"),
        ("PathCellObject", "object"),
        ("tile", "aside"),
        ("PathTileObject", "aside"),
        ("tma_core", "aside"),
        ("TMA core", "aside"),
        ("TMACoreObject", "aside"),
        ("PathRootObject", "aside"),
        ("blob", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_type_means_the_same_in_every_spelling(object_type, meaning):
    assert meaning_of(object_type) == meaning
