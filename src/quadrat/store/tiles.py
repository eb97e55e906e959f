"""The tissue of a slide at one mpp as a zarr store. It reads like a slide, and never returns pixels
that it does not hold.

There are two kinds: an OME-Zarr 0.5 image (zstd, lossless, for all programs), or the compressed
tiles of the slide, moved (internal).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import StoreError
from quadrat.core.files import check_free_space
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.core.objects import Frame
from quadrat.core.records import from_json, to_json
from quadrat.slides.cache import BlockCache
from quadrat.slides.protocol import Rgb, white
from quadrat.slides.tile_codec import TileCodec
from quadrat.store.array import ShardedArray
from quadrat.store.moved_tiles import MovedTiles
from quadrat.store.ome_zarr import create_image_group, group_attributes, write_group
from quadrat.store.shard import CRC_BYTES, ShardReceipt, index_bytes

CHUNK_PX, SHARD_PX = 512, 2048
BYTES_PER_PX = 2.4
"""Expected size of lossless tissue on disk (zstd level 1): 1.1 to 1.8 measured on three stained
slides, 3 uncompressed."""
WHITE = 255


def needed_chunks(boxes: Iterable[Box], *, frame: Frame, chunk: int = CHUNK_PX) -> list[Cell]:
    """Chunks that hold all these boxes (windows: core and halo), cut at the slide; raster order."""
    return sorted({cell for box in boxes for cell in box.intersect(frame.box).cells(chunk)})


def needed_shards(boxes: Iterable[Box], *, frame: Frame, shard: int = SHARD_PX) -> list[Cell]:
    """Shards that hold all these boxes, cut at the slide; raster order."""
    return needed_chunks(boxes, frame=frame, chunk=shard)


def estimate_bytes(chunks: int, *, chunk: int = CHUNK_PX) -> int:
    """About how much a store of that many chunks takes on disk."""
    return int(chunks * chunk * chunk * BYTES_PER_PX)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Which part of a slide is stored."""

    chunks: tuple[Cell, ...]
    """Cells of the chunks to read, in raster order."""
    shards: tuple[Cell, ...]
    """Cells of the shards to write, in raster order."""
    chunk: int
    """Side of a chunk in px."""
    shard: int
    """Side of a shard in px."""
    codec: TileCodec | None = None
    """Codec of the slide's own tiles if they are moved, each one a chunk; None to store pixels."""
    chunk_bytes: float = 0.0
    """What a moved tile takes on average."""

    @property
    def nbytes(self) -> int:
        """About how much the store takes on disk, including the indices of its shards."""
        if self.codec is None:
            return estimate_bytes(len(self.chunks), chunk=self.chunk)
        index = len(self.shards) * index_bytes((self.shard // self.chunk) ** 2)
        return int(len(self.chunks) * (self.chunk_bytes + CRC_BYTES)) + index


@dataclass(frozen=True, slots=True)
class TileStore:
    """Pixels of the planned chunks of a slide, in grid px: a ``PixelSource``. It pickles as its
    path, and threads may share it."""

    path: Path
    """Folder of the store."""
    frame: Frame
    """Where the grid lies on the slide."""
    slide: str
    """Name of the slide."""
    stored: npt.NDArray[np.bool_]
    """(chunk rows, chunk columns) bool: which chunks are, or will be, stored."""
    array: ShardedArray | MovedTiles
    """Its pixels."""
    _cache: BlockCache = field(default_factory=BlockCache, repr=False, compare=False)
    """Chunks that were decoded lately."""

    @staticmethod
    def create(
        path: str | Path,
        *,
        frame: Frame,
        slide: str,
        plan: TilePlan,
    ) -> TileStore:
        """Make an empty store for the chunks of ``plan`` (see ``tiling.plan_tiles``).

        Raises:
            StoreError: another image is at ``path``, a chunk lies outside the slide, or the disk
                has too little space.
        """
        place, chunk, shard = Path(path), plan.chunk, plan.shard
        stored = np.zeros((-(-frame.height // chunk), -(-frame.width // chunk)), np.bool_)
        for row, col in plan.chunks:
            if not (0 <= row < stored.shape[0] and 0 <= col < stored.shape[1]):
                raise StoreError(
                    f"{place}: chunk {(row, col)} lies outside {slide} ({frame.height} x "
                    f"{frame.width} px)"
                )
            stored[row, col] = True
        check_free_space(place, plan.nbytes, what=f"the tile store of {slide}")
        own = {
            "frame": to_json(frame),
            "slide": slide,
            "stored": {
                "shape": list(stored.shape),
                "bits": base64.b64encode(np.packbits(stored).tobytes()).decode("ascii"),
            },
        }
        if plan.codec is not None:
            _create_moved(place, frame=frame, plan=plan, codec=plan.codec, own=own)
        else:
            create_image_group(
                place,
                frame=frame,
                dtype=np.uint8,
                channels=3,
                chunk=chunk,
                shard=shard,
                fill=WHITE,
                own=own,
                name=slide,
            )
        return TileStore.open(place)

    @staticmethod
    def open(path: str | Path) -> TileStore:
        """Open a store, to read and to write.

        Raises:
            StoreError: there is none, or another program made it.
        """
        place = Path(path)
        own = group_attributes(place).get("quadrat")
        if not isinstance(own, dict) or not {"frame", "slide", "stored"} <= own.keys():
            raise StoreError(f"{place}: not a tile store")
        rows, cols = own["stored"]["shape"]
        bits = np.frombuffer(base64.b64decode(own["stored"]["bits"]), np.uint8)
        return TileStore(
            path=place,
            frame=from_json(Frame, own["frame"]),
            slide=own["slide"],
            stored=np.unpackbits(bits, count=rows * cols).astype(np.bool_).reshape(rows, cols),
            array=MovedTiles.open(place / "0")
            if "moved" in own
            else ShardedArray.open(place / "0", "r+"),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return TileStore.open, (self.path,)

    @property
    def shards(self) -> list[Cell]:
        """The shards to write, which have at least one chunk to store; raster order."""
        across = self.array.shard // self.array.chunk
        return sorted(
            {(int(row) // across, int(col) // across) for row, col in np.argwhere(self.stored)}
        )

    @property
    def missing(self) -> list[Cell]:
        """Shards that are not written yet."""
        return [cell for cell in self.shards if not self.array.has(cell)]

    def chunks_of(self, cell: Cell) -> list[Box]:
        """Boxes of the chunks to store in one shard, cut at the slide; raster order."""
        size, height, width = self.array.chunk, self.frame.height, self.frame.width
        return [
            Box(
                row * size,
                col * size,
                min(row * size + size, height),
                min(col * size + size, width),
            )
            for row, col in self.array.shard_box(cell).cells(size)
            if self.stored[row, col]
        ]

    def write_shard(self, cell: Cell, rgb: Rgb, *, lost: Iterable[Box] = ()) -> ShardReceipt:
        """Write one shard: uint8 (h, w, 3) of ``array.shard_box(cell)``. ``lost`` goes into the
        receipt.

        Raises:
            StoreError: not a shard of this store, wrong shape, a store of moved tiles, or the
            disk refuses.
        """
        if isinstance(self.array, MovedTiles):
            raise StoreError(
                f"{self.path}: holds the slide's own tiles; pixels cannot be written to it"
            )
        return self.array.write_shard(cell, np.moveaxis(rgb, 2, 0), lost=lost)

    def read(self, box: Box) -> Rgb:
        """uint8 (h, w, 3) of ``box`` in grid px, white outside the slide and where damaged tiles
        were marked.

        Raises:
            StoreError: a pixel inside the slide is not stored, or its shard is not written yet, or
                is damaged.
            SlideError: a moved tile was already damaged in the slide.
        """
        inside = box.intersect(self.frame.box)
        if inside.empty:
            return white(box.shape)
        self._check_held(inside)
        pixels = self.array.read(inside, cache=self._cache)
        # stacking takes a quarter of the time of copying a view with moved axes
        rgb: Rgb = pixels if isinstance(self.array, MovedTiles) else np.stack(list(pixels), axis=-1)
        if inside == box:
            return rgb
        out = white(box.shape)
        out[inside.slices_in(box)] = rgb
        return out

    def _check_held(self, box: Box) -> None:
        size = self.array.chunk
        held = self.stored[
            box.row0 // size : -(-box.row1 // size), box.col0 // size : -(-box.col1 // size)
        ]
        if not held.all():
            raise StoreError(
                f"{self.path}: {box} reaches beyond the tissue that the store of {self.slide} holds"
            )
        for cell in box.cells(self.array.shard):
            if not self.array.has(cell):
                raise StoreError(
                    f"{self.path}: shard {cell}, needed for {box}, is not written; run the tile "
                    "stage again"
                )


def _create_moved(
    place: Path, *, frame: Frame, plan: TilePlan, codec: TileCodec, own: dict[str, Any]
) -> None:
    """A group that is not an image for other programs: it states that it is internal and what made
    it."""
    MovedTiles.create(
        place / "0",
        height=frame.height,
        width=frame.width,
        tile=plan.chunk,
        shard=plan.shard,
        codec=codec,
    )
    said = "the slide's own compressed tiles, moved; internal to quadrat, not an OME-Zarr image"
    write_group(place, {"quadrat": {**own, "moved": said}})


def is_tile_store(path: Path) -> bool:
    """Whether a tile store was created there."""
    try:
        return isinstance(group_attributes(path).get("quadrat"), dict)
    except StoreError:
        return False
