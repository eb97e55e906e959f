"""Nothing that meets a box is missed, whatever the extents; and most of the others are left out."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.extents import FEW, Extents
from quadrat.annotations.formats.label_image import LabelImage
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Polygons


def random_extents(rng, n, *, side, largest):
    corner = np.floor(rng.uniform(-50, side, (n, 2)) * 4) / 4
    return np.concatenate([corner, corner + np.floor(rng.uniform(0, largest, (n, 2)) * 4) / 4], 1)


def touching(extents, box):
    """By looking at every one of them."""
    with np.errstate(invalid="ignore"):
        low, high = extents[:, :2] <= box[2:], extents[:, 2:] >= box[:2]
    return np.flatnonzero(low.all(axis=1) & high.all(axis=1))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([FEW // 4, FEW + 1, 3 * FEW]),
    st.sampled_from([0.5, 30.0, 900.0]),
)
def test_all_that_meet_or_touch_a_box_are_found_in_their_order(seed, n, largest):
    rng = np.random.default_rng(seed)
    extents = random_extents(rng, n, side=1000, largest=largest)
    extents[rng.random(n) < 0.1] = np.nan
    points = rng.random(n) < 0.1
    extents[points, 2:] = extents[points, :2]
    index = Extents(extents)
    for _ in range(10):
        box = random_extents(rng, 1, side=1000, largest=200)[0]
        found = index.near(*box)
        assert (np.diff(found) > 0).all()
        assert np.isin(touching(extents, box), found).all()


def test_most_of_what_is_far_away_is_left_out():
    extents = random_extents(np.random.default_rng(0), 100_000, side=100_000, largest=30)
    found = Extents(extents).near(5000.0, 5000.0, 5600.0, 5600.0)
    assert 0 < len(found) < 40, "4 are to be expected"


@pytest.mark.parametrize("n", [0, 1, FEW, FEW + 1])
def test_any_number_of_extents_will_do(n):
    extents = np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))
    assert len(Extents(extents).near(0.0, 0.0, 5.0, 5.0)) == n


# -- in annotations: windows of a slide with many objects


MANY, SIDE = 400_000, 80_000


def squares(rng, n):
    corner = rng.integers(0, SIDE, (n, 2)).astype(np.float64)
    return np.concatenate([corner, corner + rng.integers(4, 40, (n, 2))], axis=1)


def annotations(xyxy, class_id, object_id):
    """Annotations of squares, those of one object one after the other."""
    ring = np.array([[0, 1], [2, 1], [2, 3], [0, 3]])
    starts = np.arange(len(xyxy) + 1)
    polygons = Polygons(xyxy[:, ring].reshape(-1, 2), starts * 4, starts)
    return Annotations.of(
        polygons, class_id, classes=("a", "b"), kind="object", object_id=object_id
    )


def drawn(rng, n):
    """Annotations of n objects."""
    return annotations(squares(rng, n), rng.integers(0, 2, n), np.arange(n))


def painted(rng, n):
    """A label image of n objects, without its pixels."""
    xyxy = squares(rng, n)
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    ids = np.arange(n)
    return LabelImage(np.zeros((1, 1), np.int32), ("a",), "object", ids % 2, xyxy, centres, ids)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("scale", [Scale(1.0, 1.0), Scale(1.7, 1.3)])
def test_many_objects_answer_as_the_few_near_a_box_alone(parts, scale):
    """Few objects are looked at one by one."""
    rng = np.random.default_rng(parts)
    first = squares(rng, 3 * FEW)
    away = np.tile(rng.integers(0, 90, (len(first), parts, 2)), 2)
    away[:, 0] = 0
    xyxy = first[:, None] + away
    class_id, number = rng.integers(0, 2, len(first)), np.arange(len(first))
    whole = annotations(xyxy.reshape(-1, 4), np.repeat(class_id, parts), np.repeat(number, parts))
    for _ in range(12):
        row, col = (int(v) for v in rng.integers(-500, SIDE // 2, 2))
        box = Box(row, col, row + 6000, col + 5000)
        x0, y0, x1, y1 = scale.box_l0(box.pad(200))
        near = (first[:, :2] < [x1, y1]).all(axis=1) & (first[:, 2:] > [x0, y0]).all(axis=1)
        assert 5 < near.sum() < FEW / parts
        alone = annotations(
            xyxy[near].reshape(-1, 4),
            np.repeat(class_id[near], parts),
            np.repeat(np.arange(near.sum()), parts),
        )
        for name in ("boxes", "points", "instances"):
            answers = (getattr(truth, name)(box, scale) for truth in (whole, alone))
            for one, other in zip(*answers, strict=True):
                assert np.array_equal(one, other), name
        assert np.array_equal(whole.regions(box, scale), alone.regions(box, scale))


@pytest.mark.parametrize("name", ["boxes", "points"])
@pytest.mark.parametrize("kind", ["drawn", "painted"])
def test_a_thousand_windows_cost_less_than_a_few_looks_at_all_objects(kind, name):
    """When every window was compared with every object, they cost a thousand looks and more."""
    rng = np.random.default_rng(0)
    truth = drawn(rng, MANY) if kind == "drawn" else painted(rng, MANY)
    ask, scale = getattr(truth, name), Scale(1.0, 1.0)
    ask(Box(0, 0, 9, 9), scale)  # the index is made
    began = time.process_time()
    corners = rng.integers(0, SIDE, (1000, 2)).tolist()
    found = sum(len(ask(Box(r, c, r + 600, c + 600), scale)[0]) for r, c in corners)
    took = time.process_time() - began
    assert found > 15_000
    xyxy = squares(rng, MANY)
    began = time.process_time()
    for _ in range(20):
        np.flatnonzero((xyxy[:, :2] < 600).all(axis=1) & (xyxy[:, 2:] > 0).all(axis=1))
    look = (time.process_time() - began) / 20
    assert took < 300 * look
