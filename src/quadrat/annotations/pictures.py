"""Which picture a file means: annotation files name slides with other folders and suffixes than the manifest (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def same_pictures(names: Sequence[str], picture: str) -> list[str]:
    """Which of the names mean the slide with the file name ``picture``: the same name, else the same without folders, else
    the same without folders and suffix; the first of these that any name fulfils."""
    own = _base(picture)
    for found in (
        [name for name in names if name == picture],
        [name for name in names if _base(name) == own],
        [name for name in names if _base(name) == Path(own).stem],
        [name for name in names if _base(name) and Path(_base(name)).stem == Path(own).stem],
    ):
        if found:
            return found
    return []


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]
