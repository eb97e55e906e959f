"""The embedded dask cluster behind the seam: worker processes on loopback, a small window of jobs
in flight.

Facts it leans on (docs/decisions.md): the scheduler blames a killed worker on every job it held and
computes again what it had finished, so a job leaves files that say whether it was running and what
came of it, and the scheduler retries none; a job that was running is tried again by itself; a job
must be submitted with ``pure=False``; a deadline is kept by the worker itself, since finding and
killing a worker from outside goes through three tables that need not agree.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, wait
from distributed.protocol import pickle
from distributed.scheduler import KilledWorker

from quadrat.core.errors import ConfigError
from quadrat.engine.executor import (
    Executor,
    Failure,
    Job,
    Needs,
    Outcome,
    Payload,
    Receipt,
    guarded,
)
from quadrat.models.device import DEVICE

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
    # else a worker that is down 15 s after a crash is dropped for good
    "distributed.deploy.lost-worker-timeout": "1000h",
    "distributed.logging.distributed": "error",
}


class DaskExecutor:
    """Feeds a cluster from a window of ``workers + 1`` jobs, or of one per device where each job
    has its own. ``devices``: names of GPUs."""

    def __init__(
        self, client: Client, cluster: LocalCluster, *, workers: int, devices: Sequence[str] = ()
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._workers = workers
        self._devices = tuple(devices)

    def run(
        self,
        fn: Callable[[Payload], Receipt],
        jobs: Iterable[Job[Payload]],
        *,
        needs: Needs = "cpu",
        deadline_s: float | None = None,
    ) -> Iterator[Outcome[Receipt]]:
        suspects: list[Job[Payload]] = []
        window = self._workers + 1
        if needs == "own gpu":
            window = min(self._workers, len(self._devices) or self._workers)
        with TemporaryDirectory(prefix="quadrat-") as folder:
            pool = DevicePool(deadline_s, Path(folder), () if needs == "cpu" else self._devices)
            for outcome, job in self._feed(fn, jobs, pool, window=window):
                if outcome is None:
                    suspects.append(job)
                else:
                    yield outcome
            for suspect in suspects:
                yield self._alone(fn, suspect, pool)

    def _alone(
        self, fn: Callable[[Payload], Receipt], job: Job[Payload], pool: DevicePool
    ) -> Outcome[Receipt]:
        """Run a job alone after its process died: all memory is its own. More than once, since
        somebody may have killed the process."""
        for _ in range(TRIES_ALONE):
            for outcome, _ in self._feed(fn, [job], pool, window=1):
                if outcome is not None:
                    return outcome
        deaths = 1 + TRIES_ALONE
        return _lost(
            job,
            f"its worker process died {deaths} times (out of memory, or a crash in native code)",
        )

    def _feed(
        self,
        fn: Callable[[Payload], Receipt],
        jobs: Iterable[Job[Payload]],
        pool: DevicePool,
        *,
        window: int,
    ) -> Iterator[tuple[Outcome[Receipt] | None, Job[Payload]]]:
        """(outcome, job) as they come; outcome None: the process died while the job ran. A job that
        only waited there is sent again."""
        source = iter(jobs)
        again: list[Job[Payload]] = []
        pending: dict[Future[Any], tuple[Job[Payload], _Slot]] = {}
        try:
            while True:
                while (
                    len(pending) < window
                    and (job := again.pop() if again else next(source, None)) is not None
                ):
                    slot = pool.slot()
                    pending[self._client.submit(_within, slot, fn, job, pure=False, retries=0)] = (
                        job,
                        slot,
                    )
                if not pending:
                    return
                for future in _first_done(list(pending)):
                    job, slot = pending.pop(future)
                    outcome = slot.outcome() or _refused(future, job) or slot.too_late(job)
                    future.release()
                    if outcome is None and slot.waiting.exists():
                        again.append(job)
                    else:
                        yield outcome, job
                    pool.give_back(slot)
        finally:
            self._client.cancel(list(pending), force=True)


@dataclass(frozen=True)
class _Slot:
    """What is known of one job, in files, so that it outlives a process. One of the three is there,
    and each only once."""

    waiting: Path
    """There until a worker takes the job."""
    running: Path
    """There while the job runs, or since its process died. Holds the stack of one that ran too
    long."""
    done: Path
    """Holds the outcome."""
    deadline_s: float | None
    device: str = ""
    """The GPU that the job has; "" for none."""

    def outcome(self) -> Outcome[Any] | None:
        if not self.done.exists():
            return None
        outcome: Outcome[Any] = pickle.loads(self.done.read_bytes())
        return outcome

    def too_late(self, job: Job[Any]) -> Outcome[Any] | None:
        """The failure of a job that exceeded its deadline; None: it did not."""
        trace = self.running.read_text() if self.running.exists() else ""
        if not trace:
            return None
        return _lost(job, f"it ran longer than run.deadline_s = {self.deadline_s:g}", trace=trace)

    def clear(self) -> None:
        for file in (self.waiting, self.running, self.done):
            file.unlink(missing_ok=True)


@dataclass
class DevicePool:
    """Gives each job of a run its slot, with a device."""

    deadline_s: float | None
    """Of each job."""
    folder: Path
    """Where the slots lie."""
    devices: tuple[str, ...] = ()
    """Names of the GPUs to share out; none: jobs have no device."""
    jobs: int = 0
    """How many slots were given so far."""
    busy: Counter[str] = field(default_factory=Counter)
    """Running jobs of each device."""

    def slot(self) -> _Slot:
        """A place for a job, with the device that has the fewest jobs."""
        self.jobs += 1
        device = min(self.devices, key=lambda d: self.busy[d], default="")
        self.busy[device] += 1
        waiting, running, done = (
            self.folder / f"{self.jobs}.{state}" for state in ("waiting", "running", "done")
        )
        waiting.touch()
        return _Slot(waiting, running, done, self.deadline_s, device)

    def give_back(self, slot: _Slot) -> None:
        """The job is over."""
        self.busy[slot.device] -= 1
        slot.clear()


def _within(slot: _Slot, fn: Callable[[Payload], Receipt], job: Job[Payload]) -> None:
    """Run a job in a worker. A job that is not done in time ends its process, which first writes
    where it hung.

    The watchdog is faulthandler's own thread. It needs no GIL, so a hang in native code ends as
    well. A job is taken once, though the scheduler computes again what a dead worker had finished.
    """
    try:
        slot.waiting.rename(slot.running)
    except FileNotFoundError:
        return
    os.environ[DEVICE] = slot.device
    with open(slot.running, "w") as file:
        if slot.deadline_s is not None:
            faulthandler.dump_traceback_later(slot.deadline_s, exit=True, file=file)
        try:
            outcome = guarded(fn, job)
        finally:
            faulthandler.cancel_dump_traceback_later()
    try:
        packed = pickle.dumps(outcome)
    except Exception as error:  # a receipt that cannot travel
        packed = pickle.dumps(_failed(job, error))
    part = slot.done.with_suffix(".part")
    part.write_bytes(packed)
    part.rename(slot.done)
    slot.running.unlink()


def _first_done(futures: list[Future[Any]]) -> list[Future[Any]]:
    try:
        return list(wait(futures, timeout=POLL_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _refused(future: Future[Any], job: Job[Any]) -> Outcome[Any] | None:
    """The failure of a job that could not even be begun, such as one that cannot be sent; None: its
    process died."""
    if future.status != "error" or isinstance(error := future.exception(), KilledWorker):
        return None
    return _failed(job, error)


def _failed(job: Job[Any], error: BaseException) -> Outcome[Any]:
    return Outcome(
        job.key, 0.0, failure=Failure(type(error).__name__, str(error), refused=False, trace="")
    )


def _lost(job: Job[Any], reason: str, *, trace: str = "") -> Outcome[Any]:
    return Outcome(
        job.key,
        0.0,
        failure=Failure("LostJob", f"{job.key} was given up: {reason}", refused=True, trace=trace),
    )


@contextmanager
def local_cluster(*, workers: int, threads: int) -> Iterator[Executor]:
    """``workers`` spawned processes on 127.0.0.1, one job at a time each, with ``threads`` native
    threads per job; no dashboard."""
    environment = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    with (
        dask.config.set(SETTINGS | {"distributed.nanny.pre-spawn-environ": environment}),
        _deaf_to_ctrl_c(partial(_start, workers)) as cluster,
        Client(cluster) as client,
    ):
        yield DaskExecutor(client, cluster, workers=workers, devices=gpus())


def _start(workers: int) -> LocalCluster:
    """The scheduler in this process, and its workers.

    Raises:
        ConfigError: they do not start.
    """
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            # without it the status server listens on every interface
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=50,
        )
    except (RuntimeError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"{workers} worker processes could not be started ({error}); a script that asks for "
            "workers does so below 'if __name__ == \"__main__\":', because each worker imports it; "
            "or use workers=0 (--set run.executor=serial), or fewer"
        ) from None


def gpus() -> tuple[str, ...]:
    """The names of this machine's GPUs that CUDA_VISIBLE_DEVICES leaves."""
    import torch  # here: a worker that starts again after a crash is not to wait for it

    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))


def _deaf_to_ctrl_c(start: Callable[[], LocalCluster]) -> LocalCluster:
    """Start processes that ignore Ctrl-C, which a terminal sends to all: stopping them is the
    driver's to do.

    An ignored signal stays ignored in children; a worker that is started later, after a crash,
    would hear it.
    """
    if threading.current_thread() is not threading.main_thread():
        return start()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return start()
    finally:
        signal.signal(signal.SIGINT, before)
