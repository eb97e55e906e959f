"""What a slide's result looks like on disk: files that other programs open, written whole or not at
all."""

from __future__ import annotations

import os
from pathlib import Path


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
