"""ASAP XML to records: polygons, rectangles and dots.

Format: https://github.com/computationalpathologygroup/ASAP (XmlRepository). The class is the group
of an annotation. Coordinates are level-0 px; on computers set to a language with a decimal comma,
they are written with one. A spline cannot be read: the file holds its knots, not its outline.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quadrat.annotations.formats.text import read_xml
from quadrat.annotations.record import Record, Sheet, box_record, faulty
from quadrat.annotations.types import F64
from quadrat.core.errors import AnnotationError
from quadrat.core.xml import Element, parse_xml

_NO_GROUP = ("", "None")


def read_asap(path: Path) -> Sheet:
    """The annotations of an ASAP file. ``annotation N`` counts from 1 and is followed by its name.

    Raises:
        AnnotationError: unreadable, not XML, or not of ASAP.
    """
    root = read_xml(path, parse_xml)
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(
            f"{path}: its root is <{root.tag}>, not the <ASAP_Annotations> of ASAP"
        )
    items = root.findall("Annotations/Annotation")
    records = tuple(_record(item, number) for number, item in enumerate(items, start=1))
    return Sheet(
        str(path), "ASAP XML", records, one_class=not any(record.name for record in records)
    )


def _record(item: Element, number: int) -> Record:
    own, group, sort = (item.get(key, "").strip() for key in ("Name", "PartOfGroup", "Type"))
    place = f"annotation {number}" + (f" '{own}'" if own else "")
    name = "" if group in _NO_GROUP else group
    try:
        xy = _coordinates(item)
    except ValueError as error:
        return faulty(place, name, f"a coordinate that is not a number ({error})")
    if sort in ("Dot", "PointSet") and len(xy):
        return Record(place, name, points=xy)
    if sort == "Rectangle" and len(xy) == 4 and len(set(xy[:, 0])) <= 2 and len(set(xy[:, 1])) <= 2:
        return box_record(
            place, name, (*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist()), kind=None
        )
    if sort in ("Polygon", "Rectangle") and len(xy) >= 3:
        return Record(place, name, parts=((np.concatenate([xy, xy[:1]]),),))
    text = f"a {sort or 'annotation without a type'} of {len(xy)} points"
    if sort == "Spline":
        text = "a spline: its outline is not in the file; draw it as a polygon"
    return faulty(place, name, text)


def _coordinates(item: Element) -> F64:
    """x, y (k, 2) in the order of the attribute Order.

    Raises:
        ValueError: a value that is not a finite number.
    """
    found = item.findall("Coordinates/Coordinate")
    order = sorted(range(len(found)), key=lambda i: int(found[i].get("Order") or i))
    xy = np.array([[_number(found[i], axis) for axis in "XY"] for i in order], np.float64).reshape(
        -1, 2
    )
    if not np.isfinite(xy).all():
        raise ValueError("not finite")
    return xy


def _number(item: Element, axis: str) -> float:
    return float((item.get(axis) or "").replace(",", "."))
