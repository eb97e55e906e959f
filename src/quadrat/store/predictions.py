"""A slide's quantised predictions on disk: maps as a sharded zarr array, candidates (with masks)
and tile rows as parquet parts.

One writer a shard. Kept on request, so that another threshold is stitched again without inferring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quadrat.core.errors import StoreError
from quadrat.core.files import write_file
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell, Lattice
from quadrat.core.objects import Frame
from quadrat.core.predictions import Candidates, MaskCandidates, Prediction, TileScores
from quadrat.store.tiles import ShardedArray

Receipt = dict[str, Any]
MASK_COLUMN = ("starts", "bits")
"""Of :class:`MaskCandidates`: together one column of bytes."""


class PredictionMissing(StoreError):
    """A shard is not predicted, or not yet."""


class PredictionStore:
    """``storage`` is the task's: "maps" (uint8, channels first), "candidates",
    "masks" or "tiles".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            about = json.loads((folder / "about.json").read_text())
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} is not a prediction store ({error})") from error
        self.storage: str = about["storage"]
        self.frame = Frame(**about["frame"])
        self.lattice = Lattice(**about["lattice"])
        self.shards: list[Cell] = [(r, c) for r, c in about["shards"]]
        self._planned = frozenset(self.shards)
        self._array = (
            ShardedArray.open(folder / "maps", mode="r+") if self.storage == "maps" else None
        )

    @staticmethod
    def create(
        folder: Path,
        *,
        storage: str,
        frame: Frame,
        lattice: Lattice,
        channels: int,
        shards: Sequence[Cell],
    ) -> PredictionStore:
        """An empty store that will hold predictions of ``shards``."""
        if storage == "maps":
            ShardedArray.create(
                folder / "maps",
                shape=(channels, frame.height, frame.width),
                chunk=lattice.core,
                shard=lattice.shard,
                dtype="uint8",
            )
        about = {
            "storage": storage,
            "frame": {name: getattr(frame, name) for name in Frame.__slots__},
            "lattice": {name: getattr(lattice, name) for name in Lattice.__slots__},
            "shards": [list(s) for s in sorted(shards)],
        }
        write_file(folder / "about.json", json.dumps(about, sort_keys=True))
        return PredictionStore(folder)

    def write(self, shard: Cell, predictions: Mapping[Cell, Prediction]) -> Receipt:
        """Write all predictions of one shard; cores that are not given stay 0 (not analysed)."""
        if self._array is not None:
            box = self.lattice.shard_box(shard).intersect(self.frame.box)
            whole = np.zeros((self._array.shape[0], *box.shape), np.uint8)
            for cell, maps in predictions.items():
                core = self.lattice.core_box(cell)
                part = core.intersect(box)
                assert isinstance(maps, np.ndarray)
                whole[(slice(None), *part.slices_in(box))] = maps[
                    (slice(None), *part.slices_in(core))
                ]
            receipt = self._array.write_shard(shard, whole)
            return {"sha256": receipt.sha256, "nbytes": receipt.nbytes}
        rows = [predictions[cell] for cell in sorted(predictions)]
        if self.storage == "masks":
            return _write_masks(
                self._part(shard),
                MaskCandidates.concatenate([r for r in rows if isinstance(r, MaskCandidates)]),
            )
        kind = Candidates if self.storage == "candidates" else TileScores
        columns = {
            name: np.concatenate([getattr(row, name) for row in rows]) for name in kind.__slots__
        }
        return _write_table(self._part(shard), columns)

    def maps(self, box: Box) -> npt.NDArray[np.uint8]:
        """uint8 (channels, h, w) of a box inside the slide; 0 where no core was analysed.

        Raises:
            PredictionMissing: a shard that was to be predicted has no file. StoreError: it has
            a damaged one.
        """
        assert self._array is not None
        missing = [
            s
            for s in box.cells(self.lattice.shard)
            if s in self._planned and not self._array.has(s)
        ]
        if missing:
            raise PredictionMissing(
                f"{self.folder} lacks the predictions of shard {missing[0]}; run again to infer it"
            )
        result: npt.NDArray[np.uint8] = self._array.read(box)
        return result

    def candidates(self, shard: Cell) -> Candidates:
        return Candidates(**_read_table(self._part(shard)))

    def masks(self, shard: Cell, *, pixels: bool = True) -> MaskCandidates:
        """Candidates with masks; without ``pixels`` only what decides about them (``starts`` is
        then all 0)."""
        return _read_masks(self._part(shard), pixels=pixels)

    def tiles(self, shard: Cell) -> TileScores:
        return TileScores(**_read_table(self._part(shard)))

    def shard_path(self, shard: Cell) -> Path:
        """Where the predictions of a shard lie, or will lie."""
        return self._part(shard) if self._array is None else self._array.shard_path(shard)

    def _part(self, shard: Cell) -> Path:
        return self.folder / f"{self.storage}.{shard[0]}.{shard[1]}.parquet"


