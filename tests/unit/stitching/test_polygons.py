import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.stitching.polygons import fill

SOME = settings(deadline=None, derandomize=True, max_examples=60)


def stars(rng, n, corners):
    """Star-shaped polygons (n, corners, 2) in 1/16 px."""
    angle = 2 * np.pi * np.arange(corners) / corners
    away = rng.uniform(0, 150, (n, corners, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.floor(rng.integers(-300, 300, (n, 1, 2)) + away).astype(np.int64)


def images(inside, bounds):
    """Each polygon's pixels (h, w)."""
    sides = bounds[:, 2:] - bounds[:, :2]
    parts = np.split(inside, np.cumsum(sides.prod(axis=1))[:-1])
    return [part.reshape(side) for part, side in zip(parts, sides, strict=True)]


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([3, 8, 32]))
def test_the_pixels_with_their_centre_inside_are_filled(seed, n, corners):
    xy = stars(np.random.default_rng(seed), n, corners)
    inside, bounds = fill(xy)
    for one, image, (row0, col0, _, _) in zip(xy, images(inside, bounds), bounds, strict=True):
        shape, edge = shapely.Polygon(one), shapely.LinearRing(one)
        row, col = np.indices(image.shape)
        x, y = (col + col0) * 16 + 8, (row + row0) * 16 + 8
        wanted = shapely.contains_xy(shape.buffer(0), x, y)
        clear = shapely.distance(edge, shapely.points(x, y)) > 1e-6
        if shape.is_valid:
            assert np.array_equal(image[clear], wanted[clear])


def test_squares_that_share_a_side_share_no_pixel_and_leave_none_out():
    left = [[8, 8], [40, 8], [40, 40], [8, 40]]  # sides through centres of pixels
    right = [[40, 8], [72, 8], [72, 40], [40, 40]]
    whole = np.zeros((4, 6), int)
    inside, bounds = fill(np.array([left, right]))
    for image, (row0, col0, row1, col1) in zip(images(inside, bounds), bounds, strict=True):
        whole[row0:row1, col0:col1] += image
    assert whole.tolist() == [[1] * 4 + [0] * 2] * 2 + [[0] * 6] * 2


def test_a_polygon_moved_by_whole_pixels_is_filled_alike_and_a_point_is_empty():
    xy = stars(np.random.default_rng(0), 20, 16)
    here, there = fill(xy), fill(xy + np.array([-16 * 7, 16 * 5]))
    assert np.array_equal(here[0], there[0])
    assert np.array_equal(here[1] + np.array([5, -7, 5, -7]), there[1])
    inside, bounds = fill(np.full((1, 8, 2), 32))
    assert inside.size == 0
    assert bounds.tolist() == [[2, 2, 2, 2]]
