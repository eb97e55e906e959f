"""Records that people or tools drew, as the objects of a result (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.record import Problem, Record, Sheet, rectangle
from quadrat.annotations.scale import scale_problems
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import ConfigError
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.unit import PX
from quadrat.outputs.objects import polygons_of
from quadrat.outputs.results import REGIONAL

NO_CLASS = "object"
"""Class of objects without one."""
SHOWN = 3
"""So many bad objects are named."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a file becomes objects."""

    records: tuple[Record, ...]
    """They, in the order of the file."""
    task: str
    """Which task would have found such: "semantic" regions, "instance" outlines, or "detection"
    boxes and points."""
    notes: tuple[str, ...]
    """Sentences on what was left out or understood."""


def chosen(sheet: Sheet, frame: Frame, *, points: bool, skip_bad: bool) -> Chosen:
    """The objects of a sheet; its regions, if there are none.

    ``points``: points may be objects. ``skip_bad``: objects that cannot be used are left out.

    Raises:
        ConfigError: some cannot be used, there are none, or they are of another scale.
    """
    name, size = Path(sheet.source).name, (frame.height, frame.width)
    records = [record for record in sheet.records if record.kind != "region"]
    regional = not records and bool(sheet.records)
    notes = []
    if regional:
        records = list(sheet.records)
        notes.append(f"no objects in {name}: its {len(records)} regions were imported")
    elif len(records) < len(sheet.records):
        notes.append(f"{len(sheet.records) - len(records)} regions of {name} are left out")
    if not records:
        raise ConfigError(f"{sheet.source}: there is no object in it")
    mpp = None if frame.unit == PX else frame.mpp_l0
    for problem in scale_problems(sheet, size=size, mpp=mpp):
        if not problem.warning:
            raise ConfigError(f"{sheet.source}: {problem.text}")
        notes.append(problem.text)
    good, bad = list[Record](), list[str]()
    for record, problems in zip(records, geometry_problems(records, size=size), strict=True):
        unfit = _unfit(record, points=points)
        wrong = next((p for p in (*problems, *unfit) if not p.warning), None)
        if wrong is None:
            good.append(record)
        else:
            bad.append(f"{record.place}: {wrong.text}")
    if bad:
        shown = "; ".join(bad[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
        if not skip_bad:
            raise ConfigError(
                f"{sheet.source}: {len(bad)} of {len(records)} objects cannot be used ({shown}); "
                "mend them, or leave them out with --bad-records skip"
            )
        notes.append(f"{len(bad)} of {len(records)} objects of {name} left out ({shown})")
    outlined = any(record.parts and not record.box for record in good)
    task = REGIONAL if regional else "instance" if outlined else "detection"
    return Chosen(tuple(good), task, tuple(notes))


def _unfit(record: Record, *, points: bool) -> list[Problem]:
    """What of a record is no object of a result."""
    if len(record.parts) > 1:
        return [Problem("in pieces", f"{len(record.parts)} parts, but an object has one outline")]
    if len(record.points) and not points:
        return [Problem("no geometry", "a point; give points a size with --point-um")]
    return []


def objects_of(
    records: Sequence[Record],
    classes: Sequence[ClassInfo],
    *,
    point: float,
    scores: Mapping[str, float],
) -> tuple[ObjectTable, Polygons]:
    """Records as objects in canonical order: by the pixel of the centroid, row by row.

    ``point``: side in px of the square around a point; each point is an object. ``scores``: by
    place of the record; 1 for others.
    """
    index = {info.name: k for k, info in enumerate(classes)}
    shapes, class_id, score = list[shapely.Geometry](), list[int](), list[float]()
    for record in records:
        own = [geometry_of(record)] if record.parts else []
        for x, y in record.points.tolist():
            half = point / 2
            ((ring,),) = rectangle(x - half, y - half, x + half, y + half)
            own.append(shapely.Polygon(ring))
        shapes += own
        class_id += [index[record.name or NO_CLASS]] * len(own)
        score += [scores.get(record.place, 1.0)] * len(own)
    drawn = np.array(shapes, object)
    bounds = shapely.bounds(drawn).reshape(-1, 4)
    middle = shapely.centroid(drawn)
    centroid = np.stack([shapely.get_y(middle), shapely.get_x(middle)], axis=1).reshape(-1, 2)
    anchor = np.floor(centroid).astype(np.int64)
    ids = np.array(class_id, np.uint8)
    keys = (ids, *bounds.T[::-1], centroid[:, 1], centroid[:, 0], anchor[:, 1], anchor[:, 0])
    order = np.lexsort(keys)
    table = ObjectTable(
        anchor=anchor,
        class_id=ids,
        score=np.array(score, np.float32),
        bbox=bounds[:, [1, 0, 3, 2]],
        centroid=centroid,
        area_px=shapely.area(drawn).astype(np.float64),
        perimeter_px=shapely.length(drawn).astype(np.float64),
        flags=np.zeros(len(ids), np.uint8),
    )
    return table.take(order), polygons_of(drawn[order])
