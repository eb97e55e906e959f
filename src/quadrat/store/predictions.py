"""A slide's quantised predictions on disk: maps as a sharded zarr array, rows as parquet files.

A task hands over a :class:`Storage`, which says how the predictions of its model are laid out,
written and read. Every shard has one writer. Predictions are kept on request: another threshold
then stitches again without inferring.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quadrat.core.arrow import numbers, plain
from quadrat.core.errors import StoreError
from quadrat.core.files import write_file
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, Lattice, ShardIndex
from quadrat.core.objects import Frame
from quadrat.core.predictions import Candidates, MaskCandidates, Prediction, TileScores
from quadrat.core.records import from_json, to_json
from quadrat.store.array import ShardedArray
from quadrat.store.shard import ShardReceipt

ABOUT = "about.json"
ROW_BYTES, ROWS_A_CORE = 40, 1000
"""For an estimate: of one candidate, and how many a crowded core has."""


class PredictionMissing(StoreError):
    """A shard is not predicted, or not yet."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a prediction store is laid out for."""

    frame: Frame
    """The slide's grid."""
    lattice: Lattice
    """The package's cores and shards."""
    shards: tuple[ShardIndex, ...]
    """Shards with analysed cores, in raster order."""

    def write(self, folder: Path) -> None:
        """Write it as about.json, which makes the folder a prediction store."""
        values = to_json(self) | {"shards": sorted(self.shards)}
        write_file(folder / ABOUT, json.dumps(values, sort_keys=True))

    @staticmethod
    def read(folder: Path) -> Layout:
        """The layout of a store.

        Raises:
            StoreError: the folder is no prediction store.
        """
        try:
            about = json.loads((folder / ABOUT).read_text())
            return Layout(
                frame=from_json(Frame, about["frame"]),
                lattice=Lattice(**about["lattice"]),
                shards=tuple(ShardIndex((row, col)) for row, col in about["shards"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{folder} is not a prediction store ({error})") from error


class PredictionStore(Protocol):
    """The predictions of one slide. How they are read is each storage's own."""

    @property
    def layout(self) -> Layout: ...
    def write(self, shard: ShardIndex, predictions: Mapping[CoreIndex, Prediction]) -> ShardReceipt:
        """Write all predictions of one shard. The same predictions give the same bytes."""
        ...

    def shard_path(self, shard: ShardIndex) -> Path:
        """The file of a shard's predictions, there or not."""
        ...


Store_co = TypeVar("Store_co", bound=PredictionStore, covariant=True)


class Storage(Protocol[Store_co]):
    """How the predictions of a model lie on disk."""

    def core_bytes(self, lattice: Lattice) -> int:
        """About what the predictions of one core take at most, in bytes."""
        ...

    def create(self, folder: Path, layout: Layout) -> Store_co:
        """An empty store."""
        ...

    def open(self, folder: Path) -> Store_co:
        """The store in a folder.

        Raises:
            StoreError: there is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class MapStorage:
    """Dense maps, uint8 (channels, row, column), as one array of the whole slide."""

    channels: int
    """How many maps the network answers for a core."""

    def core_bytes(self, lattice: Lattice) -> int:
        return self.channels * lattice.core**2

    def create(self, folder: Path, layout: Layout) -> MapStore:
        """An empty store, 0 everywhere."""
        ShardedArray.create(
            folder / MapStore.ARRAY,
            shape=(self.channels, layout.frame.height, layout.frame.width),
            chunk=layout.lattice.core,
            shard=layout.lattice.shard,
            dtype="uint8",
        )
        layout.write(folder)
        return self.open(folder)

    def open(self, folder: Path) -> MapStore:
        """The store in a folder."""
        layout = Layout.read(folder)
        return MapStore(folder, layout, ShardedArray.open(folder / MapStore.ARRAY, mode="r+"))


class MapStore:
    """Maps of a slide; read by box, over the borders of shards."""

    ARRAY = "maps"

    def __init__(self, folder: Path, layout: Layout, array: ShardedArray) -> None:
        self.folder, self.layout = folder, layout
        self._array, self._planned = array, frozenset(layout.shards)

    def write(self, shard: ShardIndex, predictions: Mapping[CoreIndex, Prediction]) -> ShardReceipt:
        """Write the maps (channels, core, core) of a shard's cores; other cores stay 0."""
        lattice, frame = self.layout.lattice, self.layout.frame
        box = lattice.shard_box(shard).intersect(frame.box)
        whole = np.zeros((self._array.shape[0], *box.shape), np.uint8)
        for core, maps in predictions.items():
            assert isinstance(maps, np.ndarray)
            place = lattice.core_box(core)
            part = place.intersect(box)
            whole[(slice(None), *part.slices_in(box))] = maps[(slice(None), *part.slices_in(place))]
        return self._array.write_shard(shard, whole)

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """uint8 (channels, h, w) of a box inside the slide; 0 where no core was analysed.

        Raises:
            PredictionMissing: a planned shard has no file.
            StoreError: a file is damaged.
        """
        for shard in self.layout.lattice.shards(box):
            if shard in self._planned and not self._array.has(shard):
                raise PredictionMissing(
                    f"{self.folder}: the predictions of shard {shard} are missing; run again to "
                    "infer it"
                )
        result: npt.NDArray[np.uint8] = self._array.read(box)
        return result

    def shard_path(self, shard: ShardIndex) -> Path:
        """The file of a shard's maps."""
        return self._array.shard_path(shard)


Row = TypeVar("Row", Candidates, TileScores)


@dataclass(frozen=True, slots=True)
class TableStorage(Generic[Row]):
    """Rows, as one parquet file per shard."""

    kind: type[Row]
    """Class of the rows, which knows their columns."""

    def core_bytes(self, lattice: Lattice) -> int:
        return ROW_BYTES * ROWS_A_CORE

    def create(self, folder: Path, layout: Layout) -> TableStore[Row]:
        """An empty store."""
        layout.write(folder)
        return self.open(folder)

    def open(self, folder: Path) -> TableStore[Row]:
        """The store in a folder."""
        return TableStore(folder, Layout.read(folder), self.kind)


class TableStore(Generic[Row]):
    """Rows of a slide, read by shard."""

    def __init__(self, folder: Path, layout: Layout, kind: type[Row]) -> None:
        self.folder, self.layout = folder, layout
        self._kind: type[Row] = kind

    def write(self, shard: ShardIndex, predictions: Mapping[CoreIndex, Prediction]) -> ShardReceipt:
        """Write the rows of a shard, core by core in raster order."""
        found = [predictions[core] for core in sorted(predictions)]
        rows = self._kind.concatenate([r for r in found if isinstance(r, self._kind)])
        return _write_table(
            shard, self.shard_path(shard), {n: getattr(rows, n) for n in rows.COLUMNS}
        )

    def read(self, shard: ShardIndex) -> Row:
        """The rows of a shard.

        Raises:
            StoreError: its file is missing or damaged.
        """
        return self._kind(**_read_table(self.shard_path(shard), self._kind.COLUMNS))

    def shard_path(self, shard: ShardIndex) -> Path:
        """The file of a shard's rows."""
        return self.folder / f"rows.{shard[0]}.{shard[1]}.parquet"


@dataclass(frozen=True, slots=True)
class MaskStorage:
    """Candidates with masks, as one parquet file per shard."""

    def core_bytes(self, lattice: Lattice) -> int:
        return ROW_BYTES * ROWS_A_CORE + lattice.core**2

    def create(self, folder: Path, layout: Layout) -> MaskStore:
        """An empty store."""
        layout.write(folder)
        return self.open(folder)

    def open(self, folder: Path) -> MaskStore:
        """The store in a folder."""
        return MaskStore(folder, Layout.read(folder))


class MaskStore:
    """Candidates with masks of a slide, read by shard, with or without the masks."""

    MASK = "mask"
    """The column of packed masks, one value of bytes per candidate."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout

    def write(self, shard: ShardIndex, predictions: Mapping[CoreIndex, Prediction]) -> ShardReceipt:
        """Write the candidates of a shard, core by core in raster order."""
        found = [predictions[core] for core in sorted(predictions)]
        masks = MaskCandidates.concatenate([m for m in found if isinstance(m, MaskCandidates)])
        buffers = [None, pa.py_buffer(masks.starts), pa.py_buffer(masks.bits)]
        packed = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(masks), buffers)
        columns = {n: getattr(masks, n) for n in masks.COLUMNS}
        return _write_table(shard, self.shard_path(shard), columns, {self.MASK: packed})

    def read(self, shard: ShardIndex, *, pixels: bool = True) -> MaskCandidates:
        """The candidates of a shard; without ``pixels`` only what decides about them.

        Raises:
            StoreError: its file is missing or damaged.
        """
        path = self.shard_path(shard)
        columns = _read_table(path, MaskCandidates.COLUMNS)
        n = len(columns["score"])
        starts, bits = np.zeros(n + 1, np.int64), np.zeros(0, np.uint8)
        if pixels and n:
            packed = _read_parquet(path, [self.MASK])[self.MASK].combine_chunks()
            _, offsets, content = packed.buffers()
            starts = np.frombuffer(offsets, np.int64)[packed.offset : packed.offset + n + 1]
            bits = np.frombuffer(content, np.uint8)[starts[0] : starts[-1]]
        return MaskCandidates(**columns, starts=starts - starts[0], bits=bits)

    def shard_path(self, shard: ShardIndex) -> Path:
        """The file of a shard's candidates."""
        return self.folder / f"masks.{shard[0]}.{shard[1]}.parquet"


def _write_table(
    shard: ShardIndex,
    path: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    more: Mapping[str, pa.Array] | None = None,
) -> ShardReceipt:
    """Arrays (n,) or (n, k) as a parquet file of columns ``name`` or ``name.0`` ... ``name.k-1``;
    ``more`` as they are."""
    flat: dict[str, Any] = dict(more or {})
    for name, array in columns.items():
        if array.ndim == 1:
            flat[name] = plain(array)
        else:
            flat |= {f"{name}.{i}": plain(array[:, i]) for i in range(array.shape[1])}
    stream = io.BytesIO()
    pq.write_table(pa.table(flat), stream, compression="zstd")
    content = stream.getvalue()
    write_file(path, content)
    return ShardReceipt(shard, len(content), hashlib.sha256(content).hexdigest())


def _read_parquet(path: Path, names: Sequence[str]) -> pa.Table:
    """The columns ``name`` or ``name.0`` ... of ``names``."""
    try:
        with pq.ParquetFile(path) as file:
            every = file.schema_arrow.names
            return file.read([c for c in every if c.split(".")[0] in names])
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}); run again to infer it") from error


def _read_table(
    path: Path, columns: Mapping[str, tuple[tuple[int | None, ...], Any]]
) -> dict[str, npt.NDArray[Any]]:
    """The inverse of :func:`_write_table`, by the columns of a :class:`Columns`."""
    table = _read_parquet(path, list(columns))
    found: dict[str, npt.NDArray[Any]] = {}
    for name, (row, dtype) in columns.items():
        parts = [numbers(table[c]) for c in table.column_names if c.split(".")[0] == name]
        if not row:
            found[name] = parts[0]
        else:  # a column of no width, such as an empty embedding, has left no trace
            found[name] = np.stack(parts, axis=1) if parts else np.zeros((len(table), 0), dtype)
    return found
