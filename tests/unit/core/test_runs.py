import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quadrat.core.geometry import Box
from quadrat.core.runs import Runs, paint, runs_of

LABELS = arrays(
    np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)
)


@settings(deadline=None)
@given(LABELS, st.integers(-3, 9), st.integers(-3, 9), st.integers(0, 9), st.integers(0, 9))
def test_painting_runs_gives_back_what_falls_into_the_box(labels, row, col, height, width):
    runs = runs_of(labels, n=4, origin=(2, 1))
    assert np.array_equal(np.lexsort((runs.col0, runs.row, runs.object)), np.arange(len(runs)))
    plane = np.pad(labels, 20)
    want = plane[20 + row - 2 :, 20 + col - 1 :][:height, :width]
    found = paint(runs, np.array([1, 2, 3, 4]), Box(row, col, row + height, col + width))
    assert found.dtype == np.uint32
    assert np.array_equal(found, want)


@settings(deadline=None)
@given(LABELS, LABELS, st.randoms(use_true_random=False))
def test_where_masks_overlap_the_greatest_id_is_seen_in_any_order(first, second, random):
    a, b = runs_of(first, n=4, origin=(0, 0)), runs_of(second, n=4, origin=(0, 0))
    b = Runs(object=b.object + np.int32(4), row=b.row, col0=b.col0, col1=b.col1)
    both = Runs.concatenate([a, b])
    ids = np.arange(1, 9) * 10
    box = Box(0, 0, 12, 12)
    want = np.zeros((12, 12), np.uint32)
    want[: first.shape[0], : first.shape[1]] = first * 10
    hidden = np.zeros((12, 12), np.uint32)
    hidden[: second.shape[0], : second.shape[1]] = np.where(second > 0, second * 10 + 40, 0)
    order = list(range(len(both)))
    random.shuffle(order)
    assert np.array_equal(
        paint(both.take(np.array(order, np.intp)), ids, box), np.maximum(want, hidden)
    )


def test_touching_labels_in_one_row_are_separate_runs():
    runs = runs_of(np.array([[2, 2, 1, 1, 0, 2]], np.uint32), n=2, origin=(5, 10))
    assert runs.object.tolist() == [0, 1, 1]
    assert runs.row.tolist() == [5, 5, 5]
    assert runs.col0.tolist() == [12, 10, 15]
    assert runs.col1.tolist() == [14, 12, 16]


def test_ids_that_do_not_fit_are_refused():
    runs = runs_of(np.array([[1]], np.int32), n=1, origin=(0, 0))
    with pytest.raises(ValueError, match="want 1 to 255 for uint8"):
        paint(runs, np.array([256]), Box(0, 0, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="want 1 to"):
        paint(runs, np.array([0]), Box(0, 0, 1, 1))
    with pytest.raises(ValueError, match="there are 0 ids"):
        paint(runs, np.array([], np.int64), Box(0, 0, 1, 1))


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="labels holds 3"):
        runs_of(np.array([[3]], np.int32), n=2, origin=(0, 0))


def test_no_runs_paint_nothing():
    assert not paint(Runs.concatenate([]), np.array([], np.int64), Box(0, 0, 3, 4)).any()
