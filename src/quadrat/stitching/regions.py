"""Connected regions of a class map, joined exactly over shards: sums add up and outlines link up,
whatever the cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from skimage.measure import label as label_components

from quadrat.core.lattice import Cell, ShardIndex
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.outlines import Edges, boundary_edges, link_edges
from quadrat.core.predictions import Array, Arrays
from quadrat.stitching.components import Strips, face_pairs, union_find
from quadrat.stitching.features import Moments, measure_piece

SIDES = ("top", "bottom", "left", "right")


def region_part(
    classes: npt.NDArray[np.uint8], score: npt.NDArray[np.uint8], *, origin: tuple[int, int]
) -> Arrays:
    """What one shard knows about its regions.

    Args:
        classes: (h + 2, w + 2) class map, 0 = background, with one pixel of true context (0 outside
            the slide).
        score: (h, w) quantised probability of the class that was decided.
        origin: (row, col) in grid px of ``classes[1, 1]``.
    """
    found = label_components(classes, connectivity=1, background=0).astype(np.int32)
    inner = found[1:-1, 1:-1]
    present = np.unique(inner)
    present = present[present > 0]
    renumber = np.zeros(int(found.max(initial=0)) + 1, np.int32)
    renumber[present] = np.arange(1, len(present) + 1)
    labels = renumber[found]
    n = len(present)
    moments = measure_piece(labels, n=n, origin=origin, values=score)
    class_id = np.zeros(n, np.uint8)
    inside = labels[1:-1, 1:-1]
    class_id[inside[inside > 0] - 1] = classes[1:-1, 1:-1][inside > 0] - 1
    edges = boundary_edges(labels, origin=origin)
    part: Arrays = {"class_id": class_id} | {
        f"moments.{name}": getattr(moments, name) for name in Moments.COLUMNS
    }
    part |= {f"edges.{name}": getattr(edges, name) for name in Edges.__slots__}
    both = np.stack([inside, classes[1:-1, 1:-1]], axis=-1).astype(np.int64)
    strips = (both[0], both[-1], both[:, 0], both[:, -1])
    return part | {f"strips.{side}": strip for side, strip in zip(SIDES, strips, strict=True)}


def region_parts(
    shards: Sequence[ShardIndex],
    load: Callable[[ShardIndex], Mapping[str, Array]],
    *,
    shard_px: int,
    min_area_px: float,
) -> list[Callable[[], tuple[ObjectTable, Polygons]]]:
    """The regions of a slide of at least ``min_area_px``, in canonical order (shard of the first
    pixel, then pixel).

    In memory are the sums of all pieces, about 150 bytes each. Outlines are read and linked when a
    part is asked for: at most those of the regions that begin in one shard.

    Args:
        shards: the shards that have a part, in raster order.
        load: ``region_part`` of a shard; read once here, and again for outlines.
        shard_px: side of a shard.
        min_area_px: smaller regions are left out.

    Returns:
        A function for each shard in which regions begin.
    """
    pieces, class_id, counts, pairs = _pieces(shards, load)
    total = len(class_id)
    root = union_find(total, pairs)
    moments = pieces.scatter(root, n=total)
    keep = np.flatnonzero((root == np.arange(total)) & (moments.area >= max(1.0, min_area_px)))
    anchor = moments.first[keep]
    keep = keep[
        np.lexsort((anchor[:, 1], anchor[:, 0], anchor[:, 1] // shard_px, anchor[:, 0] // shard_px))
    ]
    rank = np.zeros(total, np.int64)
    rank[keep] = np.arange(1, len(keep) + 1)
    number = rank[root]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    home = np.repeat(np.arange(len(shards)), counts)
    begin = moments.first[keep] // shard_px
    starts = (
        np.flatnonzero(np.concatenate([[True], (np.diff(begin, axis=0) != 0).any(axis=1)]))
        if len(keep)
        else keep
    )

    def part(start: int, stop: int) -> tuple[ObjectTable, Polygons]:
        places = np.unique(home[(number > start) & (number <= stop)])
        edges = [
            _edges_of(load(shards[i]), number[first[i] : first[i + 1]] - start, n=stop - start)
            for i in places
        ]
        polygons = link_edges(Edges.concatenate(edges), n=stop - start)
        return _region_table(
            moments.take(keep[start:stop]), class_id[keep[start:stop]], polygons
        ), polygons

    stops = [*starts[1:].tolist(), len(keep)]
    return [partial(part, a, b) for a, b in zip(starts.tolist(), stops, strict=False)]


def _pieces(
    shards: Sequence[ShardIndex], load: Callable[[ShardIndex], Mapping[str, Array]]
) -> tuple[Moments, npt.NDArray[np.uint8], list[int], npt.NDArray[np.int64]]:
    """Sums and classes of all pieces in the order of ``shards``, how many each shard has, and the
    pairs that touch."""
    sums, classes, counts = [Moments.empty()], [np.zeros(0, np.uint8)], []
    pairs = [np.zeros((0, 2), np.int64)]
    first: dict[Cell, int] = {}
    # of this row of shards and the one above: a slide's strips together would be large
    recent: dict[Cell, Strips] = {}
    total = 0
    for shard in shards:
        row, col = shard
        part = load(shard)
        recent = {cell: strips for cell, strips in recent.items() if cell >= (row - 1, col)}
        recent[(row, col)] = {side: part[f"strips.{side}"] for side in SIDES}
        first[(row, col)] = total
        for other in ((row, col - 1), (row - 1, col)):
            if other in recent:
                both = {cell: recent[cell] for cell in (other, (row, col))}
                pairs.append(face_pairs(both, first))
        sums.append(Moments(**{name: part[f"moments.{name}"] for name in Moments.COLUMNS}))
        classes.append(part["class_id"])
        counts.append(len(classes[-1]))
        total += counts[-1]
    return Moments.concatenate(sums), np.concatenate(classes), counts, np.concatenate(pairs)


def _edges_of(part: Mapping[str, Array], number: npt.NDArray[np.int64], *, n: int) -> Edges:
    """The edges of a shard of the pieces numbered 1..n, with those numbers as labels."""
    edges = Edges(**{name: part[f"edges.{name}"] for name in Edges.__slots__})
    if not len(edges):
        return edges
    label = number[edges.label - 1]
    return replace(edges, label=label).take((label > 0) & (label <= n))


def _region_table(
    moments: Moments, class_id: npt.NDArray[np.uint8], polygons: Polygons
) -> ObjectTable:
    table = moments.table(class_id=class_id, score=(moments.mean_value / 255).astype(np.float32))
    return replace(table, perimeter_px=polygon_perimeters(polygons))


def polygon_perimeters(polygons: Polygons) -> npt.NDArray[np.float64]:
    """Cauchy-Crofton perimeter (four directions) in px of each pixel-edge polygon, from its outline
    alone.

    Transitions along rows and columns are the unit edges. A straight vertex has two transitions
    along diagonals, a corner has one, and a vertex that the outline passes twice (pixels that meet
    at a corner) has none. So a region has the same perimeter in pieces or whole; sums of pieces
    could not guarantee that for diagonals.
    """
    n_rings = len(polygons.ring_starts) - 1
    owner_of_ring = np.repeat(np.arange(len(polygons)), np.diff(polygons.polygon_starts))
    start = np.ones(len(polygons.xy), bool)  # every vertex but the closing one of a ring
    start[polygons.ring_starts[1:] - 1] = False
    owner = (
        np.repeat(owner_of_ring, np.diff(polygons.ring_starts))
        if n_rings
        else np.zeros(0, np.int64)
    )
    index = np.flatnonzero(start)
    length = (
        np.abs(polygons.xy[index + 1] - polygons.xy[index]).sum(axis=1)
        if len(index)
        else np.zeros(0)
    )
    owner = owner[index]
    edges = np.bincount(owner, weights=length, minlength=len(polygons))
    corners = np.bincount(owner, minlength=len(polygons)).astype(np.float64)
    keys = np.stack([owner, *polygons.xy[index].astype(np.int64).T], axis=1)
    unique, times = np.unique(keys, axis=0, return_counts=True)
    twice = np.bincount(unique[times == 2, 0], minlength=len(polygons))
    diagonal = 2 * (edges - corners) + corners - 2 * twice
    result: npt.NDArray[np.float64] = math.pi / 8 * (edges + diagonal / math.sqrt(2))
    return result
