"""The tiles of a slide in a store: they read like the slide, and nothing is made up."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.store.tiles import TilePlan, TileStore, needed_chunks, needed_shards

rng = np.random.default_rng(0)


def frame(height: int = 1000, width: int = 700) -> Frame:
    return Frame(height=height, width=width, mpp=0.5, scale_row=2.0, scale_col=2.0)


def tile_store(path: Path, chunks: list[tuple[int, int]]) -> tuple[TileStore, np.ndarray]:
    plan = TilePlan(tuple(chunks), tuple(sorted({(r // 4, c // 4) for r, c in chunks})), 64, 256)
    store = TileStore.create(path, frame=frame(), slide="s", plan=plan)
    pixels = rng.integers(0, 256, (1000, 700, 3), np.uint8)
    for cell in store.shards:
        store.write_shard(cell, pixels[store.array.shard_box(cell).slices_in(frame().box)])
    return store, pixels


def test_a_tile_store_reads_like_a_slide(tmp_path: Path) -> None:
    store, pixels = tile_store(tmp_path / "t", list(itertools.product(range(16), range(11))))
    assert store.missing == []
    box = Box(-10, 600, 300, 750)
    found = store.read(box)
    np.testing.assert_array_equal(found[10:, :100], pixels[:300, 600:])
    assert (found[:10] == 255).all()
    assert (found[:, 100:] == 255).all()
    assert (store.read(Box(-50, -50, -10, -10)) == 255).all()


def test_a_read_beyond_what_is_held_raises_and_never_returns_fill(tmp_path: Path) -> None:
    store, pixels = tile_store(tmp_path / "t", [(0, 0), (0, 1), (1, 0), (1, 1)])
    np.testing.assert_array_equal(store.read(Box(0, 0, 128, 128)), pixels[:128, :128])
    for box in (
        Box(0, 0, 129, 128),
        Box(60, 60, 70, 129),
        Box(500, 500, 501, 501),
        Box(127, 127, 128, 129),
    ):
        with pytest.raises(StoreError, match="beyond the tissue"):
            store.read(box)
    assert (store.read(Box(-20, 200, 0, 300)) == 255).all()


def test_a_shard_that_is_not_written_raises(tmp_path: Path) -> None:
    store, _ = tile_store(tmp_path / "t", [(0, 0), (4, 4)])
    store.array.shard_path((1, 1)).unlink()
    assert store.missing == [(1, 1)]
    with pytest.raises(StoreError, match=r"shard \(1, 1\).*not written"):
        store.read(Box(256, 256, 260, 260))


def test_a_tile_store_is_the_same_opened_again_and_pickled(tmp_path: Path) -> None:
    store, _ = tile_store(tmp_path / "t", [(0, 0), (3, 7), (15, 10)])
    for other in (TileStore.open(tmp_path / "t"), pickle.loads(pickle.dumps(store))):
        assert (other.frame, other.slide, other.shards) == (
            store.frame,
            "s",
            [(0, 0), (0, 1), (3, 2)],
        )
        np.testing.assert_array_equal(other.stored, store.stored)
        np.testing.assert_array_equal(other.read(Box(0, 0, 64, 64)), store.read(Box(0, 0, 64, 64)))
    with pytest.raises(StoreError, match="no zarr group"):
        TileStore.open(tmp_path)


def test_a_chunk_outside_the_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="outside s"):
        tile_store(tmp_path / "t", [(16, 0)])


def test_needed_chunks_and_shards_hold_all_boxes_inside_the_slide() -> None:
    boxes = [Box(-30, -30, 70, 70), Box(990, 690, 1100, 800)]
    assert needed_chunks(boxes, frame=frame(), chunk=64) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (15, 10),
    ]
    assert needed_shards(boxes, frame=frame(), shard=256) == [(0, 0), (3, 2)]
    assert needed_chunks([Box(-9, -9, 0, 0)], frame=frame(), chunk=64) == []
