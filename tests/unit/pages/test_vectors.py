"""Tiles of objects: nothing is lost by thinning, and what is drawn lies where it is."""

from collections import Counter

import numpy as np
import pytest
import shapely

from helpers import answers, shown
from quadrat.core.objects import Polygons
from quadrat.pages import vectors
from quadrat.pages.things import ObjectFile, decoded
from quadrat.pages.vectors import CELL, STEP, TILE, heat, scores_255, vector_tile


def parsed(data):
    """A tile's columns by name."""
    marks, polygons, rings, vertices = np.frombuffer(data, "<u4", 4).tolist()
    at, found = 16, {}
    one = {"x": "i2", "y": "i2", "kind": "u1", "score": "u1", "weight": "u1"}
    outline = {"polygon_kind": "u1", "polygon_score": "u1", "rings": "u4"}
    parts = ((one, marks), (outline, polygons), ({"vertices": "u4"}, rings))
    for columns, n in (*parts, ({"vx": "i2", "vy": "i2"}, vertices)):
        for name, kind in columns.items():
            found[name] = np.frombuffer(data, f"<{kind}", n, at)
            at += -(-n * np.dtype(kind).itemsize // 4) * 4
    assert at == len(data)
    return found


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things") / "s"
    shown.write_objects(folder, shown.planted(3000, 5))
    return ObjectFile(folder / "objects.parquet")


@pytest.mark.parametrize("level", [2, 3, 4])
def test_marks_stand_for_every_object_of_their_tile_once(things, level):
    tile, scale = parsed(vector_tile(things, level, 0, 0, grid_l0=2.0)), 2**level
    places = things.places
    inside = (tile["x"] >= 0) & (tile["y"] >= 0) & (tile["x"] < TILE * STEP)
    inside &= tile["y"] < TILE * STEP
    small = places.side < 8 * scale
    want = Counter(
        zip(
            places.class_id[small].tolist(),
            (places.y[small] // (CELL * scale)).astype(int).tolist(),
            (places.x[small] // (CELL * scale)).astype(int).tolist(),
            strict=True,
        )
    )
    cell = [tile[name][inside] // (CELL * STEP) for name in "yx"]
    keys = list(zip(tile["kind"][inside].tolist(), *(c.tolist() for c in cell), strict=True))
    assert len(set(keys)) == len(keys)
    number = np.round(2 ** (tile["weight"][inside] / 16)).astype(int).tolist()
    assert dict(zip(keys, number, strict=True)) == dict(want)


def test_a_mark_is_the_surest_of_its_cell_so_that_no_score_hides_one(things):
    tile, scale = parsed(vector_tile(things, 4, 0, 0, grid_l0=2.0)), 16
    places = things.places
    for least in (0, 128, 200, 250):
        sure = scores_255(places.score) >= least
        want = {
            (k, y, x)
            for k, y, x in zip(
                places.class_id[sure].tolist(),
                (places.y[sure] // (CELL * scale)).astype(int).tolist(),
                (places.x[sure] // (CELL * scale)).astype(int).tolist(),
                strict=True,
            )
        }
        seen = tile["score"] >= least
        got = zip(
            tile["kind"][seen].tolist(),
            (tile["y"][seen] // (CELL * STEP)).tolist(),
            (tile["x"][seen] // (CELL * STEP)).tolist(),
            strict=True,
        )
        assert set(got) == want


def outlines_of(tile, level, col, row):
    """Polygons without holes of a tile, in level-0 px."""
    scale, ends = 2.0**level, np.cumsum(tile["vertices"])
    corner = np.array([col, row]) * TILE * scale
    xy = np.stack([tile["vx"], tile["vy"]], axis=1) / STEP * scale + corner
    return [shapely.Polygon(xy[a:b]) for a, b in zip(ends - tile["vertices"], ends, strict=True)]


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Twenty discs of 9 grid px with 33 corners."""
    centres = np.random.default_rng(2).uniform(20, 250, (20, 2))
    rings = [shapely.Point(x, y).buffer(9).exterior.coords for y, x in centres.tolist()]
    xy = np.concatenate([np.array(ring) for ring in rings])
    bbox = np.concatenate([centres - 9, centres + 9], axis=1)
    table = answers.table(bbox[:, [1, 0, 3, 2]], np.zeros(20), np.full(20, 0.5))
    polygons = Polygons(xy, np.arange(21) * len(rings[0]), np.arange(21))
    folder = tmp_path_factory.mktemp("discs") / "s"
    shown.write_objects(folder, shown.Planted(table, polygons))
    return ObjectFile(folder / "objects.parquet")


@pytest.mark.parametrize(("level", "away"), [(-2, 0.01), (-1, 1.25), (0, 1.25), (1, 1.25)])
def test_outlines_are_exact_near_by_and_else_within_their_tolerance(discs, level, away):
    side, found = TILE * 2.0**level, 0
    for index, (x, y) in enumerate(zip(discs.places.x, discs.places.y, strict=True)):
        col, row = int(x // side), int(y // side)
        data = vector_tile(discs, level, col, row, grid_l0=2.0)
        tile = shapely.box(col * side, row * side, (col + 1) * side, (row + 1) * side)
        (want,) = decoded(discs.outlines(np.array([index])))
        if tile.contains(want):
            drawn = outlines_of(parsed(data), level, col, row)
            assert min(shapely.hausdorff_distance(want, one) for one in drawn) <= away
            found += 1
    assert found > 5


def test_a_simplified_outline_stays_within_its_tolerance(things):
    index = np.arange(200)
    exact = decoded(things.outlines(index))
    seen = vectors.drawable(exact, np.array([-1e4, -1e4]), 100.0, tolerance=1.2)
    away = shapely.hausdorff_distance(exact, seen)
    assert away.max() <= 1.2 + 1e-6


def test_a_crowded_tile_has_a_bounded_number_of_outlines(things, monkeypatch):
    monkeypatch.setattr(vectors, "MOST_OUTLINES", 50)
    tile = parsed(vector_tile(things, 0, 0, 0, grid_l0=2.0))
    assert len(tile["polygon_kind"]) == 50
    assert len(tile["x"]) > 0


def test_the_same_file_gives_the_same_bytes(things, tmp_path):
    shown.write_objects(tmp_path / "s", shown.planted(3000, 5))
    again = ObjectFile(tmp_path / "s" / "objects.parquet")
    for level in (-1, 1, 3):
        assert vector_tile(things, level, 0, 0, grid_l0=2.0) == vector_tile(
            again, level, 0, 0, grid_l0=2.0
        )


def test_a_tile_beside_everything_is_empty(things):
    assert len(vector_tile(things, 0, 50, 50, grid_l0=2.0)) == 16


def test_the_heat_map_counts_what_is_shown(things):
    chosen = things.places.class_id == 1
    counts = heat(things.places, (shown.WIDTH, shown.HEIGHT), 100.0, shown=chosen)
    assert counts.shape == (6, 8)
    assert counts.sum() == chosen.sum()
    first = chosen & (things.places.x < 100) & (things.places.y < 100)
    assert counts[0, 0] == first.sum()