def _write_masks(path: Path, masks: MaskCandidates) -> Receipt:
    """Columns as :func:`_write_table`, and the packed masks as a column ``mask`` of bytes."""
    columns = {
        name: getattr(masks, name) for name in MaskCandidates.__slots__ if name not in MASK_COLUMN
    }
    buffers = [None, pa.py_buffer(masks.starts), pa.py_buffer(masks.bits)]
    return _write_table(
        path, columns, mask=pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(masks), buffers)
    )


def _read_masks(path: Path, *, pixels: bool) -> MaskCandidates:
    names = [name for name in MaskCandidates.__slots__ if name not in MASK_COLUMN]
    columns = _read_table(path, names)
    n = len(columns["score"])
    if not pixels:
        return MaskCandidates(
            **columns, starts=np.zeros(n + 1, np.int64), bits=np.zeros(0, np.uint8)
        )
    mask = _read_parquet(path, ["mask"])["mask"].combine_chunks()
    starts = (
        np.frombuffer(mask.buffers()[1], np.int64)[mask.offset : mask.offset + n + 1]
        if n
        else np.zeros(1, np.int64)
    )
    bits = (
        np.frombuffer(mask.buffers()[2], np.uint8)[starts[0] : starts[-1]]
        if n
        else np.zeros(0, np.uint8)
    )
    return MaskCandidates(**columns, starts=starts - starts[0], bits=bits)


def _write_table(path: Path, columns: Mapping[str, npt.NDArray[Any]], **more: pa.Array) -> Receipt:
    """Arrays (n,) or (n, k) as a parquet file of columns ``name`` or ``name.0`` ... ``name.k-1``;
    ``more`` as they are."""
    flat: dict[str, Any] = dict(more)
    for name, array in columns.items():
        if array.ndim == 1:
            flat[name] = array
        else:
            flat |= {
                f"{name}.{i}": np.ascontiguousarray(array[:, i]) for i in range(array.shape[1])
            }
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table(flat), stream, compression="zstd")
    content = stream.getvalue().to_pybytes()
    write_file(path, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "nbytes": len(content)}


def _read_parquet(path: Path, names: Sequence[str] | None) -> pa.Table:
    """The columns ``name`` or ``name.0`` ... of ``names`` (all if None)."""
    try:
        with pq.ParquetFile(path) as file:
            every = file.schema_arrow.names
            return file.read(
                every if names is None else [c for c in every if c.split(".")[0] in names]
            )
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}); run again to infer it") from error


def _read_table(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The inverse of :func:`_write_table`; of the columns ``names`` alone if given."""
    table = _read_parquet(path, names)
    groups: dict[str, list[npt.NDArray[Any]]] = {}
    for name in table.column_names:
        groups.setdefault(name.split(".")[0], []).append(table[name].to_numpy())
    many = {name.split(".")[0] for name in table.column_names if "." in name}
    return {
        name: np.stack(parts, axis=1) if name in many else parts[0]
        for name, parts in groups.items()
    }
