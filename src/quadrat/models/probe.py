"""Measure a network's stride and receptive radius: what can one input pixel reach, and with which
shifts does the network commute?

The radius is measured twice and the larger counts. A NaN at one input pixel spreads along every
path, whatever the weights are, so the NaN outputs are the pixel's field of influence. A float
impulse misses paths with small or zero weights. But a comparison (a gate, an argmax) swallows a
NaN, and there the impulse sees more.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGEST = 1024
"""Side in px of the largest probe; a network that reaches its border is taken as unbounded."""
IMPULSE = 100.0
"""Height of the impulse over normalised pixels (standard deviation about 1)."""
ROUNDING = 1e-9
"""Relative difference in float64 up to which two outputs count as equal: kernels may sum in another
order."""
THIN = 2
"""Height of the strips of :func:`least_radius`, in strides."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What was measured, in input px."""

    structural: int | None
    """Radius to each side, by NaN; None where it is unbounded."""
    impulse: int | None
    """Radius to each side, by a float64 impulse; None where it is unbounded."""
    stride: int | None
    """The least shift of the input that only shifts the output; None where no shift does."""

    @property
    def radius(self) -> int | None:
        """The larger of the two radii; None if one of them is unbounded."""
        return (
            None
            if self.structural is None or self.impulse is None
            else max(self.structural, self.impulse)
        )


def probe(model: nn.Module, *, stride: int, out_stride: int) -> Reach:
    """Measure a copy of a network on the CPU in float64, in eval mode (BatchNorm frozen), at every
    phase of ``stride``.

    Args:
        model: (1, 3, h, w) to (1, c, h / out_stride, w / out_stride), h and w multiples of
            ``stride``.
        stride: what the network says its stride is; the measured one is sought among its divisors
            and small multiples.
        out_stride: input px per output cell (0: the network pools everything, so nothing is
            bounded).
    """
    if out_stride == 0:
        return Reach(structural=None, impulse=None, stride=None)
    network = copy.deepcopy(model).to("cpu", torch.float64).eval()
    gap = stride * _widest_dilation(
        network
    )  # taps this far apart may jump over a narrower border unseen
    with one_thread():
        return _measure(network, stride=stride, out_stride=out_stride, gap=gap)


def _measure(network: nn.Module, *, stride: int, out_stride: int, gap: int) -> Reach:
    side = _first_side(network, stride=stride, out_stride=out_stride, gap=gap)
    while side <= LARGEST:
        radii: list[int] = []
        for impulse in (False, True):
            found = _radius_at(
                network,
                shape=(side, side),
                stride=stride,
                out_stride=out_stride,
                gap=gap,
                impulse=impulse,
            )
            if found is None:
                break
            radii.append(found)
        if len(radii) == 2:
            measured = _stride(network, stride=stride, out_stride=out_stride, radius=max(radii))
            return Reach(structural=radii[0], impulse=radii[1], stride=measured)
        side *= 2
    return Reach(structural=None, impulse=None, stride=None)


def _first_side(network: nn.Module, *, stride: int, out_stride: int, gap: int) -> int:
    """A side in px into which the field of influence is likely to fit, by cheap strips; more than
    LARGEST where there is none."""
    length = max(16 * stride, 4 * gap)
    while length <= LARGEST:
        shape = THIN * stride, length
        radius = _radius_at(
            network, shape=shape, stride=stride, out_stride=out_stride, gap=gap, impulse=False
        )
        if radius is not None:
            return 2 * stride * (math.ceil((radius + gap) / stride) + 2)
        length *= 2
    return length


def least_radius(model: nn.Module, *, stride: int, out_stride: int, stated: int) -> int | None:
    """A quick lower bound of the structural radius (NaN on thin strips, both axes, float32), to
    refute a stated one.

    It takes hundredths of a second instead of seconds: a path along one axis hardly ever needs room
    along the other. Returns None where the field of influence leaves the strip, which is as long as
    the ``stated`` radius can need.
    """
    if out_stride == 0:
        return None
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    gap = stride * _widest_dilation(network)
    length = 2 * stride * math.ceil((stated + 2 * gap) / stride) + 2 * stride
    with one_thread():
        radii = [
            _radius_at(
                network, shape=shape, stride=stride, out_stride=out_stride, gap=gap, impulse=False
            )
            for shape in ((THIN * stride, length), (length, THIN * stride))
        ]
    found = [radius for radius in radii if radius is not None]
    return max(found) if len(found) == len(radii) else None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small images leave more threads nothing to do but wait for each other (ten times slower on a
    busy machine)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _widest_dilation(network: nn.Module) -> int:
    widest = 1
    for module in network.modules():
        dilation = getattr(module, "dilation", 1)
        if isinstance(dilation, int | tuple):
            widest = max(widest, dilation if isinstance(dilation, int) else max(dilation))
    return widest


def _radius_at(
    network: nn.Module,
    *,
    shape: tuple[int, int],
    stride: int,
    out_stride: int,
    gap: int,
    impulse: bool,
) -> int | None:
    """R seen in an input of ``shape`` px along its longer axes, or None where the field comes
    within ``gap`` px of a border.

    Row and column of the touched pixel have the same phase: the reach along one axis depends on the
    phase along it alone.
    """
    dtype = next((p.dtype for p in network.parameters()), torch.float64)
    image = torch.zeros(1, 3, *shape, dtype=dtype)
    if impulse:
        image = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    base = _forward(network, image)
    radius = 0
    axes = [axis for axis in (0, 1) if shape[axis] == max(shape)]
    for phase in range(stride):
        at = [side // 2 // stride * stride + phase for side in shape]
        touched = image.clone()
        touched[0, :, at[0], at[1]] = (
            touched[0, :, at[0], at[1]] + IMPULSE if impulse else torch.nan
        )
        out = _forward(network, touched)
        reached = (out != base if impulse else torch.isnan(out)).any(dim=0)
        for axis in axes:
            cells = torch.nonzero(reached.any(dim=1 - axis)).flatten()
            if not len(cells):
                continue  # a phase that no output sees
            first, last = int(cells[0]), int(cells[-1])
            if first * out_stride < gap or (reached.shape[axis] - 1 - last) * out_stride < gap:
                return None
            radius = max(
                radius, at[axis] - first * out_stride, (last + 1) * out_stride - 1 - at[axis]
            )
    return radius


def _stride(network: nn.Module, *, stride: int, out_stride: int, radius: int) -> int | None:
    """The least shift, among divisors and small multiples of ``stride``, that the network commutes
    with on both axes."""
    candidates = [s for s in range(1, stride) if stride % s == 0] + [
        stride * k for k in (1, 2, 3, 4)
    ]
    margin = (
        radius // stride + 2
    ) * stride  # outputs nearer to a border see the padding, which does not shift
    side = 2 * margin + 8 * stride
    image = torch.randn(
        1, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    base = _forward(network, image)
    lowest = margin // out_stride
    for shift in candidates:
        if shift % out_stride:
            continue  # the output's cells cannot move by less than one
        cells = shift // out_stride
        highest = base.shape[-1] - lowest
        want = base[:, lowest : highest - cells, lowest : highest - cells]
        moved = _forward(network, torch.roll(image, (shift, shift), dims=(2, 3)))
        found = moved[:, lowest + cells : highest, lowest + cells : highest]
        if bool((found - want).abs().max() <= ROUNDING * base.abs().max().clamp(min=1e-300)):
            return shift
    return None


def _forward(network: nn.Module, image: Tensor) -> Tensor:
    """The output (c, h, w) of one image."""
    with torch.inference_mode():
        output: Tensor = network(image)[0]
    return output
