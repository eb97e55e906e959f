"""How predictions lie on disk, for each storage that a task can hand over."""

import json

import numpy as np
import pytest

from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame
from quadrat.core.predictions import Candidates, TileScores
from quadrat.store.predictions import (
    Layout,
    MapStorage,
    MaskStorage,
    PredictionMissing,
    TableStorage,
)

LATTICE = Lattice(core=8, halo=0, stride=4, shard=16)
FRAME = Frame(height=20, width=44, mpp=0.5, scale_row=2.0, scale_col=2.0)
LAYOUT = Layout(FRAME, LATTICE, ((0, 0), (0, 2), (1, 1)))
STORAGES = (MapStorage(3), TableStorage(Candidates), TableStorage(TileScores), MaskStorage())


@pytest.mark.parametrize("storage", STORAGES)
def test_a_store_knows_its_layout_after_opening_again(storage, tmp_path):
    assert storage.create(tmp_path / "p", LAYOUT).layout == LAYOUT
    assert storage.open(tmp_path / "p").layout == LAYOUT
    about = json.loads((tmp_path / "p" / "about.json").read_text())
    assert about["shards"] == [[0, 0], [0, 2], [1, 1]]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("about", [None, "", "[]", "{}", '{"frame": {}, "shards": []}'])
def test_a_folder_that_is_none_is_refused(storage, about, tmp_path):
    if about is not None:
        (tmp_path / "about.json").write_text(about)
    with pytest.raises(StoreError, match="is not a prediction store"):
        storage.open(tmp_path)


def maps_of(core, value):
    return np.full((3, 8, 8), value, np.uint8)


def test_maps_are_read_over_shards_and_0_where_no_core_was_analysed(tmp_path):
    store = MapStorage(3).create(tmp_path, LAYOUT)
    store.write((0, 0), {(0, 1): maps_of((0, 1), 7)})
    store.write((0, 2), {})
    store.write((1, 1), {(2, 2): maps_of((2, 2), 9), (2, 3): maps_of((2, 3), 8)})
    whole = store.read(FRAME.box)
    want = np.zeros((3, 20, 44), np.uint8)
    want[:, :8, 8:16], want[:, 16:, 16:24], want[:, 16:, 24:32] = 7, 9, 8
    assert np.array_equal(whole, want)
    assert np.array_equal(store.read(Box(6, 14, 18, 26)), want[:, 6:18, 14:26])


def test_maps_of_a_planned_shard_without_a_file_are_missing_and_of_another_are_0(tmp_path):
    store = MapStorage(3).create(tmp_path, LAYOUT)
    store.write((0, 0), {(0, 0): maps_of((0, 0), 1)})
    with pytest.raises(PredictionMissing, match=r"shard \(1, 1\) are missing; run again"):
        store.read(Box(0, 0, 20, 20))
    assert not store.read(Box(0, 16, 16, 32)).any()  # shard (0, 1) was not planned


def tiles(*cells):
    cell = np.array(cells, np.int32).reshape(-1, 2)
    n = len(cell)
    probability = np.arange(2 * n, dtype=np.uint16).reshape(n, 2)
    return TileScores(cell, probability, np.ones((n, 4), np.float16))


def test_rows_of_a_shard_come_core_by_core_in_raster_order(tmp_path):
    store = TableStorage(TileScores).create(tmp_path, LAYOUT)
    found = {(1, 0): tiles((1, 0)), (0, 1): tiles((0, 1)), (0, 0): tiles((0, 0))}
    receipt = store.write((0, 0), found)
    assert store.write((0, 0), dict(sorted(found.items()))) == receipt
    assert store.read((0, 0)).cell.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert store.read((0, 0)).embedding.dtype == np.float16


def test_rows_without_an_embedding_and_no_rows_come_back(tmp_path):
    bare = TileScores(
        np.zeros((1, 2), np.int32), np.ones((1, 2), np.uint16), np.zeros((1, 0), np.float16)
    )
    store = TableStorage(TileScores).create(tmp_path / "t", LAYOUT)
    store.write((0, 0), {(0, 0): bare})
    assert store.read((0, 0)).embedding.shape == (1, 0)
    boxes = TableStorage(Candidates).create(tmp_path / "c", LAYOUT)
    boxes.write((0, 0), {(0, 0): Candidates.empty()})
    assert len(boxes.read((0, 0))) == 0


@pytest.mark.parametrize("storage", STORAGES[1:])
def test_a_missing_or_damaged_file_of_rows_is_named(storage, tmp_path):
    store = storage.create(tmp_path, LAYOUT)
    with pytest.raises(StoreError, match=r"0\.2\.parquet cannot be read .* run again to infer it"):
        store.read((0, 2))
    store.shard_path((0, 2)).write_bytes(b"PAR1 no more")
    with pytest.raises(StoreError, match=r"0\.2\.parquet cannot be read"):
        store.read((0, 2))
