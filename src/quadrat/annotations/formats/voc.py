"""Pascal VOC XML (one file per picture) to records.

The VOC devkit counts pixels from 1 and includes the last one, so that xmin 1, xmax 640 is the whole
width of a picture of 640 px. A box covers [xmin - 1, xmax) x [ymin - 1, ymax). (Everingham and
Winn, The PASCAL VOC2012 Development Kit, 2012, 3.3.) A box is degenerate if xmax is not above xmin,
or ymax not above ymin.
"""

from __future__ import annotations

import math
from pathlib import Path

from quadrat.annotations.formats.text import read_xml
from quadrat.annotations.record import Record, Sheet, box_record, faulty
from quadrat.core.errors import AnnotationError
from quadrat.core.xml import Element, parse_xml

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path) -> Sheet:
    """The boxes of a Pascal VOC file. ``object N`` counts from 1 in the order of the file.

    Raises:
        AnnotationError: unreadable, not XML, not a VOC annotation, or of a picture of infinite
            size.
    """
    root = read_xml(path, parse_xml)
    if root.tag != "annotation":
        raise AnnotationError(
            f"{path}: its root is <{root.tag}>, not the <annotation> of Pascal VOC"
        )
    height, width = _number(root, "size/height"), _number(root, "size/width")
    if math.inf in (height, width):
        raise AnnotationError(
            f"{path}: it states a picture of {width:g} x {height:g} px; write the slide's size, or "
            "none"
        )
    size = (int(height), int(width)) if height >= 1 and width >= 1 else None  # nan: not stated
    records = tuple(
        _record(item, number) for number, item in enumerate(root.iter("object"), start=1)
    )
    return Sheet(
        str(path), "Pascal VOC", records, size, picture=(root.findtext("filename") or "").strip()
    )


def _record(item: Element, number: int) -> Record:
    place, name = f"object {number}", (item.findtext("name") or "").strip()
    box = item.find("bndbox")
    if box is None:
        return faulty(place, name, "it has no bndbox", kind="object", box=True)
    values = [_number(box, side) for side in _SIDES]
    if not all(math.isfinite(value) for value in values):
        stated = ", ".join(f"{side} {box.findtext(side)!r}" for side in _SIDES)
        text = f"its bndbox is not four numbers ({stated})"
        return faulty(place, name, text, kind="object", box=True)
    x0, y0, x1, y1 = values
    if x1 <= x0 or y1 <= y0:
        text = f"xmin {x0:g}, ymin {y0:g}, xmax {x1:g}, ymax {y1:g}"
        return faulty(place, name, text, code="degenerate box", kind="object", box=True)
    return box_record(place, name, (x0 - 1, y0 - 1, x1, y1))


def _number(parent: Element, name: str) -> float:
    try:
        return float(parent.findtext(name) or "nan")
    except ValueError:
        return math.nan
