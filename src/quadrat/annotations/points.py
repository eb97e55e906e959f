"""Tables of points (x, y, class) -> Annotations: CSV or text in columns, with or without a header line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from quadrat.annotations import Annotations, class_index
from quadrat.errors import AnnotationError
from quadrat.results import Polygons

Layout = Literal["x y class", "y x class"]
"""Order of the first three columns of a file without a header; "y x class" is the layout of BRCA-M2C."""


def load_points(
    path: Path, *, classes: Sequence[str] | None = None, layout: Layout = "x y class", first_class: int | None = None
) -> Annotations:
    """Read points in level-0 px, one a line, columns parted by comma, semicolon, tab or spaces.

    A header line names the columns (``x``, ``y``, ``class``) and then decides; without one ``layout`` does. With
    ``first_class`` the class column holds numbers, and that number is ``classes[0]`` (1 in BRCA-M2C).

    Raises:
        AnnotationError: a file that cannot be read, a line that is not a point, or an unknown class (with its line).
    """
    path = Path(path)
    if first_class is not None and classes is None:
        raise AnnotationError(f"{path.name}: numbered classes need the class names as well (classes=...)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as text ({error})") from error
    x_col, y_col, class_col = (0, 1, 2) if layout == "x y class" else (1, 0, 2)
    points: list[tuple[float, float]] = []
    names: list[tuple[str, int]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = _cells(line)
        if not cells:
            continue
        header = [cell.lower() for cell in cells]
        if not names and {"x", "y", "class"} <= set(header):
            x_col, y_col, class_col = header.index("x"), header.index("y"), header.index("class")
            continue
        if len(cells) <= max(x_col, y_col, class_col):
            raise AnnotationError(f"{path.name}, line {number}: {len(cells)} columns, want x, y and class")
        points.append(_point(cells[x_col], cells[y_col], f"{path.name}, line {number}"))
        names.append((cells[class_col], number))
    return _annotations(points, names, path, classes, first_class)


def _cells(line: str) -> list[str]:
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    mark = next((m for m in ",;\t" if m in line), None)
    return [cell.strip().strip('"') for cell in (line.split(mark) if mark else re.split(r"\s+", line))]


def _point(x: str, y: str, where: str) -> tuple[float, float]:
    try:
        point = float(x), float(y)
    except ValueError as error:
        raise AnnotationError(f"{where}: x {x!r} and y {y!r} are not numbers") from error
    if not (math.isfinite(point[0]) and math.isfinite(point[1])):
        raise AnnotationError(f"{where}: x {x!r} and y {y!r} are not finite")
    return point


def _annotations(
    points: list[tuple[float, float]],
    names: list[tuple[str, int]],
    path: Path,
    classes: Sequence[str] | None,
    first_class: int | None,
) -> Annotations:
    known = tuple(classes) if classes is not None else tuple(sorted({name for name, _ in names}))
    ids = []
    for name, number in names:
        where = f"{path.name}, line {number}"
        ids.append(class_index(name, known, where=where) if first_class is None else _number(name, known, first_class, where))
    n = len(points)
    return Annotations.of(
        Polygons(xy=np.zeros((0, 2)), ring_starts=np.zeros(1, np.int64), polygon_starts=np.zeros(n + 1, np.int64)),
        np.array(ids, np.int64),
        classes=known,
        kind="object",
        points_l0=np.array(points, np.float64).reshape(-1, 2),
    )


def _number(text: str, classes: Sequence[str], first_class: int, where: str) -> int:
    """Class index of a numbered class."""
    value = float(text) if re.fullmatch(r"-?\d+(\.0*)?", text) else math.nan
    index = value - first_class
    if not 0 <= index < len(classes):
        last = first_class + len(classes) - 1
        raise AnnotationError(f"{where}: class {text!r} is not a number in {first_class}..{last} ({', '.join(classes)})")
    return int(index)
