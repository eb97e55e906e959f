"""Hashes and smooth noise that depend only on a seed and a place, so that each block can be made
without the others.

The hash is SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195); the smooth noise is
gradient noise (Perlin 2002, doi:10.1145/566654.566636).
"""

from __future__ import annotations

import math

import numpy as np
from numba import uint64
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from quadrat.core.kernel import kernel

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 1.0 / 9007199254740992.0


@kernel
def mix(state: int) -> int:
    """SplitMix64 step: a uint64 to a uint64 that looks unrelated."""
    z = uint64(state) + _A
    z = (z ^ (z >> _S30)) * _B
    z = (z ^ (z >> _S27)) * _C
    return z ^ (z >> _S31)  # type: ignore[return-value]  # a uint64 in compiled code, the only place this runs


@kernel
def hash3(seed: int, i: int, j: int, channel: int) -> int:
    """Hash of a seed and three integers, a uint64."""
    return mix(mix(mix(uint64(seed) ^ uint64(channel)) ^ uint64(i)) ^ uint64(j))  # type: ignore[arg-type]  # as above


@kernel
def draw(h: int, k: int) -> float:
    """The k-th uniform number in [0, 1) of the stream that hash `h` begins."""
    return float(mix(uint64(h) + uint64(k)) >> _S11) * _UNIT  # type: ignore[arg-type]  # as above


@kernel
def _slope(seed: int, i: int, j: int, channel: int, dx: float, dy: float) -> float:
    h = hash3(seed, i, j, channel)
    return (draw(h, 0) * 2.0 - 1.0) * 1.2 * dx + (draw(h, 1) * 2.0 - 1.0) * 1.2 * dy


@kernel
def smooth_noise(seed: int, channel: int, x: float, y: float) -> float:
    """Gradient noise of wavelength 1 at (x, y): about -0.7..0.7, mean 0, never repeating."""
    i, j = math.floor(x), math.floor(y)
    dx, dy = x - i, y - j
    sx = dx * dx * dx * (dx * (dx * 6.0 - 15.0) + 10.0)
    sy = dy * dy * dy * (dy * (dy * 6.0 - 15.0) + 10.0)
    top_left = _slope(seed, i, j, channel, dx, dy)
    top_right = _slope(seed, i + 1, j, channel, dx - 1.0, dy)
    low_left = _slope(seed, i, j + 1, channel, dx, dy - 1.0)
    low_right = _slope(seed, i + 1, j + 1, channel, dx - 1.0, dy - 1.0)
    top = top_left + sx * (top_right - top_left)
    low = low_left + sx * (low_right - low_left)
    return top + sy * (low - top)


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Periodic Gaussian noise of `shape`, mean 0, s.d. 1, smoothed over `sigma` px."""
    field = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std(), np.float32)
