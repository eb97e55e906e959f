"""Exact rasterisation that does not depend on the crop."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.annotation_files import ring as square
from quadrat.annotations.drawn import Annotations
from quadrat.annotations.formats.label_image import from_array
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Polygons


def of_shapes(shapes, class_id=None, classes=("a", "b", "c")):
    """Annotations of shapely polygons."""
    rings = [
        [np.array(p.exterior.coords), *(np.array(r.coords) for r in p.interiors)] for p in shapes
    ]
    flat = [ring for polygon in rings for ring in polygon]
    polygons = Polygons(
        xy=np.concatenate(flat) if flat else np.zeros((0, 2)),
        ring_starts=np.cumsum([0, *map(len, flat)]),
        polygon_starts=np.cumsum([0, *map(len, rings)]),
    )
    ids = np.arange(len(shapes)) % 3 if class_id is None else np.array(class_id)
    return Annotations.of(polygons, ids, classes=classes, kind="object")


def test_pixel_edge_polygons_are_filled_exactly_with_their_holes():
    shape = shapely.Polygon(square(1, 2, 6), [square(3, 4, 2)])
    labels, class_id = of_shapes([shape]).instances(Box(0, 0, 10, 10), Scale(1, 1))
    want = np.zeros((10, 10), int)
    want[2:8, 1:7] = 1
    want[4:6, 3:5] = 0
    np.testing.assert_array_equal(labels, want)
    assert class_id.tolist() == [0]
    assert labels.dtype == np.int32


def test_neighbours_that_share_an_edge_leave_no_gap_and_do_not_overlap():
    left = shapely.Polygon([(0, 0), (5.3, 0), (9.1, 20), (0, 20), (0, 0)])
    right = shapely.Polygon([(5.3, 0), (20, 0), (20, 20), (9.1, 20), (5.3, 0)])
    box = Box(0, 0, 20, 20)
    apart = [of_shapes([s]).regions(box, Scale(1.0, 1.0)) for s in (left, right)]
    np.testing.assert_array_equal(apart[0] + apart[1], np.ones((20, 20)))


def test_later_objects_cover_earlier_ones_and_hidden_ones_have_no_id():
    shapes = [
        shapely.Polygon(square(2, 2, 2)),
        shapely.Polygon(square(0, 0, 6)),
        shapely.Polygon(square(5, 5, 3)),
    ]
    labels, class_id = of_shapes(shapes).instances(Box(0, 0, 8, 8), Scale(1, 1))
    assert class_id.tolist() == [1, 2]
    assert labels[3, 3] == 1
    assert labels[5, 5] == 2
    classes = of_shapes(shapes).regions(Box(0, 0, 8, 8), Scale(1.0, 1.0))
    assert (classes[3, 3], classes[5, 5], classes[0, 7]) == (2, 3, 0)
    assert classes.dtype == np.uint8


def random_annotations(seed, n=12):
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        radius = rng.uniform(2, 14, len(angle))
        centre = rng.uniform(-5, 65, 2)
        shell = centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        if rng.random() < 0.3:
            shell = np.round(shell)  # vertices and edges on pixel corners are where rules differ
        holes = [centre + (shell - centre) * 0.4] if rng.random() < 0.5 else []
        shapes.append(shapely.Polygon(shell, holes))
    return of_shapes(shapes), shapes


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0), (1.37, 1.37), (0.5, 0.75)])
def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre(scale):
    annotations, shapes = random_annotations(3)
    box = Box(-3, 2, 57, 60)
    got = annotations.regions(box, Scale(*scale))
    x = (np.arange(box.col0, box.col1) + 0.5) * scale[1]
    y = (np.arange(box.row0, box.row1) + 0.5) * scale[0]
    grid_x, grid_y = np.meshgrid(x, y)
    want, on_edge = np.zeros(box.shape, int), np.zeros(box.shape, bool)
    for k, shape in enumerate(shapes):
        if not shape.is_valid:
            on_edge |= shapely.contains_xy(
                shape.convex_hull, grid_x, grid_y
            )  # even-odd has its own view of crossings
            continue
        want[shapely.contains_xy(shape, grid_x, grid_y)] = k % 3 + 1
        on_edge |= shapely.dwithin(shape.boundary, shapely.points(grid_x, grid_y), 1e-9)
    np.testing.assert_array_equal(got[~on_edge], want[~on_edge])
    assert (~on_edge).mean() > 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 59),
    st.integers(1, 59),
    st.sampled_from([1.0, 2.0, 1 / 3, 1.37, 4.0000031]),
)
def test_pieces_are_the_same_parts_of_the_whole(seed, row, col, scale):
    annotations, _ = random_annotations(seed)
    whole_box = Box(-4, -4, 60, 60)
    whole = annotations.regions(whole_box, Scale(scale, scale))
    labels, class_id = annotations.instances(whole_box, Scale(scale, scale))
    for box in (Box(-4, -4, row, col), Box(-4, col, row, 60), Box(row, -4, 60, 60)):
        part = whole[box.slices_in(whole_box)]
        np.testing.assert_array_equal(annotations.regions(box, Scale(scale, scale)), part)
        got, got_class = annotations.instances(box, Scale(scale, scale))
        want = labels[box.slices_in(whole_box)]
        present = np.unique(want[want > 0])
        np.testing.assert_array_equal(
            got, np.where(want > 0, np.searchsorted(present, want) + 1, 0)
        )
        np.testing.assert_array_equal(got_class, class_id[present - 1])


def test_objects_in_a_box_are_those_whose_extent_meets_it():
    annotations = of_shapes([shapely.Polygon(square(0, 0, 4)), shapely.Polygon(square(10, 10, 4))])
    for box, left in (
        (Box(0, 0, 20, 20), [0, 10]),
        (Box(4, 4, 10, 10), []),
        (Box(3, 3, 11, 11), [0, 10]),
    ):
        assert annotations.boxes(box, Scale(1.0, 1.0))[0][:, 0].tolist() == left


def test_boxes_and_points_come_in_grid_px_with_full_extent():
    annotations = of_shapes(
        [shapely.Polygon(square(4, 8, 8)), shapely.Polygon(square(100, 100, 8))]
    )
    boxes, class_id = annotations.boxes(Box(0, 0, 3, 3), Scale(4.0, 2.0))
    assert boxes.tolist() == [[2, 2, 6, 4]]
    assert class_id.tolist() == [0]
    assert annotations.points(Box(0, 0, 3, 3), Scale(4.0, 2.0))[0].tolist() == []
    assert annotations.points(Box(3, 4, 4, 5), Scale(4.0, 2.0))[0].tolist() == [[4, 3]]


def test_the_point_of_a_polygon_is_its_centre_of_area_without_its_holes():
    shapes = [
        shapely.Polygon(square(0, 0, 8), [square(0.5, 0.5, 3)]),
        shapely.Polygon(square(0, 0, 6)[::-1]),
    ]
    xy, _ = of_shapes(shapes).points(Box(0, 0, 9, 9), Scale(1.0, 1.0))
    np.testing.assert_allclose(xy, [list(s.centroid.coords[0]) for s in shapes])


def test_a_label_image_and_the_polygons_of_its_pixels_give_the_same_crops():
    values = np.zeros((30, 40), np.uint16)
    values[3:9, 4:10], values[9:14, 4:20], values[20:30, 30:40] = 700, 5, 65535
    source = from_array(values, classes=["nucleus"])
    assert source.ids.tolist() == [5, 700, 65535]
    shapes = [shapely.box(4, 9, 20, 14), shapely.box(4, 3, 10, 9), shapely.box(30, 20, 40, 30)]
    polygons = of_shapes(shapes, [0, 0, 0], ("nucleus",))
    for box in (Box(0, 0, 30, 40), Box(-5, -5, 10, 12), Box(8, 2, 50, 50)):
        for scale in (Scale(1.0, 1.0), Scale(2.0, 2.0), Scale(1.3, 0.7)):
            for got, want in zip(
                source.instances(box, scale), polygons.instances(box, scale), strict=True
            ):
                np.testing.assert_array_equal(got, want)
            for got, want in zip(source.boxes(box, scale), polygons.boxes(box, scale), strict=True):
                np.testing.assert_allclose(got, want)
            np.testing.assert_allclose(source.points(box, scale)[0], polygons.points(box, scale)[0])
            np.testing.assert_array_equal(source.regions(box, scale), polygons.regions(box, scale))
