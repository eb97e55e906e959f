"""Filling a TileStore from a slide, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterable

from quadrat.geometry import Box
from quadrat.grid import Cell
from quadrat.results import Frame
from quadrat.slides.protocol import white
from quadrat.slides.source import PixelSource
from quadrat.store import (
    CHUNK_PX,
    SHARD_PX,
    ShardReceipt,
    TilePlan,
    TileStore,
    needed_chunks,
    needed_shards,
)


def plan_tiles(windows: Iterable[Box], *, frame: Frame, chunk: int = CHUNK_PX, shard: int = SHARD_PX) -> TilePlan:
    """The chunks and shards that hold these windows (cores with their halos), clipped to the slide."""
    boxes = list(windows)
    return TilePlan(
        chunks=tuple(needed_chunks(boxes, frame=frame, chunk=chunk)),
        shards=tuple(needed_shards(boxes, frame=frame, shard=shard)),
        chunk=chunk,
        shard=shard,
    )


def fill_shard(source: PixelSource, store: TileStore, cell: Cell) -> ShardReceipt:
    """Read the chunks to hold of one shard and write it; what lies between them stays white and counts as not held.

    Memory: one shard of RGB, twice (12 MiB each at 2,048 px).

    Raises:
        SlideError: the slide cannot be read there. StoreError: the shard cannot be written.
    """
    whole = store.array.shard_box(cell)
    rgb = white(whole.shape)
    for run in _runs(store.chunks_of(cell)):
        rgb[run.slices_in(whole)] = source.read(run)
    return store.write_shard(cell, rgb)


def _runs(chunks: list[Box]) -> list[Box]:
    """Chunks in raster order, joined where one continues the other in its row: fewer and wider reads."""
    runs: list[Box] = []
    for box in chunks:
        last = runs[-1] if runs else None
        if last is not None and (last.row0, last.col1) == (box.row0, box.col0):
            runs[-1] = last.union(box)
        else:
            runs.append(box)
    return runs
