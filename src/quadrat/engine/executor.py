"""The one seam between what is to be done and where it runs: ``Executor.run(source)`` draws
jobs from a source as places for them become free, and yields their outcomes, unordered.

A job is a module-level function and one picklable payload; it returns a small receipt. Behind the
seam are a loop in this process and dask clusters; the code in front of it is the same for all.
"""

from __future__ import annotations

import os
import resource
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from quadrat.core.clock import spent_since, spent_so_far
from quadrat.core.errors import QuadratError, SlideError, StoreError, WriteError
from quadrat.core.numerics import Numerics, device_numerics
from quadrat.engine.flow import ANYWHERE, Needs
from quadrat.models.device import pick_device

READING = (SlideError, StoreError, OSError)
"""Errors of reading, which may go well the next time."""
Receipt_co = TypeVar("Receipt_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work."""

    key: str
    """Unique among the jobs of one source."""
    fn: Callable[[Any], Any]
    """What a worker runs. It may run twice without harm."""
    payload: Any
    """What the function gets; it can be pickled."""
    needs: Needs = "cpu"
    """Where it runs, if there is a GPU."""
    deadline_s: float | None = None
    """A job that runs longer is given up and fails (not in-process)."""


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

    may_pass: bool = False
    """Whether the same may go well the next time: a file that could not be read."""

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
        may_pass = isinstance(error, READING) and not isinstance(error, WriteError)
        return Failure(type(error).__name__, str(error) or repr(error), knowing, trace, may_pass)


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
    worker: str = ""
    """Where it ran: machine and process; "": unknown."""
    spent: Mapping[str, float] = field(default_factory=dict)
    """Seconds of it by what they went into (see :mod:`quadrat.core.clock`)."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every worker of a run is given."""

    threads: int = 1
    """Of torch, for one job."""
    device: str = "auto"
    """``run.device``: whether to look for a GPU, and for which."""
    stage_gb: float = 0.0
    """``run.stage_gb``: how much of the slides is copied to each machine."""


class Source(Protocol):
    """Gives out jobs."""

    def next(self, needs: frozenset[Needs]) -> Job | None:
        """A job for a worker that takes such jobs; None: there is none now. After an outcome there
        may be one."""
        ...

    @property
    def network_left(self) -> bool:
        """Whether there may still be jobs for workers with a device."""
        ...


class Executor(Protocol):
    """Runs jobs; a failing job never stops the others."""

    @property
    def ahead(self) -> int:
        """Jobs that should lie ready for workers with a device, where others have none; else 0."""
        ...

    def numerics(self, device: str, threads: int) -> Numerics:
        """What the network is computed with where jobs run, for ``run.device`` and ``run.threads``.

        Raises:
            QuadratError: there is no such device.
        """
        ...

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        """Outcomes as they come, until the source gives nothing and nothing is underway."""
        ...


class JobList:
    """A source of jobs that are known, drawn one by one."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._first: Job | None = None

    network_left = True

    def next(self, needs: frozenset[Needs]) -> Job | None:
        if self._first is None:
            self._first = next(self._jobs, None)
        if self._first is None or self._first.needs not in needs:
            return None
        job, self._first = self._first, None
        return job


class Serial:
    """A loop in this process."""

    ahead = 0

    def numerics(self, device: str, threads: int) -> Numerics:
        return device_numerics(str(pick_device(device)), threads)

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        while (job := source.next(ANYWHERE)) is not None:
            yield guarded(job)


def run_all(
    executor: Executor,
    fn: Callable[[Any], Any],
    payloads: Mapping[str, Any],
    *,
    needs: Needs = "cpu",
    deadline_s: float | None = None,
) -> Iterator[Outcome[Any]]:
    """Outcomes of one function on many payloads, by key, as they come."""
    jobs = (Job(key, fn, payload, needs, deadline_s) for key, payload in payloads.items())
    return executor.run(JobList(jobs))


def guarded(job: Job) -> Outcome[Any]:
    """Run one job; an exception becomes a Failure. This is the boundary that keeps one bad slide
    from ending a batch."""
    start, before = time.perf_counter(), spent_so_far()
    receipt, failure = None, None
    try:
        receipt = job.fn(job.payload)
    except Exception as error:
        failure = Failure.of(error)
    seconds = time.perf_counter() - start
    return Outcome(
        job.key,
        seconds,
        receipt,
        failure,
        peak_mb=_peak_mb(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        spent=spent_since(before),
    )


def _peak_mb() -> float:
    """Largest resident size of this process so far (Linux counts in KiB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
