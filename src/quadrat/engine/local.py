"""Worker processes on this machine: a dask cluster on loopback that nobody else can use."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from quadrat.core.allocation import temporary_folder
from quadrat.core.errors import ConfigError
from quadrat.engine.dask import DaskExecutor
from quadrat.engine.executor import Equipment, Executor
from quadrat.engine.workers import PLACES, memory_of_each, settings


@contextmanager
def local_cluster(*, workers: int, equipment: Equipment, logs: str = "") -> Iterator[Executor]:
    """``workers`` spawned processes on 127.0.0.1, one job at a time each, with the
    threads of the equipment; no dashboard. Connections are encrypted with a certificate of this
    run, so that no other user of the machine can send work to them.

    ``logs``: folder for the workers' logs; "": one that goes with the cluster.
    """
    security = Security.temporary()
    with (
        TemporaryDirectory(prefix="quadrat-", dir=temporary_folder().path) as folder,
        dask.config.set(settings(equipment.threads)),
        _deaf_to_ctrl_c(partial(_start, workers, folder, security)) as cluster,
        Client(cluster, security=security) as client,
    ):
        yield DaskExecutor(client, equipment, logs=logs or folder)


def _start(workers: int, folder: str, security: Security) -> LocalCluster:
    """The scheduler in this process, and its workers.

    Raises:
        ConfigError: they do not start.
    """
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="tls://127.0.0.1",
            dashboard_address=PLACES,
            worker_dashboard_address=PLACES,
            memory_limit=memory_of_each(workers),
            silence_logs=50,
            local_directory=folder,
            security=security,
        )
    except (RuntimeError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"{workers} worker processes could not be started ({error}); a script that asks for "
            "workers does so below 'if __name__ == \"__main__\":', because each worker imports it; "
            "or use workers=0 (--cluster serial), or fewer"
        ) from None


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
