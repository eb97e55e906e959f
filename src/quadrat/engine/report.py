"""What a run came to: rows of summary.csv, failures, timings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.config.pipeline import Pipeline
from quadrat.core.files import open_append, write_file
from quadrat.engine.flow import SlideState
from quadrat.outputs.tables import ALL, SummaryRow, write_summary


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run came to: a row a slide (the rows of summary.csv), and the exit code."""

    rows: tuple[SummaryRow, ...]
    exit_code: int


def _done_row(summary: dict[str, Any]) -> SummaryRow:
    if "counts" in summary:
        counts = {row["class_name"]: str(row["count"]) for row in summary["counts"]}
        figures = (
            ("count", counts.pop(ALL)),
            *((f"count_{name}", count) for name, count in counts.items()),
        )
    else:
        figures = (("class", summary["class"]),)
        figures += tuple(
            (f"p_{name}", f"{value:.6f}") for name, value in summary["probability"].items()
        )
    return SummaryRow(
        slide=summary["slide"],
        status="done",
        task=summary["task"],
        mpp=summary["frame"]["mpp"],
        tissue_mm2=summary["tissue_mm2"],
        figures=figures,
        reason=f"{damaged} damaged tiles read as white"
        if (damaged := len(summary["damaged_tiles_l0"]))
        else "",
    )


def _failed_row(name: str, pipeline: Pipeline, stage: str, reason: str) -> SummaryRow:
    return SummaryRow(name, "failed", pipeline.task, None, None, (), f"{stage}: {reason}")


def write_run_files(
    out: Path, rows: Sequence[SummaryRow], states: Sequence[SlideState], *, paths: Mapping[str, str]
) -> None:
    """results/summary.csv (where files have names and no places), and under run/: failures.jsonl
    and timings.jsonl."""

    def placeless(row: SummaryRow) -> str:
        return row.reason.replace(paths[row.slide], Path(paths[row.slide]).name).replace(
            f"{out}{os.sep}", ""
        )

    write_summary(
        out / "results" / "summary.csv", [replace(row, reason=placeless(row)) for row in rows]
    )
    failures = [{"slide": r.slide, "reason": r.reason} for r in rows if r.status == "failed"]
    write_file(out / "run" / "failures.jsonl", _lines(failures))
    with open_append(out / "run" / "timings.jsonl") as stream:
        times = [{"slide": state.name, "seconds": state.seconds} for state in states]
        stream.write(_lines(times).encode())


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
