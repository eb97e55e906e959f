"""Slides made to be hard for a stitcher: objects on every seam and corner, of sizes around the
halo, longer than any shard."""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np

from helpers import fields, oracle
from helpers.schedules import Case
from quadrat.stitching import ownership


@dataclass(frozen=True)
class Layout:
    """A lattice in px and the oracle that fits it: halo = blocks * stride, the least that holds the
    receptive radius."""

    core: int
    shard: int
    stride: int
    blocks: int

    @property
    def halo(self):
        return self.blocks * self.stride


LAYOUTS = (
    Layout(16, 16, 4, 2),
    Layout(16, 32, 4, 2),
    Layout(16, 16, 8, 2),
    Layout(32, 32, 4, 4),
    Layout(24, 24, 8, 1),
)
SHARDS = 4
"""A side: 16 shards or more a slide."""


def discs(layout, shape, *, diameter, shift):
    """Discs on every corner and seam middle of the cores, as far apart as they need to be."""
    return fields.on_seams(
        shape, pitch=max(layout.core, 4 * (diameter // 2 + 2)), radius=diameter / 2, shift=shift
    )


def diagonals(layout, shape, *, side):
    """At every corner of the cores two squares that meet in that corner alone, one way and the
    other by turns."""
    labels = fields.empty(shape)
    count = 0
    for i, row in enumerate(range(layout.core, shape[0], layout.core)):
        for j, col in enumerate(range(layout.core, shape[1], layout.core)):
            for half in (0, 1):
                left = (half + i + j) % 2
                top, start = row - side * (1 - half), col - side * left
                count += 1
                labels[top : top + side, start : start + side] = count
    return labels


def serpentine(layout, shape, *, thickness):
    """One object that winds over the whole slide, back and forth, along the seams."""
    labels = fields.empty(shape)
    step = layout.core
    for number, row in enumerate(range(0, shape[0], step)):
        labels[row : row + thickness] = 1
        end = slice(shape[1] - thickness, None) if number % 2 == 0 else slice(0, thickness)
        labels[row : row + step, end] = 1
    return fields.connected(labels)


def hairlines(layout, shape):
    """Lines one pixel wide along both sides of every other seam; where they cross, they are one
    object."""
    labels = fields.empty(shape)
    for number, row in enumerate(range(layout.core, shape[0], layout.core)):
        labels[row - number % 2] = 1
    for number, col in enumerate(range(layout.core, shape[1], layout.core)):
        labels[:, col - number % 2] = 1
    return fields.connected(labels)


def noise(shape, rng):
    """Blobs of no sane shape, at every size down to the pixel."""
    blurred = fields.noisy_maps(rng, shape, smooth=float(rng.choice([0.7, 2.0])))[0]
    return fields.ndimage.label(blurred > 125)[0].astype(np.int32)


def shift_of(rng):
    """On the seam or a pixel off it, down and right."""
    return tuple(rng.integers(-1, 2, 2).tolist())


def middle_of(shape, rng):
    """A pixel of the middle half of the slide."""
    return tuple(int(rng.integers(side // 4, side - side // 4)) for side in shape)


FIELDS = {
    "empty": lambda layout, shape, rng: fields.empty(shape),
    "full": lambda layout, shape, rng: fields.full(shape),
    "one pixel": lambda layout, shape, rng: fields.one_pixel(shape, at=middle_of(shape, rng)),
    "checkerboard": lambda layout, shape, rng: fields.checkerboard(shape),
    "coarse checkerboard": lambda layout, shape, rng: fields.checkerboard(
        shape, side=int(rng.integers(2, layout.core + 1))
    ),
    "crowded ellipses": lambda layout, shape, rng: fields.ellipses(
        rng, shape, n=40, radius=(2, layout.core)
    ),
    "disjoint ellipses": lambda layout, shape, rng: fields.disjoint_ellipses(
        rng, shape, n=20, radius=(1, layout.core / 2)
    ),
    "discs of the halo - 1": lambda layout, shape, rng: discs(
        layout, shape, diameter=layout.halo - 1, shift=shift_of(rng)
    ),
    "discs of the halo": lambda layout, shape, rng: discs(
        layout, shape, diameter=layout.halo, shift=shift_of(rng)
    ),
    "discs of the halo + 1": lambda layout, shape, rng: discs(
        layout, shape, diameter=layout.halo + 1, shift=shift_of(rng)
    ),
    "corner diagonals": lambda layout, shape, rng: diagonals(
        layout, shape, side=int(rng.integers(1, layout.core // 2 + 1))
    ),
    "chain": lambda layout, shape, rng: fields.chain(
        shape, row=layout.shard * float(rng.choice([1, 2, 2.5])), radius=6, step=10
    ),
    "ring": lambda layout, shape, rng: fields.ring(
        shape, thickness=int(rng.integers(1, layout.core))
    ),
    "u shape": lambda layout, shape, rng: fields.u_shape(
        shape, thickness=int(rng.integers(1, layout.core))
    ),
    "serpentine": lambda layout, shape, rng: serpentine(
        layout, shape, thickness=int(rng.integers(1, layout.core // 2))
    ),
    "hairlines": lambda layout, shape, rng: hairlines(layout, shape),
    "noise": lambda layout, shape, rng: noise(shape, rng),
}
KINDS = tuple(FIELDS)


def shape_of(layout, edge):
    """At least 16 shards, its sides off a whole number of cores by ``edge`` px."""
    return SHARDS * layout.shard + edge[0], SHARDS * layout.shard + edge[1]


def case_for(task, layout, kind, seed, *, shape, plateaus=False, normed=False):
    """A slide of a kind, with the oracle and the specification to read it."""
    rng = np.random.default_rng(seed)
    planted = oracle.planted_for(task, FIELDS[kind](layout, shape, rng), rng, plateaus=plateaus)
    return case_of(task, layout, planted, normed=normed)


def case_of(task, layout, planted, *, normed=False):
    """A slide that carries ``planted`` bytes (3, h, w)."""
    rgb = oracle.picture(planted, stride=layout.stride, blocks=layout.blocks)
    model = oracle.OracleNetwork(
        task, stride=layout.stride, blocks=layout.blocks, normed=normed
    ).eval()
    spec = oracle.spec_for(
        task,
        core=layout.core,
        shard=layout.shard,
        stride=layout.stride,
        blocks=layout.blocks,
    )
    return Case(rgb, model, spec)


@contextmanager
def first_margin(px):
    """Blocks begin with this margin: small ones have to grow even on small slides."""
    with mock.patch.object(ownership, "FIRST_MARGIN", px):
        yield
