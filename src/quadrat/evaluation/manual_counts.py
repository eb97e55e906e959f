"""Counts that people made, as a table: a row a slide with a column a class, or a row a slide and
class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean, mark_of, not_utf8
from quadrat.outputs.tables import ALL

SLIDE, CLASS, COUNT = "slide", "class", "count"
_PREFIX = "count_"


@dataclass(frozen=True, slots=True)
class ManualCounts:
    """What a table of counts holds."""

    counts: Mapping[str, Mapping[str, float]]
    """slide -> class (or "all") -> objects."""
    unused: tuple[str, ...]
    """Columns that are neither the slide nor a class."""


def read_manual(path: Path, classes: Sequence[str]) -> ManualCounts:
    """Counts of a CSV (UTF-8; commas, semicolons or tabs) with the column ``slide`` and either
    ``class`` and ``count``, or one column a class (its name, with ``count_`` before it or not) and
    ``count`` for all classes. Empty cells were not counted. A slide is called as its results, or as
    its file.

    Raises:
        ConfigError: no such file, no such column, a count that is no number, a class that the run
            does not know, or two counts of one slide and class.
    """
    header, rows = _rows(path)
    names = [name.strip() for name in header]
    lower = [name.lower() for name in names]
    if SLIDE not in lower:
        raise ConfigError(
            f"{path}: no column 'slide' (it has {', '.join(names)}); the columns are slide, and "
            f"class and count, or one of {', '.join((COUNT, *classes))}"
        )
    by_class = CLASS in lower and COUNT in lower
    wanted = _class_columns(names, classes) if not by_class else {}
    if not by_class and not wanted:
        raise ConfigError(
            f"{path}: no column of counts (it has {', '.join(names)}); name one 'count' for all "
            f"objects, or like a class of the run: {', '.join(classes)}"
        )
    counts: dict[str, dict[str, float]] = {}
    at = {name: lower.index(name) for name in (SLIDE, CLASS, COUNT) if name in lower}
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(names):
            raise ConfigError(f"{where}: {len(row)} cells, but the header has {len(names)}")
        slide = row[at[SLIDE]].strip()
        if by_class:
            cells = {_class_of(row[at[CLASS]].strip(), classes, where): row[at[COUNT]]}
        else:
            cells = {name: row[column] for column, name in wanted.items()}
        own = counts.setdefault(slide, {})
        for name, text in cells.items():
            if not text.strip():
                continue
            if name in own:
                raise ConfigError(f"{where}: a second count of {name} on the slide '{slide}'")
            own[name] = _number(text, where, name)
    used = {at[SLIDE], *wanted} | ({at[CLASS], at[COUNT]} if by_class else set())
    return ManualCounts(counts, tuple(n for i, n in enumerate(names) if i not in used))


def of_slide(manual: ManualCounts, name: str) -> Mapping[str, float] | None:
    """The counts of a slide, by the name of its results or of a file that is called so."""
    if name in manual.counts:
        return manual.counts[name]
    files = [one for one in manual.counts if PurePath(one.replace("\\", "/")).stem == name]
    return manual.counts[files[0]] if len(files) == 1 else None


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(not_utf8(path, error)) from error
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty")
    mark = mark_of(text.splitlines()[0]) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    header = next(reader)
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    return header, rows


def _class_columns(names: Sequence[str], classes: Sequence[str]) -> dict[int, str]:
    """The columns that are counts, with their classes."""
    found = {}
    for column, name in enumerate(names):
        if name.lower() in (COUNT, ALL):
            found[column] = ALL
        elif name.removeprefix(_PREFIX) in classes:
            found[column] = name.removeprefix(_PREFIX)
    return found


def _class_of(name: str, classes: Sequence[str], where: str) -> str:
    if name.lower() == ALL or name in classes:
        return ALL if name.lower() == ALL else name
    raise ConfigError(
        f"{where}: the run knows no class '{name}' (it has {', '.join(classes)})"
        f"{did_you_mean(name, classes)}"
    )


def _number(text: str, where: str, name: str) -> float:
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{where}: {name} is '{text.strip()}'; it must be a number of 0 or more")
    return value
