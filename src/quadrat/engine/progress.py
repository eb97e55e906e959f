"""Progress for people: a bar on a terminal, a line every few seconds elsewhere; JSON lines go to
the run's log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from quadrat.core.files import open_append

LINE_EVERY_S = 10.0


class Reporter:
    """Reports phases on stderr, and every event in ``log`` (JSON lines with a time stamp; exempt
    from identity). ``quiet``: nothing on stderr. ``verbose``: every event there as well."""

    def __init__(
        self, log: Path | None = None, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._log = open_append(log) if log is not None else None
        self.quiet, self.verbose = quiet, verbose
        self.peak_mb = 0.0

    @contextmanager
    def into(self, log: Path) -> Iterator[Reporter]:
        """This reporter if it has a log already, else one that is as loud and writes ``log``."""
        if self._log is not None:
            yield self
        else:
            with Reporter(log, quiet=self.quiet, verbose=self.verbose) as own:
                yield own

    def say(self, text: str) -> None:
        """One line for the person in front."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        self.event("say", text=text)

    def saw_memory(self, peak_mb: float) -> None:
        """Remember the largest process seen."""
        self.peak_mb = max(self.peak_mb, peak_mb)

    def event(self, kind: str, **values: Any) -> None:
        """One JSON line in the log."""
        if self.verbose and kind != "say":
            words = (f"{name}={value}" for name, value in values.items())
            sys.stderr.write(f"[{kind}] {' '.join(words)}\n")
        if self._log is not None:
            line = {"time": round(time.time(), 3), "event": kind} | values
            self._log.write(json.dumps(line, default=str).encode() + b"\n")

    def phase(self, name: str, total: int) -> Phase:
        """Progress of ``total`` jobs."""
        return Phase(self, name, total)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Phase:
    """One bar; a context manager. ``advance`` after each job, ``note`` for text next to the bar."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self._reporter, self._name, self._total, self._done = reporter, name, total, 0.0
        self._started = self._spoken = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty() and not reporter.quiet and total > 0:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=total, note="")

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self.show(self._done + count, note=note)

    def show(self, done: float, *, note: str = "") -> None:
        """Set how much is done; a part of a job may count."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=note)
        elif time.monotonic() - self._spoken > LINE_EVERY_S:
            self._spoken = time.monotonic()
            text = f"{self._name}: {int(self._done)} of {self._total}"
            if self._done > 0:
                rate = (time.monotonic() - self._started) / self._done
                text += f", about {rate * (self._total - self._done):.0f} s to go"
            self._reporter.say(f"{text} {note}".rstrip())

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._reporter.event("phase", name=self._name, done=round(self._done, 3), of=self._total,
                             seconds=round(time.monotonic() - self._started, 3))  # fmt: skip
