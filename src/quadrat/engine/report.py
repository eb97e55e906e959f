"""What a run came to: rows of summary.csv, failures, timings."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.config.manifest import NO_FOLDERS
from quadrat.core.files import open_append, write_file
from quadrat.core.records import from_json, to_json
from quadrat.engine.route import UNTIL
from quadrat.engine.state import SlideState
from quadrat.engine.work import work_folder
from quadrat.outputs.summary import SUMMARY, ObjectFigures, Summary, read_summary
from quadrat.outputs.tables import ALL, SummaryRow, read_run_summary, write_run_summary

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


@dataclass(frozen=True, slots=True)
class FailedSlide:
    """A line of failures.jsonl: it holds until a command takes the slide again."""

    slide: str
    """Name of the slide."""
    reason: str
    """The step that failed, and why."""
    task: str = ""
    """Name of the task; "": an older version wrote the line."""
    path: str = ""
    """The slide's file."""

    def row(self, out: Path) -> SummaryRow:
        """Its row of summary.csv, where files have names and no places."""
        reason = self.reason.replace(self.path, Path(self.path).name) if self.path else self.reason
        reason = reason.replace(f"{out}{os.sep}", "")
        return SummaryRow(self.slide, "failed", self.task, None, None, (), reason)


def write_run_files(
    out: Path, rows: Sequence[SummaryRow], states: Sequence[SlideState], *, paths: Mapping[str, str]
) -> None:
    """results/summary.csv and, under run/, failures.jsonl and timings.jsonl.

    ``rows``: of the slides of this command. Those of the other slides of the folder stand before
    them, by name: done as their results say, failed as the command did that took them last, or
    taken to a stage before.

    Raises:
        WriteError: one cannot be written.
    """
    before = _Before(out, taken={row.slide for row in rows})
    failures = before.failures() | {
        row.slide: FailedSlide(row.slide, row.reason, row.task, paths[row.slide])
        for row in rows
        if row.status == "failed"
    }
    own = [failures[row.slide].row(out) if row.slide in failures else row for row in rows]
    write_run_summary(out / "results" / SUMMARY_CSV, [*before.rows(), *own])
    lines = _lines([to_json(failure) for failure in failures.values()])
    write_file(out / "run" / FAILURES, lines)
    with open_append(out / "run" / "timings.jsonl") as stream:
        times = [{"slide": state.name, "seconds": state.seconds} for state in states]
        stream.write(_lines(times).encode())


@dataclass(frozen=True, slots=True)
class _Before:
    """What a folder says of the slides that this command did not take."""

    out: Path
    """The run's folder."""
    taken: Collection[str]
    """The slides of this command."""

    def failures(self) -> dict[str, FailedSlide]:
        """Slides that the last command which took them could not finish, by name."""
        try:
            lines = (self.out / "run" / FAILURES).read_text(encoding="utf-8").splitlines()
            found = [from_json(FailedSlide, json.loads(line)) for line in lines]
        except (FileNotFoundError, ValueError):  # none, or not as it was written
            return {}
        return {one.slide: one for one in found if one.slide not in self.taken}

    def rows(self) -> list[SummaryRow]:
        """Their rows, by name."""
        found = {row.slide: row for row in self._stages()}
        for folder in (file.parent for file in (self.out / "results").glob(f"*/{SUMMARY}")):
            if folder.name not in self.taken and not NO_FOLDERS.fullmatch(folder.name):
                found[folder.name] = _row_of(folder)
        found |= {name: failure.row(self.out) for name, failure in self.failures().items()}
        return [found[name] for name in sorted(found)]

    def _stages(self) -> Iterator[SummaryRow]:
        """Slides that were taken to a stage before results, as the table says and their working
        folder."""
        try:
            rows = read_run_summary(self.out / "results" / SUMMARY_CSV)
        except (FileNotFoundError, ValueError):  # none, or saved by a spreadsheet in its own way
            return
        for row in rows:
            here = row.status in UNTIL and work_folder(self.out, row.slide).exists()
            if here and row.slide not in self.taken:
                yield row


def _row_of(folder: Path) -> SummaryRow:
    """The row of results that an earlier command made."""
    try:
        return replace(done_row(read_summary(folder)), slide=folder.name)
    except (OSError, ValueError):
        reason = f"its {SUMMARY} cannot be read; run the slide again with --overwrite"
        return failed_row(folder.name, "", "results", reason)


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
