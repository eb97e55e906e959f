"""The table and the files of an evaluation."""

import csv
import json

import pytest

from helpers.annotated import CLASSES, NAMES, SLIDES, measured, without_first
from quadrat.evaluation.pooling import pool
from quadrat.evaluation.report import (
    EvaluationDetails,
    metrics_json,
    report_text,
    table_rows,
    write_evaluation,
)
from quadrat.tasks import get_task

DETAILS = EvaluationDetails(
    pipeline="mine", split="test", settings={}, packages=[], thresholds={"score": 0.5}
)


def evaluated(folder, task, *change):
    """(evaluation, confusion, curves) of four slides."""
    slides, kind = measured(folder, task, *change), get_task(task)
    kept = [s.measured for s in slides]
    return (
        pool(slides, task=kind, classes=NAMES, draws=5),
        kind.metrics.confusion(kept, classes=NAMES),
        kind.metrics.curves(kept, classes=NAMES),
    )


def test_the_table_has_a_column_a_class_and_no_empty_row(tmp_path):
    rows = table_rows(evaluated(tmp_path, "semantic")[0])
    assert rows[0] == ["figure", "value", "95 %", "background", *[c.name for c in CLASSES]]
    assert rows[1] == ["dice", "1.000", "1.000 to 1.000", "1.000", "1.000", "1.000"]
    assert all(any(row[1:]) for row in rows)


def test_counts_of_cases_are_left_out_where_every_slide_is_a_case(tmp_path):
    evaluation, _, _ = evaluated(tmp_path, "instance")
    titles = [row[0] for row in table_rows(evaluation)]
    assert "count icc (slides)" in titles
    assert "count icc (cases)" in titles


def test_the_files_hold_what_the_evaluation_holds(tmp_path):
    evaluation, confusion, curves = evaluated(tmp_path / "data", "instance", without_first)
    folder = tmp_path / "evaluation"
    write_evaluation(folder, evaluation, DETAILS, confusion=confusion, curves=curves)
    said = json.loads((folder / "metrics.json").read_text())
    assert said == json.loads(json.dumps(metrics_json(evaluation, DETAILS)))
    assert said["figures"]["pq"] == pytest.approx(evaluation.figures["pq"], abs=1e-9)
    with (folder / "per_slide.csv").open() as stream:
        rows = {row["slide"]: row for row in csv.DictReader(stream)}
    assert list(rows) == SLIDES
    assert float(rows["s0"]["pq"]) == pytest.approx(evaluation.per_slide["s0"]["pq"], abs=1e-6)
    assert float(rows["s0"]["count_planted"]) - float(rows["s0"]["count_found"]) == 1
    with (folder / "per_case.csv").open() as stream:
        assert [(r["case"], r["slides"]) for r in csv.DictReader(stream)] == [
            ("p", "2"),
            ("q", "1"),
            ("r", "1"),
        ]
    with (folder / "counts.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["unit"], first["name"], first["class"]) == ("slide", "s0", "all")
    assert (first["difference"], first["planted"]) == ("-1", rows["s0"]["count_planted"][:-7])


def test_the_report_names_notes_and_slides_without_a_result(tmp_path):
    details = EvaluationDetails(
        pipeline="mine",
        split="test",
        settings={},
        packages=[],
        thresholds={},
        notes=["a note"],
        failed={"s9": "cannot be read"},
    )
    text = report_text(evaluated(tmp_path, "semantic")[0], details, [("a.png", "A picture")])
    assert "- a note" in text
    assert "- no result of s9: cannot be read" in text
    assert "![A picture](a.png)" in text
    assert "**dice 1.000** (95 % 1.000 to 1.000)" in text
