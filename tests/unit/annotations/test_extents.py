"""Nothing that meets a box is missed, whatever the extents; and most of the others are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.annotations.extents import FEW, Extents


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
        found = index.near(box)
        assert (np.diff(found) > 0).all()
        assert np.isin(touching(extents, box), found).all()


def test_most_of_what_is_far_away_is_left_out():
    extents = random_extents(np.random.default_rng(0), 100_000, side=100_000, largest=30)
    found = Extents(extents).near(np.array([5000.0, 5000.0, 5600.0, 5600.0]))
    assert 0 < len(found) < 40, "4 are to be expected"


@pytest.mark.parametrize("n", [0, 1, FEW, FEW + 1])
def test_any_number_of_extents_will_do(n):
    extents = np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))
    assert len(Extents(extents).near(np.array([0.0, 0.0, 5.0, 5.0]))) == n
