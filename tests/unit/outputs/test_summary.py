"""summary.json: one writer and one reader."""

import json
from dataclasses import replace

import pytest

from helpers.summaries import COUNTS, OBJECTS, SCORES, SEAMS, summary_of
from quadrat.core.objects import Frame
from quadrat.outputs.summary import SUMMARY, read_summary, write_summary

FRAME = Frame(height=64, width=60, mpp=0.5, scale_row=2.0, scale_col=2.5)
FIXED = {
    *("slide", "task", "fingerprint", "frame", "reader", "slide_mpp", "cores", "thresholds"),
    *("tissue_mm2", "tissue_filled_mm2", "excluded_mm2", "damaged_tiles_l0"),
    *("package", "classes", "pipeline", "versions", "threads", "device", "inference"),
}


def written(folder, **options):
    write_summary(folder, summary_of(FRAME, **options))
    return json.loads((folder / SUMMARY).read_text())


@pytest.mark.parametrize(
    "summary",
    [
        summary_of(FRAME),
        summary_of(FRAME, answer=replace(OBJECTS, seams=None)),
        summary_of(FRAME, task="classification", answer=SCORES),
        summary_of(FRAME, damaged=((0.0, 0.5, 1.0, 2.0),), thresholds={"score": 0.3}),
    ],
)
def test_a_summary_is_read_as_it_was_written_and_written_again_with_the_same_bytes(
    tmp_path, summary
):
    write_summary(tmp_path, summary)
    found = read_summary(tmp_path)
    assert found == summary
    first = (tmp_path / SUMMARY).read_bytes()
    write_summary(tmp_path, found)
    assert (tmp_path / SUMMARY).read_bytes() == first


def test_the_file_is_flat_and_sorted_and_has_the_keys_of_its_kind_of_answer(tmp_path):
    objects = written(tmp_path)
    assert objects.keys() == FIXED | {"counts", "capped_objects", "seams"}
    assert objects["counts"][-1]["class_name"] == COUNTS[-1].class_name == "all"
    assert objects["counts"][0]["median_nearest_um"] is None
    assert objects["seams"]["verdict"] == SEAMS.verdict
    scores = written(tmp_path, answer=SCORES)
    assert scores.keys() == FIXED | {"class", "probability", "tile_votes"}
    assert scores["class"] == "b"
    text = (tmp_path / SUMMARY).read_text()
    assert text == json.dumps(scores, indent=2, sort_keys=True) + "\n"


def test_a_summary_of_before_there_were_seam_reports_is_read(tmp_path):
    assert "seams" not in written(tmp_path, answer=replace(OBJECTS, seams=None))
    assert read_summary(tmp_path).figures.answer.seams is None


def test_without_a_summary_the_slide_is_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "no keys and values, but a list"),
        ("{}", "field required"),
        ('{"fingerprint": 1}', "field required"),
    ],
)
def test_a_damaged_summary_is_a_value_error_that_says_why(tmp_path, text, why):
    (tmp_path / SUMMARY).write_text(text)
    with pytest.raises(ValueError, match=why):
        read_summary(tmp_path)


def test_a_summary_of_before_the_filled_area_was_stated_is_read(tmp_path):
    values = written(tmp_path)
    del values["tissue_filled_mm2"]
    (tmp_path / SUMMARY).write_text(json.dumps(values))
    assert read_summary(tmp_path).figures.area.tissue_filled_mm2 is None


@pytest.mark.parametrize("key", sorted(FIXED - {"tissue_filled_mm2", "inference"}))
def test_no_key_may_be_missing(tmp_path, key):
    values = written(tmp_path)
    del values[key]
    (tmp_path / SUMMARY).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{key}: field required"):
        read_summary(tmp_path)


def test_what_a_later_version_adds_is_left_aside(tmp_path):
    values = written(tmp_path)
    (tmp_path / SUMMARY).write_text(json.dumps(values | {"mitoses": 4}))
    assert read_summary(tmp_path) == summary_of(FRAME)


def test_what_was_imported_says_from_where_and_other_summaries_do_not(tmp_path):
    frame = Frame(10, 20, 0.5, 1.0, 1.0)
    write_summary(tmp_path, replace(summary_of(frame), made_by="cells.geojson"))
    assert read_summary(tmp_path).made_by == "cells.geojson"
    write_summary(tmp_path, summary_of(frame))
    assert "made_by" not in (tmp_path / "summary.json").read_text()
