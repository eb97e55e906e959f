"""Outlines and points as people drew them on one slide, and how they become pixels (pure).

A pixel belongs to a polygon if its centre does, by the even-odd rule over all rings. So holes need
no special care (PNPOLY half-open edges of W. Randolph Franklin; scan-line fill: Foley et al.,
Computer Graphics, 3.6). Everything is computed from absolute coordinates, so a crop equals the same
part of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quadrat.annotations.extents import Extents
from quadrat.annotations.scan import centroids, compact, scan_fill
from quadrat.annotations.types import F64, Ids, Kind
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Polygons


@dataclass(frozen=True)  # no slots, since indices are kept once they are made
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
        index = _meeting(self._entries, box, scale)
        _, first, rank = np.unique(self.object_id[index], return_index=True, return_inverse=True)
        labels = self._fill(box, scale, index, (rank + 1).astype(np.int32))
        present = compact(labels, len(first))
        return labels, self.class_id[index[first[present]]]

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """See ``Truth.regions``; a later region covers an earlier one."""
        index = _meeting(self._entries, box, scale)
        values = (self.class_id[index] + 1).astype(np.int32)
        return self._fill(box, scale, index, values).astype(np.uint8)

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.boxes``. Drawn points have no extent and are left out."""
        first = self._first
        index = _meeting(self._extents, box, scale)
        index = index[np.isnan(self.points_l0[first[index], 0])]
        return scale.from_l0(self._extents.xyxy[index]), self.class_id[first[index]]

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.points``. The point of a polygon is its centre of area, without holes, over
        all parts."""
        first, touching = self._first, _meeting(self._extents, box, scale)
        index = self._parts(touching)
        polygons = self.polygons
        xy, area = centroids(polygons.xy, polygons.ring_starts, polygons.polygon_starts, index)
        drawn = self.points_l0[index]
        xy = np.where(np.isnan(drawn), xy, drawn)
        if len(index) > len(touching):
            xy = _joined(xy, area, np.searchsorted(self.object_id[index], touching))
        xy = scale.from_l0(xy)
        inside = points_inside(xy, box)
        return xy[inside], self.class_id[first[touching[inside]]]

    @cached_property
    def _first(self) -> npt.NDArray[np.intp]:
        """The first entry of every object, (k,)."""
        return np.flatnonzero(np.diff(self.object_id, prepend=-1))

    @cached_property
    def _entries(self) -> Extents:
        """Where every entry lies."""
        return Extents(self.bbox[:, [1, 0, 3, 2]])

    @cached_property
    def _extents(self) -> Extents:
        """Where every object lies, all its parts together."""
        first, xyxy = self._first, self._entries.xyxy
        if len(first) == len(self):
            return self._entries
        low, high = np.minimum.reduceat(xyxy, first), np.maximum.reduceat(xyxy, first)
        return Extents(np.concatenate([low[:, :2], high[:, 2:]], axis=1))

    def _parts(self, objects: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The entries of some objects, both ascending."""
        starts = self._first[objects]
        counts = np.append(self._first, len(self))[objects + 1] - starts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        entries: npt.NDArray[np.intp] = np.repeat(starts, counts) + within
        return entries

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


def _meeting(extents: Extents, box: Box, scale: Scale) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the extents that meet a box."""
    x0, y0, x1, y1 = scale.box_l0(box)
    near = extents.near(x0, y0, x1, y1)
    xyxy = extents.xyxy[near]
    # `>=` on the near sides keeps points there, which have no extent; the rest is half-open
    rows = (xyxy[:, 1] < y1) & ((xyxy[:, 3] > y0) | (xyxy[:, 1] >= y0))
    cols = (xyxy[:, 0] < x1) & ((xyxy[:, 2] > x0) | (xyxy[:, 0] >= x0))
    return near[rows & cols]


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
