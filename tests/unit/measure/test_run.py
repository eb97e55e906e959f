"""What a run wrote: the table's figures of whole slides are those of its own counts."""

import csv
import shutil

import pytest

from helpers.measured import rows_of, value
from helpers.tiny import Tiny
from quadrat.outputs.summary import read_summary


@pytest.mark.parametrize("task", ["instance", "detection", "semantic"])
def test_a_whole_slide_has_the_figures_that_the_run_wrote(task, tmp_path, monkeypatch):
    tiny = Tiny(tmp_path, monkeypatch, task, side=32)
    (state,) = tiny.advanced("a")
    assert state.failure is None, state.failure
    shutil.copytree(state.work.result, tiny.out / "results" / "a")
    rows = rows_of(tiny.out)
    with (tiny.out / "results" / "a" / "counts.csv").open(newline="") as stream:
        counts = list(csv.DictReader(stream))
    assert int(counts[-1]["count"]) > 0
    for row in counts:
        of = row["class"]
        assert value(rows, "count", of=of, slide="a") == row["count"]
        assert value(rows, "per_mm2", of=of, slide="a") == row["per_mm2"]
        assert value(rows, "area_fraction", of=of, slide="a") == row["covered_fraction"]
    area = read_summary(tiny.out / "results" / "a").figures.area
    assert value(rows, "analysed_mm2", of="", slide="a") == f"{area.tissue_mm2:.6f}"
    if task != "detection":
        assert 0 < float(value(rows, "solidity_mean", slide="a")) <= 1
