"""One zarr v3 shard as bytes: inner chunks through zstd and crc32c, then the index with its crc32c (pure).

These bytes are a function of the pixels alone. Layout: zarr v3 codec ``sharding_indexed``, index at the end; chunks
equal to the fill value have no bytes and the index says so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt

ZSTD_LEVEL = 1
ABSENT = np.iinfo(np.uint64).max
CRC_BYTES = 4
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Shape of a shard's inner chunks, how many of them an axis, their dtype and the fill value."""

    chunk: tuple[int, ...]
    counts: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: int | float

    @property
    def index_bytes(self) -> int:
        """Length of the index, with its checksum."""
        return 16 * int(np.prod(self.counts)) + CRC_BYTES

    def little_endian(self) -> np.dtype[Any]:
        """The dtype on disk."""
        return self.dtype.newbyteorder("<")


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def encode_shard(array: Array, layout: ShardLayout) -> bytes:
    """The bytes of a shard that holds ``array`` at its top left and the fill value elsewhere."""
    index = np.full((*layout.counts, 2), ABSENT, "<u8")
    parts: list[bytes] = []
    offset = 0
    for place in itertools.product(*(range(count) for count in layout.counts)):
        part = array[tuple(slice(i * size, (i + 1) * size) for i, size in zip(place, layout.chunk, strict=True))]
        if part.size == 0 or bool((part == layout.fill).all()):
            continue
        if part.shape != layout.chunk:
            whole = np.full(layout.chunk, layout.fill, layout.dtype)
            whole[tuple(slice(0, n) for n in part.shape)] = part
            part = whole
        packed = bytes(imagecodecs.zstd_encode(part.astype(layout.little_endian()).tobytes(), level=ZSTD_LEVEL))
        parts += [packed, _crc(packed)]
        index[place] = offset, len(packed) + CRC_BYTES
        offset += len(packed) + CRC_BYTES
    table = index.tobytes()
    return b"".join([*parts, table, _crc(table)])


def decode_index(tail: bytes, layout: ShardLayout) -> npt.NDArray[np.uint64]:
    """The index from a shard's last ``layout.index_bytes`` bytes: uint64 (*counts, 2), offset and length.

    Raises:
        ValueError: wrong length or checksum.
    """
    if len(tail) != layout.index_bytes:
        raise ValueError(f"the index has {len(tail)} of {layout.index_bytes} bytes")
    table = tail[:-CRC_BYTES]
    if _crc(table) != tail[-CRC_BYTES:]:
        raise ValueError("the checksum of the index does not match")
    return np.frombuffer(table, "<u8").reshape((*layout.counts, 2))


def decode_chunk(data: bytes, layout: ShardLayout) -> Array:
    """One inner chunk, of ``layout.chunk`` shape; read-only.

    Raises:
        ValueError: wrong checksum or payload.
    """
    packed = data[:-CRC_BYTES]
    if len(data) <= CRC_BYTES or _crc(packed) != data[-CRC_BYTES:]:
        raise ValueError("the checksum of a chunk does not match")
    size = int(np.prod(layout.chunk)) * layout.dtype.itemsize
    try:
        raw = imagecodecs.zstd_decode(packed, out=size)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"a chunk cannot be decompressed ({error})") from error
    if len(raw) != size:
        raise ValueError(f"a chunk holds {len(raw)} of {size} bytes")
    return np.frombuffer(raw, layout.little_endian()).reshape(layout.chunk)
