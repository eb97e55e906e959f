"""Workers on all nodes of the SLURM allocation that this process runs in: the scheduler is here,
``srun`` starts the workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import join

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from quadrat.core.errors import ConfigError
from quadrat.core.files import make_folder, open_append, private_folder, write_file
from quadrat.engine.certificates import words_for_workers, write_certificates
from quadrat.engine.dask import DaskExecutor
from quadrat.engine.executor import Equipment, Executor
from quadrat.engine.workers import (
    INHERIT,
    PLACES,
    TEMPORARY,
    inherited,
    memory_of_each,
    settings,
    worker_words,
)

Lost = Callable[[], str]
SCHEDULER = "scheduler.json"
END_S = 8.0
"""How long workers have to end by themselves, and then after a signal."""
LOOPBACK = "127.0.0.1"


@contextmanager
def srun_cluster(
    *,
    workers: int,
    equipment: Equipment,
    folder: Path,
    logs: Path,
    interface: str = "",
) -> Iterator[Executor]:
    """``workers`` processes on each node of the allocation. ``folder``: of the run, which all
    nodes see; what it takes to talk to the scheduler lies in a private folder in it. ``logs``:
    of the workers.

    Raises:
        ConfigError: this is no allocation, or its nodes cannot reach this one.
    """
    check_srun()
    make_folder(logs)
    job, life = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")
    with (
        private_folder(folder / f"cluster-{job}-{life}-{os.getpid()}") as private,
        dask.config.set(settings(equipment.threads)),
        scheduler(private, interface=interface) as cluster,
        Client(cluster, security=cluster.security, set_as_default=False) as client,
        _workers(private, logs, workers=workers, interface=interface) as lost,
    ):
        try:
            yield DaskExecutor(client, equipment, logs=str(logs), lost=lost)
        finally:
            client.close()
            cluster.close()  # the scheduler tells the nannies to end


def check_srun() -> None:
    """Refuse where no workers can be started by srun; call it before anything is done.

    Raises:
        ConfigError: this is no allocation, or there is no srun.
    """
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise ConfigError(
            "run.cluster is srun, but this command runs in no SLURM allocation; start it in a job "
            "('quadrat hpc init' writes one), or use --cluster local or slurm"
        )


def scheduler(private: Path, *, interface: str) -> LocalCluster:
    """A scheduler in this process, with certificates and a scheduler file in a private folder.

    Raises:
        ConfigError: there is no such interface, or the other nodes cannot reach this one.
    """
    security: Security = write_certificates(private)
    host = "" if interface else f"tls://{address_here(os.environ)}"
    place = {"interface": interface} if interface else {"host": host}
    try:
        cluster = LocalCluster(
            n_workers=0,
            protocol="tls://",
            dashboard_address=PLACES,
            silence_logs=50,
            security=security,
            **place,
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"no scheduler could be started ({error}); set run.interface") from None
    write_file(private / SCHEDULER, json.dumps({"address": cluster.scheduler_address}))
    return cluster


def nodes(environ: Mapping[str, str]) -> int:
    """How many nodes an allocation has."""
    return int(environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES") or 1)


def cpus_of_node(environ: Mapping[str, str]) -> int:
    """The CPUs of an allocation on each of its nodes, or on the one where they are fewest:
    SLURM_JOB_CPUS_PER_NODE is like "72(x2),36"."""
    text = environ.get("SLURM_JOB_CPUS_PER_NODE") or environ.get("SLURM_CPUS_ON_NODE") or "1"
    return min(int(part.partition("(")[0]) for part in text.split(","))


def address_here(environ: Mapping[str, str]) -> str:
    """The address under which the nodes of an allocation reach this one.

    Raises:
        ConfigError: it is not known.
    """
    if nodes(environ) == 1:
        return LOOPBACK
    name = environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        found = socket.gethostbyname(name)
    except OSError:
        found = LOOPBACK
    if found.startswith("127."):
        raise ConfigError(
            f"the other nodes cannot reach this one by its name {name}; name the interface of the "
            "nodes' network, e.g. --set run.interface=ib0 ('ip addr' lists them)"
        )
    return found


@contextmanager
def _workers(private: Path, logs: Path, *, workers: int, interface: str) -> Iterator[Lost]:
    """The step that runs the workers, for as long as the block lasts; gives a function that says
    why no worker will come any more."""
    words = [*worker_words(workers=workers, memory=memory_of_each(workers))]
    words += ["--scheduler-file", str(private / SCHEDULER), "--protocol", "tls"]
    words += words_for_workers(private)
    if interface:
        words += ["--interface", interface]
    elif nodes(os.environ) == 1:
        words += ["--host", LOOPBACK]
    step = ["srun", f"--nodes={nodes(os.environ)}", f"--ntasks={nodes(os.environ)}"]
    step += ["--ntasks-per-node=1", f"--cpus-per-task={cpus_of_node(os.environ)}", "--overlap"]
    step += ["--input=none", "--no-kill", "--kill-on-bad-exit=0", "--unbuffered"]
    step += ["sh", "-c", f"exec {join(words)} --local-directory {TEMPORARY}"]
    log = logs / "srun.log"
    with open_append(log) as stream:
        process = subprocess.Popen(
            step,
            env=os.environ | {INHERIT: inherited()},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            process_group=0,  # Ctrl-C is for the driver
        )
    try:
        yield lambda: "" if process.poll() is None else f"srun has ended; see {log}"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a step to end, and see to it that it does: srun passes a signal on."""
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            process.send_signal(number)
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            continue
        return
