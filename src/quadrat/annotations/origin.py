"""Annotations of slides of which only a part was scanned (MIRAX and others).

quadrat counts level-0 px from the corner of the slide. Programs that hide the empty margin, such as
QuPath, count from the corner of the scanned part. Nobody draws in the margin, where nothing was
scanned. So in most cases the place of the records tells which corner is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from quadrat.annotations.faults import extent
from quadrat.annotations.record import Record, Sheet, same_size
from quadrat.annotations.types import F64
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box

Origin = Literal["auto", "slide", "scanned"]
"""``data.origin``."""
SURE = 0.99
"""The share of records that must lie in a part for it to be meant: some hang over its edge."""
LEAST = 0.5
"""Where fewer lie in either part, they are of another scale, or of another slide."""


def placed(sheet: Sheet, part: Box | None, *, origin: Origin) -> Sheet:
    """The sheet in px from the corner of the slide. ``part``: what was scanned, in level-0 px; None
    where that is all.

    Raises:
        AnnotationError: nobody can tell from which corner its coordinates count.
    """
    if part is None or not sheet.records:
        return sheet
    if origin == "auto" and sheet.size is not None:
        origin = "scanned" if same_size(sheet.size, part.shape) else "slide"
    records, note = move(sheet.records, part, origin=origin, where=sheet.source, key="data.origin")
    if not note:
        return sheet
    return replace(sheet, records=records, size=None, notes=(*sheet.notes, note))


def move(
    records: Sequence[Record], part: Box, *, origin: Origin, where: str, key: str
) -> tuple[tuple[Record, ...], str]:
    """The records in px from the corner of the slide, and a note; "" if they were so before.

    Raises:
        AnnotationError: see ``placed``; the message begins with ``where`` and names the ``key`` to
            set.
    """
    if origin == "auto":
        origin = _meant(records, part, where, key)
    if origin == "slide":
        return tuple(records), ""
    shift = np.array([part.col0, part.row0], np.float64)
    note = (
        f"its coordinates count from the corner of the scanned part; moved by {part.col0}, "
        f"{part.row0} px (x, y) to count from the corner of the slide"
    )
    return tuple(_moved(record, shift) for record in records), note


def _meant(records: Sequence[Record], part: Box, where: str, key: str) -> Origin:
    boxes = [box for box in map(extent, records) if box is not None]
    if not boxes:
        return "slide"
    middles = (np.array(boxes)[:, :2] + np.array(boxes)[:, 2:]) / 2
    in_part = _share(middles, part)
    in_same_size = _share(middles, Box(0, 0, part.height, part.width))
    here, there = in_part >= SURE, in_same_size >= SURE
    unclear = max(in_part, in_same_size) > LEAST  # else it is of another scale, or another slide's
    if here == there and unclear:
        raise AnnotationError(
            f"{where}: of its slide only the part at x {part.col0}, y {part.row0} was scanned "
            f"({part.width} x {part.height} px), and nobody can tell whether its coordinates count "
            f"from the corner of that, as in QuPath, or from that of the slide; set {key} to "
            "'scanned' or 'slide'"
        )
    return "scanned" if there else "slide"


def _share(points: F64, box: Box) -> float:
    """The share of points (x, y) in a box."""
    x, y = points[:, 0], points[:, 1]
    inside = (x >= box.col0) & (x < box.col1) & (y >= box.row0) & (y < box.row1)
    return float(inside.mean())


def _moved(record: Record, shift: F64) -> Record:
    parts = tuple(tuple(ring + shift for ring in part) for part in record.parts)
    return replace(record, parts=parts, points=record.points + shift)
