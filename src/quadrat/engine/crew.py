"""What a worker process is, for life: whether it has a device, what it computes with, and where it
says what it does.

It runs in the worker, whoever started it, so it must not need anything but quadrat.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin
from distributed.protocol import pickle

from quadrat.core.files import OutputFile, open_append
from quadrat.core.numerics import Numerics, device_numerics
from quadrat.core.version import __version__
from quadrat.engine.executor import Equipment, Failure, Job, Outcome, guarded
from quadrat.engine.staging import use_stage
from quadrat.models.device import DEVICE

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOG_BYTES = 16 << 20
"""A worker's log is begun anew when it is larger: some hundred thousand jobs."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a worker says of itself."""

    host: str
    """Name of its machine."""
    pid: int
    """Its process."""
    device: str
    """The torch device that is its own; "" if it has none."""
    numerics: Numerics
    """What it computes the network with."""
    version: str
    """Of quadrat there."""
    sees_run: bool = True
    """Whether it sees the folder of the run."""


class Crew(WorkerPlugin):
    """Makes a worker ready: it takes a device of its machine if one is free, says so, and opens its
    log. ``logs``: the folder of the logs; "": none. Each driver has its own, so that two can use
    one cluster."""

    def __init__(self, logs: str, equipment: Equipment) -> None:
        self.logs, self.equipment = logs, equipment
        self.name = f"quadrat-{uuid.uuid4().hex}"

    async def setup(self, worker: Worker) -> None:
        kind, _, number = self.equipment.device.partition(":")
        only = int(number) if number else None
        device = claim_device(only) if kind in ("auto", "cuda") else ""
        os.environ[DEVICE] = device or "cpu"
        name = device or (kind if kind == "mps" else "cpu")
        numerics = device_numerics(name, self.equipment.threads)
        sees_run = not self.logs or Path(self.logs).is_dir()
        member = Member(socket.gethostname(), os.getpid(), device, numerics, __version__, sees_run)
        self.station = Station.open(worker.address, self.logs if sees_run else "", member)
        use_stage(self.equipment.stage_gb, self._not_staged)

    def teardown(self, worker: Worker) -> None:
        from quadrat.engine.opened import leave_slides  # here: a start is not to wait for it

        leave_slides()
        self.station.close()

    def _not_staged(self, path: str, reason: str) -> None:
        self.station.event("not staged", slide=path, reason=reason)


class Station:
    """The worker that this process is."""

    here: Station | None = None
    """None: this process is no worker."""

    def __init__(self, address: str, logs: str, member: Member) -> None:
        self.member = member
        self._log: OutputFile | None = None
        self._trace: OutputFile | None = None
        if logs:
            self._log = open_append(log_of(logs, address))
            self._trace = open_append(trace_of(logs, address), length=0)
            self._hello()

    @classmethod
    def open(cls, address: str, logs: str, member: Member) -> Station:
        """Make this process a worker."""
        cls.here = cls(address, logs, member)
        return cls.here

    def close(self) -> None:
        """It is none any more, unless another driver has made it one since."""
        if Station.here is self:
            Station.here = None

    def event(self, kind: str, **values: Any) -> None:
        """One JSON line in the worker's log."""
        if self._log is not None:
            line = {"time": round(time.time(), 3), "event": kind} | values
            self._log.write(json.dumps(line, default=str).encode() + b"\n")

    def _hello(self) -> None:
        member = self.member
        self.event("worker", host=member.host, pid=member.pid, device=member.device)

    def _begin_log(self) -> None:
        """Begin the log anew where it has grown too large; it has no more than a trace of the last
        hours then."""
        if self._log is not None and self._log.tell() > LOG_BYTES:
            self._log.truncate(0)
            self._hello()

    def work(self, job: Job) -> Outcome[Any]:
        """Run a job. One that is not done in time ends the process, which first writes where it
        hung: the watchdog is a thread of faulthandler that needs no interpreter, so a hang in
        native code ends as well."""
        self._begin_log()
        self.event("begin", job=job.key)
        watched = job.deadline_s is not None and self._trace is not None
        if watched:
            assert job.deadline_s is not None
            assert self._trace is not None
            faulthandler.dump_traceback_later(job.deadline_s, exit=True, file=self._trace)
        try:
            outcome = guarded(job)
        finally:
            if watched:
                faulthandler.cancel_dump_traceback_later()
        failure = outcome.failure.message if outcome.failure is not None else None
        self.event("end", job=job.key, seconds=round(outcome.seconds, 3), failure=failure)
        return outcome


def work(job: Job) -> bytes:
    """What the scheduler sends to a worker; the outcome, pickled."""
    outcome = Station.here.work(job) if Station.here is not None else guarded(job)
    try:
        packed: bytes = pickle.dumps(outcome)
    except Exception as error:  # a receipt that cannot travel
        failure = Failure(type(error).__name__, str(error), refused=False, trace="")
        packed = pickle.dumps(Outcome(job.key, outcome.seconds, failure=failure))
    return packed


def member() -> Member | None:
    """What this worker says of itself."""
    return Station.here.member if Station.here is not None else None


def log_of(logs: str, address: str) -> Path:
    """The log of a worker (JSON lines: jobs begun and ended)."""
    return Path(logs) / f"{_name(address)}.jsonl"


def trace_of(logs: str, address: str) -> Path:
    """Where a worker writes the stack of a job that ran too long."""
    return Path(logs) / f"{_name(address)}.trace"


def _name(address: str) -> str:
    return address.rpartition("/")[2].replace(":", "-")


def last_begun(logs: str, address: str) -> str | None:
    """The job that a worker had begun and not ended, as its log says; None: none, or there is no
    log that can be read from here."""
    try:
        lines = log_of(logs, address).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if values.get("event") == "begin":
            return str(values.get("job"))
        if values.get("event") in ("end", "worker"):
            return None
    return None


_claims: dict[int, OutputFile] = {}
"""Lock files of this process by the number of the GPU; they free themselves when it ends."""


def claim_device(only: int | None = None) -> str:
    """Take a GPU of this machine that no other worker of this user has, for life; "" if there is
    none. CUDA is not touched before a device file says that there is a GPU. ``only``: the one of
    that number."""
    mine = [index for index in _claims if only in (None, index)]
    if mine:  # by an earlier driver of the same cluster
        return f"cuda:{mine[0]}"
    devices = visible_devices()
    folder = Path(tempfile.gettempdir()) / f"quadrat-devices-{os.getuid()}"
    for index, device in enumerate(devices):
        if only is not None and index != only:
            continue
        folder.mkdir(mode=0o700, exist_ok=True)
        claim = open_append(folder / f"{device}.lock")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the folder is local to the machine
        except OSError:
            claim.close()
            continue
        _claims[index] = claim
        return f"cuda:{index}"
    return ""


def visible_devices() -> Sequence[str]:
    """Names of the GPUs that this process may use, in torch's order: one name for one GPU in all
    processes of the machine."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return ()
    import torch  # here: a worker without a GPU is not to wait for it

    given = [part.strip() for part in os.environ.get(VISIBLE, "").split(",") if part.strip()]
    count = torch.cuda.device_count()  # by NVML: no context is made
    return tuple((given or [str(i) for i in range(count)])[:count])
