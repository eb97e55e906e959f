"""Windows with most objects: against every window that could be one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.measure import hotspots
from quadrat.measure.hotspots import Window, best_circles, best_squares

place = st.integers(0, 40).map(lambda v: v / 4)
fields = st.lists(st.tuples(place, place), min_size=1, max_size=14).map(
    lambda points: np.array(points, float)
)


def crossings(a, ra, b, rb):
    """Where two circles meet."""
    d = math.dist(a, b)
    if d == 0 or d > ra + rb or d < abs(ra - rb):
        return []
    along = (ra**2 - rb**2 + d**2) / (2 * d)
    high = math.sqrt(max(ra**2 - along**2, 0))
    ux, uy = (b[0] - a[0]) / d, (b[1] - a[1]) / d
    x, y = a[0] + along * ux, a[1] + along * uy
    return [(x - high * uy, y + high * ux), (x + high * uy, y - high * ux)]


def circles_by_hand(points, radius, best):
    found = []
    points = points.copy()
    while len(points) and len(found) < best:
        rims = [(tuple(p), radius) for p in points.tolist()]
        rims += [((w.x, w.y), 2 * radius) for w in found]
        centres = [(x, y - r) for (x, y), r in rims]
        centres += [
            c for i, one in enumerate(rims) for two in rims[:i] for c in crossings(*one, *two)
        ]
        ranked = []
        for x, y in centres:
            if any(math.dist((x, y), (w.x, w.y)) < 2 * radius * (1 - 1e-10) for w in found):
                continue
            count = int((np.hypot(*(points - (x, y)).T) <= radius * (1 + 1e-10)).sum())
            if count:
                ranked.append((-count, round(y, 6), round(x, 6)))
        if not ranked:
            break
        count, y, x = min(ranked)
        found.append(Window(x, y, -count))
        points = points[np.hypot(*(points - (x, y)).T) > radius + 1e-6]
    return found


def squares_by_hand(points, side, best):
    found = []
    while len(found) < best:
        corners = [(w.x - side / 2, w.y - side / 2) for w in found]
        lefts = {*points[:, 0], *(x + d for x, _ in corners for d in (-side, side))}
        tops = {*points[:, 1], *(y + d for _, y in corners for d in (-side, side))}
        ranked = []
        for x in lefts:
            for y in tops:
                if any(abs(x - a) < side and abs(y - b) < side for a, b in corners):
                    continue
                held = (points >= (x, y)) & (points < (x + side, y + side))
                if held.all(axis=1).any():
                    ranked.append((-int(held.all(axis=1).sum()), y, x))
        if not ranked:
            break
        count, y, x = min(ranked)
        found.append(Window(x + side / 2, y + side / 2, -count))
    return found


@settings(max_examples=60, deadline=None)
@given(fields, st.sampled_from([0.7, 1.25, 2.9]), st.integers(1, 3))
def test_circles_are_the_best_of_all_that_touch_two_objects(points, radius, best):
    found = best_circles(points, radius, best=best)
    wanted = circles_by_hand(points, radius, best)
    assert [w.count for w in found] == [w.count for w in wanted]
    for got, want in zip(found, wanted, strict=True):
        assert (got.x, got.y) == pytest.approx((want.x, want.y), abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(fields, st.sampled_from([0.75, 1.25, 3.0]), st.integers(1, 4))
def test_squares_are_the_best_of_all_with_objects_on_their_sides(points, side, best):
    assert best_squares(points, side, best=best) == squares_by_hand(points, side, best)


def test_a_circle_is_closed():
    points = np.array([(3.0, 1.0), (5.0, 1.0), (9.0, 1.0)])
    (window,) = best_circles(points, 1.0, best=1)
    assert (window.x, window.y, window.count) == pytest.approx((4.0, 1.0, 2), abs=1e-5)


def test_circles_touch_but_do_not_overlap():
    points = np.array([(0, 0), (0.2, 0), (2.1, 0), (2.3, 0)], float)
    found = best_circles(points, 1.0, best=5)
    assert [w.count for w in found] == [2, 2]
    assert math.dist((found[0].x, found[0].y), (found[1].x, found[1].y)) >= 2 - 1e-6


def test_of_equal_windows_the_upper_one_is_taken_then_the_left_one():
    points = np.array([(30.0, 10.0), (10.0, 10.0), (20.0, 30.0)])
    circle, square = best_circles(points, 2.0, best=1)[0], best_squares(points, 4.0, best=1)[0]
    assert (circle.x, circle.y) == (10.0, 8.0)
    assert (square.x, square.y) == (12.0, 12.0)


def test_the_order_of_the_objects_changes_nothing():
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 50, (300, 2))
    shuffled = rng.permutation(points)
    assert best_circles(points, 4.0, best=4) == best_circles(shuffled, 4.0, best=4)
    assert best_squares(points, 7.0, best=4) == best_squares(shuffled, 7.0, best=4)


def test_the_first_look_leaves_out_objects_and_never_the_best_window(monkeypatch):
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.uniform(0, 100, (1500, 2)), rng.normal(60, 3, (120, 2))])
    kept = []
    worth = hotspots._worth

    def watched(*words):
        kept.append(len(worth(*words)))
        return worth(*words)

    monkeypatch.setattr(hotspots, "_worth", watched)
    found = best_circles(points, 6.0, best=3)
    assert max(kept) < len(points) / 2
    monkeypatch.setattr(hotspots, "_worth", lambda p, *words: np.arange(len(p)))
    assert best_circles(points, 6.0, best=3) == found


def test_no_objects_have_no_window():
    none = np.zeros((0, 2))
    assert best_circles(none, 1.0, best=2) == best_squares(none, 1.0, best=2) == []
