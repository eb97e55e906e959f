"""Shard files: chunks one after the other, each with a checksum, then the index of their places
with a checksum of its own.

The layout is that of zarr's sharding codec (``index_location: end``; index codecs bytes and crc32c;
last codec of the chunks crc32c), so zarr can read the files:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/v1.0.html . Our own code
writes and reads them because zarr needs 7 ms of CPU for a 608 px window of which decoding takes 1
ms, and because it reads the old shard back on every write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from quadrat.core.errors import StoreError
from quadrat.core.files import write_file
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.slides.cache import BlockCache

ABSENT = 2**64 - 1
CRC_BYTES = 4
Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ShardReceipt:
    """Proof of a finished shard."""

    cell: Cell
    """(row, column) of the shard."""
    nbytes: int
    """Length of its file."""
    sha256: str
    """Hash of its file."""
    lost: tuple[Box, ...] = ()
    """Boxes in grid px, sorted, that are white because the slide is damaged there; empty unless
    damaged tiles are marked."""


def checksum(payload: bytes) -> bytes:
    """The CRC-32C that follows a payload, little-endian."""
    value: int = google_crc32c.value(payload)
    return value.to_bytes(CRC_BYTES, "little")


def unchecked(data: bytes) -> bytes:
    """The payload of a chunk without its checksum.

    Raises:
        ValueError: the checksum is not that of the payload.
    """
    payload = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or checksum(payload) != data[-CRC_BYTES:]:
        raise ValueError("checksum of a chunk")
    return payload


def pack_shard(payloads: Sequence[bytes | None]) -> bytes:
    """The bytes of a shard from the payloads of its chunks in raster order. None leaves a chunk out
    (it reads as fill)."""
    index = np.full((len(payloads), 2), ABSENT, "<u8")
    parts: list[bytes] = []  # joined once: a shard has megabytes
    at = 0
    for place, payload in enumerate(payloads):
        if payload is not None:
            index[place] = at, len(payload) + CRC_BYTES
            at += len(payload) + CRC_BYTES
            parts += payload, checksum(payload)
    tail = index.tobytes()
    return b"".join([*parts, tail, checksum(tail)])


def parse_index(tail: bytes, *, chunks: int, size: int) -> npt.NDArray[np.uint64]:
    """(chunks, 2): offset and length of every chunk, from the last bytes of a shard file of
    ``size`` bytes.

    Raises:
        ValueError: truncated, damaged, or a chunk outside the file.
    """
    length = index_bytes(chunks)
    if len(tail) != length:
        raise ValueError(f"the file ends after {size} bytes")
    index = np.frombuffer(unchecked(tail), "<u8").reshape(chunks, 2)
    held = index[index[:, 0] != ABSENT]
    if len(held) and int((held[:, 0] + held[:, 1]).max()) > size - length:
        raise ValueError("the index names a chunk outside the file")
    return index


def index_bytes(chunks: int) -> int:
    """Length of the index of a shard of so many chunks."""
    return 16 * chunks + CRC_BYTES


class OpenShard:
    """One shard file, open for reading; a context manager. ``stamp`` tells it from a file that
    replaces it."""

    __slots__ = ("across", "handle", "index", "origin", "stamp")

    def __init__(
        self,
        handle: int,
        stamp: tuple[int, ...],
        index: npt.NDArray[np.uint64],
        origin: Cell,
        across: int,
    ) -> None:
        self.handle, self.stamp, self.index, self.origin, self.across = (
            handle,
            stamp,
            index,
            origin,
            across,
        )

    def __enter__(self) -> OpenShard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.handle)

    def payload(self, chunk: Cell) -> bytes | None:
        """The checked payload of a chunk, by its cell in the array; None if it was left out.

        Raises:
            ValueError: its bytes have changed.
        """
        offset, length = self.index[
            (chunk[0] - self.origin[0]) * self.across + chunk[1] - self.origin[1]
        ].tolist()
        return None if offset == ABSENT else unchecked(os.pread(self.handle, length, offset))


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The shard files of one array of rows and columns. Threads may share it."""

    path: Path
    """Folder of the array."""
    box: Box
    """All rows and columns."""
    chunk: int
    """Side of a chunk in px."""
    shard: int
    """Side of a shard in px."""
    leading: int = 0
    """Number of axes before rows and columns; each lies in one shard."""
    trailing: int = 0
    """Number of axes behind them; each lies in one shard."""
    _indices: dict[Cell, tuple[tuple[int, ...], npt.NDArray[np.uint64]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By shard: inode, size and time of its file, and the index that was read from it."""

    @property
    def across(self) -> int:
        """Chunks per side of a shard."""
        return self.shard // self.chunk

    def shard_box(self, cell: Cell) -> Box:
        """Rows and columns of a shard, cut at the array (empty beyond it)."""
        row, col = cell[0] * self.shard, cell[1] * self.shard
        return Box(row, col, row + self.shard, col + self.shard).intersect(self.box)

    def shard_path(self, cell: Cell) -> Path:
        """Where the file of a shard is, or will be."""
        return self.path.joinpath(
            "c", *"0" * self.leading, str(cell[0]), str(cell[1]), *"0" * self.trailing
        )

    def has(self, cell: Cell) -> bool:
        """Whether the shard was written."""
        return self.shard_path(cell).is_file()

    def chunk_cells(self, cell: Cell) -> list[Cell]:
        """Cells of the chunks of a shard in the array, in raster order, including those beyond the
        array."""
        rows, cols = (range(at * self.across, (at + 1) * self.across) for at in cell)
        return [(row, col) for row in rows for col in cols]

    def write(
        self, cell: Cell, payloads: Sequence[bytes | None], *, lost: Sequence[Box] = ()
    ) -> ShardReceipt:
        """Write one whole shard from its chunks' payloads in raster order (see ``pack_shard``).

        Raises:
            WriteError: it cannot be written.
        """
        data = pack_shard(payloads)
        write_file(self.shard_path(cell), data)
        return ShardReceipt(
            cell=cell,
            nbytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            lost=tuple(sorted(set(lost))),
        )

    def open(self, cell: Cell) -> OpenShard | None:
        """A shard to read from; its index is parsed once per file. None if it was not written.

        Raises:
            ValueError: truncated, or its index is damaged.
            OSError: it cannot be opened.
        """
        try:
            handle = os.open(self.shard_path(cell), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(handle)
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            known = self._indices.get(cell)
            if known is None or known[0] != stamp:
                chunks = self.across * self.across
                start = max(0, status.st_size - index_bytes(chunks))
                tail = os.pread(handle, index_bytes(chunks), start)
                known = self._indices[cell] = (
                    stamp,
                    parse_index(tail, chunks=chunks, size=status.st_size),
                )
        except BaseException:
            os.close(handle)
            raise
        return OpenShard(
            handle, stamp, known[1], (cell[0] * self.across, cell[1] * self.across), self.across
        )

    def read(
        self, box: Box, decode: Callable[[Cell, bytes], Pixels], *, cache: BlockCache | None = None
    ) -> Iterator[tuple[Box, Box, Pixels]]:
        """What is stored of a box: for every chunk, its part of the box, its own box (not cut), and
        its decoded pixels.

        Chunks that were left out, and those of shards that were not written, are skipped.

        Raises:
            StoreError: a shard is damaged; the message names it, its file, and the remedy.
        """
        size = self.chunk
        for cell in box.cells(self.shard):
            try:
                shard = self.open(cell)
                if shard is None:
                    continue
                with shard:
                    for row, col in self.shard_box(cell).intersect(box).cells(size):
                        pixels = _decoded(shard, (row, col), decode, cache)
                        if pixels is not None:
                            place = Box(
                                row * size, col * size, row * size + size, col * size + size
                            )
                            yield place.intersect(box), place, pixels
            except (OSError, ValueError) as error:
                raise StoreError(
                    f"{self.path}: shard {cell} is damaged ({error}); remove "
                    f"{self.shard_path(cell)} and run again"
                ) from None


class Sharded:
    """An array that is kept in shard files."""

    __slots__ = ()
    files: ShardFiles

    @property
    def chunk(self) -> int:
        """Side of a chunk (or tile) in px."""
        return self.files.chunk

    @property
    def shard(self) -> int:
        """Side of a shard in px."""
        return self.files.shard

    @property
    def box(self) -> Box:
        """All rows and columns."""
        return self.files.box

    def shard_box(self, cell: Cell) -> Box:
        """Rows and columns of a shard, cut at the array (empty beyond it)."""
        return self.files.shard_box(cell)

    def shard_path(self, cell: Cell) -> Path:
        """Where the file of a shard is, or will be."""
        return self.files.shard_path(cell)

    def has(self, cell: Cell) -> bool:
        """Whether the shard was written."""
        return self.files.has(cell)


def _decoded(
    shard: OpenShard, chunk: Cell, decode: Callable[[Cell, bytes], Pixels], cache: BlockCache | None
) -> Pixels | None:
    """The pixels of a chunk, from the cache if they are there; None if the chunk was left out."""
    if cache is None:
        payload = shard.payload(chunk)
        return None if payload is None else decode(chunk, payload)

    def fresh() -> Pixels:
        payload = shard.payload(chunk)
        return np.empty(0, np.uint8) if payload is None else decode(chunk, payload)

    pixels = cache.get((*shard.stamp, *chunk), fresh)
    return pixels if pixels.size else None
