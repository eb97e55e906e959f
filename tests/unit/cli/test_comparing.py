"""``quadrat diff`` and ``quadrat compare``."""

import csv
import json

import shapely

from helpers.planted_runs import random_boxes, write_slide
from helpers.runs import contents, quadrat

BOXES = random_boxes(40, 3)


def two_runs(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        write_slide(out, "equal", BOXES)
    write_slide(one, "other", BOXES)
    write_slide(two, "other", BOXES[:-2])
    return one, two


def test_diff_prints_a_table_and_ends_with_0_or_1_as_diff_does(tmp_path):
    one, two = two_runs(tmp_path)
    done = quadrat("diff", one, two)
    assert done.code == 1, done.err
    head, *_, verdict = done.out.splitlines()
    assert head.split()[:4] == ["slide", "class", "before", "after"]
    assert verdict == "different"
    same = quadrat("diff", one, two, "--slide", "equal")
    assert (same.code, same.out.splitlines()[-1]) == (0, "equal")
    values = json.loads(quadrat("diff", one, two, "--json").out)
    assert [s["classes"]["all"]["went"] for s in values["slides"]] == [0, 2]


def test_diff_writes_the_table_and_outlines_for_qupath_always_the_same(tmp_path):
    one, two = two_runs(tmp_path)
    for name in ("first", "again"):
        assert quadrat("diff", one, two, "--out", tmp_path / name).code == 1
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    with (tmp_path / "first" / "diff.csv").open(newline="") as stream:
        rows = {(r["slide"], r["class"]): r for r in csv.DictReader(stream)}
    assert rows["other", "all"]["went"] == "2"
    features = json.loads((tmp_path / "first" / "other.geojson").read_text())["features"]
    assert {f["properties"]["classification"]["name"] for f in features} == {"went"}
    drawn = [shapely.geometry.shape(f["geometry"]).bounds for f in features]
    assert sorted(drawn) == sorted(tuple(box * 2) for box in BOXES[-2:])
    assert json.loads((tmp_path / "first" / "equal.geojson").read_text())["features"] == []


def test_a_slide_in_one_run_alone_is_a_difference(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        write_slide(out, "a", BOXES)
    write_slide(two, "b", BOXES)
    done = quadrat("diff", one, two)
    assert (done.code, "b: only in the second run" in done.out) == (1, True)


def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path):
    one, two = two_runs(tmp_path)
    write_slide(tmp_path / "three", "else", BOXES)
    (tmp_path / "tiles").mkdir()
    for words, told in (
        ((one, tmp_path / "nothing"), "nothing holds no results"),
        ((one, one), "is given twice"),
        ((one, tmp_path / "three"), "no slide is in both"),
        ((one, two, "--slide", "othr"), "did you mean 'other'?"),
        ((one, two, "--iou", "2"), "--iou is 2"),
    ):
        done = quadrat("diff", *words)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert told in done.err
    (one / "results" / "other" / "objects.parquet").unlink()
    assert "there is no objects.parquet" in quadrat("diff", one, two).err
    (one / "results" / "other" / "summary.json").write_text("{}")
    assert "another version of quadrat may have written it" in quadrat("diff", one, two).err


def test_compare_prints_figures_a_class_and_writes_plots_on_request(tmp_path):
    one, two = two_runs(tmp_path)
    (tmp_path / "manual.csv").write_text("slide,count\nequal,42\nother,39\n")
    done = quadrat("compare", one, tmp_path / "manual.csv", "--out", tmp_path / "to")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split() == ["all"]
    assert (tmp_path / "to" / "bland_altman.pdf").is_file()
    values = json.loads(quadrat("compare", one, two, "--json").out)
    assert values["classes"]["all"]["bias"]["value"] == 1
    assert quadrat("compare", one, one).code == 2
    assert "there is no file" in quadrat("compare", one, tmp_path / "none.csv").err
