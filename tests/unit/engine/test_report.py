"""Rows and files that say what a run came to."""

from helpers.runs import lines_of, table
from helpers.summaries import SCORES, summary_of
from quadrat.core.objects import Frame
from quadrat.engine.failures import FailedSlide, forget_failure, write_failure
from quadrat.engine.report import done_row, summarise

FRAME = Frame(height=64, width=60, mpp=0.5, scale_row=2.0, scale_col=2.5)


def test_the_row_of_objects_has_their_counts_the_total_first():
    row = done_row(summary_of(FRAME))
    assert (row.slide, row.status, row.task, row.mpp) == ("s", "done", "instance", 0.5)
    assert row.tissue_mm2 == 2.0
    assert row.figures == (("count", "3"), ("count_a", "3"), ("count_b", "0"))
    assert row.reason == ""


def test_the_row_of_a_classified_slide_has_its_class_and_probabilities():
    row = done_row(summary_of(FRAME, task="classification", answer=SCORES))
    assert row.figures == (("class", "b"), ("p_a", "0.250000"), ("p_b", "0.750000"))


def test_damage_is_the_remark_of_a_finished_slide():
    row = done_row(summary_of(FRAME, damaged=((0.0, 0.0, 1.0, 1.0), (2.0, 0.0, 3.0, 1.0))))
    assert row.reason == "2 damaged tiles read as white"


def test_the_tables_are_made_from_what_is_in_the_folder(tiny):
    out = tiny.out
    tiny.run("b")
    tiny.run("p", until="predict", pipeline=tiny.pipeline(keep=("predictions",)))
    reason = f"/data/c.svs: torn; see {out}/run/work/c"
    failed = FailedSlide("c", "plan", reason, "instance", "/data/c.svs", kind="SlideError")
    write_failure(out, failed, trace="where it was")
    for path in ("results/summary.csv", "run/failures.jsonl"):
        (out / path).unlink(missing_ok=True)
    rows = summarise(out)
    assert [(row.slide, row.status) for row in rows] == [
        *(("b", "done"), ("c", "failed"), ("p", "predict"))
    ]
    lines = {line["slide"]: line for line in table(out / "results" / "summary.csv")}
    assert lines["c"]["reason"] == "plan: c.svs: torn; see run/work/c", "it names no places"
    assert (lines["p"]["task"], float(lines["p"]["mpp"])) == (lines["b"]["task"], 0.5)
    (failure,) = lines_of(out / "run" / "failures.jsonl")
    assert (failure["slide"], failure["reason"]) == ("c", reason)
    assert (out / "run" / "failed" / failure["trace"]).read_text() == "where it was"
    forget_failure(out, "c")
    assert [row.slide for row in summarise(out)] == ["b", "p"]
    assert [path.name for path in (out / "run" / "failed").iterdir()] == []


def test_results_with_a_summary_that_cannot_be_read_are_said(tiny):
    tiny.run("a")
    (tiny.out / "results" / "a" / "summary.json").write_text("{}")
    (row,) = summarise(tiny.out)
    assert row.status == "failed"
    assert "--overwrite" in row.reason


def test_what_a_slide_took_is_noted_when_it_is_over(tiny):
    tiny.run("a")
    tiny.run("a", "b")
    lines = lines_of(tiny.out / "run" / "timings.jsonl")
    assert [line["slide"] for line in lines] == ["a", "b"]
    assert lines[0]["seconds"]["predict"] > 0
