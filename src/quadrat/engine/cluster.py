"""The one way to open the executor of a run: a loop in this process, worker processes on this
machine, or those of a cluster."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from quadrat.config.pipeline import RunSection, SlurmSection
from quadrat.core.allocation import cpus, memory_bytes
from quadrat.core.errors import EXIT_USAGE, ConfigError
from quadrat.engine.executor import Equipment, Executor, Serial
from quadrat.engine.staging import use_stage

WORKER_BYTES = 3 << 30
"""What a worker may need: with the shipped networks 2.2 GB were measured."""
HERE = ("local", "serial")
"""Values of ``run.cluster`` that use nothing but this machine."""


def processes(run: RunSection) -> int:
    """How many workers a command starts (see ``run.workers``); 0: it does all in its own process,
    or the workers are there already.

    Raises:
        ConfigError: what the job may use is said by a variable of the scheduler that is no number.
    """
    if run.cluster == "local":
        return run.workers or default_workers(threads=run.threads)
    if run.cluster == "srun":
        from quadrat.engine.srun import cpus_of_node

        there = cpus_of_node(os.environ)
        return run.workers or default_workers(threads=run.threads, cpus_there=there)
    return run.workers or 1 if run.cluster == "slurm" else 0


def processes_here(run: RunSection) -> int:
    """The same for a command that cannot use a cluster.

    Raises:
        ConfigError: it is asked to.
    """
    if run.cluster not in HERE:
        raise ConfigError(
            f"run.cluster is {run.cluster}, but this command uses this machine only: "
            "--cluster local or serial"
        )
    return processes(run)


def default_workers(*, threads: int, cpus_there: int | None = None) -> int:
    """As many workers of so many threads as this process may use CPUs and memory for; 1 or more.
    ``cpus_there``: CPUs of a node that is like this one."""
    number = cpus().value if cpus_there is None else cpus_there
    return max(1, min(number // threads, memory_bytes().value // WORKER_BYTES))


def check_workers(workers: int) -> None:
    """Refuse worker processes where none can be started; call it before anything is done.

    In a worker that has just been started, which imports the script that asks for workers, this
    ends the process without a word: the process that started it says what is wrong.

    Raises:
        ConfigError: a number below 0, this process may not start others, or the program is in no
            file.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}; it must be 0 (all in this process) or more")
    here = multiprocessing.current_process()
    if workers and here.daemon:
        raise ConfigError(
            f"{workers} worker processes are asked for inside a worker of another pool or cluster "
            f"({here.name}), which may start none; use workers=0 (--cluster serial)"
        )
    if workers and getattr(here, "_inheriting", False):
        sys.exit(EXIT_USAGE)
    program = getattr(sys.modules["__main__"], "__file__", None)  # none in a notebook
    if workers and program is not None and not Path(program).exists():
        raise ConfigError(
            f"{workers} worker processes are asked for by a program that is in no file "
            f"({program}), but each of them imports it; save it to a file, or use workers=0"
        )


def check_cluster(cluster: str, *, workers: int, insecure: bool = False) -> None:
    """Refuse a cluster that cannot be used; call it before anything is done.

    Raises:
        ConfigError: see :func:`check_workers`; no SLURM is here; or it is one without TLS.
    """
    if cluster in HERE:
        check_workers(workers if cluster == "local" else 0)
    elif cluster == "srun":
        from quadrat.engine.srun import check_srun

        check_srun()
    elif cluster == "slurm":
        from quadrat.engine.slurm import check_slurm

        check_slurm()
    else:
        from quadrat.engine.remote import check_remote

        check_remote(cluster, insecure=insecure)


def open_executor(
    *,
    workers: int,
    threads: int,
    cluster: str = "local",
    device: str = "auto",
    stage_gb: float = 0.0,
    folder: Path | None = None,
    logs: str = "",
    interface: str = "",
    insecure: bool = False,
    ask: SlurmSection | None = None,
) -> AbstractContextManager[Executor]:
    """A context that gives an executor, and ends only what it started.

    ``cluster``: see ``run.cluster``. ``workers``: see ``run.workers``; 0 with "local": a loop in
    this process. ``folder``: of the run, which all workers see; not needed on this machine.
    ``logs``: folder of the workers' logs; "": a folder that goes with them, or ``folder/workers``.
    ``stage_gb``, ``interface``, ``insecure``: see ``run.stage_gb``, ``run.interface`` and
    ``run.insecure_cluster``. ``ask``: what a worker job asks SLURM for.

    Raises:
        ConfigError: see :func:`check_cluster`; or, when it is entered, the workers do not start.
        ClusterError: when it is entered: the cluster does not answer.
    """
    check_cluster(cluster, workers=workers, insecure=insecure)
    if cluster == "serial" or (cluster == "local" and not workers):
        return _serial(stage_gb)
    equipment = Equipment(threads, device, stage_gb)
    if cluster == "local":
        from quadrat.engine.local import local_cluster

        return local_cluster(workers=workers, equipment=equipment, logs=logs)
    if folder is None:
        raise ConfigError(f"run.cluster is {cluster}, which needs a folder that all nodes share")
    folder, where = folder.absolute(), Path(logs or folder / "workers").absolute()
    if cluster == "srun":
        from quadrat.engine.srun import srun_cluster

        return srun_cluster(
            workers=workers,
            equipment=equipment,
            folder=folder,
            logs=where,
            interface=interface,
        )
    if cluster == "slurm":
        from quadrat.engine.slurm import slurm_cluster

        ask = ask or SlurmSection()
        room = int(ask.memory_gb * 1e9) // WORKER_BYTES
        return slurm_cluster(
            jobs=workers,
            each=max(1, min(ask.cpus // threads, room)),
            equipment=equipment,
            ask=ask,
            folder=folder,
            logs=where,
            interface=interface,
        )
    from quadrat.engine.remote import remote_cluster

    return remote_cluster(cluster, equipment=equipment, insecure=insecure, logs=where)


@contextmanager
def _serial(stage_gb: float) -> Iterator[Executor]:
    """A loop in this process."""
    from quadrat.engine.opened import leave_slides  # here: worker processes are not to wait for it

    use_stage(stage_gb)
    try:
        yield Serial()
    finally:
        leave_slides()
