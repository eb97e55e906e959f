"""One driver per run folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from quadrat.engine.lease import Lease, held


def driver_lock(out: Path) -> AbstractContextManager[Lease]:
    """One driver per run folder.

    Raises:
        StoreError: another one works in it.
    """
    return held(
        out / "run" / "driver",
        busy=f"another quadrat is working in {out}",
        otherwise="use another --out",
    )
