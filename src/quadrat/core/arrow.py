"""Columns of tables from numpy and back, by their buffers.

Pyarrow's own conversions import pandas where it is installed, to see whether they were given a
column of it, which takes longer than all tables of a small slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def plain(values: npt.NDArray[Any], *, valid: pa.Buffer | None = None) -> pa.Array:
    """A column of numbers (n,), without a copy if they lie together. ``valid``: a bit for each."""
    together = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(together.dtype)
    return pa.Array.from_buffers(kind, len(together), [valid, pa.py_buffer(together)])


def nullable(values: npt.NDArray[np.floating[Any]]) -> pa.Array:
    """The same, with nulls for nan."""
    bits = np.packbits(~np.isnan(values), bitorder="little")
    return plain(values, valid=pa.py_buffer(bits))


def varied(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """A column of texts or bytes (together below 2 GiB)."""
    ends = np.cumsum([0, *map(len, values)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{ends[-1]} bytes in {len(values)} values are too many for one column")
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.Array.from_buffers(kind, len(values), [None, offsets, pa.py_buffer(b"".join(values))])


def numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values (n,) of a column of numbers without nulls."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    parts = [
        np.frombuffer(part.buffers()[1], dtype, len(part), part.offset * dtype.itemsize)
        for part in column.chunks
        if len(part)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])
