"""CSV and text in columns (points, boxes, slide labels) to records; coordinates in level-0 px.

Columns are separated by tab, semicolon, comma or spaces: the first of these that the first line
has. A header names the columns, in any case and order:

- ``x``, ``y``: a point
- ``x0``, ``y0``, ``x1``, ``y1`` (or ``xmin`` ...), or ``x``, ``y``, ``width``, ``height``: a box,
  corner-based, without its far side
- ``wkt``: any outline or point as well-known text; it counts before all others
- ``class``: the class; ``kind``: object or region; ``slide``: the slide that a line belongs to
- ``Centroid X px``, ``Centroid Y px``, or the same in um: a table of measurements of QuPath;
  detections and cells are points

Without a header, a line is a point and its class, with at most three columns. Lines that begin with
# before the header or first record are comments. If commas do not separate columns, they may be
decimal marks.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Literal

import numpy as np
import shapely

from quadrat.annotations.formats.columns import CLASS, SLIDE, Columns, columns_of, first_of
from quadrat.annotations.formats.kept import kept
from quadrat.annotations.formats.pictures import one_picture
from quadrat.annotations.formats.qupath import meaning_of
from quadrat.annotations.formats.text import read_text
from quadrat.annotations.record import Record, Sheet, box_record, faulty
from quadrat.annotations.shapes import record_of
from quadrat.annotations.types import Kind
from quadrat.core.errors import AnnotationError
from quadrat.core.text import mark_of
from quadrat.core.unit import PX, Mpp

Layout = Literal["x y class", "y x class"]
"""Order of the first three columns of a file without a header. BRCA-M2C has "y x class"."""

_KINDS: dict[str, Kind | None] = {"object": "object", "region": "region", "": None}
HINT = (
    "name the columns in the first line: x, y, class (points); x0, y0, x1, y1, class or x, y, "
    "width, height, class (boxes)"
)
Line = tuple[int, list[str]]
"""The number of a line, from 1, and its cells."""


def read_delimited(
    path: Path,
    *,
    picture: str = "",
    called: str = "",
    classes: Sequence[str] = (),
    layout: str = "x y class",
    first_class: int | None = None,
    mpp: Mpp | None = None,
) -> Sheet:
    """The points or boxes of a text file. ``line N`` counts from 1, including the header.

    ``picture``: take only the lines of this slide, if the file has a column for it. With
    ``first_class``, the class column holds numbers, and this number is ``classes[0]`` (1 in
    BRCA-M2C). A line that is neither a point nor a box is a record with a fault. ``mpp``: um per
    level-0 px, for a table in um.

    Raises:
        AnnotationError: unreadable, neither a header nor points, or in um without an ``mpp``.
    """
    table = _table(path)
    columns, body, own = table.columns, table.body, ""
    if columns is None:
        _need_points(table.header, body, path)
        columns = Columns((0, 1) if layout == "x y class" else (1, 0), name=2)
    if columns.slide is not None and picture:
        where = f"{path}: column '{table.header[columns.slide]}'"
        own, body = _of_slide(table, picture, called, where=where)
    unit, notes = _unit(table, columns, mpp, path)
    body, aside = _objects_alone(body, columns)
    records = [
        _record(cells, f"line {number}", columns, classes, first_class, unit=unit)
        for number, cells in body
    ]
    notes += [
        f"{n} lines of the type '{sort}' left out: of these a table holds the centre alone; export "
        "them as GeoJSON"
        for sort, n in aside.items()
    ]
    return Sheet(
        str(path),
        "CSV",
        tuple(records),
        picture=own,
        one_class=columns.name is None,
        left_out=aside.total(),
        notes=tuple(notes),
    )


def _unit(table: _Table, columns: Columns, mpp: Mpp | None, path: Path) -> tuple[float, list[str]]:
    """By what coordinates are divided to be in level-0 px, and a note if that is not 1.

    Raises:
        AnnotationError: they are in um, and nobody knows how large a px is, or no um are wanted.
    """
    if not columns.um:
        return 1.0, []
    where = f"column '{table.header[columns.numbers[0]]}'"
    if mpp == PX:
        raise AnnotationError(
            f"{path}: its coordinates are in um ({where}), but model.mpp is px, where a px has no "
            "size; export coordinates in px"
        )
    if mpp is None:
        raise AnnotationError(
            f"{path}: its coordinates are in um ({where}), and nobody states how large a px is; "
            "fill the manifest's column mpp, say --mpp, or export coordinates in px"
        )
    return mpp, [f"coordinates are in um ({where}): taken as px of {mpp:g} um"]


def _objects_alone(body: Sequence[Line], columns: Columns) -> tuple[list[Line], Counter[str]]:
    """The lines without regions, tiles and the like of a table of QuPath, and how many of each of
    these there are."""
    aside = Counter[str]()
    if columns.object_type is None:
        return list(body), aside
    kept_lines = []
    for number, cells in body:
        sort = cells[columns.object_type] if len(cells) >= columns.needed else ""
        if meaning_of(sort) in ("region", "aside"):
            aside[sort] += 1
        else:
            kept_lines.append((number, cells))
    return kept_lines, aside


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
    return columns_of(header) is not None


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
    columns: Columns | None
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
    columns = columns_of(header)
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
    # a tab in front is an empty first cell
    numbered = (
        (n, line.rstrip().lstrip(" "))
        for n, line in enumerate(read_text(path).split("\n"), start=1)
    )
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


def _label_columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Columns of slide and label in a table of slide labels; None if it is not one."""
    names = [cell.lower() for cell in header]
    slide, label = first_of(names, SLIDE), first_of(names, CLASS)
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
    columns: Columns,
    classes: Sequence[str],
    first_class: int | None,
    *,
    unit: float,
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
    sort = "" if columns.object_type is None else cells[columns.object_type]
    if sort and meaning_of(sort) == "unknown":
        text = f"its type is '{sort}'; want a detection or a cell"
        return faulty(place, name, text, code="unknown type", kind="object", box=box)
    numbers = [number / unit for number in numbers]
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
