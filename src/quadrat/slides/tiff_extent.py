"""How long a TIFF file must be by its own directories. This tells a truncated copy from an unknown
format.

Readers say "unsupported format" for a truncated file, or open it and fail in the middle. Layout:
TIFF 6.0, section 2; BigTIFF. NDPI files beyond 4 GiB keep the high halves of their offsets
elsewhere and are not checked.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NDPI_TAG, SUBIFDS_TAG = 65420, 330
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_OFFSET_TAGS = {324: 325, 273: 279}
"""Tags of tile and strip offsets, and the tags of their byte counts."""
_WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 256, 257, 278, 322, 323, 324
MAX_TILE_PX = 1 << 26
"""A tile is decoded whole: 8,192 x 8,192 px is the limit."""


class Entry(NamedTuple):
    """One entry of a directory."""

    kind: int
    """Type of a value."""
    number: int
    """How many values."""
    at: int
    """The first byte of the values."""
    nbytes: int
    """The bytes that they take."""


class _Layout(NamedTuple):
    """Formats (of ``struct``) of the parts of a directory: TIFF and BigTIFF differ."""

    order: str
    """Byte order."""
    number: str
    """How many entries."""
    entry: str
    """One entry: tag, type, number, value."""
    offset: str
    """The offset of values or of the next directory."""
    inline: int
    """Values of at most so many bytes are in the entry itself."""


def missing_bytes(path: Path) -> int:
    """How many bytes are missing at the end of a file by its own directories; 0 if it is complete.

    Raises:
        ValueError: the header or a directory makes no sense.
    """
    size = path.stat().st_size
    needed = 0
    try:
        with path.open("rb") as file:
            for end in _ends(file):
                needed = max(needed, end)
    except _BeyondEnd as beyond:
        needed = max(needed, beyond.args[0])
    return max(0, needed - size)


class _BeyondEnd(Exception):
    """A read beyond the end of the file. Its argument is where the read would have ended."""


def _take(file: BinaryIO, at: int, nbytes: int) -> bytes:
    # checked before reading, so that a wrong count allocates no memory
    if at + nbytes > os.fstat(file.fileno()).st_size:
        raise _BeyondEnd(at + nbytes)
    file.seek(at)
    return file.read(nbytes)


def _ends(file: BinaryIO) -> Iterator[int]:
    """Where each directory, each value outside a directory, each strip and each tile ends."""
    head = _take(file, 0, 8)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    layout = _Layout(order, "Q", "HHQ8s", "Q", 8) if big else _Layout(order, "H", "HHI4s", "I", 4)
    (at,) = (
        struct.unpack(order + "Q", _take(file, 8, 8))
        if big
        else struct.unpack(order + "I", head[4:8])
    )
    seen: set[int] = set()
    waiting = [at]
    while waiting:
        at = waiting.pop()
        if not at:
            continue
        if at in seen:
            raise ValueError(f"directory at byte {at} comes twice")
        seen.add(at)
        entries, end = _directory(file, at, layout)
        if NDPI_TAG in entries:
            if os.fstat(file.fileno()).st_size >= 1 << 32:
                return
            # the high halves of the link and of every value follow
            yield (end + 4 + 4 * len(entries))
        yield end
        yield from (entry.at + entry.nbytes for entry in entries.values())
        _check_declared(file, entries, order)
        yield from _data_ends(file, entries, order)
        nbytes = struct.calcsize(layout.offset)
        waiting += struct.unpack(order + layout.offset, _take(file, end - nbytes, nbytes))
        if SUBIFDS_TAG in entries:
            waiting += _values(file, entries[SUBIFDS_TAG], order).tolist()
    if not seen:
        raise _BeyondEnd(os.fstat(file.fileno()).st_size + 1)


def _directory(file: BinaryIO, at: int, layout: _Layout) -> tuple[dict[int, Entry], int]:
    """The entries by tag, and where the directory ends (with its link to the next one)."""
    nbytes = struct.calcsize("=" + layout.number)
    (count,) = struct.unpack(layout.order + layout.number, _take(file, at, nbytes))
    form = layout.order + layout.entry
    step, start = struct.calcsize(form), at + nbytes
    raw = _take(file, start, count * step)
    entries: dict[int, Entry] = {}
    for index in range(count):
        tag, kind, number, value = struct.unpack_from(form, raw, index * step)
        size = _TYPE_BYTES.get(kind, 1) * number
        inline = start + (index + 1) * step - layout.inline
        where = (
            inline
            if size <= layout.inline
            else struct.unpack(layout.order + layout.offset, value)[0]
        )
        entries[tag] = Entry(kind, number, where, size)
    return entries, start + count * step + struct.calcsize("=" + layout.offset)


def _data_ends(file: BinaryIO, entries: dict[int, Entry], order: str) -> Iterator[int]:
    """Where the last strip or tile of one directory ends."""
    for offsets_tag, counts_tag in _OFFSET_TAGS.items():
        if offsets_tag in entries and counts_tag in entries:
            offsets, counts = (
                _values(file, entries[tag], order) for tag in (offsets_tag, counts_tag)
            )
            if len(offsets) == len(counts) and len(offsets):
                ends = offsets + counts
                if (ends < offsets).any():
                    raise ValueError("a tile or strip ends beyond byte 2^64")
                yield int(ends.max())


def _check_declared(file: BinaryIO, entries: dict[int, Entry], order: str) -> None:
    """Refuse a picture without px, or one that needs more tiles or strips than are listed: a
    damaged or forged size."""

    def number(tag: int) -> int:
        values = _values(file, entries[tag], order)
        if not len(values):
            raise ValueError(f"tag {tag} has no value")
        return int(values[0])

    if _WIDTH not in entries or _HEIGHT not in entries:
        return
    width, height, tiled = number(_WIDTH), number(_HEIGHT), _TILES in entries
    across, down = width, min(height, number(_ROWS) if _ROWS in entries else height)
    if tiled and _TILE_WIDTH in entries and _TILE_HEIGHT in entries:
        across, down = number(_TILE_WIDTH), number(_TILE_HEIGHT)
    if not (width and height and across and down):
        raise ValueError(f"a picture of {width} x {height} px in pieces of {across} x {down} px")
    if tiled and across * down > MAX_TILE_PX:
        raise ValueError(
            f"tiles of {across} x {down} px, more than the {MAX_TILE_PX} px that are decoded at "
            "once"
        )
    needed = -(-width // across) * -(-height // down)
    for tag in _OFFSET_TAGS:
        if tag in entries and entries[tag].number < needed:
            raise ValueError(
                f"a picture of {width} x {height} px needs {needed} tiles or strips, "
                f"{entries[tag].number} are listed"
            )


def _values(
    file: BinaryIO, entry: Entry, order: str
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    raw = _take(file, entry.at, entry.nbytes)
    return np.frombuffer(raw, f"{order}u{_TYPE_BYTES.get(entry.kind, 1)}").astype(np.uint64)
