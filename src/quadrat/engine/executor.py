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
from typing import Generic, Literal, Protocol, TypeVar

from quadrat.core.errors import QuadratError, WriteError

Needs = Literal["cpu", "gpu", "own gpu"]
"""Where a job runs: "gpu" shares the machine's GPUs with others, "own gpu" has one to itself.
Without a GPU all are "cpu"."""
Payload = TypeVar("Payload")
Payload_co = TypeVar("Payload_co", covariant=True)
Receipt = TypeVar("Receipt")
Receipt_co = TypeVar("Receipt_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Job(Generic[Payload_co]):
    """One unit of work."""

    key: str
    """Unique among the jobs of one call."""
    payload: Payload_co
    """What the function gets; it can be pickled."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed."""

    kind: str
    """The error's type."""
    message: str
    """The error's text; its repr if it has none."""
    refused: bool
    """Whether quadrat refused knowingly, or gave the job up."""
    trace: str
    """Text of the traceback, or where a job hung at its deadline; "" if neither is known."""

    @property
    def unwritten(self) -> bool:
        """Whether an output could not be written."""
        return self.kind == WriteError.__name__

    @staticmethod
    def of(error: BaseException) -> Failure:
        """The failure that an exception is, with its traceback unless quadrat raised it
        knowingly."""
        knowing = isinstance(error, QuadratError)
        trace = "" if knowing else "".join(traceback.format_exception(error))
        return Failure(type(error).__name__, str(error) or repr(error), knowing, trace)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Receipt_co]):
    """What became of a job: a receipt or a failure."""

    key: str
    """Key of the job."""
    seconds: float
    """How long the function ran; 0 if the worker could not report it."""
    receipt: Receipt_co | None = None
    """What the function returned; None if the job failed."""
    failure: Failure | None = None
    """Why the job failed; None if it did not."""
    peak_mb: float = 0.0
    """Largest size of its process so far, in MiB."""


class Executor(Protocol):
    """Runs jobs; a failing job never stops the others."""

    def run(
        self,
        fn: Callable[[Payload], Receipt],
        jobs: Iterable[Job[Payload]],
        *,
        needs: Needs = "cpu",
        deadline_s: float | None = None,
    ) -> Iterator[Outcome[Receipt]]:
        """Outcomes as they come.

        ``deadline_s``: a job that runs longer is given up and fails (not in-process).
        """
        ...


class Serial:
    """A loop in this process."""

    def run(
        self,
        fn: Callable[[Payload], Receipt],
        jobs: Iterable[Job[Payload]],
        *,
        needs: Needs = "cpu",
        deadline_s: float | None = None,
    ) -> Iterator[Outcome[Receipt]]:
        for job in jobs:
            yield guarded(fn, job)


def guarded(fn: Callable[[Payload], Receipt], job: Job[Payload]) -> Outcome[Receipt]:
    """Run one job; an exception becomes a Failure. This is the boundary that keeps one bad slide
    from ending a batch."""
    start = time.perf_counter()
    receipt, failure = None, None
    try:
        receipt = fn(job.payload)
    except Exception as error:
        failure = Failure.of(error)
    return Outcome(job.key, time.perf_counter() - start, receipt, failure, _peak_mb())


def _peak_mb() -> float:
    """Largest resident size of this process so far (Linux counts in KiB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
