import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.shards import altered
from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell, Lattice
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import PixelSource, open_source, source_of
from quadrat.slides.tissue.mask import find_tissue, tissue_cells
from quadrat.store.tiles import TileStore
from quadrat.store.tiling import fill_shard, plan_tiles

PICTURE = np.random.default_rng(0).integers(0, 256, (777, 905, 3), np.uint8)
LATTICE = Lattice(core=64, halo=32, stride=16, shard=256)


class Watched:
    """A source that remembers what was read of it."""

    def __init__(self, source: PixelSource) -> None:
        self.source, self.frame, self.boxes = source, source.frame, list[Box]()

    def read(self, box: Box) -> np.ndarray:
        self.boxes.append(box)
        return self.source.read(box)


def tiled(
    path: Path, cells: list[Cell], *, mpp: float = 0.5, order: int = 1
) -> tuple[TileStore, Watched]:
    source = Watched(source_of(ArraySlide(PICTURE, mpp=0.5), mpp=mpp))
    windows = [LATTICE.window_box(cell) for cell in cells]
    plan = plan_tiles(windows, frame=source.frame, chunk=64, shard=256)
    store = TileStore.create(path, frame=source.frame, slide="s", plan=plan)
    assert tuple(store.shards) == plan.shards
    for cell in plan.shards[::order]:
        fill_shard(source, store, cell)
    return store, source


@settings(max_examples=25, deadline=None)
@given(
    cells=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=9),
    mpp=st.sampled_from([0.5, 0.7, 1.0]),
)
def test_every_window_is_the_same_from_the_store_as_from_the_slide(
    cells: set[Cell], mpp: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, source = tiled(tmp_path_factory.mktemp("t") / "t", sorted(cells), mpp=mpp)
    for cell in cells:
        window = LATTICE.window_box(cell)
        np.testing.assert_array_equal(store.read(window), source.source.read(window))


def test_only_the_needed_chunks_are_read(tmp_path: Path) -> None:
    store, source = tiled(tmp_path / "t", [(1, 1)])
    assert sum(box.area for box in source.boxes) == 9 * 64 * 64
    assert store.stored.sum() == 9
    with pytest.raises(StoreError, match="beyond"):
        store.read(LATTICE.window_box((1, 2)))


def test_the_bytes_of_a_store_do_not_depend_on_the_order(tmp_path: Path) -> None:
    cells = [(0, 0), (5, 5), (11, 13), (3, 9)]
    tiled(tmp_path / "a", cells)
    tiled(tmp_path / "b", cells[::-1], order=-1)
    files = [
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()}
        for d in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]


def test_a_real_slide_goes_through_the_store_unchanged(tmp_path: Path) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    lattice = Lattice(core=512, halo=128, stride=32, shard=2048)
    with open_source(Path(folder) / "wsi" / "CMU-1-Small-Region.svs", mpp=0.5) as source:
        tissue = find_tissue(source.slide, slide_mpp=0.499)
        cells = tissue_cells(tissue, lattice=lattice, frame=source.frame)
        windows = [lattice.window_box(cell) for cell in cells]
        plan = plan_tiles(windows, frame=source.frame)
        store = TileStore.create(
            tmp_path / "t", frame=source.frame, slide=source.slide.name, plan=plan
        )
        receipts = [fill_shard(source, store, cell) for cell in plan.shards]
        for window in windows:
            np.testing.assert_array_equal(store.read(window), source.read(window))
    assert altered(store.array, receipts) == []
    assert sum(receipt.nbytes for receipt in receipts) < plan.nbytes
