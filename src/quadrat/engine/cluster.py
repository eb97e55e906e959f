"""Opens the executor that a pipeline names."""

from __future__ import annotations

from contextlib import AbstractContextManager

from quadrat.core.errors import ConfigError
from quadrat.engine.executor import Executor, Serial


class _SerialContext(AbstractContextManager[Executor]):
    def __enter__(self) -> Executor:
        return Serial()

    def __exit__(self, *_: object) -> None:
        return None


def open_executor(name: str, *, workers: int, threads: int) -> AbstractContextManager[Executor]:
    """A context that gives the executor called ``name``: ``serial``, or ``dask`` (``workers``
    processes on loopback)."""
    if name == "serial":
        return _SerialContext()
    if name == "dask":
        from quadrat.engine.dask import local_cluster

        return local_cluster(workers=workers, threads=threads)
    raise ConfigError(f"run.executor is '{name}'; it must be 'serial' or 'dask'")
