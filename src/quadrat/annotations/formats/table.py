"""The one table that every format becomes: one row per record, GeoParquet 1.1 on disk (columns:
docs/annotations.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from quadrat.annotations.formats.kept import kept
from quadrat.annotations.formats.pictures import one_picture
from quadrat.annotations.record import Record, Sheet
from quadrat.annotations.shapes import geometry_of, record_of, shape_name
from quadrat.core.errors import AnnotationError
from quadrat.core.files import new_file

SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("slide", "case", "split", "source", "format", "place")
        ),
        *(pa.field(name, pa.string(), nullable=False) for name in ("class", "kind", "shape")),
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """The records of one slide, and what the manifest states about it."""

    slide: str
    """Name of the slide."""
    sheet: Sheet
    """Its records."""
    case: str = ""
    """Its case; "" for none."""
    split: str = ""
    """Its split; "" for none."""


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """One row per record that draws something, in the order of the entries and of their files; see
    ``SCHEMA``."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    shapes: list[shapely.Geometry] = []
    for entry in entries:
        for record in entry.sheet.records:
            if record.fault:
                continue
            shapes.append(geometry_of(record))
            about = (entry.slide, entry.case, entry.split, entry.sheet.source, entry.sheet.format)
            own = (record.place, record.name, record.kind or "", shape_name(record), record.crowd)
            # the geometry comes last, all at once
            for name, value in zip(SCHEMA.names, (*about, *own), strict=False):
                columns[name].append(value)
    columns["geometry"] = (
        list(shapely.to_wkb(np.array(shapes, object), byte_order=1)) if shapes else []
    )
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write the table as GeoParquet, without a CRS, since coordinates are level-0 px."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [], "crs": None}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    about = {"coordinates": "level-0 px, x right, y down, corner-based"}
    metadata = {"geo": json.dumps(geo), "quadrat": json.dumps(about)}
    with new_file(path) as stream:
        pq.write_table(
            table.replace_schema_metadata(metadata), stream, compression="zstd", version="2.6"
        )


def read_parquet(path: Path, *, picture: str = "", called: str = "") -> Sheet:
    """The records of one slide of a table. Places are those of the files that it was made from.

    Raises:
        AnnotationError: unreadable, columns or values are missing, a geometry makes no sense, or
            the slide is not in it.
    """
    table = _read(path)
    name = one_picture(pictures_of_parquet(path), picture, called=called, where=str(path))
    rows = table.filter(pc.equal(table["slide"], name)).to_pylist()
    return Sheet(str(path), "Parquet", tuple(_record(row, path) for row in rows), picture=name)


def _record(row: Mapping[str, Any], path: Path) -> Record:
    place = row["place"]
    try:
        shape = shapely.from_wkb(row["geometry"])
        return record_of(
            shape,
            place=place,
            name=row["class"],
            kind=row["kind"],
            shape=row["shape"],
            crowd=row["crowd"],
        )
    except (ValueError, TypeError, shapely.GEOSException) as error:
        raise AnnotationError(
            f"{path}: {place} of slide {row['slide']} makes no sense ({error})"
        ) from error


def pictures_of_parquet(path: Path) -> list[str]:
    """The slides of a table, in its order."""
    slides: list[str] = pc.unique(_read(path)["slide"]).to_pylist()
    return slides


@kept
def _read(path: Path) -> pa.Table:
    schema = pa.schema([field for field in SCHEMA if field.name not in ("case", "split")])
    try:
        table = pq.read_table(path, columns=schema.names)
        empty = next((name for name in schema.names if table[name].null_count), None)
        if empty is not None:
            raise AnnotationError(
                f"{path}: {table[empty].null_count} rows without a value in the column '{empty}'; "
                "each needs one"
            )
        return table.cast(schema)
    except (OSError, pa.ArrowException) as error:
        raise AnnotationError(
            f"{path}: cannot be read as a table of annotations ({' '.join(str(error).split())})"
        ) from error
