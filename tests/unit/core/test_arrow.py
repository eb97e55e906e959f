"""Columns by their buffers are those that pyarrow makes."""

import numpy as np
import pyarrow as pa
import pytest

from quadrat.core.arrow import nullable, numbers, plain, varied


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("length", [0, 1, 9, 1000])
def test_numbers_are_those_of_pyarrow_whether_they_lie_together_or_not(dtype, length):
    values = np.arange(2 * length).astype(dtype)
    for given in (values, values[::2], values.reshape(-1, 2)[:, 1] if length else values):
        found = plain(given)
        found.validate(full=True)
        assert found.equals(pa.array(given))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1000])
def test_nan_is_null(length):
    values = np.arange(length, dtype=np.float32)
    values[::3] = np.nan
    found = nullable(values)
    found.validate(full=True)
    assert found.equals(pa.array(values, mask=np.isnan(values)))
    assert found.null_count == int(np.isnan(values).sum())


def test_texts_and_bytes_are_those_of_pyarrow():
    for values, kind in (
        ([b"", b"a", "größe".encode()], pa.string()),
        ([], pa.string()),
        ([b"\0" * 9], pa.binary()),
    ):
        found = varied(values, kind)
        found.validate(full=True)
        assert found.equals(pa.array(values, kind))


@pytest.mark.parametrize("dtype", ["u1", "i4", "f2", "f8"])
def test_numbers_come_back_from_one_piece_several_or_none(dtype):
    values = np.arange(12).astype(dtype)
    whole = plain(values)
    for pieces in ([], [whole], [whole[3:5], whole[:0], whole[5:]]):
        column = pa.chunked_array(pieces, whole.type)
        found = numbers(column)
        assert found.dtype == values.dtype
        assert found.tolist() == column.to_pylist()
