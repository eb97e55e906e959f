"""Areas of regions cut with the pixels of the tissue mask: against shapely on every pixel."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.core.objects import Frame
from quadrat.measure.area import Tissue, clipped_area, rectangles
from quadrat.measure.regions import even_odd

FRAME = Frame(height=6, width=8, mpp=20.0, scale_row=80.0, scale_col=80.0)
masks = st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=6, max_size=6).map(
    np.array
)
corner = st.tuples(st.floats(-1, 9, width=32), st.floats(-1, 7, width=32))


def pixels(mask):
    return [shapely.box(c, r, c + 1, r + 1) for r, c in np.argwhere(mask).tolist()]


@settings(max_examples=60, deadline=None)
@given(masks)
def test_rectangles_are_the_pixels_each_once(mask):
    painted = np.zeros(mask.shape, int)
    for x0, y0, x1, y1 in rectangles(mask).astype(int).tolist():
        painted[y0:y1, x0:x1] += 1
    assert np.array_equal(painted, mask.astype(int))


def test_equal_runs_below_each_other_are_one_rectangle():
    mask = np.ones((6, 8), bool)
    mask[2:4, 3] = False
    assert len(rectangles(mask)) == 4


@settings(max_examples=60, deadline=None)
@given(masks, st.lists(corner, min_size=3, max_size=8))
def test_a_region_shares_with_the_mask_what_it_shares_with_each_pixel(mask, corners):
    shape = even_odd(np.array([*corners, corners[0]], float), np.array([0, len(corners) + 1]))
    want = sum(shapely.intersection(shape, one).area for one in pixels(mask))
    assert clipped_area(shape, rectangles(mask)) == pytest.approx(want, abs=1e-9)


def test_what_was_filled_is_told_apart_and_can_be_left_out():
    codes = np.ones((6, 8), np.uint8)
    codes[:, :4], codes[2, 2] = 0, 6
    tissue = Tissue(codes, FRAME)
    shape = shapely.box(1.5, 2.25, 5, 4)
    px = 0.0004
    assert tissue.areas_in(shape) == pytest.approx((2.5 * 1.75 * px, 0.75 * px))
    assert (tissue.analysed_mm2, tissue.filled_mm2) == pytest.approx((24 * px, px))
    bare = tissue.without_filled()
    assert bare.areas_in(shape) == pytest.approx(((2.5 * 1.75 - 0.75) * px, 0.75 * px))
    assert bare.analysed_mm2 == pytest.approx(23 * px)
    centres = np.array([(2.5, 2.5), (1.5, 2.5), (-1, 2), (2, 3)]) * 80
    assert tissue.on_filled(centres).tolist() == [True, False, False, False]


def test_an_empty_region_and_an_empty_mask_share_nothing():
    boxes = rectangles(np.ones((6, 8), bool))
    assert clipped_area(shapely.MultiPolygon(), boxes) == 0
    assert clipped_area(shapely.box(0, 0, 1, 1), rectangles(np.zeros((6, 8), bool))) == 0
