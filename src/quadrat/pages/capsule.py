"""The viewer as files of the report: a slide in deep zoom down to a chosen level, and its objects,
to be opened from disk and mailed."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from quadrat.core.files import copy_file, write_file
from quadrat.pages.deep_zoom import TILE as IMAGE_TILE
from quadrat.pages.deep_zoom import DeepZoom, encoded, levels_of
from quadrat.pages.folder import Finished
from quadrat.pages.rendering import page, static
from quadrat.pages.shown import Shown
from quadrat.pages.vectors import LEVELS, TILE

FILES = ("openseadragon.min.js", "openseadragon.LICENSE.txt", "vectors.js", "capsule.js",
         "viewer.js", "viewer.css")  # fmt: skip
"""What the pages of all slides share, at the top of the report."""
VIEW = "view"
"""Folder of a slide's capsule, next to its page."""
TABLES = ("counts.csv", "classes.csv")
FINER = 1
"""Levels by which objects are finer than the picture: outlines are small files."""
_EMPTY_BYTES = 16


def write_shared(report: Path) -> None:
    """The files that all capsules of a report share."""
    for name in FILES:
        write_file(report / name, static(name))


def write_capsule(slide: Finished, folder: Path, *, mpp: float) -> None:
    """A slide's capsule. ``mpp``: um (or px) a px of the finest pictures.

    Raises:
        QuadratError: the object table cannot be read.
        WriteError: it cannot be written.
    """
    shown = Shown(slide)
    shown.opened()
    about, (width, height) = shown.about(), shown.size
    coarser = max(0, round(math.log2(mpp / about["mpp"])))
    finest = max(0, levels_of(width, height) - 1 - coarser)
    least = max(LEVELS[0], coarser - FINER)
    if isinstance(shown.picture, DeepZoom):
        for level in range(finest + 1):
            for col, row, data in _pictures(shown.picture, level):
                write_file(folder / "image" / str(level) / f"{col}_{row}.jpg", data)
        shown.picture.slide.close()
    about |= {"least_level": least, "finest": finest, "tiles": []}
    if about["gone"]:
        about["gone"] = "the slide's file could not be read when this page was made"
    for key, data in _tiles(shown, least):
        text = base64.b64encode(zlib.compress(data)).decode()
        write_file(folder / "things" / f"{key}.js", f'quadratTile("{key}", "{text}");\n')
        about["tiles"].append(key)
    write_file(folder / "about.js", f"window.quadratAbout = {json.dumps(about)};\n")
    tables = [name for name in TABLES if (slide.folder / name).is_file()]
    for name in tables:
        copy_file(slide.folder / name, folder / name)
    write_file(
        folder / "index.html",
        page("viewer.html", slide=slide, kind=shown.kind, names=[slide.name], pictures=tables,
             files="../../../", capsule=True),
    )  # fmt: skip


def _pictures(picture: DeepZoom, level: int) -> Iterator[tuple[int, int, bytes]]:
    """The tiles of a level."""
    factor = 1 << (picture.levels - 1 - level)
    for row in range(math.ceil(picture.height / factor / IMAGE_TILE)):
        for col in range(math.ceil(picture.width / factor / IMAGE_TILE)):
            pixels = picture.tile(level, col, row)
            if pixels is not None:
                yield col, row, encoded(pixels)


def _tiles(shown: Shown, least: int) -> Iterator[tuple[str, bytes]]:
    """The tiles of objects that hold any, from the finest level to the one that holds all."""
    level = least
    while True:
        side = TILE * 2.0**level
        columns, rows = (math.ceil(length / side) for length in shown.size)
        for row in range(rows):
            for col in range(columns):
                data = shown.vectors(level, col, row)
                if data is not None and len(data) > _EMPTY_BYTES:
                    yield f"{level}/{col}_{row}", data
        if columns == rows == 1:
            return
        level += 1
