"""The compressed tiles of a slide as a zarr v3 array: bytes are moved, never decoded and encoded
again.

Internal to quadrat: zarr reads such an array once this module is imported (its serializer is ours),
other programs do not. Tiles of the last row and column reach beyond the slide, as in the file of
the slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.codec import ArrayBytesCodec
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec
from zarr.errors import ContainsArrayError
from zarr.registry import register_codec
from zarr.storage import MemoryStore

from quadrat.core.errors import SlideError, StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.slides.cache import BlockCache
from quadrat.slides.protocol import WHITE, Rgb, white
from quadrat.slides.tile_codec import TileCodec
from quadrat.slides.zarr_files import DurableStore
from quadrat.store.array import UNREADABLE, describe_array
from quadrat.store.shard import Sharded, ShardFiles, ShardReceipt

if TYPE_CHECKING:  # types of zarr's codec interface, which it exports only there
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.common import JSON

SERIALIZER = "quadrat.tile"
RGB_AXIS = 3


@dataclass(frozen=True)
class TileSerializer(ArrayBytesCodec):
    """The codec with which zarr decodes a tile of a slide. It encodes nothing, because a tile is
    only moved."""

    tile: TileCodec
    """How the tile is compressed."""
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        return cls(tile=TileCodec.from_json(cast("dict[str, Any]", data["configuration"])))

    def to_dict(self) -> dict[str, JSON]:
        return {"name": SERIALIZER, "configuration": dict(self.tile.to_json())}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("a compressed tile has no fixed size")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return chunk_spec.prototype.nd_buffer.from_numpy_array(
            self.tile.decode(chunk_data.to_bytes())
        )

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        raise NotImplementedError(
            "tiles are moved, not encoded; write them with quadrat.store.moved_tiles"
        )


register_codec(SERIALIZER, TileSerializer)


@dataclass(frozen=True, slots=True)
class MovedTiles(Sharded):
    """A zarr v3 array (row, column, RGB), uint8. Its chunks are tiles as they are in the file of
    the slide; fill is white.

    Several threads and processes may read and write it, with one writer per shard. It pickles as
    its path.
    """

    path: Path
    """Folder of the array."""
    codec: TileCodec
    """How the tiles are compressed."""
    files: ShardFiles
    """Its shard files."""

    @staticmethod
    def create(
        path: str | Path, *, height: int, width: int, tile: int, shard: int, codec: TileCodec
    ) -> MovedTiles:
        """Make an empty array; ``tile`` and ``shard`` in px. If the same array is already there, it
        is opened.

        Raises:
            StoreError: something else is at ``path``, the sizes do not fit, or the disk does not
                allow it.
        """
        place = Path(path)
        if tile < 1 or shard % tile or min(height, width) < 1:
            raise StoreError(
                f"{place}: {height} x {width} px with shard {shard} and tile {tile}: want whole "
                "tiles a shard"
            )
        try:
            want = describe_array(_create(MemoryStore(), (height, width), tile, shard, codec))
            if not (place / "zarr.json").exists():
                with suppress(ContainsArrayError):  # the same task elsewhere was faster
                    _create(DurableStore(place), (height, width), tile, shard, codec)
            if describe_array(_opened(place)) != want:
                raise StoreError(f"{place}: cannot be created, another array is there already")
        except (OSError, ValueError) as error:
            raise StoreError(f"{place}: cannot be created ({error})") from error
        return MovedTiles.open(place)

    @staticmethod
    def open(path: str | Path) -> MovedTiles:
        """Open an array that ``create`` made.

        Raises:
            StoreError: there is no such array, or another program made it.
        """
        place = Path(path)
        found = _opened(place)
        described = describe_array(found)
        try:
            tile, shard, codec = found.chunks[0], (found.shards or (0,))[0], _codec_of(described)
            same = (
                describe_array(_create(MemoryStore(), found.shape[:2], tile, shard, codec))
                == described
            )
        except (KeyError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            raise StoreError(f"{place}: not an array of moved tiles ({error})") from error
        if not same:
            raise StoreError(
                f"{place}: a zarr array of another make; only what quadrat wrote is opened as a "
                "store"
            )
        box = Box(0, 0, *found.shape[:2])
        return MovedTiles(
            place, codec, ShardFiles(path=place, box=box, chunk=tile, shard=shard, trailing=1)
        )

    def __reduce__(self) -> tuple[object, ...]:
        return MovedTiles.open, (self.path,)

    def write_tiles(
        self, cell: Cell, tiles: dict[Cell, bytes], *, lost: Sequence[Box] = ()
    ) -> ShardReceipt:
        """Write one shard from its tiles' bytes, by their cells in the array; a tile that is not
        given reads as white.

        Raises:
            StoreError: outside the array, or the disk refuses.
        """
        cells = self.files.chunk_cells(cell)
        strange = sorted(set(tiles) - set(cells))
        if self.shard_box(cell).empty or strange:
            raise StoreError(
                f"{self.path}: shard {cell} lies outside the array, or tiles {strange} outside the "
                "shard"
            )
        return self.files.write(cell, [tiles.get(at) for at in cells], lost=lost)

    def read(self, box: Box, *, cache: BlockCache | None = None) -> Rgb:
        """uint8 (h, w, 3) of a box inside the array, white where there is no tile.

        Raises:
            StoreError: the box reaches outside, or a shard is damaged.
            SlideError: a tile was stored as it is, but was already damaged in the slide.
        """
        if not self.box.contains(box):
            raise StoreError(
                f"{self.path}: {box} reaches outside the array of {self.box.height} x "
                f"{self.box.width} px"
            )
        out = white(box.shape)
        for part, place, pixels in self.files.read(box, self._decode, cache=cache):
            out[part.slices_in(box)] = pixels[part.slices_in(place)]
        return out

    def _decode(self, chunk: Cell, payload: bytes) -> Rgb:
        size = self.chunk
        try:
            pixels: npt.NDArray[np.uint8] = self.codec.decode(payload)
            if pixels.shape != (size, size, RGB_AXIS):
                raise ValueError(f"it is {pixels.shape}, not {(size, size, RGB_AXIS)}")
        except ValueError as error:
            place = Box(
                chunk[0] * size, chunk[1] * size, (chunk[0] + 1) * size, (chunk[1] + 1) * size
            )
            raise SlideError(
                f"{self.path}: the tile at {place.intersect(self.box)} was damaged in the slide "
                f"already ({error}); "
                "get a sound copy of the slide, or mark its damaged tiles with --set "
                "slide.damaged=mark"
            ) from None
        return pixels


def _create(
    store: Store, shape: tuple[int, ...], tile: int, shard: int, codec: TileCodec
) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        shape=(*shape, RGB_AXIS),
        chunks=(tile, tile, RGB_AXIS),
        shards=(shard, shard, RGB_AXIS),
        dtype=np.uint8,
        fill_value=WHITE,
        filters=None,
        serializer=TileSerializer(tile=codec),
        compressors=[Crc32cCodec()],
        zarr_format=3,
        dimension_names=("y", "x", "c"),
    )


def _opened(place: Path) -> zarr.Array[Any]:
    try:
        return zarr.open_array(DurableStore(place, read_only=True), mode="r", zarr_format=3)
    except UNREADABLE as error:
        raise StoreError(f"{place}: there is no zarr array that can be opened ({error})") from error


def _codec_of(described: dict[str, Any]) -> TileCodec:
    """The tile codec in a sharded array's metadata."""
    inner = described["codecs"][0]["configuration"]["codecs"][0]
    if inner["name"] != SERIALIZER:
        raise ValueError(f"its serializer is {inner['name']}, not {SERIALIZER}")
    return TileCodec.from_json(inner["configuration"])
