"""What all worker processes have in common that quadrat starts, wherever they run: dask's settings,
their environment, their memory."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence

import dask

from quadrat.core.allocation import memory_bytes
from quadrat.core.native import worker_environment

Settings = dict[str, object]

PLACES = "127.0.0.1:0"
"""Where the status servers of workers and scheduler listen: by default, on every interface."""
SETTINGS: Settings = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.daemon": False,
    "distributed.worker.profile.enabled": False,  # 5 % of a core in every worker
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.scheduler.worker-ttl": None,
    # else a worker that is down 15 s after a crash is dropped for good
    "distributed.deploy.lost-worker-timeout": "1000h",
    "distributed.logging.distributed": "error",
}
WITHOUT_SCHEDULER_S = 20
"""A worker whose scheduler does not answer for so long ends."""
INHERIT = "DASK_INTERNAL_INHERIT_CONFIG"
"""The variable in which dask hands its settings to processes of its command line."""


def settings(threads: int) -> Settings:
    """Dask's settings while a cluster of ours is open."""
    return SETTINGS | {"distributed.nanny.pre-spawn-environ": worker_environment(threads)}


def memory_of_each(workers: int) -> int:
    """The bytes that each of so many workers may use of what this process may; one that takes more
    is ended by its nanny."""
    return memory_bytes().value // max(1, workers)


def inherited() -> str:
    """The value of INHERIT that gives a process the settings of now."""
    found: str = dask.config.serialize({"distributed": dask.config.get("distributed")})
    base64.urlsafe_b64decode(found)  # it may stand in a shell script as it is
    return found


def worker_words(*, workers: int, memory: int) -> Sequence[str]:
    """The command line that starts workers with a nanny each, but for where their scheduler is and
    where their files go."""
    return (
        sys.executable, "-m", "distributed.cli.dask_worker",
        "--nanny", "--nworkers", str(workers), "--nthreads", "1", "--memory-limit", str(memory),
        "--dashboard-address", PLACES, "--death-timeout", str(WITHOUT_SCHEDULER_S),
    )  # fmt: skip


TEMPORARY = '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'
"""The folder for temporary files, as a shell on the worker's node finds it."""
