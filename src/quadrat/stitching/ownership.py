"""Objects from a stitched map: seeds are anchors, a watershed gives shapes, and each object has one
owner.

The owner of an object is the shard that holds its anchor, the first raster pixel of its seed. The
shape of an object depends on the whole clump (connected foreground) in which it grew. So it is
final only if that clump does not touch the border of the block in which it was decoded; otherwise
the block grows. Seeds and flood depend on the clump alone, so every block that holds the whole
clump decodes the same objects (design: stitching.md, L2 and L3).

Beyond the largest block the shape is not certain (``FLAG_CAPPED``), but the count is. Two questions
are answered by following that one component over the slide (:mod:`quadrat.stitching.search`): does
a seed begin before the part that the block shows, and has a clump without a visible seed one
elsewhere?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quadrat.core.geometry import Box
from quadrat.core.kernel import kernel
from quadrat.core.objects import FLAG_CAPPED
from quadrat.core.runs import Runs
from quadrat.stitching.flood import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Components,
    Labels,
    components_inside,
    components_of,
    flood,
)
from quadrat.stitching.search import component_holds

FIRST_MARGIN = 64
GROWTH = 4
"""A side of the block that cuts a clump is moved outwards to this many times its margin."""
Read = Callable[[Box], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The objects of one shard, in the frame of ``box``."""

    box: Box
    """The block, in grid px."""
    padded: Labels
    """int32 (h + 2, w + 2): labels 1..n in canonical order, with a border of zeros."""
    anchors: npt.NDArray[np.int64]
    """(n, 2) int64: (row, col) in grid px."""
    flags: npt.NDArray[np.uint8]
    """(n,) uint8: FLAG_* bits."""
    maps: npt.NDArray[np.uint8]
    """uint8 (channels, h, w): what was decoded."""
    runs: Runs
    """The objects' pixels in raster order, in grid px."""

    @property
    def labels(self) -> Labels:
        """int32 (h, w)."""
        return self.padded[1:-1, 1:-1]

    def only(self, keep: npt.NDArray[np.bool_]) -> Decoded:
        """Without the objects for which ``keep``, bool (n,), is false."""
        if keep.all():
            return self
        number = np.zeros(len(keep) + 1, np.int32)
        number[1:][keep] = np.arange(1, int(keep.sum()) + 1)
        runs = self.runs.take(keep[self.runs.object])
        return replace(
            self,
            padded=number[self.padded],
            anchors=self.anchors[keep],
            flags=self.flags[keep],
            runs=replace(runs, object=number[runs.object + 1] - 1),
        )


@dataclass(frozen=True, slots=True)
class SeedRule:
    """Decisions on uint8 maps: channel 0 is foreground, channel 1 the inner distance."""

    foreground: int
    """Least value of channel 0 of a foreground pixel."""
    seed: int
    """Least value of channel 1 of a seed pixel."""
    min_area_px: int
    """Smaller objects are left out."""
    cap_px: int
    """The largest margin of a block."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a block shows: clumps, their seeds, and the anchor of each candidate object.

    Candidate i is seed i + 1. After the seeds it is clump i + 1 - seeds, which is an object only if
    it has no seed.
    """

    clumps: Components
    """The connected foreground."""
    seeds: Components
    """The seeds."""
    seed_clump: Labels
    """(seeds,) the clump of each seed, from 1."""
    clump: npt.NDArray[np.int64]
    """(n,) int64: the clump of each candidate, from 0."""
    anchor: npt.NDArray[np.int64]
    """(n, 2) int64: (row, col) in grid px."""
    owned: npt.NDArray[np.bool_]
    """(n,) bool: the anchor, as the block shows it, lies in the core."""


def decode_shard(read: Read, core: Box, *, slide: Box, rule: SeedRule) -> Decoded:
    """The objects that ``core`` owns. ``read`` returns the stitched maps of a box inside ``slide``.

    The block grows until every clump that decides an owned object is whole, or until its margin is
    ``rule.cap_px``. An object that is cut even then keeps its one owner and is flagged.
    """
    core = core.intersect(slide)
    limit = core.pad(max(rule.cap_px, FIRST_MARGIN)).intersect(slide)
    box = core.pad(FIRST_MARGIN).intersect(slide)
    maps = read(box)
    while True:
        found = _find(maps, box, core=core, rule=rule)
        cut = found.clumps.sides & _open_sides(box, slide)
        deciding = np.zeros(len(found.clumps), bool)
        deciding[found.clump[found.owned]] = True
        wider = _grow(
            box, int(np.bitwise_or.reduce(cut[deciding], initial=0)), core=core, limit=limit
        )
        if wider == box:
            return _decode(read, maps, box, found, cut, slide=slide, rule=rule)
        maps, box = _read_wider(read, maps, box, wider), wider


def _find(maps: npt.NDArray[np.uint8], box: Box, *, core: Box, rule: SeedRule) -> _Found:
    clumps = components_of(maps[0], rule.foreground)
    seeds, seed_clump = components_inside(maps[1], rule.seed, clumps)
    anchor = np.concatenate([seeds.first_pixels(), clumps.first_pixels()]) + np.array(
        [box.row0, box.col0]
    )
    clump = np.concatenate([seed_clump - 1, np.arange(len(clumps))]).astype(np.int64)
    owned = (
        (anchor[:, 0] >= core.row0)
        & (anchor[:, 0] < core.row1)
        & (anchor[:, 1] >= core.col0)
        & (anchor[:, 1] < core.col1)
    )
    owned[len(seeds) + seed_clump - 1] = False  # a clump with a seed is no object of its own
    return _Found(
        clumps=clumps, seeds=seeds, seed_clump=seed_clump, clump=clump, anchor=anchor, owned=owned
    )


