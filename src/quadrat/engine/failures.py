"""Why slides failed: one file per slide under ``run/failed/``, for as long as the reason holds.

A slide that failed is not tried again with the same file, model and settings unless that is asked
for (``--retry-failed``); what failed because an output could not be written always is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quadrat.core.files import remove, write_file
from quadrat.core.records import from_json, to_json
from quadrat.core.unit import Unit
from quadrat.engine.executor import Failure
from quadrat.outputs.tables import SummaryRow

FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FailedSlide:
    """What is known of a slide that failed."""

    slide: str
    """Name of the slide."""
    stage: str
    """The step that failed; "open": it could not even be begun."""
    reason: str
    """Why."""
    task: str = ""
    """Name of the task."""
    path: str = ""
    """The slide's file."""
    kind: str = ""
    """Type of the error."""
    remedy: str = ""
    """What can be done about it; "": the reason says it, or nobody knows."""
    worker: str = ""
    """Address of the worker that met it; "": this process, or unknown."""
    host: str = ""
    """Its machine."""
    tries: int = 1
    """How often the work was tried."""
    trace: str = ""
    """Name of the file beside this one with the traceback, or with the place where a job hung; "":
    the error says all."""
    fingerprint: str = ""
    """Of the slide and the settings that failed; "": the file could not be read."""
    again: bool = False
    """Whether the next command tries it again by itself."""
    unit: Unit = "um"
    """Of lengths in the run."""

    def row(self, out: Path) -> SummaryRow:
        """Its row of summary.csv, where files have names and no places."""
        reason = f"{self.stage}: {self.reason}"
        reason = reason.replace(self.path, Path(self.path).name) if self.path else reason
        reason = reason.replace(f"{out}{os.sep}", "")
        return SummaryRow(self.slide, "failed", self.task, None, None, (), reason, self.unit)


def write_failure(out: Path, failure: FailedSlide, *, trace: str = "") -> FailedSlide:
    """Keep a failure, with its traceback in a file of its own.

    Raises:
        WriteError: it cannot be written.
    """
    folder = out / "run" / FAILED
    if trace:
        name = f"{failure.slide}.trace.txt"
        write_file(folder / name, trace)
        failure = replace(failure, trace=name)
    write_file(_place(out, failure.slide), json.dumps(to_json(failure), indent=1) + "\n")
    return failure


def read_failure(out: Path, slide: str) -> FailedSlide | None:
    """Why a slide failed; None: it did not."""
    try:
        return from_json(FailedSlide, json.loads(_place(out, slide).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_failures(out: Path) -> Iterator[FailedSlide]:
    """All failures of a run's folder, by name of the slide."""
    folder = out / "run" / FAILED
    for path in sorted(folder.glob("*.json")):
        failure = read_failure(out, path.name.removesuffix(".json"))
        if failure is not None:
            yield failure


def forget_failure(out: Path, slide: str) -> None:
    """A slide is taken again, or is done.

    Raises:
        WriteError: the file cannot be removed.
    """
    remove(_place(out, slide))
    remove(out / "run" / FAILED / f"{slide}.trace.txt")


def remedy_of(failure: Failure) -> str:
    """What a user can do about a failure that does not say it."""
    if failure.kind == "LostJob" and "deadline" in failure.message:
        return "raise run.deadline_s, or look at what the traceback file shows"
    if failure.kind == "LostJob":
        return "run it with fewer workers (-j) or more memory, then --retry-failed"
    if not failure.refused:
        return "this is a fault of quadrat or of a library; please report it with the traceback"
    return ""


def _place(out: Path, slide: str) -> Path:
    return out / "run" / FAILED / f"{slide}.json"
