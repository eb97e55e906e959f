"""Cellpose (Stringer et al. 2021): flows that lead each pixel to the middle of its cell, and the
probability of a cell.

Each foreground pixel follows the flow for ``steps`` steps of at most 1 px, by bilinear
interpolation, as Cellpose does. All of it is whole numbers (1/256 px), so the same flows give the
same ends wherever they lie in a window. Where ends crowd is a seed; where neighbours end far apart
lies a border. Both make the map on which the task ``instance`` decides seeds and watershed after
stitching: seeds flood the insides of their cells first, and the borders last.

It differs from Cellpose in four things: a pixel that ends away from every seed still belongs to the
object that floods it; a clump of foreground without a seed is one object and not none; cells are
not checked against flows that are computed back from them (``flow_threshold``), nor are holes
filled; and ``steps`` is fixed, since the halo has to cover it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from quadrat.core.errors import ConfigError
from quadrat.models.decoders.decoder import Decoder, Outputs
from quadrat.models.decoders.maps import (
    BYTE,
    activated,
    as_logits,
    class_logits,
    map_of,
    share,
    weighted,
    whole,
)
from quadrat.models.foreign.head import ForeignHead, Option

OPTIONS: dict[str, Option | None] = {
    "steps": 40.0,
    "flow_scale": 5.0,
    "foreground": 0.5,
    "seed_ends": 20.0,
    "apart_px": 3.0,
}
BITS = 8
UNIT = 1 << BITS
"""Positions are in 1 / UNIT px."""
LANE = 32
"""Bits of one of the two components that are packed into one number."""
INNER = 0.25
"""Marker energy of a pixel that is no seed and no border; the threshold for seeds lies above it."""


def adapt(outputs: Outputs, head: ForeignHead) -> Tensor:
    """Logits (b, 2 + classes, h, w) of foreground, marker energy and classes."""
    flows = map_of(outputs, "flows", decoder="cellpose", channels=(2,))
    probability = map_of(outputs, "probability", decoder="cellpose", channels=(1,))
    foreground = activated(probability, head, what="decoder cellpose: output 'probability'")
    least = round(share(head, "foreground", _default("foreground"), decoder="cellpose") * BYTE)
    inside = torch.floor(foreground * BYTE + 0.5)[:, 0] >= least
    ends = follow(fixed_point(flows, inside, head), inside, steps=_steps(head))
    energy = markers(ends, inside, head)
    classes = class_logits(outputs, head, decoder="cellpose", like=probability)
    not_a_number = 0 * flows.sum(dim=1, keepdim=True)  # it would be lost in whole numbers
    return torch.cat([as_logits(foreground), as_logits(energy) + not_a_number, classes], dim=1)


def fixed_point(flows: Tensor, inside: Tensor, head: ForeignHead) -> Tensor:
    """Flows (b, 2, h, w) down and right as steps, int32 in 1 / UNIT px, at most 1 px; 0 outside of
    the foreground (b, h, w)."""
    scale = head.number("flow_scale", _default("flow_scale"))
    if scale <= 0:
        raise ConfigError(f"decoder cellpose: option flow_scale is {scale:g}; it must be above 0")
    steps = torch.floor(torch.nan_to_num(flows) * (UNIT / scale) + 0.5).clamp(-UNIT, UNIT)
    return torch.where(inside[:, None], steps, 0).to(torch.int32)


def follow(flow: Tensor, inside: Tensor, *, steps: int) -> Tensor:
    """Where the pixels end: int32 (b, 2, h, w) row and column in 1 / UNIT px of the window. Pixels
    outside stay."""
    batch, rows, cols = inside.shape
    index, row, col = torch.nonzero(inside, as_tuple=True)
    packed = _packed(flow)
    below = cols + 1  # from a pixel to the one below it
    first, y, x = index * (rows + 1) * below, row * UNIT, col * UNIT
    for _ in range(steps):
        at = first + (y >> BITS) * below + (x >> BITS)
        down, right = y & (UNIT - 1), x & (UNIT - 1)
        left = UNIT - right
        upper = packed[at] * left + packed[at + 1] * right
        lower = packed[at + below] * left + packed[at + below + 1] * right
        both = upper * (UNIT - down) + lower * down
        y = (y + _rounded(both >> LANE)).clamp(0, (rows - 1) * UNIT)
        x = (x + _rounded(both & ((1 << LANE) - 1))).clamp(0, (cols - 1) * UNIT)
    grid = torch.meshgrid(
        torch.arange(rows, dtype=torch.int32, device=flow.device) * UNIT,
        torch.arange(cols, dtype=torch.int32, device=flow.device) * UNIT,
        indexing="ij",
    )
    ends = torch.stack(grid).repeat(batch, 1, 1, 1)
    ends[index, :, row, col] = torch.stack([y, x], dim=1).to(torch.int32)
    return ends


def _packed(flow: Tensor) -> Tensor:
    """Both components of each pixel's flow (b, 2, h, w) as one int64, made positive, so that they
    are added and multiplied together; flat, with one more row and column."""
    wide = functional.pad(flow.float(), (0, 1, 0, 1)).to(torch.int64) + UNIT
    return ((wide[:, 0] << LANE) + wide[:, 1]).flatten()


def _rounded(lane: Tensor) -> Tensor:
    """An interpolated component, which carries two factors of UNIT, rounded half up."""
    return ((lane + (1 << (2 * BITS - 1))) >> (2 * BITS)) - UNIT


def markers(ends: Tensor, inside: Tensor, head: ForeignHead) -> Tensor:
    """Marker energy (b, 1, h, w) in 0-1 of the ends of the foreground's pixels: how many end within
    a pixel of a place, as a share of ``seed_ends``; INNER where neighbours end close to each
    other."""
    full = whole(head, "seed_ends", _default("seed_ends"), least=1, decoder="cellpose")
    crowd = weighted(weighted(density(ends, inside), [1, 1, 1], dim=2), [1, 1, 1], dim=3)
    inner = INNER * (inside & ~borders(ends, inside, head)).float()[:, None]
    return torch.maximum((crowd / full).clamp(max=1), inner)


def density(ends: Tensor, inside: Tensor) -> Tensor:
    """How many pixels of the foreground end in each pixel, float32 (b, 1, h, w)."""
    batch, rows, cols = inside.shape
    index = torch.nonzero(inside, as_tuple=True)[0]
    row, col = ((ends.movedim(1, -1)[inside] + UNIT // 2) >> BITS).long().unbind(dim=1)
    counts = torch.bincount((index * rows + row) * cols + col, minlength=batch * rows * cols)
    return counts.reshape(batch, 1, rows, cols).float()


def borders(ends: Tensor, inside: Tensor, head: ForeignHead) -> Tensor:
    """bool (b, h, w): pixels of the foreground with one of four neighbours in it that ends more
    than ``apart_px`` away from them."""
    most = head.number("apart_px", _default("apart_px")) * UNIT
    border = torch.zeros_like(inside)
    for dim in (1, 2):
        size = inside.shape[dim] - 1
        both = inside.narrow(dim, 0, size) & inside.narrow(dim, 1, size)
        gap = ends.narrow(dim + 1, 0, size) - ends.narrow(dim + 1, 1, size)
        apart = both & (gap.abs().amax(dim=1) > most)
        before, after = ((0, 1), (1, 0))
        for pad in (before, after):
            border |= functional.pad(apart, (*pad, 0, 0) if dim == 2 else (0, 0, *pad))
    return border


def reach(head: ForeignHead) -> int:
    """As far as a pixel can travel, one cell for the interpolation, and two for the seeds."""
    return (_steps(head) + 3) * head.out_stride


def _steps(head: ForeignHead) -> int:
    return whole(head, "steps", _default("steps"), least=1, decoder="cellpose")


def _default(name: str) -> float:
    return float(OPTIONS[name] or 0)


CELLPOSE = Decoder(
    name="cellpose",
    task="instance",
    outputs=("flows", "probability"),
    optional=("type",),
    options=OPTIONS,
    reach=reach,
    adapt=adapt,
)
