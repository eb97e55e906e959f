"""Rows and files that say what a run came to."""

import json

from helpers.runs import lines_of, table
from helpers.summaries import SCORES, summary_of
from quadrat.core.objects import Frame
from quadrat.engine.report import done_row, failed_row, write_run_files
from quadrat.outputs.tables import SummaryRow

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


def test_the_files_of_a_run_name_no_places_and_keep_reasons_and_times(tiny):
    (state,) = tiny.advanced("a", until="plan")
    out = tiny.out
    rows = [
        SummaryRow("a", "done", "instance", 0.5, 1.0, (("count", "3"),)),
        failed_row("b", "instance", "plan", f"/data/b.svs: torn; see {out}/run/work/b"),
    ]
    write_run_files(out, rows, [state], paths={"a": "/data/a.svs", "b": "/data/b.svs"})
    lines = table(out / "results" / "summary.csv")
    assert [line["status"] for line in lines] == ["done", "failed"]
    assert lines[1]["reason"] == "plan: b.svs: torn; see run/work/b"
    failures = lines_of(out / "run" / "failures.jsonl")
    reason = f"plan: /data/b.svs: torn; see {out}/run/work/b"
    line = {"slide": "b", "reason": reason, "task": "instance", "path": "/data/b.svs"}
    assert failures == [line]
    times = lines_of(out / "run" / "timings.jsonl")
    assert times == [{"slide": "a", "seconds": state.seconds}]
    write_run_files(out, rows[:1], [state], paths={"a": "/data/a.svs"})
    assert lines_of(out / "run" / "failures.jsonl") == [line]
    assert len((out / "run" / "timings.jsonl").read_text().splitlines()) == 2
    assert json.loads((out / "run" / "timings.jsonl").read_text().splitlines()[1])
