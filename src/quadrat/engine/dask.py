"""A dask cluster behind the seam: worker processes, and a few jobs in flight for each.

Facts it leans on (docs/decisions.md): the scheduler blames a killed worker on every job it held, so
a job whose worker died is sent again, then alone, and fails only if it ends its process each time;
a finished result that dies with its worker is computed again, which does no harm; a job must be
submitted with ``pure=False``; a deadline is kept by the worker itself.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.protocol import pickle
from distributed.scheduler import KilledWorker

from quadrat.core.errors import ClusterError, ConfigError, QuadratError
from quadrat.core.files import make_folder
from quadrat.core.numerics import Numerics
from quadrat.core.version import __version__
from quadrat.engine import crew
from quadrat.engine.crew import Crew, Member, last_begun, trace_of
from quadrat.engine.executor import Equipment, Failure, Job, Outcome, Source
from quadrat.engine.flow import ANYWHERE, Needs

POLL_S = 0.5
LOOK_S = 2.0
"""How often the scheduler is asked which workers there are."""
PATIENCE_S = 60.0
"""How long there may be no connection or no worker while work waits."""
NETWORK, OTHERS = "network", "others"
"""Kinds of workers: those that infer, and those that do the rest."""
FETCH_S = 10.0
"""How long it may take to fetch a receipt."""
EACH = 2
"""Jobs that a worker holds: one that runs, one that waits."""
TRIES, ALONE = 2, 1
"""How often a job is sent among others, and alone, before it fails because its process died."""


@dataclass(slots=True)
class _Flight:
    """A job that is underway."""

    job: Job
    kind: str
    """NETWORK or OTHERS: which workers may take it."""
    deaths: int = 0
    """How many processes died with it."""
    alone: bool = False
    """Whether nothing else is underway."""
    addresses: frozenset[str] = frozenset()
    """The workers that may take it."""


@dataclass(slots=True)
class Workers:
    """Which workers there are, and which of them infer: those with a device if any has one, and of
    them those that compute alike. The others do the rest of the work."""

    members: dict[str, Member] = field(default_factory=dict)
    """What each worker says of itself, by address."""
    numerics: Numerics | None = None
    """What the network is computed with, for as long as the run lasts: that of most workers at its
    beginning."""

    def update(self, found: Mapping[str, Member]) -> None:
        """Take note of the workers that there are now."""
        self.members = dict(found)
        if self.numerics is None and found:
            able = [m.numerics for m in found.values() if m.device] or [
                m.numerics for m in found.values()
            ]
            self.numerics = Counter(able).most_common(1)[0][0]

    @property
    def kinds(self) -> dict[str, frozenset[Needs]]:
        """What the workers of each kind take. Those that do not infer are asked first, since they
        let slides in."""
        with_device = self.numerics is not None and self.numerics.device == "cuda"
        if with_device and self.of(OTHERS):
            return {OTHERS: frozenset(("cpu",)), NETWORK: frozenset(("gpu",))}
        return {OTHERS: frozenset(("cpu",)), NETWORK: ANYWHERE}

    def of(self, kind: str) -> frozenset[str]:
        """The addresses of the workers of a kind."""
        return frozenset(
            address
            for address, member in self.members.items()
            if (member.numerics == self.numerics) == (kind == NETWORK)
        )


class DaskExecutor:
    """Feeds the workers of a cluster.

    ``logs``: folder of the workers' logs, as they see it. ``patience_s``: how long there may be no
    worker while work waits. ``lost``: why none will come any more, asked while there is none; "":
    one may. ``wanted``: gets whether workers with a device are of use still.
    """

    def __init__(
        self,
        client: Client,
        equipment: Equipment,
        *,
        logs: str = "",
        patience_s: float = PATIENCE_S,
        lost: Callable[[], str] = lambda: "",
        wanted: Callable[[bool], None] = lambda devices: None,
    ) -> None:
        self._client, self._logs = client, logs
        if logs:
            make_folder(Path(logs))
        self._patience_s, self._lost, self._wanted = patience_s, lost, wanted
        self._workers = Workers()
        self._before: frozenset[str] = frozenset()
        """The workers at the look before."""
        self._unfit: dict[str, str] = {}
        """Why a worker takes no part, by its address."""
        self._looked, self._seen = -float("inf"), time.monotonic()
        self._crew = Crew(logs, equipment)
        self._scheduler = ""
        """Which scheduler knows the crew: one that was started again does not."""
        self._look()

    def leave(self) -> None:
        """Take leave of workers that go on without this driver."""
        if self._client.status == "running":
            self._client.unregister_worker_plugin(self._crew.name)

    @property
    def ahead(self) -> int:
        """Jobs that should lie ready for workers with a device, where others have none."""
        self._look()
        apart = self._workers.kinds[NETWORK] != ANYWHERE
        return EACH * len(self._workers.of(NETWORK)) if apart else 0

    @property
    def addresses(self) -> list[str]:
        """Where scheduler and workers listen."""
        self._look()
        there: dict[str, Any] = self._client.scheduler_info(n_workers=-1)
        return [str(there["address"]), *self._workers.members]

    @property
    def members(self) -> list[Member]:
        """What each worker says of itself."""
        self._look()
        return list(self._workers.members.values())

    def numerics(self, device: str, threads: int) -> Numerics:
        """What the network is computed with where jobs run.

        Raises:
            ClusterError: no worker came.
            ConfigError: a worker cannot take part.
            QuadratError: no worker has the device that is asked for.
        """
        until = time.monotonic() + self._patience_s
        while self._workers.numerics is None or self._unfit:
            if self._unfit:
                raise ConfigError(next(iter(self._unfit.values())))
            if reason := self._lost():
                raise ClusterError(f"no worker came to the cluster: {reason}")
            if time.monotonic() > until:
                raise ClusterError(f"no worker came to the cluster within {self._patience_s:.0f} s")
            time.sleep(0.1)
            self._look(again=True)
        found = self._workers.numerics
        if device.startswith("cuda") and found.device != "cuda":
            raise QuadratError(f"run.device is {device}, but no worker has a GPU; use 'auto'")
        return found

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        pending: dict[Future[Any], _Flight] = {}
        again: list[_Flight] = []
        landed: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        try:
            while True:
                self._wanted(source.network_left)
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
        again: list[_Flight],
        landed: queue.SimpleQueue[Future[Any]],
    ) -> bool:
        """Send as much as the workers hold: first what is tried again, then what the source
        gives. Whether the source gave nothing to workers of any kind."""
        self._look()
        for future in [future for future, flight in pending.items() if self._is_stranded(flight)]:
            again.append(pending.pop(future))
            future.cancel()
        if any(flight.alone for flight in pending.values()):
            return False
        for flight in [flight for flight in again if not flight.alone]:
            if self._workers.of(flight.kind):
                again.remove(flight)
                self._send(flight, pending, landed)
        lonely = next((flight for flight in again if flight.alone), None)
        if lonely is not None:  # what killed its process among others gets the machine to itself
            if not pending and self._workers.of(lonely.kind):
                again.remove(lonely)
                self._send(lonely, pending, landed)
            return False
        exhausted = bool(self._workers.members)
        busy = Counter(flight.kind for flight in pending.values())
        for kind, needs in self._workers.kinds.items():
            while busy[kind] < EACH * len(self._workers.of(kind)):
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
        flight.addresses = self._workers.of(flight.kind)
        future = self._client.submit(
            crew.work, flight.job, pure=False, retries=0, workers=sorted(flight.addresses)
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
        kinds = {flight.kind for flight in pending} or {NETWORK}
        if self._client.status == "running" and all(map(self._workers.of, kinds)):
            self._seen = now
            return
        reason = "" if self._workers.members else self._lost()
        limit_s = self._patience_s if self._client.status == "running" else PATIENCE_S
        if not reason and now - self._seen > limit_s:
            reason = f"no scheduler, or no worker for what is to be done, for {limit_s:.0f} s"
        if reason:
            raise ClusterError(
                f"the cluster is lost ({reason}); what is done is kept: run the same command again"
            )

    def _outcome(self, future: Future[Any], flight: _Flight) -> Outcome[Any] | None:
        """What became of a job; None: its process died, and it is tried again."""
        job = flight.job
        if future.status not in ("finished", "error"):  # the scheduler forgot it
            return None
        try:  # a result may die with its worker until it is here, and is then computed again
            receipt: bytes = future.result(timeout=FETCH_S)
        except (TimeoutError, CancelledError):
            return None
        except KilledWorker as killed:
            return self._died(killed, flight)
        except Exception as error:
            failure = Failure(type(error).__name__, str(error), refused=False, trace="")
            return Outcome(job.key, 0.0, failure=failure)
        outcome: Outcome[Any] = pickle.loads(receipt)
        return outcome

    def _died(self, killed: KilledWorker, flight: _Flight) -> Outcome[Any] | None:
        """What became of a job that was with a worker whose process died."""
        job = flight.job
        address = getattr(killed.last_worker, "address", "")
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

    def _is_stranded(self, flight: _Flight) -> bool:
        """Whether no worker is left that may take a job. The scheduler fails what a dead worker had
        not finished, but keeps what it had, to be computed again by a worker that never comes."""
        return not flight.addresses & (self._workers.members.keys() | self._before)

    def _trace(self, address: str) -> str:
        """Where a job hung that ran too long; "" if none did."""
        try:
            return trace_of(self._logs, address).read_text(encoding="utf-8") if self._logs else ""
        except OSError:
            return ""

    def _look(self, *, again: bool = False) -> None:
        """Which workers there are now; ``again``: though it was asked a moment ago."""
        recent = not again and time.monotonic() - self._looked < LOOK_S
        if recent or self._client.status != "running":
            return
        self._looked = time.monotonic()
        known = self._workers.members
        self._before = frozenset(known)
        try:
            there, said = self._ask(known)
        except OSError:  # the scheduler goes just now: whether it comes back is seen later
            return
        self._unfit |= {a: reason for a, member in said.items() if (reason := _unfit(a, member))}
        self._workers.update(
            {address: known[address] for address in there if address in known}
            | {address: said[address] for address in said if address not in self._unfit}
        )

    def _ask(self, known: Mapping[str, Member]) -> tuple[Collection[str], Mapping[str, Member]]:
        """The addresses of all workers, and what the new ones say of themselves."""
        found = self._client.scheduler_info(n_workers=-1)
        if found["id"] != self._scheduler:
            self._client.register_plugin(self._crew)
            self._scheduler = found["id"]
        there: Collection[str] = found["workers"]
        new = [a for a in there if a not in known and a not in self._unfit]
        told = self._client.run(crew.member, workers=new, on_error="ignore") if new else {}
        return there, {address: member for address, member in told.items() if member is not None}


def _unfit(address: str, member: Member) -> str:
    """Why a worker cannot take part; "" if it can."""
    name = f"the worker {address} on {member.host}"
    if member.version != __version__:
        return (
            f"{name} has quadrat {member.version}, this command {__version__}; start workers and "
            "command from the same environment"
        )
    if not member.sees_run:
        return f"{name} does not see the folder of the run; give an --out that all nodes share"
    return ""


def _lost(job: Job, reason: str, *, trace: str = "") -> Outcome[Any]:
    text = f"{job.key} was given up: {reason}"
    return Outcome(job.key, 0.0, failure=Failure("LostJob", text, refused=True, trace=trace))
