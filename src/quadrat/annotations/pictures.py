"""Which picture a file means: annotation files name slides with other folders and suffixes than the manifest (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def same_pictures(names: Sequence[str], picture: str, *, called: str = "") -> list[str]:
    """Which of the names mean the slide at the path ``picture``; the first rule that any name fulfils decides.

    The rules: the same path; the last folders and the name of the path ("normal/a.png"); the same name without folders; that
    without the picture's suffix; both without their suffixes; the name that the manifest ``called`` the slide.
    """
    path, own = _steps(picture), _steps(picture)[-1]
    stem = Path(own).stem
    for found in (
        [name for name in names if name == picture],
        [name for name in names if 1 < len(_steps(name)) < len(path) and path[-len(_steps(name)) :] == _steps(name)],
        [name for name in names if _steps(name)[-1] == own],
        [name for name in names if _steps(name)[-1] == stem],
        [name for name in names if _steps(name)[-1] and Path(_steps(name)[-1]).stem == stem],
        [name for name in names if name == called],
    ):
        if found:
            return found
    return []


def same_picture(name: str, picture: str) -> bool:
    """Whether a name may mean the slide at the path ``picture``, by any rule of ``same_pictures``."""
    return bool(same_pictures([name], picture))


def _steps(name: str) -> list[str]:
    """Folders and file of a path written on any system."""
    return re.split(r"[/\\]", name)
