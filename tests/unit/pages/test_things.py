"""Objects, regions and tiles of a slide, in level-0 px."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from helpers import answers, shown
from quadrat.core.errors import QuadratError
from quadrat.core.objects import Polygons
from quadrat.pages import things as module
from quadrat.pages.folder import read_run
from quadrat.pages.things import ObjectFile, at, decoded, read_things


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr("quadrat.outputs.objects.ROW_GROUP", 16)
    shown.write_objects(tmp_path / "s", shown.planted(100, 3))
    return tmp_path / "s" / "objects.parquet"


def test_outlines_and_rows_are_those_of_the_file_whatever_its_row_groups(table, monkeypatch):
    monkeypatch.setattr(module, "GROUPS_KEPT", 2)
    rows, found = pq.read_table(table), ObjectFile(table)
    assert pq.read_metadata(table).num_row_groups == 7
    index = np.array([99, 0, 17, 17, 40])
    assert found.outlines(index).tolist() == rows["geometry"].take(index).to_pylist()
    assert found.row(40)["id"] == 41
    assert set(found.row(40)) == set(rows.column_names) - {"geometry"}


def test_what_lies_at_a_place_is_the_smallest_that_covers_it_else_the_nearest(table):
    found = ObjectFile(table)
    everything = np.ones(100, bool)
    polygons = decoded(found.outlines(np.arange(100)))
    rng = np.random.default_rng(1)
    for x, y in (rng.random((40, 2)) * (shown.WIDTH, shown.HEIGHT)).tolist():
        covering = np.flatnonzero(shapely.contains_xy(polygons, x, y))
        apart = np.hypot(found.places.x - x, found.places.y - y)
        nearest = int(np.argmin(apart)) if apart.min() <= 20 else -1
        got = at(found, x, y, reach=20, shown=everything)
        if len(covering):
            assert shapely.area(polygons[got]) == shapely.area(polygons[covering]).min()
        else:
            assert got == nearest


def test_of_objects_within_each_other_the_innermost_is_found(tmp_path):
    bbox = np.array([[10, 10, 90, 90], [20, 20, 60, 60], [15, 15, 80, 80.0]])
    table = answers.table(bbox[:, [1, 0, 3, 2]], [0, 0, 0], [0.5, 0.5, 0.5])
    shown.write_objects(tmp_path / "s", shown.Planted(table, Polygons.boxes(bbox)))
    found = ObjectFile(tmp_path / "s" / "objects.parquet")
    all_of_them = np.ones(3, bool)
    assert [at(found, x, x, reach=1, shown=all_of_them) for x in (50, 130, 170, 10)] == [
        1,
        2,
        0,
        -1,
    ]


def test_what_is_hidden_is_not_found(table):
    found = ObjectFile(table)
    x, y = float(found.places.x[7]), float(found.places.y[7])
    hidden = np.ones(100, bool)
    hidden[at(found, x, y, reach=0.1, shown=hidden)] = False
    assert at(found, x, y, reach=0.1, shown=hidden) != 7


def test_tiles_are_squares_with_the_probability_of_their_class(tmp_path):
    run = read_run(shown.make_run(tmp_path, ("one",), task="classification"))
    tiles = read_things(run.slides["one"])
    assert tiles.places.box[0].tolist() == [0, 0, 100, 100]
    assert tiles.places.score[0] == pytest.approx(0.95, abs=1e-3)
    assert tiles.row(0)["class"] == shown.CLASSES[1].name
    (square,) = decoded(tiles.outlines(np.array([1])))
    assert square.bounds == (100, 0, 200, 100)


def test_a_damaged_table_is_named(tmp_path):
    run = read_run(shown.make_run(tmp_path, ("one",), objects=5))
    (run.slides["one"].folder / "objects.parquet").write_bytes(b"PAR1")
    with pytest.raises(QuadratError, match=r"objects\.parquet cannot be read"):
        read_things(run.slides["one"])
