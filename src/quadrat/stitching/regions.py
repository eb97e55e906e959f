"""Connected regions of a class map, merged exactly over shards: sums add up, outlines link up, whatever the cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from skimage.measure import label as label_components

from quadrat.grid import Cell
from quadrat.results import ObjectTable, Polygons
from quadrat.stitching.components import face_pairs, union_find
from quadrat.stitching.features import Moments, measure_piece
from quadrat.stitching.polygons import Edges, boundary_edges, link_edges
from quadrat.task import Array, Arrays

SIDES = ("top", "bottom", "left", "right")
_MOMENTS = ("area", "sums", "bbox", "first", "transitions", "value")


def region_part(classes: npt.NDArray[np.uint8], score: npt.NDArray[np.uint8], *, origin: tuple[int, int]) -> Arrays:
    """What one shard knows of its regions.

    Args:
        classes: (h + 2, w + 2) class map, 0 = background, with one pixel of true context (0 outside the slide).
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
    part: Arrays = {"class_id": class_id} | {f"moments.{name}": getattr(moments, name) for name in _MOMENTS}
    part |= {f"edges.{name}": getattr(edges, name) for name in Edges.__slots__}
    both = np.stack([inside, classes[1:-1, 1:-1]], axis=-1).astype(np.int64)
    strips = (both[0], both[-1], both[:, 0], both[:, -1])
    return part | {f"strips.{side}": strip for side, strip in zip(SIDES, strips, strict=True)}


def merge_regions(
    parts: Mapping[Cell, Mapping[str, Array]], *, shard_px: int, min_area_px: float
) -> tuple[ObjectTable, Polygons]:
    """All regions of a slide of at least ``min_area_px``, in canonical order (shard of the first pixel, then pixel)."""
    shards = sorted(parts)
    counts = [len(parts[s]["class_id"]) for s in shards]
    first = dict(zip(shards, np.concatenate([[0], np.cumsum(counts)[:-1]]).tolist() if shards else [], strict=True))
    total = sum(counts)
    strips = {s: {side: parts[s][f"strips.{side}"] for side in SIDES} for s in shards}
    root = union_find(total, face_pairs(strips, first))
    pieces = Moments(**{n: _gather([parts[s][f"moments.{n}"] for s in shards], Moments.zeros(0), n) for n in _MOMENTS})
    class_id = np.concatenate([parts[s]["class_id"] for s in shards]) if shards else np.zeros(0, np.uint8)
    moments = pieces.scatter(root, n=total)
    keep = np.flatnonzero((root == np.arange(total)) & (moments.area >= max(1.0, min_area_px)))
    anchor = moments.first[keep]
    order = np.lexsort((anchor[:, 1], anchor[:, 0], anchor[:, 1] // shard_px, anchor[:, 0] // shard_px))
    keep = keep[order]
    number = np.zeros(total, np.int64)
    number[keep] = np.arange(1, len(keep) + 1)
    outline = []
    for shard in shards:
        edges = Edges(**{name: parts[shard][f"edges.{name}"] for name in Edges.__slots__})
        if not len(edges):
            continue
        label = number[root[edges.label - 1 + first[shard]]]
        relabelled = Edges(label=label, row=edges.row, col=edges.col, direction=edges.direction, length=edges.length)
        outline.append(relabelled.take(label > 0))
    polygons = link_edges(Edges.concatenate(outline), n=len(keep))
    area = moments.area[keep].astype(np.float64)
    return (
        ObjectTable(
            anchor=moments.first[keep],
            class_id=class_id[keep],
            score=(moments.value[keep] / np.maximum(area, 1) / 255).astype(np.float32),
            bbox=moments.bbox[keep].astype(np.float64),
            centroid=moments.centroid[keep],
            area_px=area,
            perimeter_px=polygon_perimeters(polygons),
            flags=np.zeros(len(keep), np.uint8),
        ),
        polygons,
    )


def _gather(arrays: list[npt.NDArray[np.int64]], empty: Moments, name: str) -> npt.NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else getattr(empty, name)


def polygon_perimeters(polygons: Polygons) -> npt.NDArray[np.float64]:
    """Cauchy-Crofton perimeter (four directions) of each pixel-edge polygon in px, from its outline alone.

    Transitions along rows and columns are the unit edges; a straight vertex has two along diagonals, a corner one, and a
    vertex that the outline passes twice (pixels meeting diagonally) none. So a region cut in pieces and the same region
    whole have the same perimeter, which sums of pieces could not promise for diagonals.
    """
    n_rings = len(polygons.ring_starts) - 1
    owner_of_ring = np.repeat(np.arange(len(polygons)), np.diff(polygons.polygon_starts))
    start = np.ones(len(polygons.xy), bool)  # every vertex but the closing one of a ring
    start[polygons.ring_starts[1:] - 1] = False
    owner = np.repeat(owner_of_ring, np.diff(polygons.ring_starts)) if n_rings else np.zeros(0, np.int64)
    index = np.flatnonzero(start)
    length = np.abs(polygons.xy[index + 1] - polygons.xy[index]).sum(axis=1) if len(index) else np.zeros(0)
    owner = owner[index]
    edges = np.bincount(owner, weights=length, minlength=len(polygons))
    corners = np.bincount(owner, minlength=len(polygons)).astype(np.float64)
    keys = np.stack([owner, *polygons.xy[index].astype(np.int64).T], axis=1)
    unique, times = np.unique(keys, axis=0, return_counts=True)
    twice = np.bincount(unique[times == 2, 0], minlength=len(polygons))
    diagonal = 2 * (edges - corners) + corners - 2 * twice
    result: npt.NDArray[np.float64] = math.pi / 8 * (edges + diagonal / math.sqrt(2))
    return result