def _open_sides(box: Box, slide: Box) -> np.uint8:
    """Sides of a block beyond which the slide continues, as bits."""
    sides = TOP * (box.row0 > slide.row0) | BOTTOM * (box.row1 < slide.row1)
    return np.uint8(sides | LEFT * (box.col0 > slide.col0) | RIGHT * (box.col1 < slide.col1))


def _grow(box: Box, sides: int, *, core: Box, limit: Box) -> Box:
    """The block, moved outwards at the sides given as bits."""

    def further(margin: int, side: int) -> int:
        return max(GROWTH * margin, 1) if sides & side else margin

    return Box(
        core.row0 - further(core.row0 - box.row0, TOP),
        core.col0 - further(core.col0 - box.col0, LEFT),
        core.row1 + further(box.row1 - core.row1, BOTTOM),
        core.col1 + further(box.col1 - core.col1, RIGHT),
    ).intersect(limit)


def _read_wider(
    read: Read, maps: npt.NDArray[np.uint8], box: Box, wider: Box
) -> npt.NDArray[np.uint8]:
    """The maps of ``wider``. Only the part outside ``box`` is read."""
    out = np.empty((len(maps), *wider.shape), np.uint8)
    out[(slice(None), *box.slices_in(wider))] = maps
    strips = (
        Box(wider.row0, wider.col0, box.row0, wider.col1),
        Box(box.row1, wider.col0, wider.row1, wider.col1),
        Box(box.row0, wider.col0, box.row1, box.col0),
        Box(box.row0, box.col1, box.row1, wider.col1),
    )
    for strip in strips:
        if not strip.empty:
            out[(slice(None), *strip.slices_in(wider))] = read(strip)
    return out


def _decode(
    read: Read,
    maps: npt.NDArray[np.uint8],
    box: Box,
    found: _Found,
    cut: npt.NDArray[np.uint8],
    *,
    slide: Box,
    rule: SeedRule,
) -> Decoded:
    owned = found.owned.copy()
    for i in np.flatnonzero(owned & (cut[found.clump] > 0)):
        owned[i] = _owns(read, box, found, int(i), slide=slide, rule=rule)
    wanted = np.zeros(len(found.clumps), bool)
    wanted[found.clump[owned]] = True
    padded = flood(maps[1], found.clumps, found.seeds, found.seed_clump, wanted)
    clump_runs = found.clumps.row, found.clumps.col0, found.clumps.col1
    area, pieces = _areas(padded, *clump_runs, len(found.anchor))
    kept = np.flatnonzero(owned & (area >= rule.min_area_px))
    kept = kept[np.lexsort((found.anchor[kept, 1], found.anchor[kept, 0]))]
    number = np.zeros(len(found.anchor) + 1, np.int32)
    number[kept + 1] = np.arange(1, len(kept) + 1)
    runs = np.empty((4, pieces), np.int32)
    used = _renumber(padded, *clump_runs, number, runs, box.row0, box.col0)
    flags = np.where(cut[found.clump[kept]] > 0, FLAG_CAPPED, 0).astype(np.uint8)
    painted = Runs(**dict(zip(Runs.__slots__, runs[:, :used], strict=True)))
    return Decoded(
        box=box, padded=padded, anchors=found.anchor[kept], flags=flags, maps=maps, runs=painted
    )


def _owns(read: Read, box: Box, found: _Found, index: int, *, slide: Box, rule: SeedRule) -> bool:
    """Whether the anchor of a candidate is the true one, in a clump that the largest block cuts."""
    row, col = (int(v) for v in found.anchor[index])
    seed = index < len(found.seeds)
    if seed and not found.seeds.sides[index] & _open_sides(box, slide):
        return True

    def foreground(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        return np.asarray(values[0] >= rule.foreground)

    def seeded(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        return np.asarray(foreground(values) & (values[1] >= rule.seed))

    def disproof(values: npt.NDArray[np.uint8], where: Box) -> npt.NDArray[np.bool_]:
        rows, cols = (
            np.arange(where.row0, where.row1)[:, None],
            np.arange(where.col0, where.col1)[None],
        )
        earlier = (rows < row) | ((rows == row) & (cols < col))
        return np.asarray(earlier if seed else earlier | seeded(values), np.bool_)

    return not component_holds(
        read, (row, col), slide=slide, mask=seeded if seed else foreground, wanted=disproof
    )


@kernel
def _areas(padded, row, col0, col1, n):  # type: ignore[no-untyped-def]
    """Pixels of each label 1..n, and how many runs they form."""
    area = np.zeros(n, np.int64)
    pieces = 0
    for i in range(len(row)):
        before = 0
        for c in range(col0[i] + 1, col1[i] + 1):
            here = padded[row[i] + 1, c]
            if here > 0:
                area[here - 1] += 1
                pieces += here != before
            before = here
    return area, pieces


@kernel
def _renumber(padded, row, col0, col1, number, runs, row0, left):  # type: ignore[no-untyped-def]
    """Give labels their final numbers, and write (object, row, col0, col1) of those that remain.
    Returns how many runs there are."""
    used = 0
    for i in range(len(row)):
        before = 0
        for c in range(col0[i] + 1, col1[i] + 1):
            here = number[padded[row[i] + 1, c]]
            padded[row[i] + 1, c] = here
            if here != 0:
                if here != before:
                    runs[0, used], runs[1, used], runs[2, used] = (
                        here - 1,
                        row0 + row[i],
                        left + c - 1,
                    )
                    used += 1
                runs[3, used - 1] = left + c
            before = here
    return used
