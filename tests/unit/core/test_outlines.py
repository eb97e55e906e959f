from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.draw import polygon2mask

from quadrat.core import outlines as module
from quadrat.core.objects import Polygons
from quadrat.core.outlines import (
    Edges,
    boundary_edges,
    concatenate_polygons,
    link_edges,
    take_polygons,
    trace,
)


def components(classes):
    """Label the 4-connected components of each class; classes touch, as nuclei do."""
    labels = np.zeros(classes.shape, np.int32)
    count = 0
    for value in range(1, int(classes.max(initial=0)) + 1):
        found, n = ndimage.label(classes == value)
        labels[found > 0] = found[found > 0] + count
        count += n
    return labels, count


def fields(max_side=14, classes=2):
    shape = st.tuples(st.integers(1, max_side), st.integers(1, max_side))
    return arrays(np.uint8, shape, elements=st.integers(0, classes)).map(components)


def shapes(polygons: Polygons):
    offsets = (polygons.ring_starts, polygons.polygon_starts)
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, polygons.xy, offsets)


def same(a: Polygons, b: Polygons):
    assert np.array_equal(a.xy, b.xy)
    assert np.array_equal(a.ring_starts, b.ring_starts)
    assert np.array_equal(a.polygon_starts, b.polygon_starts)


@settings(deadline=None, max_examples=300)
@given(fields())
def test_every_polygon_is_valid_covers_exactly_its_pixels_and_keeps_only_corners(field):
    labels, n = field
    polygons = trace(labels, n=n, origin=(0, 0))
    geometry = shapes(polygons)
    assert shapely.is_valid(geometry).all()
    assert np.array_equal(shapely.area(geometry), np.bincount(labels.ravel(), minlength=n + 1)[1:])
    rows, cols = np.indices(labels.shape)
    back = np.zeros_like(labels)
    for i, shape in enumerate(geometry):
        back[shapely.contains_xy(shape, cols + 0.5, rows + 0.5)] = i + 1
    assert np.array_equal(back, labels)
    for first, last in pairwise(polygons.ring_starts):
        ring = polygons.xy[first:last]
        assert np.array_equal(ring[0], ring[-1])
        assert np.array_equal(
            ring[0][::-1], min(map(tuple, ring[:, ::-1]))
        )  # starts at the top-left-most vertex
        horizontal = (np.diff(ring, axis=0)[:, 1] == 0).astype(int)
        assert (np.diff(horizontal) != 0).all()  # every vertex is a corner
        assert horizontal[0] != horizontal[-1]


@settings(deadline=None, max_examples=200)
@given(fields(), st.data())
def test_pieces_of_any_cut_in_any_order_give_the_polygons_of_the_whole(field, data):
    labels, n = field
    height, width = labels.shape
    origin = (data.draw(st.integers(-5, 70_000)), data.draw(st.integers(-5, 70_000)))
    rows = sorted({0, height, *data.draw(st.lists(st.integers(0, height), max_size=4))})
    cols = sorted({0, width, *data.draw(st.lists(st.integers(0, width), max_size=4))})
    padded = np.pad(labels, 1)
    pieces = [
        boundary_edges(padded[r0 : r1 + 2, c0 : c1 + 2], origin=(origin[0] + r0, origin[1] + c0))
        for r0, r1 in pairwise(rows)
        for c0, c1 in pairwise(cols)
    ]
    pieces = data.draw(st.permutations(pieces))
    same(link_edges(Edges.concatenate(pieces), n=n), trace(labels, n=n, origin=origin))


def test_a_hole_that_meets_the_outside_at_a_corner_stays_a_hole():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.int32)
    polygons = trace(labels, n=1, origin=(0, 0))
    assert polygons.polygon_starts.tolist() == [0, 2]
    assert shapely.is_valid(shapes(polygons)).all()


def test_two_holes_that_touch_at_a_corner_are_two_rings_in_order_of_their_first_vertex():
    labels = np.ones((6, 6), np.int32)
    labels[2, 2] = labels[3, 3] = 0
    polygons = trace(labels, n=1, origin=(10, 20))
    starts = polygons.xy[polygons.ring_starts[:-1]]
    assert starts.tolist() == [[20, 10], [22, 12], [23, 13]]
    assert shapely.is_valid(shapes(polygons)).all()


def test_shells_turn_one_way_and_holes_the_other():
    labels = np.ones((3, 3), np.int32)
    labels[1, 1] = 0
    shape = shapes(trace(labels, n=1, origin=(0, 0)))[0]
    assert shape.exterior.is_ccw
    assert not shape.interiors[0].is_ccw


def test_a_label_without_pixels_gives_an_empty_polygon():
    labels = np.array([[0, 2]], np.uint32)
    geometry = shapes(trace(labels, n=3, origin=(0, 0)))
    assert shapely.is_empty(geometry).tolist() == [True, False, True]
    assert len(trace(np.zeros((0, 5), np.int32), n=0, origin=(0, 0))) == 0


@pytest.mark.parametrize("labels", [[[1, 0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_labels_that_are_not_4_connected_are_refused(labels):
    with pytest.raises(ValueError, match="label 1 is not one 4-connected component"):
        trace(np.array(labels, np.int32), n=1, origin=(0, 0))


def test_a_missing_piece_is_noticed():
    labels = np.pad(np.ones((4, 8), np.int32), 1)
    with pytest.raises(ValueError, match="label 1 do not close"):
        link_edges(boundary_edges(labels[:, :6], origin=(0, 0)), n=1)


def test_labels_beyond_the_count_are_refused():
    with pytest.raises(ValueError, match="want 1 to 2"):
        trace(np.array([[3]], np.int32), n=2, origin=(0, 0))


def test_keys_too_wide_for_one_integer_sort_the_same(monkeypatch):
    labels, n = components(np.random.default_rng(3).integers(0, 3, (40, 50)).astype(np.uint8))
    want = trace(labels, n=n, origin=(0, 0))
    monkeypatch.setattr(module, "_KEY_BITS", 5)
    same(trace(labels, n=n, origin=(0, 0)), want)


def test_taking_and_concatenating_polygons_are_inverse():
    labels, n = components(np.random.default_rng(5).integers(0, 3, (30, 30)).astype(np.uint8))
    polygons = trace(labels, n=n, origin=(0, 0))
    halves = [
        take_polygons(polygons, np.arange(0, n // 2)),
        take_polygons(polygons, np.arange(n // 2, n)),
    ]
    same(concatenate_polygons(halves), polygons)
    same(take_polygons(take_polygons(polygons, np.arange(n)[::-1]), np.arange(n)[::-1]), polygons)
    assert len(concatenate_polygons([])) == 0


def test_a_spiral_longer_than_its_pieces_is_traced_like_any_other():
    turns = np.linspace(0, 8 * np.pi, 4000)
    labels = np.zeros((200, 200), np.int32)
    rows, cols = 100 + turns * 3.5 * np.sin(turns), 100 + turns * 3.5 * np.cos(turns)
    labels[rows.astype(int), cols.astype(int)] = 1
    labels = ndimage.binary_dilation(labels, iterations=2).astype(np.int32)
    polygons = trace(labels, n=1, origin=(0, 0))
    shell = polygons.xy[: polygons.ring_starts[1]]
    filled = ndimage.binary_fill_holes(labels)
    assert np.array_equal(polygon2mask(labels.shape, shell[:, ::-1] - 0.5 + 1e-6), filled)
