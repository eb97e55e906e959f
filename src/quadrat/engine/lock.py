"""One driver per run folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from quadrat.core.errors import StoreError
from quadrat.core.files import write_file


@contextlib.contextmanager
def driver_lock(out: Path) -> Iterator[None]:
    """One driver per run folder.

    Raises:
        StoreError: another one works in it.
    """
    with locked(
        out / "run" / "driver.lock",
        f"another quadrat is working in {out}",
        otherwise="use another --out",
    ):
        yield


@contextlib.contextmanager
def locked(path: Path, busy: str, *, otherwise: str) -> Iterator[None]:
    """One process at a time: an O_EXCL file with host and pid, taken over when that process is
    gone.

    Raises:
        StoreError: it is held. ``busy`` says by whom, ``otherwise`` what to do instead of waiting.
    """
    mine = path.with_name(f"driver.{socket.gethostname()}.{os.getpid()}")
    write_file(mine, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    try:
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)  # whole or not at all, and only if there is none
                break
            if not _stale(path):
                break
            path.unlink(missing_ok=True)
        if not (path.exists() and path.samefile(mine)):
            holder = path.read_text().strip() if path.exists() else "it has just begun"
            raise StoreError(
                f"{busy} ({holder}); wait for it, {otherwise}, or delete {path} if it is gone"
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.samefile(mine):
                path.unlink()
        mine.unlink(missing_ok=True)


def _stale(path: Path) -> bool:
    """Whether the process that holds the lock is gone; unknown (another host or user) is no."""
    try:
        holder = json.loads(path.read_text())
        if holder["host"] != socket.gethostname():
            return False
        os.kill(holder["pid"], 0)
    except (PermissionError, FileNotFoundError):
        return False
    except (ProcessLookupError, ValueError, KeyError):
        return True
    return bool(holder["pid"] == os.getpid())
