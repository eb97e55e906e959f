"""Colours that a colour-blind reader can tell apart."""

import pytest

from quadrat.outputs.palette import SAFE
from quadrat.pages.colours import confusable, safe_colours


def test_the_safe_palette_is_safe():
    assert not confusable(SAFE)


@pytest.mark.parametrize(
    "colours",
    [
        ((255, 0, 0), (254, 2, 0)),
        ((200, 60, 50), (120, 120, 40)),  # red and green of one lightness
    ],
)
def test_colours_that_look_alike_are_found(colours):
    assert confusable(colours)


def test_one_class_cannot_be_confused():
    assert not confusable([(1, 2, 3)])
    assert not confusable([])


def test_many_classes_repeat_the_palette():
    assert safe_colours(10)[8:] == SAFE[:2]
