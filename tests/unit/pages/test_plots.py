"""Places in plots."""

import pytest

from quadrat.pages.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    histogram,
    nice_marks,
    scatter,
)


@pytest.mark.parametrize(
    ("high", "last"), [(1.0, 1.0), (0.83, 1.0), (1727, 2000), (0, 1), (4.1e-5, 5e-5), (1e7, 1e7)]
)
def test_marks_are_round_and_reach_the_end(high, last):
    marks = nice_marks(0.0, high)
    assert marks[0] == 0
    assert marks[-1] == pytest.approx(last)
    assert 4 <= len(marks) <= 9


def test_dots_lie_between_the_axes():
    plot = scatter([("a", 0.0, 0.0, False), ("b", 4.0, 90.0, True)], title="", across="x", up="y")
    first, last = plot.dots
    assert (first.x, first.y) == (LEFT, HEIGHT - BOTTOM)
    assert last.x == pytest.approx(WIDTH - RIGHT)
    assert TOP <= last.y < HEIGHT - BOTTOM
    assert last.flagged


def test_a_histogram_counts_every_slide():
    values = [0.0, 1.0, 1.5, 7.0, 10.0]
    plot = histogram(values, title="", across="objects")
    assert sum(int(bar.text.split(": ")[1].split()[0]) for bar in plot.bars) == len(values)
    assert {bar.y + bar.height for bar in plot.bars} == {HEIGHT - BOTTOM}
