"""What people have drawn on a slide: one type for every format, and how it becomes pixels (pure).

A pixel belongs to a polygon if its centre does, by the even-odd rule over all rings, so that holes
need no care (W. Randolph Franklin's PNPOLY half-open edges; Foley et al., Computer Graphics, 3.6,
scan-line fill). Everything is computed from absolute coordinates, so a crop equals the same part of
the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from quadrat.annotations.scan import centroids, compact, scan_fill
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box
from quadrat.core.objects import Polygons

Kind = Literal["object", "region"]
"""An object is counted (QuPath detection or cell); a region is an area of tissue (QuPath
annotation)."""

Scale = tuple[float, float]
"""Level-0 px per grid px: (rows, columns)."""

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Truth(Protocol):
    """A source of truth for crops, whatever its format. ``box`` is in grid px; ``scale`` is level-0
    px per grid px."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that every class_id indexes."""

    def present(self) -> frozenset[int]:
        """The class_id of everything that is there."""

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """Labels (h, w), 0 none, ids 1..k each present; class_id (k,)."""

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """Class index + 1 of every pixel, 0 none; (h, w)."""

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Full extents (k, 4) x0, y0, x1, y1 in grid px of the objects whose extent meets the box;
        class_id (k,)."""

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Centroids or drawn points (k, 2) x, y in grid px that lie in the box; class_id (k,)."""


@dataclass(frozen=True, slots=True)
class SlideTruth:
    """What people have said of one slide: counted objects, tissue regions, the class of the whole
    slide (``label``; -1: none).

    ``bounds``: regions inside which everything is annotated; what lies outside is neither learnt
    nor judged. ``complete``: without bounds, whether all that is not annotated is background; if
    not, only annotated pixels are known. ``point_diameter_um``: above 0, objects were drawn as
    points: they are learnt as boxes of this size and matched by distance. ``skipped``: a line for
    every bad record that was left out; ``notes``: what else was taken otherwise than it stands in
    the file (a derived class as its base class, ignored classes).
    """

    objects: Truth | None = None
    regions: Truth | None = None
    bounds: Truth | None = None
    label: int = -1
    point_diameter_um: float = 0.0
    complete: bool = True
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def told(self, name: str) -> tuple[str, ...]:
        """What was skipped and noted of the slide of this name."""
        return tuple(f"{name}: {note}" for note in (*self.skipped, *self.notes))


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
    unclassified: int = 0
    other_kind: int = 0

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
        unclassified: int = 0,
        other_kind: int = 0,
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
        return Annotations(
            polygons, class_id, tuple(classes), kind, bbox, points, own, unclassified, other_kind
        )

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """See ``Truth.instances``; a later object covers an earlier one."""
        return rasterise_instances(self, box, scale_row=scale[0], scale_col=scale[1])

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """See ``Truth.regions``; a later region covers an earlier one."""
        return rasterise_classes(self, box, scale_row=scale[0], scale_col=scale[1])

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.boxes``; drawn points have no extent and are left out."""
        extents, first = _object_extents(self)
        index = _meeting(extents, box, scale)
        index = index[np.isnan(self.points_l0[first[index], 0])]
        xyxy = extents[index][:, [1, 0, 3, 2]] / np.array([scale[1], scale[0], scale[1], scale[0]])
        return xyxy, self.class_id[first[index]]

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
        xy = xy / np.array([scale[1], scale[0]])
        inside = points_inside(xy, box)
        return xy[inside], self.class_id[first[touching[inside]]]


def objects_in(annotations: Annotations, box_l0: Box) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the entries whose bounding box meets ``box_l0`` (level-0 px; points:
    lie in it)."""
    return _touching(annotations, box_l0, (1.0, 1.0))


def rasterise_instances(
    annotations: Annotations, box: Box, *, scale_row: float, scale_col: float
) -> tuple[npt.NDArray[np.int32], Ids]:
    """Label image of the entries in ``box`` (grid px): labels int32 (h, w) and class_id int64 (k,).

    Ids 1..k follow the order of the annotations; a later entry covers an earlier one, and an object
    that covers no pixel centre of the box has no id. Points are never drawn.
    """
    index = _touching(annotations, box, (scale_row, scale_col))
    _, first, rank = np.unique(annotations.object_id[index], return_index=True, return_inverse=True)
    labels = _fill(annotations, box, (scale_row, scale_col), index, (rank + 1).astype(np.int32))
    present = compact(labels, len(first))
    return labels, annotations.class_id[index[first[present]]]


