"""What is wrong with the geometry of records. Faults are named, never fixed (pure).

A polygon crosses itself if GEOS finds it invalid (OGC 06-103r4, 6.1.11). A polygon that only
touches itself in a point is reported and kept, since the even-odd rule fills it as drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.annotations.record import Problem, Record, Rings
from quadrat.annotations.types import F64


def geometry_problems(
    records: Sequence[Record], *, size: tuple[int, int] | None
) -> list[list[Problem]]:
    """The problems of every record, in their order.

    ``size``: (height, width) of the slide in level-0 px. Without it, nobody can say what lies
    outside.
    """
    found: list[list[Problem]] = [[record.fault] if record.fault else [] for record in records]
    shapes = np.array([shape_of(part) for record in records for part in record.parts], object)
    _add_invalid(records, shapes, found)
    if size is not None:
        for record, problems in zip(records, found, strict=True):
            problem = None if record.fault else _outside(record, size)
            if problem is not None:
                problems.append(problem)
    _add_duplicates(records, shapes, found)
    return found


def shape_of(part: Rings) -> shapely.Polygon:
    """The polygon of a part, valid or not."""
    return shapely.Polygon(part[0], part[1:])


def extent(record: Record) -> F64 | None:
    """x0, y0, x1, y1 of everything that a record draws; None if it draws nothing."""
    drawn = [part[0] for part in record.parts] + ([record.points] if len(record.points) else [])
    if not drawn:
        return None
    xy = np.concatenate(drawn)
    return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def _add_invalid(
    records: Sequence[Record], shapes: npt.NDArray[Any], found: list[list[Problem]]
) -> None:
    """Polygons (of all parts, in their order) that cross themselves, touch themselves, or enclose
    nothing."""
    owner = [i for i, record in enumerate(records) for _ in record.parts]
    area, valid = shapely.area(shapes), shapely.is_valid(shapes)
    for k in np.flatnonzero(~valid | ~(area > 0)).tolist():
        problems = found[owner[k]]
        first = records[owner[k]].parts[0][0][0]
        place = f"near x {first[0]:g}, y {first[1]:g}"
        reason = shapely.is_valid_reason(shapes[k])
        # a bow tie has no area either
        if not area[k] > 0 and not shapely.convex_hull(shapes[k]).area > 0:
            problems.append(Problem("empty", f"a polygon without area {place}"))
        elif reason.startswith("Ring Self-intersection"):
            problems.append(
                Problem(
                    "touching itself",
                    f"a polygon that touches itself ({_tidy(reason)})",
                    warning=True,
                )
            )
        else:
            problems.append(
                Problem("self-crossing", f"a polygon that crosses itself ({_tidy(reason)})")
            )


def _tidy(reason: str) -> str:
    """The reason of GEOS with the place in words: "Self-intersection at x 5, y 5"."""
    text, _, place = reason.partition("[")
    numbers = place.removesuffix("]").split()
    return (
        f"{text} at x {float(numbers[0]):g}, y {float(numbers[1]):g}" if len(numbers) >= 2 else text
    )


def _outside(record: Record, size: tuple[int, int]) -> Problem | None:
    """Points are half-open: a point on the far border belongs to no pixel. A shape is outside if it
    shares no pixel."""
    height, width = size
    box = extent(record)
    if box is None:
        return None
    x0, y0, x1, y1 = box.tolist()
    span = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}; the slide has {width} x {height} px"
    if len(record.points) and not record.parts:
        out = ((record.points < 0) | (record.points >= [width, height])).any(axis=1)
        if out.any():
            x, y = record.points[out][0].tolist()
            return Problem(
                "outside", f"a point at x {x:g}, y {y:g}; the slide has {width} x {height} px"
            )
        return None
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return Problem("outside", span)
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        return Problem("partly outside", span, warning=True)
    return None


def _add_duplicates(
    records: Sequence[Record], shapes: npt.NDArray[Any], found: list[list[Problem]]
) -> None:
    """The same outline or point again, wherever it begins and in whichever direction it runs.

    Two regions may share an outline if their classes differ. Two objects may not.
    """
    seen: dict[tuple[object, ...], Record] = {}
    outlines = iter(shapely.to_wkb(shapely.normalize(shapes)).tolist())
    for record, problems in zip(records, found, strict=True):
        parts = sorted(islice(outlines, len(record.parts)))
        if record.fault:
            continue
        for key in _keys(record, parts):
            before = seen.get(key)
            if before is not None:
                other = (
                    "" if before.name == record.name else f", where its class is '{before.name}'"
                )
                problems.append(Problem("duplicate", f"the same as {before.place}{other}"))
                break
            seen[key] = record


def _keys(record: Record, parts: Sequence[bytes]) -> list[tuple[object, ...]]:
    name = "" if record.kind == "object" else record.name
    keys: list[tuple[object, ...]] = [(record.kind, name, *parts)] if parts else []
    return keys + [(record.kind, name, x, y) for x, y in record.points.tolist()]
