"""Resampling in integers: a region is the same, bit for bit, whether read whole or in many parts.

Weights depend only on the global output index. They are whole numbers that sum to 2^11 per axis.
Sums are exact in 32 bits (255 * 2^11 * 2^11 < 2^30), and rounding (half up) happens once, at the
end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.slides.protocol import Rgb

WEIGHT_BITS = 11


@dataclass(frozen=True, slots=True)
class Taps:
    """Which input pixels make each output pixel of a run, along one axis."""

    first: int
    """The input index of column 0."""
    stop: int
    """One past the last input index that is used."""
    index: npt.NDArray[np.int64]
    """(n, taps) int64: input indices minus ``first``."""
    weight: npt.NDArray[np.int32]
    """(n, taps) int32: each row sums to 2^11."""


def taps(start: int, stop: int, *, ratio: float, size: int) -> Taps:
    """Taps of output pixels ``start`` to ``stop``: ``ratio`` input px make one output px, and there
    are ``size`` input px.

    Reduction (ratio >= 1): the share of [i * ratio, (i + 1) * ratio) that each input pixel covers.
    Enlargement: linear between the two nearest pixel centres. Beyond the picture, the pixel at its
    edge is used.
    """
    out = np.arange(start, stop, dtype=np.float64)
    if ratio >= 1:
        left = out * ratio
        base = np.floor(left).astype(np.int64)
        steps = np.arange(math.ceil(ratio) + 2)
        covered = np.clip((base[:, None] + steps - left[:, None]) / ratio, 0.0, 1.0)
        cumulative = np.floor(covered * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
        weight = np.diff(cumulative, axis=1)
        index = base[:, None] + steps[:-1]
    else:
        centre = (out + 0.5) * ratio - 0.5
        base = np.floor(centre).astype(np.int64)
        upper = np.floor((centre - base) * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
        weight = np.stack([(1 << WEIGHT_BITS) - upper, upper], axis=1)
        index = base[:, None] + np.arange(2)
    index = np.clip(index, 0, size - 1)
    used = weight > 0
    first = int(index[used].min())
    index = np.where(used, index - first, 0)
    return Taps(
        first=first,
        stop=first + int(index.max()) + 1,
        index=index,
        weight=np.ascontiguousarray(weight),
    )


def block_mean(pixels: Rgb, rows: int, cols: int) -> Rgb:
    """Mean of blocks of ``rows`` x ``cols`` px, rounded half up: uint8 (h * rows, w * cols, 3) to
    (h, w, 3)."""
    if rows == 1 and cols == 1:
        return pixels
    height, width = pixels.shape[0] // rows, pixels.shape[1] // cols
    out = np.empty((height, width, 3), np.uint8)
    _block_mean(np.ascontiguousarray(pixels), rows, cols, out)
    return out


def separable(pixels: Rgb, rows: Taps, cols: Taps) -> Rgb:
    """Weighted mean along columns, then along rows. ``pixels`` cover input rows first to stop of
    ``rows`` and the same of ``cols``."""
    middle = np.empty((pixels.shape[0], len(cols.index), 3), np.int32)
    _along_columns(np.ascontiguousarray(pixels), cols.index, cols.weight, middle)
    out = np.empty((len(rows.index), len(cols.index), 3), np.uint8)
    _along_rows(middle, rows.index, rows.weight, out)
    return out


@kernel
def _block_mean(pixels, rows, cols, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    count = rows * cols
    sums = np.empty((out.shape[1], 3), np.int64)
    for r in range(out.shape[0]):
        sums[:] = 0
        for dr in range(rows):
            line = pixels[r * rows + dr]
            for c in range(out.shape[1]):
                red, green, blue = 0, 0, 0
                for dc in range(cols):
                    at = c * cols + dc
                    red += line[at, 0]
                    green += line[at, 1]
                    blue += line[at, 2]
                sums[c, 0] += red
                sums[c, 1] += green
                sums[c, 2] += blue
        for c in range(out.shape[1]):
            for k in range(3):
                out[r, c, k] = (2 * sums[c, k] + count) // (2 * count)


@kernel
def _along_columns(pixels, index, weight, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            red, green, blue = np.int32(0), np.int32(0), np.int32(0)
            for t in range(index.shape[1]):
                at, share = index[c, t], weight[c, t]
                red += share * pixels[r, at, 0]
                green += share * pixels[r, at, 1]
                blue += share * pixels[r, at, 2]
            out[r, c, 0], out[r, c, 1], out[r, c, 2] = red, green, blue


@kernel
def _along_rows(middle, index, weight, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    half, shift = 1 << (2 * WEIGHT_BITS - 1), 2 * WEIGHT_BITS
    sums = np.empty((out.shape[1], 3), np.int32)
    for r in range(out.shape[0]):
        sums[:] = half
        for t in range(index.shape[1]):
            share = weight[r, t]
            if share:
                line = middle[index[r, t]]
                for c in range(out.shape[1]):
                    for k in range(3):
                        sums[c, k] += share * line[c, k]
        for c in range(out.shape[1]):
            for k in range(3):
                out[r, c, k] = sums[c, k] >> shift
