"""Zarr v3 arrays in shards: one writer per shard, checksums inside, and receipts to verify them.

zarr writes and reads the metadata. The shard files themselves are written and read by ``shard.py``
in the layout of zarr. A shard is encoded in memory and appears complete or not at all. Every
written shard has a file, even if all its pixels are the fill value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import imagecodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError
from zarr.storage import MemoryStore

from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.slides.cache import BlockCache
from quadrat.slides.zarr_files import DurableStore
from quadrat.store.shard import Sharded, ShardFiles, ShardReceipt

Array = npt.NDArray[Any]
ZSTD_LEVEL = 1
UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError)
"""What zarr and its codecs raise at damaged bytes or at metadata of another program."""

# our engine spreads the work, so zarr need not
zarr.config.set({"async.concurrency": 2, "threading.max_workers": 2})


@dataclass(frozen=True, slots=True)
class ShardedArray(Sharded):
    """A zarr v3 array (leading axes..., row, column), sharded in rows and columns. Leading axes are
    whole in each chunk.

    Several threads and processes may read and write it, with one writer per shard. It pickles as
    its path.
    """

    path: Path
    """Folder of the array."""
    shape: tuple[int, ...]
    """Length of each axis."""
    dtype: np.dtype[Any]
    """Type of its elements."""
    fill: int | float
    """What a shard that was not written reads as."""
    attributes: Mapping[str, Any]
    """Attributes in its metadata."""
    writable: bool
    """Whether it was opened for writing."""
    files: ShardFiles
    """Its shard files."""

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
        """Make an empty array. ``chunk`` and ``shard`` in px; a shard is a whole number of chunks.

        If the same array is already there, it is opened with its content, because a task may run
        twice.

        Raises:
            StoreError: something else is at ``path``, the sizes do not fit, or the disk does not
                allow it.
        """
        place = Path(path)
        if chunk < 1 or shard % chunk or len(shape) < 2 or min(shape) < 1:
            raise StoreError(
                f"{place}: shape {shape} with shard {shard} and chunk {chunk}: want whole chunks a "
                "shard"
            )
        make: dict[str, Any] = {
            "shape": shape,
            "chunk": chunk,
            "shard": shard,
            "dtype": np.dtype(dtype),
            "fill": fill,
            "attributes": attributes or {},
            "names": dimension_names,
        }
        try:
            want = describe_array(_create(MemoryStore(), **make))
            if not (place / "zarr.json").exists():
                with suppress(ContainsArrayError):  # the same task elsewhere was faster
                    _create(DurableStore(place), **make)
        except (OSError, ValueError, OverflowError) as error:
            raise StoreError(f"{place}: cannot be created ({error})") from error
        if describe_array(_opened(place)) != want:
            raise StoreError(f"{place}: cannot be created, another array is there already")
        return ShardedArray.open(place, "r+")

    @staticmethod
    def open(path: str | Path, mode: Literal["r", "r+"] = "r") -> ShardedArray:
        """Open an array that ``create`` made.

        Raises:
            StoreError: there is no such array, or another program made it.
        """
        place = Path(path)
        found = _opened(place)
        if found.ndim < 2 or found.shards is None:
            raise StoreError(
                f"{place}: a zarr array of another make; only what quadrat wrote is opened as a "
                "store"
            )
        described = describe_array(found)
        make: dict[str, Any] = {
            "shape": found.shape,
            "chunk": found.chunks[-1],
            "shard": found.shards[-1],
            "dtype": found.dtype,
            "fill": np.asarray(found.fill_value).item(),
            "attributes": found.attrs.asdict(),
            "names": described.get("dimension_names"),
        }
        if describe_array(_create(MemoryStore(), **make)) != described:
            raise StoreError(
                f"{place}: a zarr array of another make; only what quadrat wrote is opened as a "
                "store"
            )
        rows, cols = found.shape[-2:]
        return ShardedArray(
            path=place,
            shape=found.shape,
            dtype=found.dtype,
            fill=make["fill"],
            attributes=make["attributes"],
            writable=mode == "r+",
            files=ShardFiles(
                path=place,
                box=Box(0, 0, rows, cols),
                chunk=make["chunk"],
                shard=make["shard"],
                leading=found.ndim - 2,
            ),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return ShardedArray.open, (self.path, "r+" if self.writable else "r")

    def write_shard(self, cell: Cell, array: Array, *, lost: Iterable[Box] = ()) -> ShardReceipt:
        """Write one whole shard: (leading..., h, w) of ``shard_box(cell)``. One writer a shard;
        rewriting replaces it.

        ``lost`` goes into the receipt as it is.

        Raises:
            StoreError: opened for reading, outside the array, wrong shape or dtype, or the disk
            refuses.
        """
        box = self.shard_box(cell)
        want = (*self.shape[:-2], *box.shape)
        if not self.writable:
            raise StoreError(f"{self.path}: opened for reading; shard {cell} cannot be written")
        if box.empty or array.shape != want or array.dtype != self.dtype:
            raise StoreError(
                f"{self.path}: shard {cell} is {array.dtype}{array.shape}, want {self.dtype}{want} "
                "(empty: outside)"
            )
        filled = _encode(np.full((*self.shape[:-2], self.chunk, self.chunk), self.fill, self.dtype))
        chunks = [
            self._encoded(array, box, chunk, filled) for chunk in self.files.chunk_cells(cell)
        ]
        return self.files.write(cell, chunks, lost=tuple(lost))

    def read(self, box: Box, *, cache: BlockCache | None = None) -> Array:
        """(leading..., h, w) of a box inside the array. A shard that was not written reads as the
        fill value.

        Raises:
            StoreError: the box reaches outside, or a shard is damaged.
        """
        if not self.box.contains(box):
            raise StoreError(
                f"{self.path}: {box} reaches outside the array of {self.shape[-2]} x "
                f"{self.shape[-1]} px"
            )
        out = np.full((*self.shape[:-2], *box.shape), self.fill, self.dtype)
        for part, place, pixels in self.files.read(box, self._decode, cache=cache):
            out[(..., *part.slices_in(box))] = pixels[(..., *part.slices_in(place))]
        return out

    def _encoded(self, array: Array, box: Box, chunk: Cell, filled: bytes) -> bytes | None:
        """One chunk of the pixels of a shard, None beyond the array. ``filled``: the encoded form
        of a chunk of the fill value."""
        size = self.chunk
        place = Box(chunk[0] * size, chunk[1] * size, (chunk[0] + 1) * size, (chunk[1] + 1) * size)
        part = place.intersect(box)
        if part.empty:
            return None
        pixels = array[(..., *part.slices_in(box))]
        if pixels.flat[0] == self.fill and (pixels == self.fill).all():
            return filled
        if part != place:
            whole = np.full((*self.shape[:-2], size, size), self.fill, self.dtype)
            whole[(..., *part.slices_in(place))] = pixels
            pixels = whole
        return _encode(pixels)

    def _decode(self, chunk: Cell, payload: bytes) -> Array:
        shape = (*self.shape[:-2], self.chunk, self.chunk)
        wanted = self.dtype.itemsize * int(np.prod(shape))
        try:
            data = imagecodecs.zstd_decode(payload, out=wanted)
        except RuntimeError as error:
            raise ValueError(f"zstd of chunk {chunk}: {error}") from error
        if len(data) != wanted:
            raise ValueError(f"chunk {chunk} holds {len(data)} bytes instead of {wanted}")
        return np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(shape)


def _encode(pixels: Array) -> bytes:
    """The payload of a chunk as the codecs bytes (little-endian) and zstd of zarr make it."""
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    # it takes any buffer
    return bytes(imagecodecs.zstd_encode(cast("bytes", little), level=ZSTD_LEVEL))


def _opened(place: Path) -> zarr.Array[Any]:
    try:
        return zarr.open_array(DurableStore(place, read_only=True), mode="r", zarr_format=3)
    except UNREADABLE as error:
        raise StoreError(f"{place}: there is no zarr array that can be opened ({error})") from error


def _create(
    store: Store,
    *,
    shape: tuple[int, ...],
    chunk: int,
    shard: int,
    dtype: np.dtype[Any],
    fill: int | float,
    attributes: Mapping[str, Any],
    names: tuple[str | None, ...] | None,
) -> zarr.Array[Any]:
    """Make an array as all of ours are. Chunks equal to the fill value are written, too, so that
    every shard has a file."""
    return zarr.create_array(
        store,
        shape=shape,
        chunks=(*shape[:-2], chunk, chunk),
        shards=(*shape[:-2], shard, shard),
        dtype=dtype,
        fill_value=np.array(fill, dtype).item(),
        filters=None,
        compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
        zarr_format=3,
        attributes=dict(attributes),
        dimension_names=names,
        config={"write_empty_chunks": True},
    )


def describe_array(array: zarr.Array[Any]) -> dict[str, Any]:
    """Everything that zarr.json states about an array."""
    return dict(array.metadata.to_dict())
