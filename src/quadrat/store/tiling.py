"""Fill a TileStore from a slide, one shard at a time: pixels are read and encoded, or tiles of the
slide are moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import simplejpeg

from quadrat.core.errors import DamagedTileError, SlideError, StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.core.objects import Frame
from quadrat.slides.protocol import WHITE, TileGrid, white
from quadrat.slides.source import PixelSource, SlideSource
from quadrat.slides.tile_codec import TileCodec
from quadrat.store.moved_tiles import MovedTiles
from quadrat.store.shard import ShardReceipt
from quadrat.store.tiles import (
    CHUNK_PX,
    SHARD_PX,
    TilePlan,
    TileStore,
    needed_chunks,
    needed_shards,
)

TILE_PX = (64, 2048)
"""Sides of tiles that are moved. With smaller ones, the index would be longer than reading is
worth."""
SAMPLED_TILES = 1024
"""Tiles, evenly spread, with a length that is looked up to estimate the size of all."""
SPREAD = 1.05
"""Margin on the mean length of the sampled tiles."""


def movable_tiles(source: PixelSource) -> TileGrid | None:
    """The slide's own tiles, if they are the pixels of the grid: no resampling, JPEG or JPEG 2000,
    square."""
    if not isinstance(source, SlideSource):
        return None
    plan, slide = source.plan, source.slide
    if (plan.ratio_row, plan.ratio_col) != (1, 1) or source.frame.box != slide.levels[
        plan.level
    ].box:
        return None
    tiles = slide.tiles(plan.level)
    if (
        tiles is None
        or tiles.tile[0] != tiles.tile[1]
        or not TILE_PX[0] <= tiles.tile[0] <= TILE_PX[1]
    ):
        return None
    return tiles


def plan_tiles(
    windows: Iterable[Box],
    *,
    frame: Frame,
    tiles: TileGrid | None = None,
    chunk: int = CHUNK_PX,
    shard: int = SHARD_PX,
) -> TilePlan:
    """The chunks and shards that hold these windows (cores with their halos), cut at the slide.

    With ``tiles`` (see ``movable_tiles``) a chunk is one tile of the slide, and a shard is the
    multiple of it nearest to ``shard``.
    """
    if tiles is not None:
        chunk = tiles.tile[0]
        shard = max(1, round(shard / chunk)) * chunk
    boxes = list(windows)
    chunks = needed_chunks(boxes, frame=frame, chunk=chunk)
    return TilePlan(
        chunks=tuple(chunks),
        shards=tuple(needed_shards(boxes, frame=frame, shard=shard)),
        chunk=chunk,
        shard=shard,
        codec=None if tiles is None else tiles.codec,
        chunk_bytes=0.0 if tiles is None else _mean_bytes(tiles, chunks),
    )


def fill_shard(source: PixelSource, store: TileStore, cell: Cell) -> ShardReceipt:
    """Read, or move, the chunks to store of one shard and write it. The space between them stays
    white and counts as not stored.

    If the source marks damaged tiles, ``lost`` of the receipt lists those that the chunks touch, in
    grid px. Memory: one shard of RGB, and encoded (12 MiB each at 2,048 px); if moved, one shard,
    twice.

    Raises:
        SlideError: the slide cannot be read there.
        StoreError: the shard cannot be written.
    """
    chunks = store.chunks_of(cell)
    if isinstance(store.array, MovedTiles):
        return _move(source, store.array, cell, chunks)
    whole = store.array.shard_box(cell)
    rgb = white(whole.shape)
    for run in _runs(chunks):
        rgb[run.slices_in(whole)] = source.read(run)
    return store.write_shard(cell, rgb, lost=_lost(source, chunks))


def _move(source: PixelSource, array: MovedTiles, cell: Cell, boxes: Sequence[Box]) -> ShardReceipt:
    """Move the tiles of one shard. If the source marks damaged tiles, they are left out and read as
    white."""
    tiles = movable_tiles(source)
    if (
        tiles is None
        or not isinstance(source, SlideSource)
        or (tiles.codec, tiles.tile[0]) != (array.codec, array.chunk)
    ):
        raise StoreError(
            f"{array.path}: was laid out for tiles that this slide does not have; remove it and "
            "run again"
        )
    moved: dict[Cell, bytes] = {}
    for box in boxes:
        at = box.row0 // array.chunk, box.col0 // array.chunk
        data = _sound_tile(tiles, at, decode=source.damaged == "mark")
        if data is not None:
            moved[at] = data
        # the source raises here, or marks the tile
        elif (source.read(box) != WHITE).any():
            raise SlideError(
                f"{source.slide.path}: the tile at {box} can be read but not moved as it is; "
                "run without a tile store (--set run.source=streamed)"
            )
    return array.write_tiles(cell, moved, lost=_lost(source, boxes))


def _sound_tile(tiles: TileGrid, at: Cell, *, decode: bool) -> bytes | None:
    """The bytes of a tile, None if it is damaged.

    Decoding every tile makes moving six times as expensive (13 against 2 ms of CPU per shard,
    benchmarks/tiling.py). If damaged tiles fail the slide, the two ends and the header of the
    stream are checked: other damage fails the slide when the tile is read, and never gives wrong
    pixels. If damaged tiles are marked, they must be known now, so each tile is decoded.
    """
    try:
        data = tiles.data(*at)
        size = (
            tiles.codec.decode(data).shape[:2]
            if decode
            else _stated_size(tiles.codec, data) or tiles.tile
        )
    except (DamagedTileError, ValueError):
        return None
    return data if size == tiles.tile else None


def _stated_size(codec: TileCodec, data: bytes) -> tuple[int, int] | None:
    """Height and width in the header of a JPEG stream; None for JPEG 2000, which only its decoder
    can read.

    Raises:
        ValueError: there is no such header.
    """
    if codec.kind != "jpeg":
        return None
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return height, width


def _mean_bytes(tiles: TileGrid, chunks: Sequence[Cell]) -> float:
    """What a tile takes on average, from the lengths of evenly spread ones, plus a margin."""
    lengths = []
    for at in chunks[:: -(-len(chunks) // SAMPLED_TILES) or 1]:
        try:
            lengths.append(len(tiles.data(*at)))
        except DamagedTileError:
            continue  # this is reported when its shard is filled
    return SPREAD * sum(lengths) / max(1, len(lengths))


def _lost(source: PixelSource, chunks: Sequence[Box]) -> list[Box]:
    """Damaged tiles that these chunks touch. Whatever else the source met, the receipt of a shard
    is the same."""
    damage = source.damage if isinstance(source, SlideSource) else []
    return [lost for lost in damage if any(not lost.intersect(box).empty for box in chunks)]


def _runs(chunks: Sequence[Box]) -> list[Box]:
    """Chunks in raster order, joined if one continues the other in its row: fewer and wider
    reads."""
    runs: list[Box] = []
    for box in chunks:
        last = runs[-1] if runs else None
        if last is not None and (last.row0, last.col1) == (box.row0, box.col0):
            runs[-1] = last.union(box)
        else:
            runs.append(box)
    return runs
