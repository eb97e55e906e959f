"""Tables of points (x, y, class) -> Annotations: CSV or text in columns, with or without a header line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quadrat.annotations import Annotations, class_index
from quadrat.annotations.delimited import Layout, read_delimited
from quadrat.annotations.record import to_annotations
from quadrat.errors import AnnotationError

__all__ = ["Layout", "load_points"]


def load_points(
    path: Path, *, classes: Sequence[str] | None = None, layout: Layout = "x y class", first_class: int | None = None
) -> Annotations:
    """Read points in level-0 px, one a line (see :mod:`quadrat.annotations.delimited`).

    Raises:
        AnnotationError: a file that cannot be read, a line that is not a point, or an unknown class (with its line).
    """
    path = Path(path)
    if first_class is not None and classes is None:
        raise AnnotationError(f"{path.name}: numbered classes need the class names as well (classes=...)")
    sheet = read_delimited(path, classes=classes or (), layout=layout, first_class=first_class)
    for record in sheet.records:
        if record.fault:
            raise AnnotationError(f"{path.name}, {record.place}: {record.fault.text}")
    known = tuple(classes) if classes is not None else tuple(sorted({record.name for record in sheet.records}))
    ids = [class_index(record.name, known, where=f"{path.name}, {record.place}") for record in sheet.records]
    return to_annotations(sheet.records, ids, classes=known, kind="object")
