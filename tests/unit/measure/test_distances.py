"""Distances: against every pair of objects, and against shapely for borders."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.core.objects import Frame
from quadrat.measure.area import Tissue
from quadrat.measure.borders import border_distance, segments_of, tissue_border
from quadrat.measure.distances import neighbours

points = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(points, st.booleans())
def test_neighbours_are_those_of_all_pairs(drawn, same):
    xy, kind = np.array([p[:2] for p in drawn], float), np.array([p[2] for p in drawn])
    mine, theirs = kind == 0, kind == (0 if same else 1)
    nearest, (close, far) = neighbours(xy, mine, theirs, same=same, radii=(3.0, 10.0))
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    if same:
        np.fill_diagonal(apart, np.inf)
    for i in range(len(xy)):
        if not mine[i]:
            assert np.isnan([nearest[i], close[i], far[i]]).all()
            continue
        mate = apart[i][theirs]
        mate = mate[np.isfinite(mate)]
        assert close[i] == (mate <= 3).sum()
        assert far[i] == (mate <= 10).sum()
        if len(mate):
            assert nearest[i] == pytest.approx(mate.min())
        else:
            assert np.isnan(nearest[i])


def test_distances_to_a_border_are_those_of_shapely():
    shape = shapely.Polygon(
        [(0, 0), (40, 5), (30, 40), (10, 20)], [[(12, 8), (20, 10), (18, 15), (12, 8)]]
    )
    rng = np.random.default_rng(0)
    xy = rng.uniform(-20, 60, (200, 2))
    um = (0.5, 0.25)
    in_um = shapely.transform(shape, lambda p: p * um)
    want = shapely.distance(in_um.boundary, shapely.points(xy * um))
    found = border_distance(xy * um, segments_of(shapely.MultiPolygon([shape]), um))
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)
    near = border_distance(xy * um, segments_of(shape, um), most=2.0)
    assert np.array_equal(np.isfinite(near), want <= 2)


def test_the_border_of_the_analysed_area_has_holes_and_the_edge_of_the_slide():
    codes = np.ones((5, 6), np.uint8)
    codes[:3, :4], codes[1, 1] = 0, 1
    tissue = Tissue(codes, Frame(5, 6, 10.0, 20.0, 20.0))
    found = border_distance(
        np.array([(15, 8.0), (36, 24.0), (2, 25)]), tissue_border(tissue, (0.5, 0.5))
    )
    np.testing.assert_allclose(found, [2.0, 4.0, 2.0])


def test_without_a_border_everything_is_infinitely_far():
    assert np.isinf(border_distance(np.zeros((2, 2)), np.zeros((0, 4)))).all()
