"""The embedded dask cluster behind the seam: worker processes on loopback, a small window of jobs in flight.

Facts it leans on (docs/decisions.md): a killed worker is blamed on every job it held, so the window is small, no job is
retried by the scheduler, and the suspects are run again one at a time; a job must be submitted with ``pure=False``;
a deadline is kept by the worker itself, since finding and killing a worker from outside goes through three tables that
need not agree.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, wait
from distributed.scheduler import KilledWorker

from quadrat.execution import Executor, Failure, Job, Needs, Outcome, guarded

POLL_S = 0.5
TRIES_ALONE = 2
SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.daemon": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.scheduler.worker-ttl": None,
    "distributed.deploy.lost-worker-timeout": "1000h",  # else a worker that is down 15 s after a crash is dropped for good
    "distributed.logging.distributed": "error",
}


class DaskExecutor:
    """Feeds a cluster from a window of ``workers + 1`` jobs."""

    def __init__(self, client: Client, cluster: LocalCluster, *, workers: int) -> None:
        self._client = client
        self._cluster = cluster
        self._workers = workers

    def run(
        self, fn: Callable[[Any], Any], jobs: Iterable[Job], *, needs: Needs = "cpu", deadline_s: float | None = None
    ) -> Iterator[Outcome]:
        suspects: list[Job] = []
        with TemporaryDirectory(prefix="quadrat-") as folder:
            watch = _Watch(deadline_s, Path(folder))
            for outcome, job in self._feed(fn, jobs, watch, window=self._workers + 1):
                if outcome is None:
                    suspects.append(job)
                else:
                    yield outcome
            for suspect in suspects:
                yield self._alone(fn, suspect, watch)

    def _alone(self, fn: Callable[[Any], Any], job: Job, watch: _Watch) -> Outcome:
        """Run a suspect by itself, so that the blame is clear; once more, since a death may be noticed late and blamed on it."""
        for _ in range(TRIES_ALONE):
            for outcome, _ in self._feed(fn, [job], watch, window=1):
                if outcome is not None:
                    return outcome
        deaths = 1 + TRIES_ALONE
        return _lost(job, f"its worker process died {deaths} times (out of memory, or a crash in native code)")

    def _feed(
        self, fn: Callable[[Any], Any], jobs: Iterable[Job], watch: _Watch, *, window: int
    ) -> Iterator[tuple[Outcome | None, Job]]:
        """(outcome, job) as they come; outcome None: the worker that held the job died."""
        source = iter(jobs)
        pending: dict[Future[Any], tuple[Job, Path]] = {}
        try:
            while True:
                while len(pending) < window and (job := next(source, None)) is not None:
                    log = watch.log()
                    future = self._client.submit(_within, watch.deadline_s, str(log), fn, job, pure=False, retries=0)
                    pending[future] = (job, log)
                if not pending:
                    return
                for future in _first_done(list(pending)):
                    job, log = pending.pop(future)
                    yield _settled(future, job) or watch.verdict(job, log), job
        finally:
            self._client.cancel(list(pending), force=True)


def _within(deadline_s: float | None, log: str, fn: Callable[[Any], Any], job: Job) -> Outcome:
    """Run a job in a worker; one that is not done in time ends its process, which writes first where it hung.

    The watchdog is faulthandler's own thread: it needs no GIL, so that a hang in native code is ended as well.
    """
    if deadline_s is None:
        return guarded(fn, job)
    with open(log, "w") as file:
        faulthandler.dump_traceback_later(deadline_s, exit=True, file=file)
        try:
            return guarded(fn, job)
        finally:
            faulthandler.cancel_dump_traceback_later()
            Path(log).unlink()


@dataclass
class _Watch:
    """The deadline of a run's jobs, and a file for each in which a worker that exceeds it leaves its stack."""

    deadline_s: float | None
    folder: Path
    jobs: int = 0

    def log(self) -> Path:
        self.jobs += 1
        return self.folder / f"{self.jobs}.txt"

    def verdict(self, job: Job, log: Path) -> Outcome | None:
        """What became of a job whose worker died: too late, or (None) not known."""
        trace = log.read_text() if log.exists() else ""
        if not trace:
            return None
        return _lost(job, f"it ran longer than run.deadline_s = {self.deadline_s:g}", trace=trace)


def _first_done(futures: list[Future[Any]]) -> list[Future[Any]]:
    try:
        return list(wait(futures, timeout=POLL_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _settled(future: Future[Any], job: Job) -> Outcome | None:
    """What became of a job that is done; None: the worker that held it died."""
    if future.status != "finished":
        return _dead(future, job)
    try:
        outcome: Outcome = future.result()
    except Exception as error:  # a receipt that cannot travel
        return Outcome(job.key, 0.0, failure=Failure(type(error).__name__, str(error), refused=False, trace=""))
    return outcome


def _dead(future: Future[Any], job: Job) -> Outcome | None:
    error = future.exception()
    if isinstance(error, KilledWorker) or future.status in ("cancelled", "lost"):
        return None
    return Outcome(job.key, 0.0, failure=Failure(type(error).__name__, str(error), refused=False, trace=""))


def _lost(job: Job, reason: str, *, trace: str = "") -> Outcome:
    return Outcome(job.key, 0.0, failure=Failure("LostJob", f"{job.key} was given up: {reason}", refused=True, trace=trace))


@contextmanager
def local_cluster(*, workers: int, threads: int) -> Iterator[Executor]:
    """``workers`` spawned processes on 127.0.0.1, one job at a time each, ``threads`` native threads a job; no dashboard."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with (
        dask.config.set(SETTINGS | {"distributed.nanny.pre-spawn-environ": environment}),
        _deaf_to_ctrl_c(
            lambda: LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # without it the status server listens on every interface
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=50,
            )
        ) as cluster,
        Client(cluster) as client,
    ):
        yield DaskExecutor(client, cluster, workers=workers)


def _deaf_to_ctrl_c(start: Callable[[], LocalCluster]) -> LocalCluster:
    """Start processes that ignore Ctrl-C, which a terminal sends to all: stopping them is the driver's to do.

    An ignored signal stays ignored in children; a worker that is started later, after a crash, would hear it.
    """
    if threading.current_thread() is not threading.main_thread():
        return start()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return start()
    finally:
        signal.signal(signal.SIGINT, before)
