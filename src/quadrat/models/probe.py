"""Measure a network's stride-phase and receptive radius structurally: what can one input pixel reach at all?

A NaN at one input pixel spreads along every path of the network, whatever the weights are, so the set of NaN outputs is
the pixel's whole field of influence. A float impulse would miss the paths whose weights are small or zero.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

LARGEST = 1024
"""Side in px of the largest probe; a network that reaches its border is taken as unbounded."""


def receptive_radius(model: nn.Module, *, stride: int, out_stride: int) -> int | None:
    """Receptive radius R a side in input px (float64, eval mode, every phase modulo ``stride``); None if unbounded.

    ``out_stride`` is the input px an output cell covers (0: the network pools everything, so R is unbounded).
    """
    if out_stride == 0:
        return None
    probe = copy.deepcopy(model).to("cpu", torch.float64).eval()
    gap = stride * _widest_dilation(probe)  # taps this far apart may jump over a narrower border unseen
    size = max(16 * stride, 4 * gap)
    while size <= LARGEST:
        radius = _radius_at(probe, size=size, stride=stride, out_stride=out_stride, gap=gap)
        if radius is not None:
            return radius
        size *= 2
    return None


def _widest_dilation(network: nn.Module) -> int:
    widest = 1
    for module in network.modules():
        dilation = getattr(module, "dilation", 1)
        if isinstance(dilation, int | tuple):
            widest = max(widest, dilation if isinstance(dilation, int) else max(dilation))
    return widest


def _radius_at(probe: nn.Module, *, size: int, stride: int, out_stride: int, gap: int) -> int | None:
    """R seen in a size x size px input, or None where the field of influence comes within ``gap`` px of the border."""
    centre = (size // 2) // stride * stride
    radius = 0
    for phase in range(stride):
        position = centre + phase
        image = torch.zeros(1, 3, size, size, dtype=torch.float64)
        image[0, :, position, position] = torch.nan
        with torch.inference_mode():
            reached = torch.isnan(probe(image)[0]).any(dim=0)
        for axis in (0, 1):
            cells = torch.nonzero(reached.any(dim=1 - axis)).flatten()
            if not len(cells):
                continue  # a phase that no output sees
            first, last = int(cells[0]), int(cells[-1])
            if first * out_stride < gap or (reached.shape[axis] - 1 - last) * out_stride < gap:
                return None
            radius = max(radius, position - first * out_stride, (last + 1) * out_stride - 1 - position)
    return radius
