"""Tables as columns: checked when made, taken and joined in one place."""

import numpy as np
import pytest

from quadrat.core.objects import ObjectTable
from quadrat.core.outlines import Edges
from quadrat.core.predictions import Candidates, TileScores
from quadrat.core.runs import Runs

KINDS = (ObjectTable, Runs, Edges, Candidates)


def made(kind, n, seed=0):
    """A table of n different rows."""
    rng = np.random.default_rng(seed)
    columns = {
        name: rng.integers(1, 100, (n, *(side or 3 for side in row))).astype(dtype)
        for name, (row, dtype) in kind.COLUMNS.items()
    }
    if kind is Candidates:
        columns["box"][:, 2:] += 100
    return kind(**columns)


def same(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in a.COLUMNS)


@pytest.mark.parametrize("kind", [*KINDS, TileScores])
@pytest.mark.parametrize(
    "index", [np.array([3, 0, 0]), np.array([True, False, True, True, False]), slice(1, 4)]
)
def test_rows_are_taken_by_index_mask_or_slice_in_every_column(kind, index):
    whole = made(kind, 5)
    taken = whole.take(index)
    assert type(taken) is kind
    assert len(taken) == 3
    for name in kind.COLUMNS:
        assert np.array_equal(getattr(taken, name), getattr(whole, name)[index])


@pytest.mark.parametrize("kind", [*KINDS, TileScores])
def test_parts_are_joined_in_the_order_given(kind):
    whole = made(kind, 7)
    parts = [whole.take(slice(0, 2)), whole.take(slice(2, 2)), whole.take(slice(2, 7))]
    assert same(kind.concatenate(parts), whole)
    assert not same(kind.concatenate(parts[::-1]), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_no_parts_are_no_rows(kind):
    nothing = kind.concatenate([])
    assert len(nothing) == 0
    assert same(nothing, kind.empty())
    assert same(kind.concatenate([nothing, made(kind, 2)]), made(kind, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_another_length_shape_or_dtype_is_refused_by_name(kind):
    columns = {name: getattr(made(kind, 4), name) for name in kind.COLUMNS}
    first, *others = kind.COLUMNS
    last = others[-1]
    for wrong in (
        columns[last][:3],
        columns[last][..., None],
        columns[last].astype(np.complex128),
    ):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{last} is .*, want .*\(4"):
            kind(**columns | {last: wrong})
    assert len(kind(**columns)) == len(columns[first])


def test_widths_that_a_class_leaves_open_may_differ():
    cell = np.zeros((2, 2), np.int32)
    scores = TileScores(cell, np.zeros((2, 5), np.uint16), np.zeros((2, 0), np.float16))
    assert scores.probability.shape == (2, 5)
    with pytest.raises(ValueError, match=r"TileScores\.probability is .* want uint16\(2, any\)"):
        TileScores(cell, np.zeros(2, np.uint16), np.zeros((2, 0), np.float16))


def test_a_box_without_a_side_is_refused():
    whole = made(Candidates, 2)
    whole.box[1, 2] = whole.box[1, 0]
    with pytest.raises(ValueError, match="side of zero or less"):
        whole.take(np.array([1]))
