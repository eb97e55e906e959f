"""Counts, probabilities, tiles and the summary of a run as CSV."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.object_parts import CLASSES, FRAME, sample
from helpers.runs import table as table_of
from quadrat.core.objects import ClassInfo
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.outputs import tables


def test_counts_are_those_of_the_table_and_survive_the_file(tmp_path):
    table, _, nearest = sample()
    rows = tables.count_rows(table, nearest, classes=CLASSES, frame=FRAME, tissue_mm2=0.5)
    assert [row.class_name for row in rows] == ["tumour", 'odd "name", µ', "all"]
    assert rows[0].count + rows[1].count == rows[2].count == len(table)
    assert rows[2].per_mm2 == 2 * len(table)
    assert rows[2].area_mm2 == pytest.approx(table.area_px.sum() * 0.25e-6)
    assert rows[2].covered_fraction == pytest.approx(2 * rows[2].area_mm2)
    assert rows[2].median_nearest_um == pytest.approx(np.median(nearest.min(axis=1)))
    tables.write_counts(tmp_path / "counts.csv", rows)
    with (tmp_path / "counts.csv").open(newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    assert [(b["class"], int(b["count"])) for b in back] == [(r.class_name, r.count) for r in rows]
    assert float(back[0]["median_nearest_um"]) == pytest.approx(
        rows[0].median_nearest_um, abs=5.1e-4
    )


def test_what_is_undefined_is_empty_in_counts(tmp_path):
    table, _, nearest = sample()
    rows = tables.count_rows(
        table.take(np.arange(0)), nearest[:0], classes=CLASSES, frame=FRAME, tissue_mm2=0.0
    )
    tables.write_counts(tmp_path / "counts.csv", rows)
    text = (tmp_path / "counts.csv").read_text()
    assert text.splitlines()[0] == "class,count,per_mm2,area_mm2,covered_fraction,median_nearest_um"
    assert text.splitlines()[-1] == "all,0,,0.000000,,"


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9).filter(any))
def test_written_probabilities_sum_to_exactly_one(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    classes = [ClassInfo(f"c{i}", (0, 0, 0)) for i in range(len(values))]
    tables.write_classes(path, classes, np.array(values, np.float32))
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    names, decimals = zip(*lines, strict=True)
    assert sum(round(float(d) * 10**6) for d in decimals) == 10**6
    assert list(names) == [c.name for c in classes]
    assert np.array(decimals, np.float64) == pytest.approx(np.array(values) / sum(values), abs=1e-6)


def test_probabilities_that_are_none_are_refused(tmp_path):
    for wrong in ([0.0, 0.0], [-0.1, 1.1], [math.nan, 1.0], [1.0]):
        with pytest.raises(ValueError, match="finite value"):
            tables.write_classes(tmp_path / "c.csv", CLASSES, np.array(wrong))
    assert list(tmp_path.iterdir()) == []


def test_tiles_survive_the_file_and_ties_go_to_the_first_class(tmp_path):
    probability = np.array(
        [[SCORE_MAX // 3, SCORE_MAX - SCORE_MAX // 3], [30_000, 30_000]], np.uint16
    )
    scores = TileScores(
        cell=np.array([[0, 1], [2, 3]], np.int32),
        probability=probability,
        embedding=np.zeros((2, 0), np.float16),
    )
    tables.write_tiles(tmp_path / "tiles.csv", scores, classes=CLASSES, frame=FRAME, core=128)
    back = tables.read_tiles(tmp_path / "tiles.csv")
    assert np.array_equal(back.cell, scores.cell)
    assert back.class_id.tolist() == [1, 0]
    assert back.class_names == tuple(c.name for c in CLASSES)
    assert back.box_l0.tolist() == [
        [512, 0, 1024, 256],
        [1536, 512, 1600, 600],
    ]  # clipped to the slide
    assert np.array_equal(np.floor(back.probability * SCORE_MAX + 0.5), probability)


def test_the_summary_has_a_column_for_each_figure_and_keeps_reasons(tmp_path):
    rows = [
        tables.SummaryRow(
            "a", "done", "instance", 0.5, 12.25, (("count", "7"), ("count_tumour", "3"))
        ),
        tables.SummaryRow("b", "failed", "instance", None, None, (), 'cannot be read, "truncated"'),
    ]
    tables.write_run_summary(tmp_path / "summary.csv", rows)
    header = (tmp_path / "summary.csv").read_text().splitlines()[0]
    assert header == "slide,status,task,mpp,tissue_mm2,count,count_tumour,reason"
    first, second = table_of(tmp_path / "summary.csv")
    assert (first["mpp"], first["tissue_mm2"]) == ("0.500000", "12.250000")
    assert (first["count"], first["count_tumour"], first["reason"]) == ("7", "3", "")
    assert (second["mpp"], second["tissue_mm2"], second["count"]) == ("", "", "")
    assert (second["slide"], second["status"], second["task"]) == ("b", "failed", "instance")
    assert second["reason"] == 'cannot be read, "truncated"'
    with pytest.raises(ValueError, match="fixed column"):
        tables.write_run_summary(
            tmp_path / "s", [tables.SummaryRow("a", "done", "t", None, None, (("status", "1"),))]
        )


def test_rows_in_px_have_their_own_columns_and_leave_those_of_um_empty(tmp_path):
    um = tables.SummaryRow("a", "done", "instance", 0.5, 12.25, (("count", "7"),))
    px = tables.SummaryRow("b", "done", "instance", None, 0.5, (("count", "3"),), unit="px")
    bad = tables.SummaryRow("c", "failed", "instance", None, None, (), "torn", unit="px")
    file = tmp_path / "summary.csv"
    for rows, columns in (
        ([px, bad], "tissue_mpx"),
        ([bad], "tissue_mpx"),
        ([um], "mpp,tissue_mm2"),
        ([um, px], "mpp,tissue_mm2,tissue_mpx"),
    ):
        tables.write_run_summary(file, rows)
        header = file.read_text().splitlines()[0]
        assert header.startswith(f"slide,status,task,{columns},")
        assert "mpp" not in header.replace("tissue_mpx", "") or um in rows
    both = table_of(file)
    assert [(row["mpp"], row["tissue_mm2"], row["tissue_mpx"]) for row in both] == [
        ("0.500000", "12.250000", ""),
        ("", "", "0.500000"),
    ]
