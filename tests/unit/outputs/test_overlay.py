"""What is drawn over a slide, pixel by pixel."""

import numpy as np
import pytest

from helpers.object_parts import CLASSES, FRAME
from quadrat.core.objects import Polygons
from quadrat.outputs import overlay

COLORS = np.array([c.color for c in CLASSES], np.uint8)


def test_outlines_are_drawn_in_class_colours_on_the_enlarged_image():
    image = np.full((20, 30, 3), 255, np.uint8)
    square = Polygons.boxes(np.array([[5.0, 10.0, 15.0, 20.0]]))
    drawn = overlay.draw_overlay(
        image, polygons=square, class_id=np.array([1], np.uint8), colors=COLORS, width=3, zoom=2
    )
    assert drawn.shape == (40, 60, 3)
    assert tuple(drawn[20, 20]) == CLASSES[1].color
    assert (drawn[20, 30] == 255).all()
    assert (drawn[:4] == 255).all()
    untouched = overlay.draw_overlay(
        image,
        polygons=Polygons.boxes(np.zeros((0, 4))),
        class_id=np.zeros(0, np.uint8),
        colors=COLORS,
    )
    assert np.array_equal(untouched, image)


def test_tints_leave_hidden_and_unknown_classes_alone():
    image = np.full((1, 3, 3), 100, np.uint8)
    tinted = overlay.blend_classes(
        image, np.array([[0, 1, 255]], np.uint8), COLORS, alpha=0.5, hidden=(0,)
    )
    assert tinted.tolist() == [[[100, 100, 100], [50, 125, 50], [100, 100, 100]]]


def test_dots_look_the_same_in_any_order_and_ignore_what_lies_outside():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    xy = rng.uniform(-10, 60, (200, 2))
    class_id = rng.integers(0, 2, 200).astype(np.uint8)
    drawn = overlay.draw_dots(image, xy, class_id=class_id, colors=COLORS)
    order = rng.permutation(200)
    assert np.array_equal(
        overlay.draw_dots(image, xy[order], class_id=class_id[order], colors=COLORS), drawn
    )
    none = np.zeros((0, 2))
    assert np.array_equal(
        overlay.draw_dots(image, none, class_id=np.zeros(0, np.uint8), colors=COLORS, fade=0.0),
        image,
    )


def test_density_times_cell_area_is_the_count():
    rng = np.random.default_rng(4)
    centroid = rng.uniform(0, 1, (500, 2)) * (300, 400)
    density = overlay.density_map(centroid, FRAME, cell_um=40)
    assert density.shape == (4, 5)
    assert density.dtype == np.float32
    assert density.sum() * 0.04**2 == pytest.approx(500)
    assert density[0, 0] * 0.04**2 == pytest.approx(((centroid < 80).all(axis=1)).sum())


def test_colours_run_from_dark_to_light_and_are_blank_outside_the_mask():
    values = np.array([[0.0, 0.5, 1.0, np.nan, 0.7]])
    mask = np.array([[True, True, True, True, False]])
    colours = overlay.colorize(values, low=0, high=1, mask=mask)
    assert tuple(colours[0, 0]) == (68, 1, 84)
    assert tuple(colours[0, 2]) == (253, 231, 37)
    assert np.diff(colours[0, :3].astype(int).sum(axis=1)).min() > 0
    assert (colours[0, 3:] == overlay.BLANK).all()
