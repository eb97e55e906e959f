"""Halving images and label images for pyramids (pure)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel

Reduce = Literal["mean", "mode", "nearest"]
Array = npt.NDArray[Any]


def pyramid_depth(height: int, width: int, *, min_size: int = 512) -> int:
    """Number of levels, including level 0, until the longer side is at most ``min_size`` px."""
    depth = 1
    while max(height, width) > min_size:
        height, width, depth = -(-height // 2), -(-width // 2), depth + 1
    return depth


def halve(array: Array, reduce: Reduce) -> Array:
    """Halve rows and columns of (leading..., h, w). Odd sides are rounded up; a last single row or
    column is repeated.

    mean: mean of the 2 x 2 px, rounded half up (integers), for images. mode: the most frequent of
    the four, the lowest of equals, for class labels. nearest: the top-left px, for instance ids.
    """
    if reduce == "nearest":
        return np.ascontiguousarray(array[..., ::2, ::2])
    height, width = array.shape[-2:]
    pad = [(0, 0)] * (array.ndim - 2) + [(0, height % 2), (0, width % 2)]
    even = np.pad(array, pad, mode="edge") if height % 2 or width % 2 else array
    four = [even[..., r::2, c::2] for r in (0, 1) for c in (0, 1)]
    if reduce == "mean":
        return _mean(four, array.dtype)
    out = np.empty(four[0].shape, array.dtype)
    first, second, third, fourth = (np.ascontiguousarray(part).ravel() for part in four)
    _mode(first, second, third, fourth, out.reshape(-1))
    return out


def _mean(four: list[Array], dtype: np.dtype[Any]) -> Array:
    """Mean of four arrays; integers are summed exactly and rounded half up."""
    if dtype.kind == "f":
        return np.asarray((four[0] + four[1] + four[2] + four[3]) / 4, dtype)
    wide = np.int32 if dtype.itemsize <= 2 else np.int64
    total = np.full(four[0].shape, 2, wide)
    for part in four:
        total += part
    return (total >> 2).astype(dtype)


@kernel
def _mode(a, b, c, d, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for i in range(out.size):
        w, x, y, z = a[i], b[i], c[i], d[i]
        if w > x:
            w, x = x, w
        if y > z:
            y, z = z, y
        if w > y:
            w, y = y, w
        if x > z:
            x, z = z, x
        if x > y:
            x, y = y, x
        # sorted w <= x <= y <= z: the first longest run
        if w == x:
            out[i] = w
        elif x == y:
            out[i] = x
        elif y == z:
            out[i] = y
        else:
            out[i] = w
