"""Worker jobs that are submitted to SLURM from here, by dask-jobqueue (extra ``slurm``). One that
ends while there is work is replaced by a new one: the number is kept, never adapted."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import Client

from quadrat.config.pipeline import SlurmSection
from quadrat.core.errors import ConfigError
from quadrat.core.files import make_folder, private_folder
from quadrat.engine.certificates import write_certificates
from quadrat.engine.dask import DaskExecutor
from quadrat.engine.executor import Equipment, Executor
from quadrat.engine.workers import (
    INHERIT,
    PLACES,
    TEMPORARY,
    WITHOUT_SCHEDULER_S,
    inherited,
    settings,
)

LOOK_S = 10.0
"""How often SLURM is asked which worker jobs there are."""
IN_VAIN = 3
"""So many jobs for each that is wanted may end before the first worker came."""
EARLY_S = 300
"""Workers leave so long before the walltime, or at three quarters of a shorter one."""
PATIENCE_S = float("inf")
"""Jobs may wait in the queue for as long as the queue is long."""


@contextmanager
def slurm_cluster(
    *,
    jobs: int,
    each: int,
    equipment: Equipment,
    ask: SlurmSection,
    folder: Path,
    logs: Path,
    interface: str = "",
) -> Iterator[Executor]:
    """``jobs`` worker jobs with ``each`` as many workers. ``folder``: of the run, which all nodes
    see; certificates lie in it. ``logs``: of the workers and of their jobs.

    Raises:
        ConfigError: there is no SLURM here, or dask-jobqueue is not installed.
    """
    check_slurm()
    make_folder(logs)
    name = f"cluster-{socket.gethostname()}-{time.time_ns():x}"
    with (
        private_folder(folder / name) as private,
        dask.config.set(settings(equipment.threads)),
        _cluster(ask, private, logs, each=each, interface=interface) as cluster,
        Client(cluster, security=cluster.security, set_as_default=False) as client,
        _Keeper(cluster, jobs, str(logs)) as keeper,
    ):
        yield DaskExecutor(
            client,
            equipment,
            logs=str(logs),
            patience_s=PATIENCE_S,
            lost=keeper.lost,
            wanted=keeper.want if ask.gpus else lambda devices: None,
        )


def check_slurm() -> None:
    """Refuse where no worker jobs can be submitted; call it before anything is done.

    Raises:
        ConfigError: there is no SLURM here, or dask-jobqueue is not installed.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "run.cluster is slurm, but there is no sbatch here; start the command on a login node, "
            "or use --cluster local"
        )
    try:
        import dask_jobqueue  # noqa: F401
    except ImportError:
        raise ConfigError(
            "run.cluster is slurm, which needs dask-jobqueue: pip install 'quadrat[slurm]'"
        ) from None


def seconds(walltime: str) -> int:
    """SLURM's ``HH:MM:SS``, ``MM:SS`` or ``D-HH:MM:SS``, in seconds."""
    days, _, rest = walltime.rpartition("-")
    found = 0
    for part in rest.split(":"):
        found = found * 60 + int(part)
    if days:  # D-HH, D-HH:MM, D-HH:MM:SS
        found *= 60 ** (2 - rest.count(":"))
    return found + 86_400 * int(days or 0)


def lifetime(walltime: str) -> Sequence[str]:
    """When workers leave by themselves, each a little earlier or later than the others."""
    whole = seconds(walltime)
    early = min(EARLY_S, whole // 4)
    stagger = early // 4
    return ("--lifetime", f"{whole - early}s", "--lifetime-stagger", f"{stagger}s")


def _cluster(ask: SlurmSection, private: Path, logs: Path, *, each: int, interface: str) -> Any:
    """A scheduler here, and the description of its worker jobs."""
    from dask_jobqueue.slurm import SLURMCluster

    directives = [f"--gpus={ask.gpus}"] if ask.gpus else []
    place = {"interface": interface} if interface else {"host": _host()}
    return SLURMCluster(
        cores=ask.cpus,
        processes=each,
        memory=f"{int(ask.memory_gb * 1e9)}B",
        queue=ask.partition or None,
        account=ask.account or None,
        walltime=ask.walltime,
        job_name="quadrat-worker",
        job_extra_directives=[*directives, *ask.directives],
        job_script_prologue=[*ask.prologue, f"export {INHERIT}={inherited()}"],
        worker_extra_args=[*lifetime(ask.walltime), "--dashboard-address", PLACES],
        local_directory=TEMPORARY,
        log_directory=str(logs),
        death_timeout=WITHOUT_SCHEDULER_S,
        interface=interface or None,
        protocol="tls://",
        security=write_certificates(private),
        scheduler_options={"dashboard_address": PLACES, **place},
        shared_temp_directory=str(private),
    )


def _host() -> str:
    """The address under which nodes reach this one.

    Raises:
        ConfigError: it is not known.
    """
    name = socket.getfqdn()
    try:
        return socket.gethostbyname(name)
    except OSError:
        raise ConfigError(
            f"worker jobs cannot reach this node by its name {name}; name the interface of the "
            "nodes' network, e.g. --set run.interface=ib0 ('ip addr' lists them)"
        ) from None


@dataclass(slots=True)
class _Keeper:
    """Keeps the number of worker jobs, in a thread of its own."""

    cluster: Any
    """Of dask-jobqueue."""
    jobs: int
    """How many there are to be, while there is work for the network."""
    logs: str
    """Where their output lies, for messages."""
    _wanted: int = 0
    _ended: int = 0
    _came: bool = False
    _reason: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> _Keeper:
        self._wanted = self.jobs
        self.cluster.scale(jobs=self.jobs)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def lost(self) -> str:
        """Why no worker will come; "" if one may."""
        return self._reason

    def want(self, devices: bool) -> None:
        """Whether devices are of use still; if not, one job is enough to finish, and the others
        give theirs back."""
        self._wanted = self.jobs if devices else 1

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self._top_up(_jobs_of_user())
            except (OSError, subprocess.SubprocessError):
                continue  # a controller that does not answer now does so later

    def _top_up(self, there: frozenset[str]) -> None:
        """Replace the jobs that have ended."""
        self._came = self._came or bool(self.cluster.scheduler_info["workers"])
        known = {name: str(job.job_id) for name, job in self.cluster.workers.items() if job.job_id}
        gone = [name for name, number in known.items() if number not in there]
        if gone:
            self._ended += len(gone)
            self.cluster.sync(self._forget, gone)
            if not self._came and self._ended >= IN_VAIN * self.jobs:
                self._reason = (
                    f"{self._ended} worker jobs ended before one worker came; see {self.logs}"
                )
                return
        if self.cluster.status.name == "running":
            self.cluster.scale(jobs=self._wanted)

    async def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            self.cluster.worker_spec.pop(name, None)
            self.cluster.workers.pop(name, None)


def _jobs_of_user() -> frozenset[str]:
    """Numbers of this user's jobs that wait or run."""
    words = ("squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return frozenset(done.stdout.split())
