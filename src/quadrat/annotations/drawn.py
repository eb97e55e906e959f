"""Outlines and points as people drew them on one slide, and how they become pixels (pure).

A pixel belongs to a polygon if its centre does, by the even-odd rule over all rings, so that holes
need no care (W. Randolph Franklin's PNPOLY half-open edges; Foley et al., Computer Graphics, 3.6,
scan-line fill). Everything is computed from absolute coordinates, so a crop equals the same part of
the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.scan import centroids, compact, scan_fill
from quadrat.annotations.types import F64, Ids, Kind
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Polygons


@dataclass(frozen=True, slots=True)
class Annotations:
    """Objects or regions of one slide in the order they were drawn; coordinates in level-0 px,
    corner-based.

    polygons: n entries, xy level-0 px; an entry without rings is a point. class_id: (n,) int64 into
    ``classes``. bbox: (n, 4) float64 row0, col0, row1, col1. points_l0: (n, 2) float64 x, y of
    point entries, NaN for polygons. object_id: (n,) int64, 0.. without gaps and never falling: the
    object that an entry is (a part of). An object of several parts has one label, one box around
    all of them and one centre. unclassified, other_kind: features left out because they had no
    class, or were not of ``kind``. The methods treat every entry alike: load objects and regions of
    one file apart, by ``kind``.
    """

    polygons: Polygons
    class_id: Ids
    classes: tuple[str, ...]
    kind: Kind
    bbox: F64
    points_l0: F64
    object_id: Ids

    def __post_init__(self) -> None:
        n = len(self.polygons)
        for name, shape in (
            ("class_id", (n,)),
            ("bbox", (n, 4)),
            ("points_l0", (n, 2)),
            ("object_id", (n,)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"Annotations.{name} has shape {getattr(self, name).shape}, want {shape}"
                )
        if n and not 0 <= self.class_id.min() <= self.class_id.max() < len(self.classes):
            raise ValueError(f"Annotations.class_id leaves 0..{len(self.classes) - 1}")
        if n and (self.object_id[0] != 0 or not np.isin(np.diff(self.object_id), (0, 1)).all()):
            raise ValueError("Annotations.object_id must start at 0 and rise by 0 or 1")

    @property
    def objects(self) -> int:
        """How many objects (or regions, or points) there are; parts of one count once."""
        return int(self.object_id[-1]) + 1 if len(self) else 0

    def present(self) -> frozenset[int]:
        """See ``Truth.present``."""
        return frozenset(self.class_id.tolist())

    def __len__(self) -> int:
        return len(self.polygons)

    @staticmethod
    def of(
        polygons: Polygons,
        class_id: Ids,
        *,
        classes: Sequence[str],
        kind: Kind,
        points_l0: F64 | None = None,
        object_id: Ids | None = None,
    ) -> Annotations:
        """Annotations with their bounding boxes worked out.

        ``points_l0`` may be left out where there are none, ``object_id`` where every entry is an
        object of its own.
        """
        points = np.full((len(polygons), 2), np.nan) if points_l0 is None else points_l0
        bbox = _bounding_boxes(polygons)
        is_point = ~np.isnan(points[:, 0])
        bbox[is_point] = points[is_point][:, [1, 0, 1, 0]]
        own = np.arange(len(polygons), dtype=np.int64) if object_id is None else object_id
        return Annotations(polygons, class_id, tuple(classes), kind, bbox, points, own)

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """See ``Truth.instances``. Ids follow the order of drawing, and a later object covers an
        earlier one; an object that covers no pixel centre of the box has no id. Points are not
        drawn."""
        index = _meeting(self.bbox, box, scale)
        _, first, rank = np.unique(self.object_id[index], return_index=True, return_inverse=True)
        labels = self._fill(box, scale, index, (rank + 1).astype(np.int32))
        present = compact(labels, len(first))
        return labels, self.class_id[index[first[present]]]

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """See ``Truth.regions``; a later region covers an earlier one."""
        index = _meeting(self.bbox, box, scale)
        values = (self.class_id[index] + 1).astype(np.int32)
        return self._fill(box, scale, index, values).astype(np.uint8)

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.boxes``; drawn points have no extent and are left out."""
        extents, first = _object_extents(self)
        index = _meeting(extents, box, scale)
        index = index[np.isnan(self.points_l0[first[index], 0])]
        return scale.from_l0(extents[index][:, [1, 0, 3, 2]]), self.class_id[first[index]]

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.points``; a polygon's point is its centre of area (holes taken off, all parts
        together)."""
        extents, first = _object_extents(self)
        touching = _meeting(extents, box, scale)
        index = np.flatnonzero(np.isin(self.object_id, touching))
        polygons = self.polygons
        xy, area = centroids(polygons.xy, polygons.ring_starts, polygons.polygon_starts, index)
        drawn = self.points_l0[index]
        xy = np.where(np.isnan(drawn), xy, drawn)
        if len(index) > len(touching):
            xy = _joined(xy, area, np.searchsorted(self.object_id[index], touching))
        xy = scale.from_l0(xy)
        inside = points_inside(xy, box)
        return xy[inside], self.class_id[first[touching[inside]]]

    def _fill(
        self,
        box: Box,
        scale: Scale,
        index: npt.NDArray[np.intp],
        values: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int32]:
        """Draw the entries ``index`` with ``values``, one after the other, into a fresh
        int32 (h, w).
        """
        out, p = np.zeros(box.shape, np.int32), self.polygons
        offsets = p.ring_starts, p.polygon_starts
        scan_fill(out, box.row0, box.col0, scale.row, scale.col, p.xy, *offsets, index, values)
        return out


def points_inside(xy: F64, box: Box) -> npt.NDArray[np.bool_]:
    """Which (n, 2) x, y lie in the half-open ``box`` of the same frame; bool (n,)."""
    x, y = xy[:, 0], xy[:, 1]
    inside: npt.NDArray[np.bool_] = (
        (x >= box.col0) & (x < box.col1) & (y >= box.row0) & (y < box.row1)
    )
    return inside


def _meeting(bbox: F64, box: Box, scale: Scale) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the extents (n, 4) row0, col0, row1, col1 in level-0 px that meet a
    box."""
    col0, row0, col1, row1 = scale.box_l0(box)
    # `>=` on the near sides as well keeps points (no extent) that lie on them; half-open for the
    # rest
    rows = (bbox[:, 0] < row1) & ((bbox[:, 2] > row0) | (bbox[:, 0] >= row0))
    cols = (bbox[:, 1] < col1) & ((bbox[:, 3] > col0) | (bbox[:, 1] >= col0))
    return np.flatnonzero(rows & cols)


