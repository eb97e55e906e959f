"""Outlines and points as people drew them on one slide, and how they become pixels (pure).

A pixel belongs to a polygon if its centre does, by the even-odd rule over all rings. So holes need
no special care (PNPOLY half-open edges of W. Randolph Franklin; scan-line fill: Foley et al.,
Computer Graphics, 3.6). Everything is computed from absolute coordinates, so a crop equals the same
part of the whole.
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
    """Objects or regions of one slide in the order in which they were drawn, corner-based.

    An object of several parts has one label, one box around all parts, and one centre. The methods
    treat all entries alike, so load the objects and the regions of one file separately, by
    ``kind``.
    """

    polygons: Polygons
    """n entries, xy in level-0 px; an entry without rings is a point."""
    class_id: Ids
    """(n,) int64: index into ``classes``."""
    classes: tuple[str, ...]
    """Names of the classes."""
    kind: Kind
    """Whether all entries are objects or all are regions."""
    bbox: F64
    """(n, 4) float64: row0, col0, row1, col1 in level-0 px."""
    points_l0: F64
    """(n, 2) float64: x, y of point entries in level-0 px, NaN for polygons."""
    object_id: Ids
    """(n,) int64: the object that an entry is (a part of), from 0, rising by 0 or 1."""

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
        """How many objects (or regions, or points) there are. An object of several parts counts
        once."""
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
        """Annotations with their bounding boxes computed.

        Leave ``points_l0`` out if there are no points, and ``object_id`` if every entry is an
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
        earlier one.

        An object that covers no pixel centre of the box has no id. Points are not drawn.
        """
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
        """See ``Truth.boxes``. Drawn points have no extent and are left out."""
        extents, first = _object_extents(self)
        index = _meeting(extents, box, scale)
        index = index[np.isnan(self.points_l0[first[index], 0])]
        return scale.from_l0(extents[index][:, [1, 0, 3, 2]]), self.class_id[first[index]]

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.points``. The point of a polygon is its centre of area, without holes, over
        all parts."""
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
        """Draw the entries ``index`` with ``values``, one after the other, into a new int32
        (h, w)."""
        out, p = np.zeros(box.shape, np.int32), self.polygons
        offsets = p.ring_starts, p.polygon_starts
        scan_fill(out, box.row0, box.col0, scale.row, scale.col, p.xy, *offsets, index, values)
        return out


def points_inside(xy: F64, box: Box) -> npt.NDArray[np.bool_]:
    """Which points (n, 2) x, y lie in the half-open ``box`` of the same frame; bool (n,)."""
    x, y = xy[:, 0], xy[:, 1]
    inside: npt.NDArray[np.bool_] = (
        (x >= box.col0) & (x < box.col1) & (y >= box.row0) & (y < box.row1)
    )
    return inside


def _meeting(bbox: F64, box: Box, scale: Scale) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the extents (n, 4) row0, col0, row1, col1 in level-0 px that meet a
    box."""
    col0, row0, col1, row1 = scale.box_l0(box)
    # `>=` on the near sides keeps points there, which have no extent; the rest is half-open
    rows = (bbox[:, 0] < row1) & ((bbox[:, 2] > row0) | (bbox[:, 0] >= row0))
    cols = (bbox[:, 1] < col1) & ((bbox[:, 3] > col0) | (bbox[:, 1] >= col0))
    return np.flatnonzero(rows & cols)


def _object_extents(annotations: Annotations) -> tuple[F64, npt.NDArray[np.intp]]:
    """For every object: its extent (k, 4) row0, col0, row1, col1 over all parts, and its first
    entry (k,)."""
    first = np.flatnonzero(np.diff(annotations.object_id, prepend=-1))
    if len(first) == len(annotations):
        return annotations.bbox, first
    low = np.minimum.reduceat(annotations.bbox[:, :2], first)
    return np.concatenate([low, np.maximum.reduceat(annotations.bbox[:, 2:], first)], axis=1), first


def _joined(xy: F64, area: F64, starts: npt.NDArray[np.intp]) -> F64:
    """Centres of objects from the centres and areas of their parts. The parts of an object begin at
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
        # entries without vertices take no place, so the next start is the end of the one before
        starts = first[:-1][drawn]
        out[drawn, 0:2] = np.minimum.reduceat(polygons.xy, starts)[:, ::-1]
        out[drawn, 2:4] = np.maximum.reduceat(polygons.xy, starts)[:, ::-1]
    return out
