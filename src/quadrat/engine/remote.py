"""A dask cluster that is there already, by the address of its scheduler or by its scheduler file.
It is left as it was found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client
from distributed.security import Security

from quadrat.core.errors import ClusterError, ConfigError
from quadrat.engine.certificates import CERTIFICATE, KEY, configured, read_certificates
from quadrat.engine.dask import DaskExecutor
from quadrat.engine.executor import Equipment, Executor
from quadrat.engine.workers import SETTINGS

PATIENCE_S = 60.0
"""How long a scheduler may take to answer, or its file to become whole."""
ATTEMPT_S = 5.0
AGAIN_S = 0.5
PLAIN = "tcp://"


@contextmanager
def remote_cluster(
    where: str, *, equipment: Equipment, insecure: bool, logs: Path
) -> Iterator[Executor]:
    """The workers of a scheduler that runs already. ``where``: its address, or a scheduler file
    (``*.json``); the certificates lie next to the file, or where dask's configuration says.
    ``insecure``: whether it may be one without TLS. ``logs``: folder of the workers' logs, which
    they see.

    Raises:
        ConfigError: it is without TLS and must not be, or there are no certificates for it, or its
            workers have no quadrat, or another one.
        ClusterError: it does not answer.
    """
    with dask.config.set(SETTINGS), _connected(where, insecure=insecure) as client:
        try:
            executor = DaskExecutor(client, equipment, logs=str(logs))
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"a worker of {where} cannot load quadrat ({error}); workers and this command need "
                "the same environment"
            ) from None
        try:
            yield executor
        finally:
            executor.leave()


def check_remote(where: str, *, insecure: bool) -> None:
    """Refuse an address that must not be used; call it before anything is done.

    Raises:
        ConfigError: it is without TLS and must not be.
    """
    if where.startswith(PLAIN) and not insecure:
        raise ConfigError(
            f"{where} is a cluster without TLS, through which anybody who reaches it can run code "
            "as you; use one with tls://, or add --insecure-cluster (run.insecure_cluster: true)"
        )


def _connected(where: str, *, insecure: bool) -> Client:
    """A client, as soon as the scheduler answers. The file is read anew each time: it may be half
    written, or of a scheduler that is gone, before it is the right one."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            address, security = _scheduler(where)
            check_remote(address, insecure=insecure)
            left = max(1.0, min(ATTEMPT_S, until - time.monotonic()))
            return Client(address, security=security, timeout=left, set_as_default=False)
        except (OSError, ValueError, KeyError) as error:  # TimeoutError is an OSError
            reason = str(error) or type(error).__name__
            if time.monotonic() + AGAIN_S > until:
                raise ClusterError(
                    f"no scheduler answered at {where} for {PATIENCE_S:.0f} s ({reason}); "
                    "start the cluster, or correct --cluster"
                ) from None
        time.sleep(AGAIN_S)


def _scheduler(where: str) -> tuple[str, Security | None]:
    """The address of a scheduler, and what it takes to talk to it.

    Raises:
        ConfigError: there are no certificates for it.
        OSError, ValueError, KeyError: its file is not there, or not whole.
    """
    address, security = where, configured()
    if where.endswith(".json"):
        address = str(json.loads(Path(where).read_text(encoding="utf-8"))["address"])
        security = read_certificates(Path(where).parent) or security
    if address.startswith(PLAIN):
        return address, None
    if security is None:
        raise ConfigError(
            f"{address} needs certificates: name them in dask's configuration "
            f"(distributed.comm.tls.ca-file, .client.cert, .client.key), or give a scheduler file "
            f"with {CERTIFICATE} and {KEY} next to it"
        )
    return address, security
