"""Points in regions: against exact arithmetic, and never in two regions that share a border."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.measure.inside import Edges
from quadrat.measure.regions import Region, polygons_of

SQUARE = np.array([(0, 0), (8, 0), (8, 8), (0, 8), (0, 0)], float)
GRID = np.stack(np.meshgrid(np.arange(-2, 11, 0.5), np.arange(-2, 11, 0.5)), axis=-1).reshape(-1, 2)


def ring(*corners):
    return np.array([*corners, corners[0]], float)


def members(points, *rings):
    drawn = polygons_of([rings])
    return Edges.of(drawn.xy, drawn.ring_starts).inside(points).tolist()


def by_hand(points, *rings):
    """The rule of the module in rational numbers, point by point."""
    found = []
    for i, (x, y) in enumerate(points.tolist()):
        x, y = Fraction(x), Fraction(y)
        odd = False
        for one in rings:
            corners = [(Fraction(a), Fraction(b)) for a, b in one.tolist()]
            for (ax, ay), (bx, by) in pairwise(corners):
                if (ay <= y) != (by <= y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
                    odd = not odd
        if odd:
            found.append(i)
    return found


def test_left_and_upper_borders_belong_to_a_square_and_right_and_lower_ones_do_not():
    points = np.array([(0, 0), (4, 0), (0, 4), (8, 4), (4, 8), (8, 8), (4, 4)], float)
    assert members(points, SQUARE) == [0, 1, 2, 6]


coordinate = st.integers(0, 8).map(float)
rings = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9).map(
    lambda corners: ring(*corners)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rings, min_size=1, max_size=4))
def test_any_rings_hold_what_exact_arithmetic_says(drawn):
    assert members(GRID, *drawn) == by_hand(GRID, *drawn)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 7.9), st.floats(0.1, 7.9), st.floats(-3, 3))
def test_regions_that_share_a_border_never_share_a_point_and_lose_none(top, bottom, bend):
    cut = [(top, 0.0), (4.0 + bend / 10, 4.0), (bottom, 8.0)]
    left, right = ring((0, 0), *cut, (0, 8)), ring(*cut, (8, 8), (8, 0))
    on_the_cut = np.array([*cut, ((top + cut[1][0]) / 2, 2.0), ((bottom + cut[1][0]) / 2, 6.0)])
    points = np.concatenate([GRID, on_the_cut])
    both = members(points, left) + members(points, right)
    assert sorted(both) == members(points, SQUARE)


def test_a_hole_and_an_island_in_it():
    hole, island = ring((2, 2), (6, 2), (6, 6), (2, 6)), ring((3, 3), (5, 3), (5, 5), (3, 5))
    points = np.array([(1, 1), (2, 2), (2.5, 2.5), (3, 3), (5, 5), (6, 6)], float)
    assert members(points, SQUARE, hole, island) == [0, 3, 5]


@pytest.mark.parametrize("turns", [False, True])
def test_a_bow_tie_holds_both_wings(turns):
    tie = ring((0, 0), (8, 8), (8, 0), (0, 8))
    points = np.array([(4, 1), (1, 4), (7, 4), (4, 7)], float)
    assert members(points, tie[::-1] if turns else tie) == [1, 2]


def test_a_region_without_rings_holds_nothing():
    assert members(GRID) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(rings, min_size=1, max_size=3))
def test_the_shape_of_a_region_holds_the_same_points(drawn):
    """Points that are on no border, where shapely and the half-open rule agree."""
    region = Region("r", "", "drawn", polygons_of([(one,) for one in drawn]))
    shape = region.shape()
    lines = shapely.MultiLineString(drawn)
    clear = ~shapely.intersects_xy(lines, *GRID.T)
    inside = np.zeros(len(GRID), bool)
    inside[members(GRID, *drawn)] = True
    assert np.array_equal(inside[clear], shapely.contains_xy(shape, *GRID[clear].T))
