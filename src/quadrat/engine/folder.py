"""A run's folder as its drivers share it: a lease for each slide, and one for the files that belong
to the folder as a whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from quadrat.core.files import drop_partials
from quadrat.engine.drivers import drop_logs
from quadrat.engine.lease import Held, Leases

LEASES, FOLDER = "leases", ".folder"
"""Folder of the leases under ``run/``, and the name of the one for the folder's own files. A slide
cannot be called so (see :class:`SlideRef`)."""
POLL_S = 2.0
"""How often it is looked whether what another driver has is free."""


def tidy(out: Path, leases: Leases) -> None:
    """Remove what killed processes left half written, unless another driver may be writing."""
    with alone(leases):
        if set(leases.holders()) == {FOLDER}:
            own = (path for path in (out / "run").glob("*") if path.is_dir())
            for folder in (out / "results", out / "run", *own):
                drop_partials(folder, deep=False)
            drop_logs(out)


@contextlib.contextmanager
def alone(leases: Leases) -> Iterator[None]:
    """The folder's own files are written by one driver at a time; another one needs a moment."""
    while isinstance(lease := leases.take(FOLDER), Held):
        time.sleep(min(POLL_S, 0.1 + lease.again_in_s))
    try:
        yield
    finally:
        lease.release()
