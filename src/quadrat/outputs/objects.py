"""The object table as GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/): written as a
stream, and read back.

Rows are collected to row groups of one constant size. So the bytes depend only on the objects, not
on how they were passed in. There is no CRS: coordinates are level-0 px, and ``crs: null`` states
this to readers that would otherwise assume longitude and latitude.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from quadrat.core.arrow import nullable, plain, varied
from quadrat.core.errors import QuadratError
from quadrat.core.files import new_file
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.unit import PX, Unit, named
from quadrat.core.writer import Writer

OBJECT_COLUMNS = (
    "id", "class", "class_id", "score", "area_um2", "perimeter_um",
    "x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0", "flags",
)  # fmt: skip
"""The columns that an :class:`ObjectTable` is made of, with ids and class names, as they are called
in um."""
ROW_GROUP = 32_768
"""Objects per row group; this bounds the memory of the writer (about 1 kB per object)."""


def slice_polygons(polygons: Polygons, start: int, stop: int) -> Polygons:
    """Polygons ``start`` to ``stop`` (half-open)."""
    rings = polygons.polygon_starts[start : stop + 1]
    points = polygons.ring_starts[rings[0] : rings[-1] + 1]
    return Polygons(
        xy=polygons.xy[points[0] : points[-1]],
        ring_starts=points - points[0],
        polygon_starts=rings - rings[0],
    )


def check_append(
    table: ObjectTable,
    polygons: Polygons,
    nearest: npt.NDArray[np.float32],
    *,
    n_classes: int,
    first_id: int,
) -> None:
    """Raise ValueError unless the parts of one append agree with each other and with the
    classes."""
    n = len(table)
    if len(polygons) != n or nearest.shape != (n, n_classes):
        raise ValueError(
            f"{n} objects of {n_classes} classes came with {len(polygons)} polygons and nearest "
            f"{nearest.shape}"
        )
    if n and int(table.class_id.max()) >= n_classes:
        raise ValueError(f"class_id {table.class_id.max()} has no class; there are {n_classes}")
    if first_id < 1:
        raise ValueError(
            f"first_id is {first_id}; ids start at 1 (0 is background in the label image)"
        )


class ObjectWriter(Writer):
    """Writes objects to GeoParquet in canonical order; a context manager, the file appears at its
    end, without error.

    Args:
        path: the file.
        frame: the slide's grid, to convert to level-0 px and um.
        classes: the classes, by class_id; their names must differ.
        slide: name of the slide, kept in the file's metadata under ``quadrat``.
    """

    def __init__(
        self, path: Path, *, frame: Frame, classes: Sequence[ClassInfo], slide: str
    ) -> None:
        self._path, self._frame, self._classes = Path(path), frame, tuple(classes)
        self._names = varied([c.name.encode() for c in self._classes], pa.string())
        self._schema = _schema(self._classes, frame.unit)
        self._slide = slide
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def _begin(self, stack: ExitStack) -> None:
        stream = stack.enter_context(new_file(self._path))
        self._writer = stack.enter_context(
            pq.ParquetWriter(
                stream, self._schema, compression="zstd", compression_level=3, version="2.6"
            )
        )

    def append(
        self,
        table: ObjectTable,
        polygons: Polygons,
        nearest: npt.NDArray[np.float32],
        *,
        first_id: int,
    ) -> None:
        """Add objects.

        Args:
            table: the objects, in canonical order.
            polygons: their outlines in grid px, in the same order.
            nearest: (n, classes) float32 um to the nearest other object of each class, nan if there
                is none.
            first_id: id of the first object, its canonical rank from 1; the others count up from
                it.
        """
        check_append(table, polygons, nearest, n_classes=len(self._classes), first_id=first_id)
        for start in range(0, len(table), ROW_GROUP):
            stop = min(start + ROW_GROUP, len(table))
            part = table.take(np.arange(start, stop))
            outline = slice_polygons(polygons, start, stop)
            ids = np.arange(first_id + start, first_id + stop, dtype=np.int64)
            self._hold(self._rows(part, outline, nearest[start:stop], ids))

    def _rows(
        self,
        table: ObjectTable,
        polygons: Polygons,
        nearest: npt.NDArray[np.float32],
        ids: npt.NDArray[np.int64],
    ) -> pa.Table:
        frame = self._frame
        centre = frame.scale.to_l0(table.centroid[:, ::-1])
        corners = frame.scale.to_l0(table.bbox[:, [1, 0, 3, 2]])
        xy = frame.scale.to_l0(polygons.xy)
        if len(xy):
            self._bounds[:2] = np.minimum(self._bounds[:2], xy.min(axis=0))
            self._bounds[2:] = np.maximum(self._bounds[2:], xy.max(axis=0))
        offsets = polygons.ring_starts, polygons.polygon_starts
        outlines = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
        columns: list[Any] = [
            ids,
            pa.DictionaryArray.from_arrays(plain(table.class_id.astype(np.int32)), self._names),
            table.class_id,
            table.score,
            table.area_px * frame.mpp**2,
            table.perimeter_px * frame.mpp,
            *centre.T,
            *corners.T,
            table.flags,
            *(
                nullable(column)
                for column in (nearest[np.arange(len(table)), table.class_id], *nearest.T)
            ),
            varied(shapely.to_wkb(outlines, byte_order=1).tolist(), pa.binary()),
        ]
        arrays = [c if isinstance(c, pa.Array) else plain(c) for c in columns]
        return pa.table(arrays, schema=self._schema)

    def _hold(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        while self._waiting_rows >= ROW_GROUP:
            joined = pa.concat_tables(self._waiting)
            self._write(joined.slice(0, ROW_GROUP))
            self._waiting = [joined.slice(ROW_GROUP)]
            self._waiting_rows -= ROW_GROUP

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)

    def _end(self) -> None:
        """Write what waits, and what the file says of itself."""
        if self._waiting_rows:
            self._write(pa.concat_tables(self._waiting))
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        about = {
            "slide": self._slide,
            "coordinates": "level-0 px, x right, y down",
            **({"unit": "px"} if self._frame.unit == PX else {"mpp": self._frame.mpp}),
        }
        self._writer.add_key_value_metadata({"geo": json.dumps(geo), "quadrat": json.dumps(about)})


def _schema(classes: Sequence[ClassInfo], unit: Unit) -> pa.Schema:
    names = [c.name for c in classes]
    if len(set(names)) != len(names):
        raise ValueError(f"class names {names} are not distinct")
    floats = ["x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0"]
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("class", pa.dictionary(pa.int32(), pa.string())),
            pa.field("class_id", pa.uint8()),
            pa.field("score", pa.float32()),
            pa.field(named("area_um2", unit), pa.float64()),
            pa.field(named("perimeter_um", unit), pa.float64()),
            *(pa.field(name, pa.float64()) for name in floats),
            pa.field("flags", pa.uint8()),
            pa.field(named("nearest_same_um", unit), pa.float32()),
            *(pa.field(f"{named('nearest_um', unit)}.{name}", pa.float32()) for name in names),
            pa.field("geometry", pa.binary()),
        ]
    )


def object_columns(frame: Frame) -> list[str]:
    """``OBJECT_COLUMNS`` by their names in the unit of a frame."""
    return [named(name, frame.unit) for name in OBJECT_COLUMNS]


def read_rows(path: Path, columns: Sequence[str], *, group: int | None = None) -> pa.Table:
    """Columns of an object table: all rows, or those of one row group.

    Raises:
        QuadratError: the file is missing or damaged, or has no such column.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing:
                raise QuadratError(f"{path}: no column {', '.join(sorted(missing))}")
            names = list(columns)
            return file.read(names) if group is None else file.read_row_group(group, names)
    except (OSError, pa.ArrowException) as error:
        raise QuadratError(f"{path} cannot be read as objects.parquet ({error})") from error


