"""Shapes of outlines: against scikit-image on their pixels, and shapely on their corners."""

import numpy as np
import pytest
import shapely
from scipy import ndimage
from skimage import draw, measure

from quadrat.core.objects import Polygons
from quadrat.core.outlines import trace
from quadrat.measure.shapes import circularity, shapes_of


def blobs():
    """Label image with ellipses, a ring, a bar, one pixel and a C."""
    image = np.zeros((120, 160), np.uint8)
    for k, (r, c, a, b, turn) in enumerate(
        [(20, 20, 12, 6, 0.3), (20, 60, 9, 9, 0), (60, 25, 15, 4, 1.1), (60, 80, 17, 11, 2.0)]
    ):
        image[draw.ellipse(r, c, a, b, shape=image.shape, rotation=turn)] = k + 1
    image[draw.disk((95, 30), 14, shape=image.shape)] = 5
    image[draw.disk((95, 30), 7, shape=image.shape)] = 0
    image[90:94, 60:100] = 6
    image[110, 110] = 7
    image[20:50, 110:140], image[28:42, 118:140] = 8, 0
    labels, n = ndimage.label(image)
    return labels.astype(np.int32), n


@pytest.fixture(scope="module")
def traced():
    labels, n = blobs()
    return labels, trace(labels, n=n, origin=(0, 0))


def geometries(polygons):
    starts = polygons.ring_starts, polygons.polygon_starts
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, polygons.xy, starts)


def test_axes_and_eccentricity_are_those_of_scikit_image_with_the_area_of_its_pixels(traced):
    """Of pixel centres the second moments are 1/12 px² smaller than those of whole pixels."""
    labels, polygons = traced
    found = shapes_of(polygons)
    for k, props in enumerate(measure.regionprops(labels)):
        mu = props.moments_central
        area = mu[0, 0]
        tensor = np.array([[mu[2, 0], mu[1, 1]], [mu[1, 1], mu[0, 2]]]) / area + np.eye(2) / 12
        small, big = np.linalg.eigvalsh(tensor)
        assert found.major_axis_um[k] == pytest.approx(4 * np.sqrt(big), rel=1e-9)
        assert found.minor_axis_um[k] == pytest.approx(4 * np.sqrt(small), rel=1e-9)
        wanted = np.sqrt(max(1 - small / big, 0))
        assert found.eccentricity[k] == pytest.approx(wanted, abs=1e-6)


def test_solidity_and_diameters_are_those_of_the_convex_hull_of_shapely(traced):
    _, polygons = traced
    found = shapes_of(polygons)
    for k, shape in enumerate(geometries(polygons)):
        hull = shapely.convex_hull(shape)
        corners = shapely.get_coordinates(hull)
        apart = np.linalg.norm(corners[:, None] - corners[None], axis=2)
        assert found.solidity[k] == pytest.approx(shape.area / hull.area, rel=1e-9)
        assert found.max_diameter_um[k] == pytest.approx(apart.max(), rel=1e-12)
        assert found.min_diameter_um[k] == pytest.approx(least_width(corners), rel=1e-9)


def least_width(corners):
    """By turning the corners: the least width lies square to an edge."""
    edges = np.diff(corners, axis=0)
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1)[:, None]
    return min(np.ptp(corners @ normal) for normal in normals)


def test_diameters_are_near_those_of_scikit_image(traced):
    labels, polygons = traced
    found = shapes_of(polygons)
    for k, props in enumerate(measure.regionprops(labels)):
        assert found.max_diameter_um[k] == pytest.approx(props.feret_diameter_max, abs=0.8)
        assert found.solidity[k] == pytest.approx(props.solidity, abs=0.06)


def test_turning_a_polygon_changes_nothing_but_rounding():
    rng = np.random.default_rng(1)
    shape = rng.normal(size=(12, 2)) * (6, 2)
    ring = shapely.get_coordinates(shapely.convex_hull(shapely.MultiPoint(shape)))
    turns = [0.0, 0.4, 1.3, 2.9]
    rotated = [
        ring @ np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) + 1000 for t in turns
    ]
    starts = np.arange(5) * len(ring)
    found = shapes_of(Polygons(np.concatenate(rotated), starts, np.arange(5)))
    for name in found.COLUMNS:
        np.testing.assert_allclose(getattr(found, name), getattr(found, name)[0], rtol=1e-9)


def test_an_outline_without_area_has_no_shape():
    flat = np.array([(0, 0), (4, 0), (0, 0)], float)
    found = shapes_of(Polygons(flat, np.array([0, 3]), np.array([0, 1])))
    assert all(np.isnan(getattr(found, name)).all() for name in found.COLUMNS)


def test_circularity_is_one_for_a_circle_and_less_for_a_square():
    got = circularity(np.array([np.pi, 4.0, 1.0]), np.array([2 * np.pi, 8.0, 0.0]))
    assert got[:2] == pytest.approx([1.0, np.pi / 4])
    assert np.isnan(got[2])
