"""What a run came to: rows of summary.csv, failures, timings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.core.files import open_append, write_file
from quadrat.engine.state import SlideState
from quadrat.outputs.summary import ObjectFigures, Summary
from quadrat.outputs.tables import ALL, SummaryRow, write_run_summary


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
        mpp=summary.frame.mpp,
        tissue_mm2=summary.figures.area.tissue_mm2,
        figures=figures,
        reason=f"{damaged} damaged tiles read as white" if damaged else "",
    )


def failed_row(name: str, task: str, stage: str, reason: str) -> SummaryRow:
    """The row of a slide without a result."""
    return SummaryRow(name, "failed", task, None, None, (), f"{stage}: {reason}")


def write_run_files(
    out: Path, rows: Sequence[SummaryRow], states: Sequence[SlideState], *, paths: Mapping[str, str]
) -> None:
    """results/summary.csv (where files have names and no places), and under run/: failures.jsonl
    and timings.jsonl.

    Raises:
        WriteError: one cannot be written.
    """

    def placeless(row: SummaryRow) -> str:
        path = paths[row.slide]
        return row.reason.replace(path, Path(path).name).replace(f"{out}{os.sep}", "")

    write_run_summary(
        out / "results" / "summary.csv", [replace(row, reason=placeless(row)) for row in rows]
    )
    failures = [{"slide": r.slide, "reason": r.reason} for r in rows if r.status == "failed"]
    write_file(out / "run" / "failures.jsonl", _lines(failures))
    with open_append(out / "run" / "timings.jsonl") as stream:
        times = [{"slide": state.name, "seconds": state.seconds} for state in states]
        stream.write(_lines(times).encode())


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
