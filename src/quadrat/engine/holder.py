"""Which process works at something, in words that another process on any host can judge.

A process id is believed only where it means the same process to both: on the same host, since the
same start of its kernel, in the same pid namespace (every container has a process 1). Then a
process that is gone, that has become a zombie, or that started at another time is known to be dead.
SLURM gives a job that it starts again the same number and a higher count: what the job's former
life held is free. Nothing is concluded from the clocks of two hosts.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadrat.core.text import utc_now
from quadrat.core.version import __version__

Fate = Literal["alive", "dead", "unknown"]
_ENDED = "ZX"
"""States of processes that are over, though they still have their id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process, as it signs a lease."""

    name: str
    """What it holds."""
    nonce: str
    """Made for this one lease, so that no other has it."""
    host: str
    """Name of the host."""
    boot: str
    """Id that the kernel took at its start; "" if it is not known."""
    namespace: str
    """The pid namespace; "" if it is not known."""
    pid: int
    """Id of the process in that namespace."""
    started: int
    """When it started, in the kernel's ticks; 0 if it is not known."""
    since: str
    """When it took the lease, by its own clock (UTC): for people only."""
    version: str
    """Of quadrat."""
    cluster: str
    """Name of the SLURM cluster; "" if there is none or it has no name."""
    job: str
    """Id of the SLURM job; "" for none."""
    task: str
    """Index in a SLURM array; "" for none."""
    restarts: int
    """How often SLURM has started the job again."""

    def __str__(self) -> str:
        """As messages name it."""
        job = f", SLURM job {self.job}" if self.job else ""
        task = f" (array task {self.task})" if self.task else ""
        return f"process {self.pid} on {self.host}{job}{task}, since {self.since}"


def this_process(name: str, environ: Mapping[str, str] = os.environ) -> Holder:
    """This process, as the holder of ``name``."""
    restarts = environ.get("SLURM_RESTART_COUNT", "")
    return Holder(
        name=name,
        nonce=secrets.token_hex(8),
        host=socket.gethostname(),
        boot=_first_line("/proc/sys/kernel/random/boot_id"),
        namespace=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        started=_state(os.getpid())[1],
        since=utc_now(),
        version=__version__,
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
        job=environ.get("SLURM_JOB_ID", ""),
        task=environ.get("SLURM_ARRAY_TASK_ID", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
    )


def fate(holder: Holder, here: Holder) -> Fate:
    """What the process ``here`` knows of another one without waiting."""
    if here.job and _job(here) == _job(holder) and here.restarts > holder.restarts:
        return "dead"
    place = (here.host, here.boot, here.namespace)
    if place != (holder.host, holder.boot, holder.namespace) or not all((*place, holder.started)):
        return "unknown"
    return "alive" if _runs(holder) else "dead"


def _job(holder: Holder) -> tuple[str, str, str]:
    return holder.cluster, holder.job, holder.task


def _runs(holder: Holder) -> bool:
    """Whether a process of this very host and namespace is there. What may not be looked at (/proc
    can hide the processes of other users) is there."""
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    state, started = _state(holder.pid)
    return not state or (state not in _ENDED and started == holder.started)


def _state(pid: int) -> tuple[str, int]:
    """The letter of a process's state and its start in ticks; "" and 0 if they cannot be read."""
    fields = _first_line(f"/proc/{pid}/stat").rpartition(")")[2].split()  # a name may hold ")"
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("", 0)


def _first_line(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(errors="replace").strip()
    return ""


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""
