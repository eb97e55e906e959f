"""The one seam between what is to be done and where it runs: ``Executor.run(fn, jobs)`` yields
outcomes, unordered.

``fn`` is a module-level function of one picklable payload; it returns a small receipt. Behind the
seam are a loop in this process and an embedded dask cluster; the code in front of it is the same
for both.
"""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from quadrat.core.errors import QuadratError, WriteError

Needs = Literal["cpu", "gpu", "own gpu"]
"""Where a job runs: "gpu" shares the machine's GPUs with others, "own gpu" has one to itself.
Without a GPU all are "cpu"."""


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work: a unique key, and the picklable payload that ``fn`` gets."""

    key: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: the error's type and message, whether quadrat refused knowingly, and the
    traceback if not."""

    kind: str
    message: str
    refused: bool
    trace: str

    @property
    def unwritten(self) -> bool:
        """Whether an output could not be written."""
        return self.kind == WriteError.__name__


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a receipt or a failure, the seconds it took, and the peak memory (MiB)
    of its process so far."""

    key: str
    seconds: float
    receipt: Any = None
    failure: Failure | None = None
    peak_mb: float = 0.0


class Executor(Protocol):
    """Runs jobs; a failing job never stops the others."""

    def run(
        self,
        fn: Callable[[Any], Any],
        jobs: Iterable[Job],
        *,
        needs: Needs = "cpu",
        deadline_s: float | None = None,
    ) -> Iterator[Outcome]:
        """Outcomes as they come. ``deadline_s``: a job running longer is given up and fails (not
        enforceable in-process)."""
        ...


class Serial:
    """A loop in this process."""

    def run(
        self,
        fn: Callable[[Any], Any],
        jobs: Iterable[Job],
        *,
        needs: Needs = "cpu",
        deadline_s: float | None = None,
    ) -> Iterator[Outcome]:
        for job in jobs:
            yield guarded(fn, job)


def guarded(fn: Callable[[Any], Any], job: Job) -> Outcome:
    """Run one job; an exception becomes a Failure (this is the boundary that keeps one bad slide
    from ending a batch)."""
    start = time.perf_counter()
    try:
        receipt = fn(job.payload)
    except QuadratError as error:
        failure = refusal(error)
    except Exception as error:
        failure = Failure(
            type(error).__name__,
            str(error) or repr(error),
            refused=False,
            trace=traceback.format_exc(),
        )
    else:
        return Outcome(job.key, time.perf_counter() - start, receipt=receipt, peak_mb=_peak_mb())
    return Outcome(job.key, time.perf_counter() - start, failure=failure, peak_mb=_peak_mb())


def refusal(error: QuadratError) -> Failure:
    """The failure of a job that quadrat refused knowingly."""
    return Failure(type(error).__name__, str(error), refused=True, trace="")


def _peak_mb() -> float:
    """Largest resident size of this process so far (Linux counts in KiB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
