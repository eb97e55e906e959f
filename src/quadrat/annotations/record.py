"""One record of an annotation file as it was drawn, in any format, before anything is decided
(pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.types import F64, Kind
from quadrat.core.objects import Polygons

Rings = tuple[F64, ...]
"""A polygon: its shell, then its holes. Each ring is (k, 2) float64 x, y in level-0 px, closed
(first = last)."""

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
    "unknown type",
    "nothing used",
]
"""What can be wrong with a record or a file (docs/annotations.md explains each)."""

Corners = tuple[float, float, float, float]
NO_POINTS: F64 = np.zeros((0, 2))


class Problem(NamedTuple):
    """One thing that is wrong with a record."""

    code: Code
    """What is wrong, in one word or two."""
    text: str
    """What is wrong, in a sentence."""
    warning: bool = False
    """It is reported, but the record is used."""


@dataclass(frozen=True, slots=True)
class Record:
    """What stands at one place of a file: one object or region of one or several parts, or
    points."""

    place: str
    """Where it stands ("feature 12", "line 3", "object 4")."""
    name: str
    """Its class as written in the file; "" for none."""
    kind: Kind | None = None
    """None if the format does not tell objects from regions."""
    parts: tuple[Rings, ...] = ()
    """Polygons in level-0 px, corner-based."""
    points: F64 = field(default_factory=lambda: NO_POINTS)
    """(k, 2) x, y in level-0 px."""
    box: bool = False
    """It was drawn as a box."""
    crowd: bool = False
    """One outline around many things; it cannot be counted."""
    fault: Problem | None = None
    """Why its geometry cannot be used, or None."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The records of one slide in one file."""

    source: str
    """Path of the file."""
    format: str
    """Name of the format."""
    records: tuple[Record, ...]
    """The records in the order of the file."""
    size: tuple[int, int] | None = None
    """(height, width) in px that the file states, or None."""
    picture: str = ""
    """File name of the picture that the file names; "" if it names none."""
    one_class: bool = False
    """The format names no classes: a record belongs to the only class there is."""
    left_out: int = 0
    """How many features of the file are no records, because they are neither objects nor
    regions."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out, and on what was understood otherwise than it stands there."""


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
    """A record that draws nothing. ``text`` says why."""
    return Record(place, name, kind, box=box, fault=Problem(code, text))


def box_record(place: str, name: str, corners: Corners, *, kind: Kind | None = "object") -> Record:
    """The record of a box x0, y0, x1, y1 in level-0 px. It is faulty if a side is not positive or a
    number is not finite."""
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
    """The records as columns: one entry per part, and one per point.

    The parts of a record are one object; each of its points is an object. ``class_id``: for each
    record, an index into ``classes``.
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


def same_size(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) are the same up to a pixel, which writers round away."""
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) <= 1
