"""One record of an annotation file as it was drawn, whatever the format, before anything is decided
about it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.types import F64, Kind
from quadrat.core.objects import Polygons

Rings = tuple[F64, ...]
"""A polygon: its shell, then its holes; each ring (k, 2) float64 x, y in level-0 px, closed (first
= last)."""

Code = Literal[
    "no geometry",
    "degenerate box",
    "self-crossing",
    "empty",
    "outside",
    "partly outside",
    "no class",
    "unknown class",
    "duplicate",
    "touching itself",
    "in pieces",
    "wrong scale",
    "not asked for",
    "other slide",
    "unreadable",
    "no mpp",
    "not bounded",
    "two sides",
]
"""What can be wrong with a record or a file (docs/annotations.md explains each)."""

Corners = tuple[float, float, float, float]
NO_POINTS: F64 = np.zeros((0, 2))


class Problem(NamedTuple):
    """One thing that is wrong with a record. A ``warning`` is told by ``check``, but does not keep
    the record out."""

    code: Code
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What stands at one place of a file: one object or region, of one or several parts, or points.

    place: where it stands ("feature 12", "line 3", "object 4"). name: its class as the file writes
    it, "" for none. kind: None where the format does not tell objects from regions. parts:
    polygons, level-0 px, corner-based. points: (k, 2) x, y. box: it was drawn as a box. crowd: one
    outline around many things, which no count can use. fault: why it has no geometry that can be
    used, or None.
    """

    place: str
    name: str
    kind: Kind | None = None
    parts: tuple[Rings, ...] = ()
    points: F64 = field(default_factory=lambda: NO_POINTS)
    box: bool = False
    crowd: bool = False
    fault: Problem | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """The records of one slide in one file. ``size``: (height, width) in px that the file states,
    or None.

    ``source``: the file's path. ``picture``: the file name of the picture that the file names, or
    "". ``one_class``: the format names no classes, so that a record belongs to the only class.
    """

    source: str
    format: str
    records: tuple[Record, ...]
    size: tuple[int, int] | None = None
    picture: str = ""
    one_class: bool = False


def rectangle(x0: float, y0: float, x1: float, y1: float) -> tuple[Rings, ...]:
    """The parts of a box: one ring around it."""
    return ((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64),),)


def faulty(
    place: str,
    name: str,
    text: str,
    *,
    code: Code = "no geometry",
    kind: Kind | None = None,
    box: bool = False,
) -> Record:
    """The record of what draws nothing; ``text`` says why."""
    return Record(place, name, kind, box=box, fault=Problem(code, text))


def box_record(place: str, name: str, corners: Corners, *, kind: Kind | None = "object") -> Record:
    """The record of a box x0, y0, x1, y1 in level-0 px; one without a side, or with a number that
    is none, is faulty."""
    x0, y0, x1, y1 = corners
    if not np.isfinite(corners).all():
        stated = ", ".join(f"{value:g}" for value in corners)
        text = f"a coordinate of the box {stated} is not a finite number"
        return faulty(place, name, text, kind=kind, box=True)
    if x1 <= x0 or y1 <= y0:
        text = f"a box of {x1 - x0:g} x {y1 - y0:g} px at x {x0:g}, y {y0:g}"
        return faulty(place, name, text, code="degenerate box", kind=kind, box=True)
    return Record(place, name, kind, rectangle(x0, y0, x1, y1), box=True)


def to_annotations(
    records: Sequence[Record],
    class_id: Sequence[int],
    *,
    classes: Sequence[str],
    kind: Kind,
) -> Annotations:
    """The records as columns: one entry a part and one a point; the parts of a record are one
    object, its points are many.

    ``class_id``: of each record, an index into ``classes``.
    """
    rings: list[F64] = []
    rings_of: list[int] = []
    ids: list[int] = []
    points: list[tuple[float, float]] = []
    object_id: list[int] = []
    objects = 0
    for record, own in zip(records, class_id, strict=True):
        for part in record.parts:
            rings.extend(part)
            rings_of.append(len(part))
            points.append((np.nan, np.nan))
            object_id.append(objects)
        objects += bool(record.parts)
        for x, y in record.points.tolist():
            rings_of.append(0)
            points.append((x, y))
            object_id.append(objects)
            objects += 1
        ids.extend([own] * (len(record.parts) + len(record.points)))
    polygons = Polygons(
        xy=np.concatenate(rings).astype(np.float64) if rings else np.zeros((0, 2)),
        ring_starts=np.concatenate(
            [[0], np.cumsum([len(r) for r in rings], dtype=np.int64)]
        ).astype(np.int64),
        polygon_starts=np.concatenate([[0], np.cumsum(rings_of, dtype=np.int64)]).astype(np.int64),
    )
    return Annotations.of(
        polygons,
        np.array(ids, np.int64),
        classes=classes,
        kind=kind,
        points_l0=np.array(points, np.float64).reshape(-1, 2),
        object_id=np.array(object_id, np.int64),
    )
