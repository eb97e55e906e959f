"""Files that appear complete or not at all, and a zarr store that writes and reads only such files.

zarr's own LocalStore does not fsync, and reads an empty or cut-off file as if nothing were missing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from quadrat.core.errors import StoreError

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write beside, fsync, rename: a crash leaves the old file or the new one, never a torn one.

    A process killed in between leaves a ``*.partial`` file, which ``drop_partials`` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own, because the same task may run twice at once (a worker given up for lost
    # that is not)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partials(folder: Path) -> list[Path]:
    """Files that a killed process left half written, anywhere in a folder; sorted."""
    return sorted(path for path in folder.rglob(f"*{PARTIAL}") if path.is_file())


def drop_partials(folder: Path) -> None:
    """Remove what killed processes left half written; only while no other process writes there."""
    for path in partials(folder):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_free_space(path: str | Path, needed_bytes: int, *, what: str) -> None:
    """Refuse to begin what would fill the disk; ``path`` need not exist yet.

    Raises:
        StoreError: less is free than needed, with both figures.
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if free < needed_bytes:
        raise StoreError(
            f"{path}: {what} needs about {needed_bytes / 1e9:.2f} GB but {free / 1e9:.2f} GB are "
            "free; "
            "make room or choose another output folder"
        )


def partial_path(path: Path) -> Path:
    """Where a file is written until it is complete: beside it, with ``.partial`` appended."""
    return path.with_name(path.name + ".partial")


def commit(path: Path) -> None:
    """Give a completely written partial file its name, replacing what was there."""
    os.replace(partial_path(path), path)


def discard(path: Path) -> None:
    """Remove the partial file of a failed write, so that nothing is left that looks begun."""
    partial_path(path).unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it appears complete or not at all."""
    partial_path(path).write_bytes(data)
    commit(path)