def rasterise_classes(
    annotations: Annotations, box: Box, *, scale_row: float, scale_col: float
) -> npt.NDArray[np.uint8]:
    """Class index + 1 of the last entry drawn over each pixel centre of ``box`` (grid px), 0 none;
    uint8 (h, w)."""
    index = _touching(annotations, box, (scale_row, scale_col))
    values = (annotations.class_id[index] + 1).astype(np.int32)
    return _fill(annotations, box, (scale_row, scale_col), index, values).astype(np.uint8)


def points_inside(xy: F64, box: Box) -> npt.NDArray[np.bool_]:
    """Which (n, 2) x, y lie in the half-open ``box`` of the same frame; bool (n,)."""
    x, y = xy[:, 0], xy[:, 1]
    inside: npt.NDArray[np.bool_] = (
        (x >= box.col0) & (x < box.col1) & (y >= box.row0) & (y < box.row1)
    )
    return inside


def class_index(name: str, classes: Sequence[str], *, where: str) -> int:
    """Index of a class name.

    Raises:
        AnnotationError: not among ``classes``; names the nearest one and ``where`` (file and
        feature).
    """
    if name in classes:
        return list(classes).index(name)
    near = nearest_class(name, classes)
    hint = f"did you mean {near!r}?" if near else "add it to the classes or rename it in the file"
    raise AnnotationError(f"{where}: class {name!r} is not one of {', '.join(classes)}; {hint}")


def nearest_class(name: str, classes: Sequence[str]) -> str | None:
    """The class whose name is most like ``name``, in any case; None if none is."""
    by_lower = {c.lower(): c for c in reversed(classes)}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else None


def check_scale(scale: Scale) -> None:
    """Refuse a scale that is not two positive finite numbers (ValueError)."""
    if not all(math.isfinite(s) and s > 0 for s in scale):
        raise ValueError(
            f"scale {scale} must be two positive numbers, level-0 px per grid px (rows, columns)"
        )


def _touching(annotations: Annotations, box: Box, scale: Scale) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the entries whose own bounding box meets ``box`` (grid px)."""
    return _meeting(annotations.bbox, box, scale)


def _meeting(bbox: F64, box: Box, scale: Scale) -> npt.NDArray[np.intp]:
    check_scale(scale)
    row0, row1, col0, col1 = (
        box.row0 * scale[0],
        box.row1 * scale[0],
        box.col0 * scale[1],
        box.col1 * scale[1],
    )
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


def _fill(
    annotations: Annotations,
    box: Box,
    scale: Scale,
    index: npt.NDArray[np.intp],
    values: npt.NDArray[np.int32],
) -> npt.NDArray[np.int32]:
    """Draw the entries ``index`` with ``values``, one after the other, into a fresh
    int32 (h, w).
    """
    out = np.zeros(box.shape, np.int32)
    p = annotations.polygons
    scan_fill(
        out,
        box.row0,
        box.col0,
        scale[0],
        scale[1],
        p.xy,
        p.ring_starts,
        p.polygon_starts,
        index,
        values,
    )
    return out


def _bounding_boxes(polygons: Polygons) -> F64:
    """(n, 4) row0, col0, row1, col1 of every polygon; NaN for one without rings."""
    out = np.full((len(polygons), 4), np.nan)
    first = polygons.ring_starts[polygons.polygon_starts]
    drawn = first[1:] > first[:-1]
    if drawn.any():
        starts = first[:-1][
            drawn
        ]  # entries without vertices take nothing, so the next start ends the one before
        out[drawn, 0:2] = np.minimum.reduceat(polygons.xy, starts)[:, ::-1]
        out[drawn, 2:4] = np.maximum.reduceat(polygons.xy, starts)[:, ::-1]
    return out
