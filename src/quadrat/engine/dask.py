"""A dask cluster behind the seam: worker processes, and a few jobs in flight for each.

Facts it leans on (docs/decisions.md): the scheduler blames a killed worker on every job it held, so
a job whose worker died is sent again, then alone, and fails only if it ends its process each time;
a finished result that dies with its worker is computed again, which does no harm; a job must be
submitted with ``pure=False``; a deadline is kept by the worker itself.
"""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future
from distributed.protocol import pickle
from distributed.scheduler import KilledWorker

from quadrat.core.errors import ClusterError
from quadrat.engine import crew
from quadrat.engine.crew import CPU, GPU, Crew, Member, last_begun, trace_of
from quadrat.engine.executor import Failure, Job, Outcome, Source
from quadrat.engine.flow import ANYWHERE, Needs

POLL_S = 0.5
LOOK_S = 2.0
"""How often the scheduler is asked which workers there are."""
PATIENCE_S = 60.0
"""How long there may be no connection or no worker while work waits."""
EACH = 2
"""Jobs that a worker holds: one that runs, one that waits."""
TRIES, ALONE = 2, 1
"""How often a job is sent among others, and alone, before it fails because its process died."""


@dataclass(slots=True)
class _Flight:
    """A job that is underway."""

    job: Job
    kind: str
    """The resource it takes of a worker; "": any worker."""
    deaths: int = 0
    """How many processes died with it."""
    alone: bool = False
    """Whether nothing else is underway."""


@dataclass(slots=True)
class _Places:
    """Which workers there are."""

    count: Counter[str] = field(default_factory=Counter)
    """By the resource that they announce."""
    seen: set[str] = field(default_factory=set)
    """Resources that any worker has had. Work for a device waits for one that died and starts
    again."""

    def update(self, resources: Iterable[str]) -> None:
        """Take note of the workers that there are now."""
        self.count = Counter(resources)
        self.seen |= set(self.count)

    @property
    def kinds(self) -> dict[str, frozenset[Needs]]:
        """What the workers of each resource take: where some have a device and some have none,
        each kind has its own work. Those without are asked first, since they let slides in."""
        if self.seen == {GPU, CPU}:
            return {CPU: frozenset(("cpu",)), GPU: frozenset(("gpu",))}
        return {"": ANYWHERE}

    def of(self, kind: str) -> int:
        """How many workers take work of a kind."""
        return self.count[kind] if kind else self.count.total()


