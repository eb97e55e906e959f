"""How a level is made of the one below it."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quadrat.store.pyramid import halve, pyramid_depth


def brute_mode(four: Sequence[int]) -> int:
    values, counts = np.unique(np.array(four), return_counts=True)
    return int(values[counts.argmax()])


@given(st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_the_mode_is_the_most_frequent_and_the_lowest_on_a_tie(four: list[int]) -> None:
    block = np.array(four, np.uint8).reshape(2, 2)
    assert halve(block, "mode").tolist() == [[brute_mode(four)]]


def test_the_mean_is_rounded_half_up_in_every_width() -> None:
    for dtype in (np.uint8, np.uint16, np.uint32):
        top = np.iinfo(dtype).max
        block = np.array([[0, 1], [0, 1]], dtype), np.full((2, 2), top, dtype)
        assert [halve(b, "mean").item() for b in block] == [1, top]


def test_odd_sides_are_rounded_up_and_the_last_stands_for_itself() -> None:
    picture = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert halve(picture, "nearest").tolist() == [[0, 2, 4], [10, 12, 14]]
    assert halve(picture, "mean")[1].tolist() == [11, 13, 14]
    assert halve(picture, "mode")[1].tolist() == [10, 12, 14]


def test_the_depth_ends_at_the_least_size() -> None:
    assert [pyramid_depth(n, 10) for n in (1, 512, 513, 1024, 1025, 100_000)] == [1, 1, 2, 2, 3, 9]
