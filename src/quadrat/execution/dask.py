"""The embedded dask cluster behind the seam: worker processes on loopback, a small window of jobs in flight.

Facts it leans on (docs/decisions.md): a killed worker is blamed on every job it held, so the window is small, no job is
retried by the scheduler, and the suspects are run again one at a time; a job must be submitted with ``pure=False``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, wait
from distributed.scheduler import KilledWorker

from quadrat.execution import Executor, Failure, Job, Needs, Outcome, guarded

POLL_S = 0.5
GONE_S = 30.0
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
        for outcome, job in self._feed(fn, jobs, window=self._workers + 1, deadline_s=deadline_s):
            if outcome is None:
                suspects.append(job)
            else:
                yield outcome
        for suspect in suspects:  # alone, so that the blame is clear
            for outcome, job in self._feed(fn, [suspect], window=1, deadline_s=deadline_s):
                yield outcome or _lost(job, "its worker process died twice (out of memory, or a crash in native code)")

    def _feed(
        self, fn: Callable[[Any], Any], jobs: Iterable[Job], *, window: int, deadline_s: float | None
    ) -> Iterator[tuple[Outcome | None, Job]]:
        """(outcome, job) as they come; outcome None: the worker that held the job died."""
        source = iter(jobs)
        pending: dict[Future[Any], tuple[Job, float]] = {}
        try:
            while True:
                while len(pending) < window and (job := next(source, None)) is not None:
                    future = self._client.submit(guarded, fn, job, pure=False, retries=0)
                    pending[future] = (job, time.monotonic())
                if not pending:
                    return
                for future in _first_done(list(pending)):
                    job, _ = pending.pop(future)
                    yield _settled(future, job), job
                late = self._overdue(pending, deadline_s)
                if late is not None:
                    job, _ = pending.pop(late)
                    self._stop(late)
                    yield _lost(job, f"it ran longer than run.deadline_s = {deadline_s:g}"), job
        finally:
            self._client.cancel(list(pending), force=True)

    def _overdue(self, pending: dict[Future[Any], tuple[Job, float]], deadline_s: float | None) -> Future[Any] | None:
        """A job that has run for too long; the time of those that wait (for a worker, or behind another) begins anew."""
        if deadline_s is None:
            return None
        now = time.monotonic()
        # dask lists a worker's jobs in no order, but runs them in that of their submission, which is that of ``pending``
        rank = {future.key: number for number, future in enumerate(pending)}
        held = ([key for key in keys if key in rank] for keys in self._client.processing().values())
        running = {min(keys, key=rank.__getitem__) for keys in held if keys}
        for future, (job, since) in pending.items():
            if future.key not in running:
                pending[future] = (job, now)
            elif now - since > deadline_s + POLL_S:
                return future
        return None

    def _stop(self, future: Future[Any]) -> None:
        """Kill the worker on which a job hangs (native code cannot be interrupted otherwise); its nanny starts another."""
        busy = self._client.processing()
        addresses = [address for address, keys in busy.items() if future.key in keys]
        future.cancel(force=True)
        for nanny in self._cluster.workers.values():
            if nanny.worker_address in addresses and nanny.pid is not None:
                os.kill(nanny.pid, signal.SIGKILL)
        until = time.monotonic() + GONE_S
        while time.monotonic() < until and any(a in self._client.processing() for a in addresses):
            time.sleep(0.05)  # or the next job would be given to the dead


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


def _lost(job: Job, reason: str) -> Outcome:
    return Outcome(job.key, 0.0, failure=Failure("LostJob", f"{job.key} was given up: {reason}", refused=True, trace=""))


@contextmanager
def local_cluster(*, workers: int, threads: int) -> Iterator[Executor]:
    """``workers`` spawned processes on 127.0.0.1, one job at a time each, ``threads`` native threads a job; no dashboard."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with (
        dask.config.set(SETTINGS | {"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # without it the status server listens on every interface
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield DaskExecutor(client, cluster, workers=workers)