class DaskExecutor:
    """Feeds the workers of a cluster.

    ``logs``: folder of the workers' logs, as they see it. ``threads``: of a job.
    """

    def __init__(self, client: Client, *, logs: str = "", threads: int = 1, gpus: bool = True):
        self._client, self._logs = client, logs
        self._places = _Places()
        self._looked, self._seen = -float("inf"), time.monotonic()
        client.register_plugin(Crew(logs, threads=threads, gpus=gpus))
        self._look()

    @property
    def ahead(self) -> int:
        """Jobs that should lie ready for workers with a device, where others have none."""
        self._look()
        return EACH * self._places.count[GPU] if len(self._places.kinds) > 1 else 0

    def members(self) -> list[Member]:
        """What each worker says of itself."""
        found = self._client.run(crew.members)
        return [member for member in found.values() if member is not None]

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        pending: dict[Future[Any], _Flight] = {}
        again: deque[_Flight] = deque()
        landed: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        try:
            while True:
                exhausted = self._fill(source, pending, again, landed)
                if exhausted and not pending and not again:
                    return
                for future in self._landed(landed, pending.values()):
                    flight = pending.pop(future, None)
                    if flight is None:
                        continue
                    outcome = self._outcome(future, flight)
                    future.release()
                    if outcome is None:
                        again.append(flight)
                    else:
                        yield outcome
        finally:
            self._client.cancel(list(pending), force=True)

    def _fill(
        self,
        source: Source,
        pending: dict[Future[Any], _Flight],
        again: deque[_Flight],
        landed: queue.SimpleQueue[Future[Any]],
    ) -> bool:
        """Send as much as the workers hold: first what is tried again, then what the source
        gives. Whether the source gave nothing to workers of any kind."""
        self._look()
        if any(flight.alone for flight in pending.values()):
            return False
        while again and not again[0].alone:
            self._send(again.popleft(), pending, landed)
        if again:  # what killed its process among others gets the machine to itself
            if not pending:
                self._send(again.popleft(), pending, landed)
            return False
        exhausted = self._places.count.total() > 0
        busy = Counter(flight.kind for flight in pending.values())
        for kind, needs in self._places.kinds.items():
            while busy[kind] < EACH * self._places.of(kind):
                job = source.next(needs)
                if job is None:
                    break
                exhausted = False
                busy[kind] += 1
                self._send(_Flight(job, kind), pending, landed)
        return exhausted

    def _send(
        self,
        flight: _Flight,
        pending: dict[Future[Any], _Flight],
        landed: queue.SimpleQueue[Future[Any]],
    ) -> None:
        resources = {flight.kind: 1} if flight.kind else None
        future = self._client.submit(
            crew.work, flight.job, pure=False, retries=0, resources=resources
        )
        pending[future] = flight
        future.add_done_callback(landed.put)

    def _landed(
        self, landed: queue.SimpleQueue[Future[Any]], pending: Collection[_Flight]
    ) -> Iterator[Future[Any]]:
        """Futures that are over; none after a while.

        Raises:
            ClusterError: the scheduler or all workers are gone for too long.
        """
        try:
            yield landed.get(timeout=POLL_S)
            while True:
                yield landed.get_nowait()
        except queue.Empty:
            pass
        now = time.monotonic()
        kinds = {flight.kind for flight in pending} or {""}
        if self._client.status == "running" and all(map(self._places.of, kinds)):
            self._seen = now
        elif now - self._seen > PATIENCE_S:
            raise ClusterError(
                f"the cluster has had no scheduler, or no worker for what is to be done, for "
                f"{PATIENCE_S:.0f} s; what is done is kept: run the same command again"
            )

    def _outcome(self, future: Future[Any], flight: _Flight) -> Outcome[Any] | None:
        """What became of a job; None: its process died, and it is tried again."""
        job = flight.job
        if future.status == "finished":
            outcome: Outcome[Any] = pickle.loads(future.result())
            return outcome
        if future.status != "error":  # cancelled or lost: the scheduler forgot it
            return None
        error = future.exception()
        if not isinstance(error, KilledWorker):
            failure = Failure(type(error).__name__, str(error), refused=False, trace="")
            return Outcome(job.key, 0.0, failure=failure)
        address = getattr(error.last_worker, "address", "")
        self._looked = -float("inf")
        begun = last_begun(self._logs, address) if self._logs else job.key
        if begun is not None and begun != job.key:
            return None  # another one ran there
        trace = self._trace(address)
        if trace:
            reason = f"it ran longer than run.deadline_s = {job.deadline_s:g}"
            return _lost(job, reason, trace=trace)
        flight.deaths += 1
        if flight.deaths >= TRIES + ALONE:
            return _lost(
                job,
                f"its worker process died {flight.deaths} times (out of memory, or a crash in "
                "native code)",
            )
        flight.alone = flight.deaths >= TRIES
        return None

    def _trace(self, address: str) -> str:
        """Where a job hung that ran too long; "" if none did."""
        try:
            return trace_of(self._logs, address).read_text(encoding="utf-8") if self._logs else ""
        except OSError:
            return ""

    def _look(self) -> None:
        """Which workers there are now."""
        if time.monotonic() - self._looked < LOOK_S or self._client.status != "running":
            return
        self._looked = time.monotonic()
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        self._places.update(
            kind for w in workers for kind in (GPU, CPU) if (w.get("resources") or {}).get(kind)
        )


def _lost(job: Job, reason: str, *, trace: str = "") -> Outcome[Any]:
    text = f"{job.key} was given up: {reason}"
    return Outcome(job.key, 0.0, failure=Failure("LostJob", text, refused=True, trace=trace))