def row_groups(path: Path) -> int:
    """The number of row groups of an object table that can be read."""
    return int(pq.read_metadata(path).num_row_groups)


def take_rows(path: Path, columns: Sequence[str], index: npt.NDArray[np.integer]) -> pa.Table:
    """Rows of an object table by their ascending indices (n,), read row group by row group.

    Raises:
        QuadratError: see :func:`read_rows`.
    """
    about = pq.read_metadata(path)
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    parts = [read_rows(path, columns).slice(0, 0)] if not len(index) else []
    start = 0
    for group, size in enumerate(sizes):
        mine = index[(index >= start) & (index < start + size)]
        if len(mine):
            parts.append(read_rows(path, columns, group=group).take(plain(mine - start)))
        start += size
    return pa.concat_tables(parts)


def outlines_of(rows: pa.Table) -> npt.NDArray[Any]:
    """The outlines of rows of an object table, as shapely has them, in level-0 px."""
    outlines: npt.NDArray[Any] = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
    return outlines


def polygons_of(outlines: npt.NDArray[Any]) -> Polygons:
    """Shapely polygons as ragged arrays.

    Raises:
        QuadratError: other shapes are among them.
    """
    if not len(outlines):
        return Polygons(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    kind, xy, offsets = shapely.to_ragged_array(outlines)
    if kind is not shapely.GeometryType.POLYGON:
        raise QuadratError(f"outlines must be polygons, not {kind.name.lower()}")
    return Polygons(xy[:, :2], offsets[0].astype(np.int64), offsets[1].astype(np.int64))


def object_table(rows: pa.Table, frame: Frame) -> ObjectTable:
    """Rows with the columns of :func:`object_columns` as a table in px of ``frame``, in their
    order.

    Anchors are not in the file. They are the pixels of the centroids.
    """
    column = {
        name: rows[named(name, frame.unit)].to_numpy() for name in OBJECT_COLUMNS if name != "class"
    }
    centre, corners = (
        frame.scale.from_l0(np.stack([column[f"{name}_l0"] for name in names], axis=1))
        for names in (("x", "y"), ("x0", "y0", "x1", "y1"))
    )
    centroid = centre[:, ::-1]
    return ObjectTable(
        anchor=np.floor(centroid).astype(np.int64),
        class_id=column["class_id"].astype(np.uint8),
        score=column["score"].astype(np.float32),
        bbox=corners[:, [1, 0, 3, 2]],
        centroid=centroid,
        area_px=column["area_um2"] / frame.mpp**2,
        perimeter_px=column["perimeter_um"] / frame.mpp,
        flags=column["flags"].astype(np.uint8),
    )
