"""The scanned part of a slide with an empty margin around it (MIRAX and others)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import openslide

from quadrat.core.geometry import Box


def scanned_part(path: str) -> Box | None:
    """The scanned part in level-0 px; None if the file states none, or if it begins at the slide's
    corner, or if there is no such slide."""
    place = Path(path)
    try:
        if not path or not place.is_file() or openslide.OpenSlide.detect_format(path) is None:
            return None
        return _read(path, place.stat().st_mtime_ns)
    except (openslide.OpenSlideError, OSError):
        return None  # whoever opens the slide says what is wrong


@lru_cache(maxsize=256)
def _read(path: str, stamp: int) -> Box | None:
    with openslide.OpenSlide(path) as handle:
        part = bounds_of(handle)
    return None if part is None or (part.row0, part.col0) == (0, 0) else part


def bounds_of(handle: openslide.OpenSlide) -> Box | None:
    """What OpenSlide's properties state as the scanned part; None if they do not."""
    try:
        left, top, width, height = (
            int(handle.properties[f"openslide.bounds-{key}"])
            for key in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return None
    return Box(top, left, top + height, left + width)
