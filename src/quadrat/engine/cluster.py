"""Opens the executor of a run: a loop in this process, or worker processes."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from quadrat.config.pipeline import RunSection
from quadrat.core.allocation import cpus, memory_bytes
from quadrat.core.errors import EXIT_USAGE, ConfigError
from quadrat.engine.executor import Executor, Serial

WORKER_BYTES = 3 << 30
"""What a worker may need: with the shipped networks 2.2 GB were measured."""


class _SerialContext(AbstractContextManager[Executor]):
    def __enter__(self) -> Executor:
        return Serial()

    def __exit__(self, *_: object) -> None:
        return None


def processes(run: RunSection) -> int:
    """How many worker processes a command starts; 0: it does all in its own.

    Raises:
        ConfigError: what the job may use is said by a variable of the scheduler that is no number.
    """
    if run.executor == "serial":
        return 0
    return run.workers or default_workers(threads=run.threads)


def default_workers(*, threads: int) -> int:
    """As many workers of so many threads as this process may use CPUs and memory for; 1 or
    more."""
    return max(1, min(cpus().value // threads, memory_bytes().value // WORKER_BYTES))


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
            f"({here.name}), which may start none; use workers=0 (--set run.executor=serial)"
        )
    if workers and getattr(here, "_inheriting", False):
        sys.exit(EXIT_USAGE)
    program = getattr(sys.modules["__main__"], "__file__", None)  # none in a notebook
    if workers and program is not None and not Path(program).exists():
        raise ConfigError(
            f"{workers} worker processes are asked for by a program that is in no file "
            f"({program}), but each of them imports it; save it to a file, or use workers=0"
        )


def open_executor(
    *, workers: int, threads: int, logs: str = ""
) -> AbstractContextManager[Executor]:
    """A context that gives an executor: a loop in this process (``workers`` 0), or an embedded dask
    cluster of worker processes on loopback. ``logs``: folder of the workers' logs; "": they go with
    the workers.

    Raises:
        ConfigError: see :func:`check_workers`; or, when it is entered, the workers do not start.
    """
    check_workers(workers)
    if not workers:
        return _SerialContext()
    from quadrat.engine.local import local_cluster

    return local_cluster(workers=workers, threads=threads, logs=logs)
