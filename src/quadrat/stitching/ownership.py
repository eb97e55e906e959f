"""Objects from a stitched map: seeds are anchors, a watershed gives shapes, a certificate says when a shape is final.

Each object is owned by the shard that holds its anchor, the first raster pixel of its seed. Its shape depends on the whole
clump (connected foreground) it grew in, so it is final only if that clump does not touch the border of the block it was
decoded in; otherwise the clump is decoded again in a larger block. Because seeds and flood depend on the clump alone, every
block that sees the whole clump decodes the same objects (design: stitching.md, L2 and L3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from quadrat.geometry import Box
from quadrat.results import FLAG_CAPPED

Labels = npt.NDArray[np.int32]
FIRST_MARGIN = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """Objects of one shard in the frame of ``box``: labels int32 (1..n in canonical order), anchors (n, 2) grid px, flags."""

    box: Box
    labels: Labels
    anchors: npt.NDArray[np.int64]
    flags: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.uint8]

    def only(self, keep: npt.NDArray[np.bool_]) -> Decoded:
        """Without the objects where ``keep``, bool (n,), is false."""
        if keep.all():
            return self
        renumber = np.zeros(len(keep) + 1, np.int32)
        renumber[1:][keep] = np.arange(1, int(keep.sum()) + 1)
        return Decoded(self.box, renumber[self.labels], self.anchors[keep], self.flags[keep], self.maps)


@dataclass(frozen=True, slots=True)
class SeedRule:
    """Decisions on uint8 maps: channel 0 is foreground, channel 1 the inner distance; all limits in map units or px."""

    foreground: int
    seed: int
    min_area_px: int
    cap_px: int


def decode_shard(read: Callable[[Box], npt.NDArray[np.uint8]], core: Box, *, slide: Box, rule: SeedRule) -> Decoded:
    """The objects owned by ``core``; ``read`` returns the stitched maps of a box inside ``slide``.

    Grows the block until every clump that meets the core is whole, or until ``rule.cap_px`` of margin; what is cut even
    then keeps its one owner and is flagged.
    """
    core = core.intersect(slide)
    margin = FIRST_MARGIN
    while True:
        box = core.pad(margin).intersect(slide)
        maps = read(box)
        clumps, cut = _clumps(maps[0] >= rule.foreground, box, core=core, slide=slide)
        if not cut.any() or margin >= rule.cap_px:
            return _decode(maps, clumps, cut, box, core=core, rule=rule)
        margin = min(2 * margin, rule.cap_px)


def _clumps(foreground: npt.NDArray[np.bool_], box: Box, *, core: Box, slide: Box) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """4-connected clumps that meet the core (others set to 0), and for each label whether the block's border cuts it."""
    clumps, count = ndimage.label(foreground)
    meets = np.zeros(count + 1, bool)
    meets[np.unique(clumps[core.slices_in(box)])] = True
    meets[0] = False
    cut = np.zeros(count + 1, bool)
    edges = []
    if box.row0 > slide.row0:
        edges.append(clumps[0])
    if box.row1 < slide.row1:
        edges.append(clumps[-1])
    if box.col0 > slide.col0:
        edges.append(clumps[:, 0])
    if box.col1 < slide.col1:
        edges.append(clumps[:, -1])
    for edge in edges:
        cut[edge] = True
    return np.where(meets[clumps], clumps, 0).astype(np.int32), cut & meets


def _decode(
    maps: npt.NDArray[np.uint8],
    clumps: Labels,
    cut: npt.NDArray[np.bool_],
    box: Box,
    *,
    core: Box,
    rule: SeedRule,
) -> Decoded:
    seeds, count = ndimage.label((maps[1] >= rule.seed) & (clumps > 0))
    seeded = np.zeros(len(cut), bool)
    seeded[clumps[seeds > 0]] = True
    seeded[0] = True
    # A clump without a seed is one object whose anchor is its own first pixel.
    bare = np.where(seeded[clumps], 0, clumps)
    seeds = np.where(bare > 0, bare + count, seeds).astype(np.int32)
    # The flood's queue keeps no order among its equal first entries, so seeds get one: raster order, before all else.
    depth = 255 - maps[1].astype(np.float64)
    depth[seeds > 0] = np.arange(-np.count_nonzero(seeds), 0)
    labels = watershed(depth, seeds, mask=clumps > 0).astype(np.int32)
    ids, first = np.unique(seeds.ravel(), return_index=True)
    keep = ids > 0
    ids, first = ids[keep], first[keep]
    anchors = np.stack([first // box.width + box.row0, first % box.width + box.col0], axis=1).astype(np.int64)
    area = np.bincount(labels.ravel(), minlength=int(ids.max(initial=0)) + 1)[ids]
    inside = (anchors[:, 0] >= core.row0) & (anchors[:, 0] < core.row1)
    inside &= (anchors[:, 1] >= core.col0) & (anchors[:, 1] < core.col1)
    owned = inside & (area >= rule.min_area_px)
    is_cut = cut[clumps.ravel()[first]]
    ids, anchors, is_cut = ids[owned], anchors[owned], is_cut[owned]
    order = np.lexsort((anchors[:, 1], anchors[:, 0]))
    renumber = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    renumber[ids[order]] = np.arange(1, len(ids) + 1)
    flags = np.where(is_cut[order], FLAG_CAPPED, 0).astype(np.uint8)
    return Decoded(box=box, labels=renumber[labels], anchors=anchors[order], flags=flags, maps=maps)
