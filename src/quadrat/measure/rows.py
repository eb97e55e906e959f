"""The tidy table: one row a figure, as CSV and as Parquet, written slide by slide.

Columns, units and decimals are fixed, so equal results give equal bytes. An undefined figure is
empty.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from quadrat.core.files import new_file
from quadrat.core.writer import Writer

TABLE = "measurements"
COLUMNS = (
    "run", "slide", "case", "region", "region_class", "class", "measure", "value", "unit", "n",
    "low", "high", "flags",
)  # fmt: skip
DECIMALS = {"": 0, "1": 6, "mm2": 6, "1/mm2": 3, "um": 3, "um2": 3, "od": 4, "score": 3, "%": 3,
            "mpx": 6, "1/mpx": 3, "px": 3, "px2": 3}  # fmt: skip
"""Of each unit; "": a number of things, "1": a ratio."""
_GROUP = 1 << 16


class Place(NamedTuple):
    """What a figure is of."""

    run: str
    """Name of the run's folder."""
    slide: str
    """The slide; "" for a figure of a case or of all cases."""
    case: str
    """The case; "" for a figure of all cases."""
    region: str
    """Which part of the slide."""
    region_class: str
    """The class of the region, as drawn."""


class Figure(NamedTuple):
    """One figure of a place."""

    class_name: str
    """The class of the objects, "all", or "" for a figure of the region itself."""
    measure: str
    """What was measured."""
    value: float | None
    """The figure; None or NaN: not defined."""
    unit: str
    """Of value, low and high (``DECIMALS``)."""
    n: int | None = None
    """How many objects (of a case: slides; of all: cases) it rests on."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end."""
    flags: tuple[str, ...] = ()
    """What a reader has to know (docs/measure.md)."""


class MeasurementWriter(Writer):
    """Writes ``measurements.csv`` and ``measurements.parquet``; a context manager: both appear at
    its end, without error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _begin(self, stack: ExitStack) -> None:
        stream = stack.enter_context(new_file(self._folder / f"{TABLE}.parquet"))
        self._parquet = stack.enter_context(
            pq.ParquetWriter(stream, SCHEMA, compression="zstd", compression_level=3, version="2.6")
        )
        raw = stack.enter_context(new_file(self._folder / f"{TABLE}.csv"))
        self._text = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
        stack.callback(self._text.detach)
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(COLUMNS)
        self._waiting: list[tuple[object, ...]] = []

    def add(self, place: Place, figures: Iterable[Figure]) -> int:
        """Write the figures of a place, in their order; how many there were."""
        count = 0
        for row in figures:
            texts = [written(value, row.unit) for value in (row.value, row.low, row.high)]
            numbers = [float(text) if text else None for text in texts]
            flags = " ".join(row.flags)
            head = (*place, row.class_name, row.measure)
            n = "" if row.n is None else str(row.n)
            self._csv.writerow((*head, texts[0], row.unit, n, *texts[1:], flags))
            self._waiting.append((*head, numbers[0], row.unit, row.n, *numbers[1:], flags))
            if len(self._waiting) == _GROUP:
                self._flush()
            count += 1
        return count

    def _flush(self) -> None:
        if self._waiting:
            columns = zip(*self._waiting, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            self._parquet.write_table(pa.table(arrays, schema=SCHEMA), row_group_size=_GROUP)
            self._waiting = []

    def _end(self) -> None:
        self._flush()
        self._text.flush()


def written(value: float | None, unit: str) -> str:
    """A figure with the decimals of its unit; "" where it is not defined."""
    if value is None or not math.isfinite(value):
        return ""
    text = f"{value:.{DECIMALS[unit]}f}"
    return text.removeprefix("-") if float(text) == 0 else text


_NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *(pa.field(name, _NAMES) for name in COLUMNS[:7]),
        pa.field("value", pa.float64()),
        pa.field("unit", _NAMES),
        pa.field("n", pa.int64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("flags", pa.string()),
    ]
)
