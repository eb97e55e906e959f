"""Objects as CSV files: for people, for napari, and for OMERO.tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import shapely

from quadrat.core.arrow import varied
from quadrat.core.files import new_file
from quadrat.core.unit import named
from quadrat.outputs.objects import object_columns, outlines_of, read_rows, row_groups
from quadrat.outputs.results import SlideResult

WKT_DECIMALS = 3
"""Of level-0 px."""
_SHAPE = "polygon"
_CENTRE = 0.5
"""napari's coordinates are those of the centres of pixels, ours those of their corners."""
_OMERO_TYPES = {"int64": "l", "uint8": "l", "float": "d", "double": "d", "string": "s"}


def write_csv(folder: Path, result: SlideResult) -> None:
    """SLIDE.csv: every column of objects.parquet, and the outline as well-known text."""
    path = result.objects
    names = [n for n in pq.read_schema(path).names if n != "geometry"]
    with _stream(folder / f"{result.name}.csv") as write:
        for rows in _groups(path, [*names, "geometry"]):
            outlines = outlines_of(rows)
            texts = shapely.to_wkt(outlines, rounding_precision=WKT_DECIMALS).tolist()
            wkt = varied([text.encode() for text in texts], pa.string())
            write(_plain(rows.select(names)).append_column("wkt", wkt))


def write_napari(folder: Path, result: SlideResult) -> None:
    """SLIDE.points.csv and SLIDE.shapes.csv as napari's own reader takes them: centroids with their
    properties, and outlines (without holes, which shapes of napari have not); level-0 px."""
    path, frame = result.objects, result.summary.frame
    columns = ["id", "class", "score", named("area_um2", frame.unit), "x_l0", "y_l0"]
    with _stream(folder / f"{result.name}.points.csv") as write:
        for rows in _groups(path, columns):
            own = _plain(rows)
            axes = {"index": pa.array(own["id"].to_numpy() - 1)}
            for axis, name in enumerate(("y_l0", "x_l0")):
                axes[f"axis-{axis}"] = pa.array(own[name].to_numpy() - _CENTRE)
            rest = {name: own[name] for name in columns[:4]}
            write(pa.table(axes | rest))
    with _stream(folder / f"{result.name}.shapes.csv") as write:
        for rows in _groups(path, ["id", "geometry"]):
            write(_shapes(rows))


def write_omero(folder: Path, results: Sequence[SlideResult], names: dict[str, str]) -> None:
    """objects.csv and counts.csv of all slides, as ``omero metadata populate`` takes them: the
    first line has the types of the columns, and ``image_name`` the name of the image."""
    with _stream(folder / "objects.csv", types=True) as write:
        for result in results:
            columns = [n for n in object_columns(result.summary.frame) if n != "class_id"]
            for rows in _groups(result.objects, columns):
                write(_of_image(_plain(rows), names[result.name]))
    with _stream(folder / "counts.csv", types=True) as write:
        for result in results:
            unit = result.unit
            counts = result.counts
            area = [row.area_mm2 for row in counts]
            density = [np.nan if row.per_mm2 is None else row.per_mm2 for row in counts]
            table = {
                "class": varied([row.class_name.encode() for row in counts], pa.string()),
                "count": pa.array(np.array([row.count for row in counts], np.int64)),
                named("per_mm2", unit): pa.array(np.array(density, np.float64)),
                named("area_mm2", unit): pa.array(np.array(area, np.float64)),
            }
            write(_of_image(pa.table(table), names[result.name]))


def _of_image(rows: pa.Table, image: str) -> pa.Table:
    name = varied([image.encode()] * len(rows), pa.string())
    return rows.add_column(0, "image_name", name)


def _shapes(rows: pa.Table) -> pa.Table:
    """The shells of outlines, a row a vertex; the last vertex, which is the first, is left out."""
    outlines = outlines_of(rows)
    shells = shapely.get_exterior_ring(outlines)
    xy, owner = shapely.get_coordinates(shells, return_index=True)
    last = np.append(owner[1:] != owner[:-1], True) if len(owner) else np.zeros(0, np.bool_)
    xy, owner = xy[~last], owner[~last]
    first = np.searchsorted(owner, owner, side="left")
    return pa.table(
        {
            "index": pa.array(rows["id"].to_numpy()[owner] - 1),
            "shape-type": varied([_SHAPE.encode()] * len(owner), pa.string()),
            "vertex-index": pa.array(np.arange(len(owner)) - first),
            "axis-0": pa.array(xy[:, 1] - _CENTRE),
            "axis-1": pa.array(xy[:, 0] - _CENTRE),
        }
    )


def _groups(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a table, row group by row group; one without rows if it has none."""
    for group in range(row_groups(path)):
        yield read_rows(path, columns, group=group)
    if not row_groups(path):
        yield read_rows(path, columns)


def _plain(rows: pa.Table) -> pa.Table:
    """With the names of classes as text."""
    place = rows.schema.get_field_index("class")
    return rows if place < 0 else rows.set_column(place, "class", rows["class"].cast(pa.string()))


class _Stream:
    """A CSV file that grows."""

    def __init__(self, stream: BinaryIO, *, types: bool) -> None:
        self._stream, self._types = stream, types
        self._writer: pyarrow.csv.CSVWriter | None = None

    def __call__(self, rows: pa.Table) -> None:
        if self._writer is None:
            if self._types:
                kinds = ",".join(_OMERO_TYPES[str(field.type)] for field in rows.schema)
                self._stream.write(f"# header {kinds}\n".encode())
            options = pyarrow.csv.WriteOptions(quoting_style="needed")
            self._writer = pyarrow.csv.CSVWriter(self._stream, rows.schema, write_options=options)
        self._writer.write_table(rows.combine_chunks())

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@contextmanager
def _stream(path: Path, *, types: bool = False) -> Iterator[_Stream]:
    with new_file(path) as stream:
        own = _Stream(stream, types=types)
        yield own
        own.close()
