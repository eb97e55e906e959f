"""CSV and text in columns (points, boxes, slide labels) to records; coordinates in level-0 px.

Columns are separated by tab, semicolon, comma or spaces: the first of these that the first line
has. A header names the columns, in any case and order:

- ``x``, ``y``: a point
- ``x0``, ``y0``, ``x1``, ``y1`` (or ``xmin`` ...), or ``x``, ``y``, ``width``, ``height``: a box,
  corner-based, without its far side
- ``wkt``: any outline or point as well-known text; it counts before all others
- ``class``: the class; ``kind``: object or region; ``slide``: the slide that a line belongs to

Without a header, a line is a point and its class, with at most three columns. Lines that begin with
# before the header or first record are comments. If commas do not separate columns, they may be
decimal marks.
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
"""Order of the first three columns of a file without a header. BRCA-M2C has "y x class"."""

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
"""The number of a line, from 1, and its cells."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the values stand in a line (None: there is no such column)."""

    numbers: tuple[int, ...] = ()
    """Columns of the 2 numbers of a point or the 4 of a box."""
    sized: bool = False
    """The last two numbers of a box are width and height."""
    name: int | None = None
    """Column of the class."""
    slide: int | None = None
    """Column of the slide."""
    kind: int | None = None
    """Column of the kind."""
    wkt: int | None = None
    """Column of the well-known text."""
    shape: int | None = None
    """Column that tells how a record was drawn."""
    crowd: int | None = None
    """Column that marks crowds."""

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
    """The points or boxes of a text file. ``line N`` counts from 1, including the header.

    ``picture``: take only the lines of this slide, if the file has a column for it. With
    ``first_class``, the class column holds numbers, and this number is ``classes[0]`` (1 in
    BRCA-M2C). A line that is neither a point nor a box is a record with a fault.

    Raises:
        AnnotationError: unreadable, or neither a header nor points.
    """
    table = _table(path)
    columns, body, own = table.columns, table.body, ""
    if columns is None:
        _need_points(table.header, body, path)
        columns = _Columns((0, 1) if layout == "x y class" else (1, 0), name=2)
    if columns.slide is not None and picture:
        where = f"{path}: column '{table.header[columns.slide]}'"
        own, body = _of_slide(table, picture, called, where=where)
    records = [
        _record(cells, f"line {number}", columns, classes, first_class) for number, cells in body
    ]
    return Sheet(str(path), "CSV", tuple(records), picture=own, one_class=columns.name is None)


def _need_points(first: Sequence[str], body: Sequence[Line], path: Path) -> None:
    """Refuse a file without a header unless its lines can be points with their classes. ``first``:
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
    """Class of each slide in a CSV with the columns ``slide`` and ``label``; slides as named in the
    file.

    Raises:
        AnnotationError: unreadable, without these columns, or two labels for one slide.
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
    """The label of one slide in a CSV of slide labels (found as ``pictures.one_picture`` does).

    Raises:
        AnnotationError: see ``read_labels``; or the slide is not in it.
    """
    labels = read_labels(path)
    return labels[one_picture(list(labels), picture, called=called, where=str(path))]


def pictures_of_table(path: Path) -> list[str]:
    """The slides that a text file names in its column for them, in its order; [""] without such a
    column.

    Raises:
        AnnotationError: unreadable.
    """
    table = _table(path)
    return [""] if table.columns is None or table.columns.slide is None else list(table.by_slide)


@dataclass(frozen=True, slots=True)
class _Table:
    """A parsed file."""

    header: list[str]
    """Cells of its first line."""
    columns: _Columns | None
    """What they mean; None if they are not a header."""
    body: list[Line]
    """All lines except the header."""
    by_slide: Mapping[str, list[Line]]
    """The lines of each slide, in the order of the file, if there is a column for slides."""
    slideless: list[Line]
    """Lines that are too short to name a slide."""


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
    """All lines that are not empty, without the comments (#) before the first of them."""
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
    """The columns that a header names; None if it is not a header."""
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
    """Columns of slide and label in a table of slide labels; None if it is not one."""
    names = [cell.lower() for cell in header]
    slide, label = _first(names, _SLIDE), _first(names, _CLASS)
    return None if slide is None or label is None else (slide, label)


def _of_slide(table: _Table, picture: str, called: str, *, where: str) -> tuple[str, list[Line]]:
    """What the file calls one slide, and its lines. A line that is too short to name a slide is
    kept, to be reported as faulty.

    Raises:
        AnnotationError: no line is of the slide, or two slides of the file may be meant.
    """
    names = list(table.by_slide)
    if not names:
        return "", table.slideless
    name = one_picture(names, picture, called=called, where=where)
    return name, sorted([*table.slideless, *table.by_slide[name]])


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
    # well-known text without a kind may be a region or an object; boxes and points are objects
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
    """The name of a numbered class. Text that is not such a number is returned, to be reported as
    unknown."""
    value = float(text) - first_class if re.fullmatch(r"-?\d+(\.0*)?", text) else math.nan
    return classes[int(value)] if 0 <= value < len(classes) else text
