"""What a slide's result consists of, in level-0 px, for pages: objects, regions or scored tiles, as
columns that are small enough to keep (29 bytes each), with outlines and rows on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from quadrat.core.columns import Columns
from quadrat.core.errors import QuadratError
from quadrat.outputs.tables import TileRows, read_tiles
from quadrat.pages.folder import TILES, Finished
from quadrat.pages.kept import Kept

F32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Geometries = npt.NDArray[np.object_]
_PLACES = ("x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0", "class_id", "score")
GROUPS_KEPT = 6
"""Row groups of outlines that are kept (32,768 objects each, about 15 MB)."""


@dataclass(frozen=True, slots=True)
class Places(Columns):
    """Where things lie."""

    x: F32
    """(n,) centre, level-0 px to the right."""
    y: F32
    """(n,) centre, level-0 px down."""
    box: F32
    """(n, 4) x0, y0, x1, y1, half-open."""
    class_id: npt.NDArray[np.uint8]
    """(n,) index into the classes."""
    score: F32
    """(n,) 0-1."""

    COLUMNS: ClassVar = {
        "x": ((), np.float32),
        "y": ((), np.float32),
        "box": ((4,), np.float32),
        "class_id": ((), np.uint8),
        "score": ((), np.float32),
    }

    @property
    def side(self) -> F32:
        """(n,) the longer side of the box."""
        longer: F32 = np.maximum(self.box[:, 2] - self.box[:, 0], self.box[:, 3] - self.box[:, 1])
        return longer


class Things(Protocol):
    """The things of one slide."""

    @property
    def places(self) -> Places:
        """Where they lie, in the order of the file."""
        ...

    def outlines(self, indices: Indices) -> Geometries:
        """Their outlines as polygons in level-0 px."""
        ...

    def row(self, index: int) -> dict[str, Any]:
        """All that is known of one of them, by column."""
        ...


class ObjectFile:
    """The things of an object table. It is safe to use from several threads.

    Raises:
        QuadratError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._groups: Kept[int, Geometries] = Kept(GROUPS_KEPT)
        try:
            with pq.ParquetFile(path) as file:
                columns = file.read(list(_PLACES))
                about = file.metadata
            rows = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise QuadratError(f"{path} cannot be read as objects.parquet ({error})") from error
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.intp)
        column = {name: columns[name].to_numpy() for name in _PLACES}
        self.places = Places(
            x=column["x_l0"].astype(np.float32),
            y=column["y_l0"].astype(np.float32),
            box=np.stack([column[n] for n in _PLACES[2:6]], axis=1).astype(np.float32),
            class_id=column["class_id"].astype(np.uint8),
            score=column["score"].astype(np.float32),
        )

    def outlines(self, indices: Indices) -> Geometries:
        """Their outlines, from the row groups that hold them."""
        out = np.empty(len(indices), object)
        group = np.searchsorted(self._starts, indices, side="right") - 1
        for one in np.unique(group):
            mine = np.flatnonzero(group == one)
            outlines = self._groups.get(int(one), partial(self._read, int(one)))
            out[mine] = outlines[indices[mine] - self._starts[one]]
        return out

    def _read(self, group: int) -> Geometries:
        """The outlines of a row group as WKB, decoded by who asks."""
        with pq.ParquetFile(self._path) as file:
            column = file.read_row_group(group, ["geometry"])["geometry"]
        outlines: Geometries = column.to_numpy(zero_copy_only=False)
        return outlines

    def row(self, index: int) -> dict[str, Any]:
        """Its row of the table, without the outline."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        with pq.ParquetFile(self._path) as file:
            names = [name for name in file.schema_arrow.names if name != "geometry"]
            rows = file.read_row_group(group, names).slice(index - int(self._starts[group]), 1)
        found: dict[str, Any] = rows.to_pylist()[0]
        return found


class ScoredTiles:
    """The scored tiles of a slide: squares of the most probable class."""

    def __init__(self, rows: TileRows) -> None:
        self._rows = rows
        box = rows.box_l0
        self.places = Places(
            x=((box[:, 0] + box[:, 2]) / 2).astype(np.float32),
            y=((box[:, 1] + box[:, 3]) / 2).astype(np.float32),
            box=box.astype(np.float32),
            class_id=rows.class_id,
            score=rows.probability.max(axis=1, initial=0.0).astype(np.float32),
        )

    def outlines(self, indices: Indices) -> Geometries:
        """The squares."""
        boxes: Geometries = shapely.to_wkb(shapely.box(*self._rows.box_l0[indices].T))
        return boxes

    def row(self, index: int) -> dict[str, Any]:
        """Its row of tiles.csv."""
        rows = self._rows
        row, col = rows.cell[index].tolist()
        corners = zip(
            ("x0_l0", "y0_l0", "x1_l0", "y1_l0"), rows.box_l0[index].tolist(), strict=True
        )
        shares = zip(rows.class_names, rows.probability[index].tolist(), strict=True)
        return {
            "row": row,
            "col": col,
            **dict(corners),
            "class": rows.class_names[int(rows.class_id[index])],
            **{f"p_{name}": share for name, share in shares},
        }


def read_things(slide: Finished) -> Things:
    """The things of a slide with results.

    Raises:
        QuadratError: their file is missing or damaged.
    """
    if slide.objects is not None:
        return ObjectFile(slide.objects)
    path = slide.folder / TILES
    try:
        return ScoredTiles(read_tiles(path))
    except (OSError, ValueError, IndexError) as error:
        raise QuadratError(f"{path}: cannot be read ({error})") from error


def decoded(outlines: Geometries | Sequence[bytes]) -> Geometries:
    """Outlines as shapely has them."""
    found: Geometries = shapely.from_wkb(np.asarray(outlines, object))
    return found


def at(things: Things, x: float, y: float, *, reach: float, shown: npt.NDArray[np.bool_]) -> int:
    """Which of the things that are ``shown`` (n,) lies at a place, or within ``reach`` of it, in
    level-0 px: the smallest that covers it, else the nearest centre; -1: none."""
    places = things.places
    x0, y0, x1, y1 = places.box.T
    inside = np.flatnonzero(shown & (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1))
    if len(inside):
        polygons = decoded(things.outlines(inside))
        hit = shapely.contains_xy(polygons, x, y)
        if hit.any():
            return int(inside[hit][np.argmin(shapely.area(polygons[hit]))])
    near = np.flatnonzero(shown & (np.abs(places.x - x) <= reach) & (np.abs(places.y - y) <= reach))
    if not len(near):
        return -1
    apart = np.hypot(places.x[near] - x, places.y[near] - y)
    best = int(np.argmin(apart))
    return int(near[best]) if apart[best] <= reach else -1
