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
    out = np.empty((height, width * 3), np.uint8)
    _block_mean(_lines(pixels), rows, cols, out)
    return out.reshape(height, width, 3)


def separable(pixels: Rgb, rows: Taps, cols: Taps) -> Rgb:
    """Weighted mean along rows and columns. ``pixels`` cover input rows first to stop of ``rows``
    and the same of ``cols``."""
    out = np.empty((len(rows.index), len(cols.index), 3), np.uint8)
    _separable(_lines(pixels), rows.index, rows.weight, cols.index * 3, cols.weight, out)
    return out


def _lines(pixels: Rgb) -> npt.NDArray[np.uint8]:
    """(h, w, 3) as (h, w * 3): sums down the rows are then loops over plain memory, which the
    compiler turns into vector instructions."""
    return np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)


@kernel
def _block_mean(lines, rows, cols, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    count = np.uint32(rows * cols)
    half, shift = count // np.uint32(2), np.uint32(math.log2(count))
    down = np.empty(lines.shape[1], np.uint32)
    sums = np.empty(out.shape[1], np.uint32)
    for r in range(out.shape[0]):
        down[:] = 0
        for dr in range(rows):
            line = lines[r * rows + dr]
            for i in range(len(down)):
                down[i] += line[i]
        if cols == 2:  # the one that slides need most, in a loop that can be vectorised
            for c in range(len(sums) // 3):
                sums[3 * c] = down[6 * c] + down[6 * c + 3]
                sums[3 * c + 1] = down[6 * c + 1] + down[6 * c + 4]
                sums[3 * c + 2] = down[6 * c + 2] + down[6 * c + 5]
        else:
            for c in range(0, len(sums), 3):
                red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
                for at in range(c * cols, (c + 3) * cols, 3):
                    red += down[at]
                    green += down[at + 1]
                    blue += down[at + 2]
                sums[c], sums[c + 1], sums[c + 2] = red, green, blue
        if count & (count - np.uint32(1)):
            for i in range(len(sums)):
                out[r, i] = (sums[i] + half) // count
        else:  # a division is several times a shift
            for i in range(len(sums)):
                out[r, i] = (sums[i] + half) >> shift


@kernel
def _separable(lines, row_index, row_weight, col_index, col_weight, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    half, shift = np.int32(1 << (2 * WEIGHT_BITS - 1)), np.int32(2 * WEIGHT_BITS)
    down = np.empty(lines.shape[1], np.int32)
    for r in range(out.shape[0]):
        down[:] = 0
        for t in range(row_index.shape[1]):
            share = row_weight[r, t]
            if share:
                line = lines[row_index[r, t]]
                for i in range(len(down)):
                    down[i] += share * np.int32(line[i])
        for c in range(out.shape[1]):
            red, green, blue = half, half, half
            for t in range(col_index.shape[1]):
                at, share = col_index[c, t], col_weight[c, t]
                red += share * down[at]
                green += share * down[at + 1]
                blue += share * down[at + 2]
            out[r, c, 0], out[r, c, 1], out[r, c, 2] = red >> shift, green >> shift, blue >> shift
