"""The tables of a slide from its merged answer, and the figures of its summary."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from quadrat.config.pipeline import OutputsSection
from quadrat.core.geometry import Box
from quadrat.core.objects import FLAG_CAPPED, ObjectTable, Polygons
from quadrat.engine.tables import MergeJob, counted_columns, merge_slide
from quadrat.engine.view import WorkView
from quadrat.outputs.summary import ObjectFigures, ScoreFigures
from quadrat.tasks import get_task


def stitched(tiny):
    """The folder of a slide of which everything is stitched."""
    (state,) = tiny.advanced("a")
    return state.work


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_counts_are_those_of_the_table_that_is_written(tiny):
    work = stitched(tiny)
    figures = merge_slide(MergeJob(work, OutputsSection()))
    written = pq.read_table(work.result / "objects.parquet")
    answer = figures.answer
    assert isinstance(answer, ObjectFigures)
    assert answer.counts[-1].class_name == "all"
    assert answer.counts[-1].count == len(written) == sum(c.count for c in answer.counts[:-1]) > 3
    assert written["id"].to_pylist() == list(range(1, len(written) + 1))
    counts = {row["class"]: int(row["count"]) for row in rows_of(work.result / "counts.csv")}
    assert counts == {row.class_name: row.count for row in answer.counts}
    features = json.loads((work.result / "objects.geojson").read_text())["features"]
    assert len(features) == len(written)
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    assert answer.seams.seams == 24
    assert work.first_ids.exists()


def test_geojson_is_left_out_where_it_is_switched_off(tiny):
    work = stitched(tiny)
    (work.result / "objects.geojson").unlink()
    merge_slide(MergeJob(work, OutputsSection(geojson=False)))
    assert not (work.result / "objects.geojson").exists()


def test_a_slide_without_objects_has_tables_of_none(tiny_of):
    tiny = tiny_of("instance", kind="empty", side=32)
    work = stitched(tiny)
    figures = merge_slide(MergeJob(work, OutputsSection()))
    assert [row.count for row in figures.answer.counts] == [0, 0, 0, 0]
    assert pq.read_table(work.result / "objects.parquet").num_rows == 0


def test_regions_are_annotations_in_qupath(tiny_of):
    tiny = tiny_of("semantic", side=32)
    work = stitched(tiny)
    features = json.loads((work.result / "objects.geojson").read_text())["features"]
    assert {f["properties"]["objectType"] for f in features} == {"annotation"}


def test_a_classifiers_slide_has_the_mean_of_its_tiles_and_their_votes(tiny_of):
    tiny = tiny_of("classification", side=32)
    work = stitched(tiny)
    figures = merge_slide(MergeJob(work, OutputsSection()))
    answer, tiles = figures.answer, rows_of(work.result / "tiles.csv")
    assert isinstance(answer, ScoreFigures)
    assert len(tiles) == 4
    names = tiny.spec.class_names
    mean = np.array([[float(row[f"p_{name}"]) for name in names] for row in tiles]).mean(axis=0)
    np.testing.assert_allclose([answer.probability[n] for n in names], mean, atol=1e-4)
    assert answer.top_class == names[int(np.argmax(mean))]
    assert sum(answer.tile_votes.values()) == 4
    assert answer.tile_votes == {n: sum(r["class"] == n for r in tiles) for n in names}
    assert list(answer.probability) == list(names)


def test_damage_that_was_met_while_reading_is_in_the_figures(tiny):
    work = stitched(tiny)
    whole = merge_slide(MergeJob(work, OutputsSection())).area
    hurt = merge_slide(MergeJob(work, OutputsSection(), lost=(Box(0, 0, 16, 16),))).area
    assert len(hurt.damaged_tiles_l0) == 1
    assert hurt.tissue_mm2 < whole.tissue_mm2
    assert "damaged tiles" in hurt.excluded_mm2


def test_counted_columns_are_those_of_all_parts_and_the_rest_takes_no_memory(tiny):
    work = stitched(tiny)
    parts = get_task("instance").merge(WorkView(work)).objects
    whole, found = ObjectTable.concatenate([part()[0] for part in parts]), counted_columns(parts)
    for name in ("centroid", "class_id", "area_px", "flags"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    for name in ("anchor", "score", "bbox", "perimeter_px"):
        assert getattr(found, name).strides[0] == 0
    assert len(counted_columns([])) == 0


def test_capped_objects_are_counted(tiny, monkeypatch):
    work = stitched(tiny)
    merge = type(get_task("instance")).merge

    def flagged(self, view):
        first = merge(self, view).objects[0]

        def part():
            table, polygons = first()
            table.flags[:] = FLAG_CAPPED
            return table, polygons

        nobody = ObjectTable.empty(), Polygons.boxes(np.zeros((0, 4)))
        return type(merge(self, view))(objects=[part, lambda: nobody])

    monkeypatch.setattr(type(get_task("instance")), "merge", flagged)
    answer = merge_slide(MergeJob(work, OutputsSection())).answer
    assert answer.capped_objects == answer.counts[-1].count


@pytest.mark.parametrize("task", ["detection", "semantic", "instance"])
def test_merging_twice_gives_the_same_figures(tiny_of, task):
    work = stitched(tiny_of(task, side=32))
    job = MergeJob(work, OutputsSection())
    assert merge_slide(job) == merge_slide(job)
