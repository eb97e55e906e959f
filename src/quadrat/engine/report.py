"""The tables of a run's folder, made from what is in it: results, failures, kept stores. So slides
that were run one by one, by the tasks of an array or by several drivers end in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quadrat.config.manifest import NO_FOLDERS
from quadrat.core.files import write_file
from quadrat.core.objects import Frame
from quadrat.core.records import to_json
from quadrat.core.unit import PX
from quadrat.engine.failures import read_failures
from quadrat.engine.journal import JOURNAL, KEPT, Journal
from quadrat.engine.work import SlidePlan, read_plan
from quadrat.outputs.summary import SUMMARY, ObjectFigures, Summary, read_summary
from quadrat.outputs.tables import ALL, SummaryRow, write_run_summary

SUMMARY_CSV, FAILURES = "summary.csv", "failures.jsonl"


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run came to."""

    rows: tuple[SummaryRow, ...]
    """Those of summary.csv, one per slide."""
    exit_code: int
    """EXIT_OK, EXIT_FAILED (a slide failed), or EXIT_OUTPUT (an output was not written)."""


def done_row(summary: Summary) -> SummaryRow:
    """The row of a finished slide."""
    answer, damaged = summary.figures.answer, summary.damaged
    lost = [f"{damaged} damaged tiles read as white"] if damaged else []
    if isinstance(answer, ObjectFigures):
        counts = {row.class_name: str(row.count) for row in answer.counts}
        total = ("count", counts.pop(ALL))
        figures = (total, *((f"count_{name}", count) for name, count in counts.items()))
    else:
        shares = ((f"p_{name}", f"{value:.6f}") for name, value in answer.probability.items())
        figures = (("class", answer.top_class), *shares)
    return SummaryRow(
        slide=summary.slide,
        status="done",
        task=summary.task,
        mpp=_mpp(summary.frame),
        tissue_mm2=summary.figures.area.tissue_mm2,
        figures=figures,
        reason="; ".join([*lost, *summary.notes]),
        unit=summary.frame.unit,
    )


def stage_row(status: str, task: str, plan: SlidePlan) -> SummaryRow:
    """The row of a slide that was taken to a stage before results."""
    frame = plan.frame
    return SummaryRow(plan.name, status, task, _mpp(frame), plan.tissue_mm2, unit=frame.unit)


def _mpp(frame: Frame) -> float | None:
    """um per grid px; None where there are no um."""
    return None if frame.unit == PX else frame.mpp


def summarise(out: Path) -> list[SummaryRow]:
    """Write results/summary.csv and run/failures.jsonl from what is in the folder; the rows, by
    name of the slide.

    Raises:
        WriteError: one cannot be written.
    """
    failures = {failure.slide: failure for failure in read_failures(out)}
    rows = {row.slide: row for row in _kept(out)}
    rows |= {row.slide: row for row in _done(out)}
    rows |= {name: failure.row(out) for name, failure in failures.items()}
    ordered = [rows[name] for name in sorted(rows)]
    write_run_summary(out / "results" / SUMMARY_CSV, ordered)
    lines = (json.dumps(to_json(failures[name])) + "\n" for name in sorted(failures))
    write_file(out / "run" / FAILURES, "".join(lines))
    return ordered


def _done(out: Path) -> Iterator[SummaryRow]:
    for folder in (file.parent for file in (out / "results").glob(f"*/{SUMMARY}")):
        if not NO_FOLDERS.fullmatch(folder.name):
            yield _row_of(folder)


def _row_of(folder: Path) -> SummaryRow:
    """The row of results that are there."""
    try:
        return replace(done_row(read_summary(folder)), slide=folder.name)
    except (OSError, ValueError):
        reason = f"results: its {SUMMARY} cannot be read; run the slide again with --overwrite"
        return SummaryRow(folder.name, "failed", "", None, None, (), reason)


def _kept(out: Path) -> Iterator[SummaryRow]:
    """Slides without results of which a complete store is kept on request."""
    for path in sorted((out / "run" / "work").glob(f"*/{JOURNAL}")):
        levels = {key.level for key in Journal(path).receipts if key.step == KEPT}
        plan = read_plan(path.parent)
        if levels and plan is not None:
            status = "predict" if "predict" in levels else "tile"
            yield stage_row(status, plan.task, plan)