def _object_extents(annotations: Annotations) -> tuple[F64, npt.NDArray[np.intp]]:
    """Of every object: its extent (k, 4) row0, col0, row1, col1 over all parts, and its first entry
    (k,)."""
    first = np.flatnonzero(np.diff(annotations.object_id, prepend=-1))
    if len(first) == len(annotations):
        return annotations.bbox, first
    low = np.minimum.reduceat(annotations.bbox[:, :2], first)
    return np.concatenate([low, np.maximum.reduceat(annotations.bbox[:, 2:], first)], axis=1), first


def _joined(xy: F64, area: F64, starts: npt.NDArray[np.intp]) -> F64:
    """Centres of objects from the centres and areas of their parts; an object's parts begin at
    ``starts``."""
    sums = np.add.reduceat(np.column_stack([xy * area[:, None], area, xy]), starts)
    count = np.diff(starts, append=len(xy))[:, None]
    flat = sums[:, 2:3] <= 0  # points, and shapes without area
    return np.where(flat, sums[:, 3:] / count, sums[:, :2] / np.where(flat, 1, sums[:, 2:3]))


def _bounding_boxes(polygons: Polygons) -> F64:
    """(n, 4) row0, col0, row1, col1 of every polygon; NaN for one without rings."""
    out = np.full((len(polygons), 4), np.nan)
    first = polygons.ring_starts[polygons.polygon_starts]
    drawn = first[1:] > first[:-1]
    if drawn.any():
        # entries without vertices take nothing, so the next start ends the one before
        starts = first[:-1][drawn]
        out[drawn, 0:2] = np.minimum.reduceat(polygons.xy, starts)[:, ::-1]
        out[drawn, 2:4] = np.maximum.reduceat(polygons.xy, starts)[:, ::-1]
    return out
