"""CSV and text in columns (points, boxes, slide labels) -> records; coordinates in level-0 px.

Columns are parted by tab, semicolon, comma or spaces, whichever the first line has, in this order.
A header names them, in any case and order: ``x``, ``y`` a point; ``x0``, ``y0``, ``x1``, ``y1`` (or
``xmin`` ...) or ``x``, ``y``, ``width``, ``height`` a box, corner-based, with the far side outside;
``wkt`` any outline or point as well-known text, before all others; ``class`` the class, ``kind``
object or region, ``slide`` the slide a line belongs to. Without a header a line is a point and its
class, three columns at most. Lines that begin with # are comments as long as they stand before the
header or first record. Where the comma parts no columns it may be the decimal mark.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Literal

import numpy as np
import shapely

from quadrat.annotations.formats.kept import kept
from quadrat.annotations.formats.pictures import one_picture
from quadrat.annotations.formats.text import read_text
from quadrat.annotations.record import Record, Sheet, box_record, faulty
from quadrat.annotations.shapes import record_of
from quadrat.annotations.types import Kind
from quadrat.core.errors import AnnotationError
from quadrat.core.text import mark_of

Layout = Literal["x y class", "y x class"]
"""Order of the first three columns of a file without a header; "y x class" is the layout of
BRCA-M2C."""

_KINDS: dict[str, Kind | None] = {"object": "object", "region": "region", "": None}
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_CLASS = ("class", "classification", "class_name", "label", "name")
_SLIDE = ("slide", "image", "filename", "file")
HINT = (
    "name the columns in the first line: x, y, class (points); x0, y0, x1, y1, class or x, y, "
    "width, height, class (boxes)"
)
Line = tuple[int, list[str]]
"""A line's number, which counts from 1, and its cells."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the values stand in a line (None: no such column): 2 (a point) or 4 (a box) numbers or
    the well-known text."""

    numbers: tuple[int, ...] = ()
    sized: bool = False
    name: int | None = None
    slide: int | None = None
    kind: int | None = None
    wkt: int | None = None
    shape: int | None = None
    crowd: int | None = None

    @property
    def needed(self) -> int:
        known = (*self.numbers, self.name, self.slide, self.kind, self.wkt, self.shape, self.crowd)
        return max(i for i in known if i is not None) + 1


def read_delimited(
    path: Path,
    *,
    picture: str = "",
    called: str = "",
    classes: Sequence[str] = (),
    layout: str = "x y class",
    first_class: int | None = None,
) -> Sheet:
    """The points or boxes of a text file; ``line N`` counts from 1, the header included.

    ``picture``: takes only the lines of this slide, where the file has a column for it. With
    ``first_class`` the class column holds numbers, and that number is ``classes[0]`` (1 in
    BRCA-M2C). A line that is no point or box is a record with a fault.

    Raises:
        AnnotationError: unreadable, or neither a header nor points.
    """
    table = _table(path)
    columns, body = table.columns, table.body
    if columns is None:
        _need_points(table.header, body, path)
        columns = _Columns((0, 1) if layout == "x y class" else (1, 0), name=2)
    if columns.slide is not None and picture:
        body = _of_slide(
            table, picture, called, where=f"{path}: column '{table.header[columns.slide]}'"
        )
    records = [
        _record(cells, f"line {number}", columns, classes, first_class) for number, cells in body
    ]
    return Sheet(str(path), "CSV", tuple(records), one_class=columns.name is None)


def _need_points(first: Sequence[str], body: Sequence[Line], path: Path) -> None:
    """Refuse a file without a header unless its lines can be points and their classes; ``first``:
    cells of its first line."""
    if first and not _numeric(first[:2]):
        if "label" in map(str.lower, first) and _label_columns(first) is not None:
            raise AnnotationError(
                f"{path}: a table of slide labels ({', '.join(first)}), which draws nothing; "
                "data.annotations: none learns them"
            )
        raise AnnotationError(
            f"{path}: neither a header nor points in its first line ({', '.join(first[:6])}); "
            f"{HINT}"
        )
    wide = next(((number, cells) for number, cells in body if len(cells) > 3), None)
    if wide is not None:
        raise AnnotationError(
            f"{path}: line {wide[0]} has {len(wide[1])} columns, but without a header a line is a "
            f"point and its class; {HINT}"
        )


def draws(header: Sequence[str]) -> bool:
    """Whether a header names the columns of points, boxes or outlines."""
    return _columns(header) is not None


@kept
def read_labels(path: Path) -> Mapping[str, str]:
    """Class of each slide in a CSV with the columns ``slide`` and ``label``; slides as the file
    names them.

    Raises:
        AnnotationError: unreadable, without these columns, or two labels for a slide.
    """
    lines = _lines(path)
    header = lines[0][1] if lines else []
    columns = _label_columns(header)
    if columns is None:
        raise AnnotationError(
            f"{path}: no columns 'slide' and 'label' (its columns: {', '.join(header) or 'none'})"
        )
    slide, label = columns
    found: dict[str, str] = {}
    for number, cells in lines[1:]:
        if len(cells) <= max(slide, label):
            raise AnnotationError(
                f"{path.name}, line {number}: {len(cells)} columns, want slide and label"
            )
        if found.setdefault(cells[slide], cells[label]) != cells[label]:
            raise AnnotationError(
                f"{path.name}, line {number}: slide {cells[slide]} is '{cells[label]}' here and "
                f"'{found[cells[slide]]}' before; keep one"
            )
    return found


def label_of(path: Path, picture: str, *, called: str = "") -> str:
    """The label of one slide in a CSV of slide labels (named as ``pictures.one_picture`` has it).

    Raises:
        AnnotationError: see ``read_labels``; or the slide is not in it.
    """
    labels = read_labels(path)
    return labels[one_picture(list(labels), picture, called=called, where=str(path))]


def pictures_of_table(path: Path) -> list[str]:
    """The slides that a text file with a column for them names, in its order; [""] without such a
    column.

    Raises:
        AnnotationError: unreadable.
    """
    table = _table(path)
    return [""] if table.columns is None or table.columns.slide is None else list(table.by_slide)


@dataclass(frozen=True, slots=True)
class _Table:
    """A parsed file: the cells of its first line, what they mean (None: they are no header), the
    lines but the header.

    ``by_slide``: of a file with a column for slides, the lines of each, in the file's order;
    ``slideless``: the lines that are too short to name one.
    """

    header: list[str]
    columns: _Columns | None
    body: list[Line]
    by_slide: Mapping[str, list[Line]]
    slideless: list[Line]


@kept
def _table(path: Path) -> _Table:
    lines = _lines(path)
    header = lines[0][1] if lines else []
    columns = _columns(header)
    if columns is None or columns.slide is None:
        return _Table(header, columns, lines if columns is None else lines[1:], {}, [])
    by_slide, slideless = defaultdict[str, list[Line]](list), list[Line]()
    for line in lines[1:]:
        (by_slide[line[1][columns.slide]] if len(line[1]) > columns.slide else slideless).append(
            line
        )
    return _Table(header, columns, lines[1:], by_slide, slideless)


def _lines(path: Path) -> list[Line]:
    """Every line that is not empty, without the comments (#) before the first."""
    numbered = ((n, line.strip()) for n, line in enumerate(read_text(path).split("\n"), start=1))
    text = list(
        dropwhile(lambda line: line[1].startswith("#"), (line for line in numbered if line[1]))
    )
    mark = mark_of(text[0][1]) if text else None
    return [(n, _cells(line, mark)) for n, line in text]


def _cells(line: str, mark: str | None) -> list[str]:
    if mark is None:
        return line.split()
    cells = [
        cell.strip() for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True))
    ]
    return cells if mark == "," else [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in cells]


