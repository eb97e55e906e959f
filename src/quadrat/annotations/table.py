"""The one table that every format becomes: a row a record, GeoParquet 1.1 on disk (docs/annotations.md has its columns)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from quadrat.annotations.pictures import same_pictures
from quadrat.annotations.record import Sheet
from quadrat.annotations.shapes import geometry_of, record_of, shape_name
from quadrat.errors import AnnotationError

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("slide", "case", "split", "source", "format", "place")),
        *(pa.field(name, pa.string(), nullable=False) for name in ("class", "kind", "shape")),
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """The records of one slide, and what the manifest says of the slide ("" where there is none)."""

    slide: str
    sheet: Sheet
    case: str = ""
    split: str = ""


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """One row a record that draws something, in the order of the entries and of their files; see ``SCHEMA``."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    shapes: list[shapely.Geometry] = []
    for entry in entries:
        for record in entry.sheet.records:
            if record.fault:
                continue
            shapes.append(geometry_of(record))
            about = (entry.slide, entry.case, entry.split, entry.sheet.source, entry.sheet.format)
            own = (record.place, record.name, record.kind or "", shape_name(record), record.crowd)
            for name, value in zip(SCHEMA.names, (*about, *own), strict=False):  # the geometry comes last, all at once
                columns[name].append(value)
    columns["geometry"] = list(shapely.to_wkb(np.array(shapes, object), byte_order=1)) if shapes else []
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write the table as GeoParquet; there is no CRS, since the coordinates are level-0 px."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [], "crs": None}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    about = {"coordinates": "level-0 px, x right, y down, corner-based"}
    metadata = {"geo": json.dumps(geo), "quadrat": json.dumps(about)}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd", version="2.6")


def read_parquet(path: Path, *, picture: str = "", called: str = "") -> Sheet:
    """The records of one slide of a table; places are those of the files it was made from.

    Raises:
        AnnotationError: unreadable, columns missing, a geometry that is none, or the slide is not in it.
    """
    table = _read(path, [name for name in SCHEMA.names if name not in ("case", "split")])
    slides = list(dict.fromkeys(table["slide"].to_pylist()))
    found = same_pictures(slides, picture, called=called) if picture else slides
    if len(found) != 1:
        raise AnnotationError(
            f"{path}: {len(found) or 'none'} of its {len(slides)} slides may be {picture or 'meant'}; one must be"
        )
    rows = [row for row in table.to_pylist() if row["slide"] == found[0]]
    try:
        shapes = shapely.from_wkb([row["geometry"] for row in rows])
        records = tuple(
            record_of(shape, place=row["place"], name=row["class"], kind=row["kind"], shape=row["shape"], crowd=row["crowd"])
            for row, shape in zip(rows, shapes, strict=True)
        )
    except (ValueError, TypeError, shapely.GEOSException) as error:
        raise AnnotationError(f"{path}: a row of slide {found[0]} that makes no sense ({error})") from error
    return Sheet(str(path), "Parquet", records, picture=found[0])


def pictures_of_parquet(path: Path) -> list[str]:
    """The slides of a table, in its order."""
    return list(dict.fromkeys(_read(path, ["slide"])["slide"].to_pylist()))


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise AnnotationError(f"{path}: cannot be read as a table of annotations ({' '.join(str(error).split())})") from error
