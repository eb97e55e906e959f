"""Zarr v3 arrays in shards with one writer each, checksums inside, and receipts to verify them by.

A written shard always has a file, so that its presence means "written" here. Shards appear complete (written beside,
fsync, rename) or not at all. zarr-python reads these arrays like any other; it does not write them, because it reads
each old shard back, orders the bytes as its threads finish, and leaves all-fill shards without a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quadrat.errors import StoreError
from quadrat.geometry import Box
from quadrat.grid import Cell
from quadrat.shard_file import ABSENT, ZSTD_LEVEL, Array, ShardLayout, decode_chunk, decode_index, encode_shard

INDEX_CACHE = 256
"""Shard indices remembered an array."""


@dataclass(frozen=True, slots=True)
class ShardReceipt:
    """Proof of a finished shard: its cell, and its file's length and sha256."""

    cell: Cell
    nbytes: int
    sha256: str


@dataclass(slots=True)
class ShardedArray:
    """A zarr v3 array (leading axes..., row, column), sharded in rows and columns; leading axes whole in each chunk.

    Reads and writes from several threads and processes, with one writer a shard. Pickles as its path.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    shard: int
    fill: int | float
    attributes: Mapping[str, Any]
    writable: bool
    _indices: OrderedDict[Cell, tuple[int, npt.NDArray[np.uint64]]] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @staticmethod
    def create(
        path: str | Path,
        *,
        shape: tuple[int, ...],
        chunk: int,
        shard: int,
        dtype: npt.DTypeLike,
        fill: int | float = 0,
        attributes: Mapping[str, Any] | None = None,
        dimension_names: tuple[str, ...] | None = None,
    ) -> ShardedArray:
        """Make an empty array; ``chunk`` and ``shard`` in px, the second a whole number of the first.

        The same array there already is opened, with what it holds: a task may run twice.

        Raises:
            StoreError: something else is at ``path``, or the sizes do not fit.
        """
        place = Path(path)
        if chunk < 1 or shard % chunk or len(shape) < 2 or min(shape) < 1:
            raise StoreError(f"{place}: shape {shape} with shard {shard} and chunk {chunk}: want whole chunks a shard")
        document = _metadata(shape, chunk, shard, np.dtype(dtype), fill, dict(attributes or {}), dimension_names)
        if not place.exists():
            write_node(place, document)
        elif read_node(place, "array") != document:
            raise StoreError(f"{place}: cannot be created, another array is there already")
        return ShardedArray.open(place, "r+")

    @staticmethod
    def open(path: str | Path, mode: Literal["r", "r+"] = "r") -> ShardedArray:
        """Open an array that ``create`` made.

        Raises:
            StoreError: no such array, or one of another make.
        """
        place = Path(path)
        document = read_node(place, "array")
        try:
            shape = tuple(int(n) for n in document["shape"])
            shard = int(document["chunk_grid"]["configuration"]["chunk_shape"][-1])
            chunk = int(document["codecs"][0]["configuration"]["chunk_shape"][-1])
            dtype, fill = np.dtype(document["data_type"]), document["fill_value"]
            attributes, names = document.get("attributes", {}), document.get("dimension_names")
            ours = _metadata(shape, chunk, shard, dtype, fill, attributes, tuple(names) if names else None)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(f"{place}: a zarr array of another make ({error!r})") from error
        if ours != document:
            raise StoreError(f"{place}: a zarr array of another make; only what quadrat wrote is opened as a store")
        return ShardedArray(place, shape, dtype, chunk, shard, fill, attributes, mode == "r+")

    def __reduce__(self) -> tuple[object, ...]:
        return ShardedArray.open, (self.path, "r+" if self.writable else "r")

    @property
    def box(self) -> Box:
        """All rows and columns."""
        return Box(0, 0, self.shape[-2], self.shape[-1])

    @property
    def layout(self) -> ShardLayout:
        """How a shard's bytes are laid out."""
        leading, across = self.shape[:-2], self.shard // self.chunk
        return ShardLayout(
            chunk=(*leading, self.chunk, self.chunk),
            counts=(*(1 for _ in leading), across, across),
            dtype=self.dtype,
            fill=self.fill,
        )

    def shard_box(self, cell: Cell) -> Box:
        """The shard's rows and columns, clipped to the array (empty beyond it)."""
        row, col = cell[0] * self.shard, cell[1] * self.shard
        return Box(row, col, row + self.shard, col + self.shard).intersect(self.box)

    def shard_path(self, cell: Cell) -> Path:
        """Where the shard's file lies, or will lie."""
        return self.path.joinpath("c", *("0" for _ in self.shape[:-2]), str(cell[0]), str(cell[1]))

    def has(self, cell: Cell) -> bool:
        """Whether the shard was written."""
        return self.shard_path(cell).is_file()

    def write_shard(self, cell: Cell, array: Array) -> ShardReceipt:
        """Write one whole shard: (leading..., h, w) of ``shard_box(cell)``. One writer a shard; rewriting replaces it.

        Raises:
            StoreError: opened for reading, outside the array, wrong shape or dtype, or the disk refuses.
        """
        want = (*self.shape[:-2], *self.shard_box(cell).shape)
        if not self.writable:
            raise StoreError(f"{self.path}: opened for reading; shard {cell} cannot be written")
        if self.shard_box(cell).empty or array.shape != want or array.dtype != self.dtype:
            raise StoreError(
                f"{self.path}: shard {cell} is {array.dtype}{array.shape}, want {self.dtype}{want} (empty: outside)"
            )
        data = encode_shard(array, self.layout)
        try:
            _write_durably(self.shard_path(cell), data)
        except OSError as error:
            raise StoreError(f"{self.path}: shard {cell} cannot be written ({error.strerror or error})") from error
        with self._lock:
            self._indices.pop(cell, None)
        return ShardReceipt(cell=cell, nbytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def read(self, box: Box) -> Array:
        """(leading..., h, w) of a box inside the array; a shard that was not written reads as the fill value.

        Raises:
            StoreError: the box reaches outside, or a shard is damaged.
        """
        if not self.box.contains(box):
            raise StoreError(f"{self.path}: {box} reaches outside the array of {self.shape[-2]} x {self.shape[-1]} px")
        out = np.full((*self.shape[:-2], *box.shape), self.fill, self.dtype)
        wanted: dict[Cell, list[Cell]] = {}
        for row, col in box.cells(self.chunk):
            wanted.setdefault((row * self.chunk // self.shard, col * self.chunk // self.shard), []).append((row, col))
        for shard, chunks in wanted.items():
            self._read_shard(shard, chunks, box, out)
        return out

    def verify(self, receipts: Iterable[ShardReceipt]) -> list[str]:
        """What is wrong with the shards of these receipts, one sentence each; an empty list is a clean bill."""
        problems = []
        for receipt in receipts:
            path = self.shard_path(receipt.cell)
            try:
                data = path.read_bytes()
            except OSError as error:
                problems.append(f"{path}: cannot be read ({error.strerror or error})")
                continue
            if len(data) != receipt.nbytes:
                problems.append(f"{path}: has {len(data)} bytes, was written with {receipt.nbytes}")
            elif hashlib.sha256(data).hexdigest() != receipt.sha256:
                problems.append(f"{path}: its bytes have changed since they were written")
        return problems

    def _read_shard(self, shard: Cell, chunks: list[Cell], box: Box, out: Array) -> None:
        """Copy the part of ``box`` that lies in these chunks of one shard into ``out``."""
        path, across = self.shard_path(shard), self.shard // self.chunk
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{path}: the shard cannot be read ({error.strerror or error})") from error
        try:
            index = self._index(handle, shard)
            for row, col in chunks:
                offset, length = index[..., row % across, col % across, :].reshape(2)
                if offset == ABSENT:
                    continue
                chunk = decode_chunk(os.pread(handle, int(length), int(offset)), self.layout)
                place = Box(row, col, row + 1, col + 1).scale_out(self.chunk, self.chunk)
                part = place.intersect(box)
                out[(..., *part.slices_in(box))] = chunk[(..., *part.slices_in(place))]
        except (ValueError, OSError) as error:
            raise StoreError(f"{path}: the shard is damaged: {error}; remove it and run again") from error
        finally:
            os.close(handle)

    def _index(self, handle: int, shard: Cell) -> npt.NDArray[np.uint64]:
        """The shard's index, remembered until the file is another."""
        status = os.fstat(handle)
        stamp = hash((status.st_ino, status.st_mtime_ns, status.st_size))
        with self._lock:
            known = self._indices.get(shard)
            if known is not None and known[0] == stamp:
                return known[1]
        nbytes = self.layout.index_bytes
        start = status.st_size - nbytes
        index = decode_index(os.pread(handle, nbytes, start) if start >= 0 else b"", self.layout)
        with self._lock:
            self._indices[shard] = stamp, index
            while len(self._indices) > INDEX_CACHE:
                self._indices.popitem(last=False)
        return index


def _metadata(
    shape: tuple[int, ...],
    chunk: int,
    shard: int,
    dtype: np.dtype[Any],
    fill: int | float,
    attributes: Mapping[str, Any],
    names: tuple[str, ...] | None,
) -> dict[str, Any]:
    """zarr.json of an array: zarr v3 core and the codecs sharding_indexed, bytes, zstd and crc32c."""
    raw: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        raw["configuration"] = {"endian": "little"}
    packed = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}
    sharding = {
        "chunk_shape": [*shape[:-2], chunk, chunk],
        "codecs": [raw, packed, {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    document: dict[str, Any] = {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*shape[:-2], shard, shard]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return document if names is None else {**document, "dimension_names": list(names)}


def read_node(path: Path, kind: Literal["array", "group"]) -> dict[str, Any]:
    """zarr.json of an array or a group.

    Raises:
        StoreError: there is none, or it is not of that kind.
    """
    try:
        document = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: there is no zarr {kind} that can be opened ({error})") from error
    if not isinstance(document, dict) or document.get("zarr_format") != 3 or document.get("node_type") != kind:
        raise StoreError(f"{path}: not a zarr v3 {kind}")
    return document


def write_node(path: Path, document: Mapping[str, Any]) -> None:
    """Write zarr.json whole or not at all; what lies below the node stays.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        data = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _write_durably(path / "zarr.json", data.encode())
    except OSError as error:
        raise StoreError(f"{path}: zarr.json cannot be written ({error.strerror or error})") from error


def _write_durably(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: a crash leaves the old file or the new one, never a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