def _numeric(cells: Sequence[str]) -> bool:
    return len(cells) > 0 and all(
        re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", cell) for cell in cells
    )


def _columns(header: Sequence[str]) -> _Columns | None:
    """The columns that a header names; None if it is none."""
    names = [cell.lower() for cell in header]
    name, slide, kind = _first(names, _CLASS), _first(names, _SLIDE), _first(names, ("kind",))
    if "wkt" in names:
        shape, crowd = _first(names, ("shape",)), _first(names, ("crowd",))
        return _Columns((), False, name, slide, kind, names.index("wkt"), shape, crowd)
    for wanted, sized in (
        *((c, False) for c in _CORNERS),
        *((s, True) for s in _SIZES),
        (("x", "y"), False),
    ):
        if set(wanted) <= set(names):
            return _Columns(tuple(names.index(n) for n in wanted), sized, name, slide, kind)
    return None


def _first(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _label_columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Where a table of slide labels has the slide and its label; None if it is none."""
    names = [cell.lower() for cell in header]
    slide, label = _first(names, _SLIDE), _first(names, _CLASS)
    return None if slide is None or label is None else (slide, label)


def _of_slide(table: _Table, picture: str, called: str, *, where: str) -> list[Line]:
    """The lines of one slide; a line too short to name a slide is kept, to be named as faulty.

    Raises:
        AnnotationError: none is of the slide, or of two that it may mean.
    """
    names = list(table.by_slide)
    if not names:
        return table.slideless
    name = one_picture(names, picture, called=called, where=where)
    return sorted([*table.slideless, *table.by_slide[name]])


def _record(
    cells: Sequence[str],
    place: str,
    columns: _Columns,
    classes: Sequence[str],
    first_class: int | None,
) -> Record:
    box = len(columns.numbers) == 4
    if len(cells) < columns.needed:
        want = "four sides" if box else "x, y" if columns.numbers else "wkt"
        text = (
            f"{len(cells)} columns, want {want}{' and class' if columns.name is not None else ''}"
        )
        return faulty(place, "", text, kind="object", box=box)
    stated = "" if columns.name is None else cells[columns.name]
    name = stated if first_class is None else _numbered(stated, classes, first_class)
    # well-known text without a kind may be an area as well as a thing; boxes and points are things
    kind = (
        cells[columns.kind]
        if columns.kind is not None
        else ""
        if columns.wkt is not None
        else "object"
    )
    if columns.wkt is not None:
        shape = "" if columns.shape is None else cells[columns.shape]
        crowd = columns.crowd is not None and cells[columns.crowd] == "1"
        return _of_text(cells[columns.wkt], place, name, kind, shape, crowd=crowd)
    numbers = list(_floats([cells[i] for i in columns.numbers]))
    if not all(map(math.isfinite, numbers)) or kind not in _KINDS:
        text = f"{', '.join(repr(cells[i]) for i in columns.numbers)} are not numbers"
        if kind not in _KINDS:
            text = f"kind '{kind}'; want object, region or nothing"
        return faulty(place, name, text, kind="object", box=box)
    if not box:
        return Record(place, name, _KINDS[kind], points=np.array([numbers]))
    x0, y0, x1, y1 = numbers
    return box_record(
        place,
        name,
        (x0, y0, x0 + x1, y0 + y1) if columns.sized else (x0, y0, x1, y1),
        kind=_KINDS[kind],
    )


def _of_text(text: str, place: str, name: str, kind: str, shape: str, *, crowd: bool) -> Record:
    try:
        return record_of(
            shapely.from_wkt(text), place=place, name=name, kind=kind, shape=shape, crowd=crowd
        )
    except (ValueError, TypeError, shapely.GEOSException) as error:
        return faulty(place, name, f"a wkt that makes no sense ({error})")


def _floats(cells: Sequence[str]) -> Iterator[float]:
    for cell in cells:
        try:
            yield float(cell)
        except ValueError:
            yield math.nan


def _numbered(text: str, classes: Sequence[str], first_class: int) -> str:
    """The name of a numbered class; the text itself if it is no such number, so that it is named as
    unknown."""
    value = float(text) - first_class if re.fullmatch(r"-?\d+(\.0*)?", text) else math.nan
    return classes[int(value)] if 0 <= value < len(classes) else text
