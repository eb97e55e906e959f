"""A BigTIFF of several tiled levels, written in any order of tiles with nothing held but the tiles'
places.

tifffile writes one page after the other; here the levels of a pyramid grow together, so a slide is
written in one pass and without a copy on disk. Layout: BigTIFF
(https://www.awaresystems.be/imaging/tiff/bigtiff.html), one directory a level, reduced levels
marked by NewSubfileType 1. No date and no software tag: the same tiles give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Final, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG8, _RATIONAL = 3, 16, 5
_FORMAT: Final = {_SHORT: "H", _LONG8: "Q", _RATIONAL: "I"}
_CENTIMETRE: Final = 3
_JPEG_QUALITY: Final = 84


@dataclass(frozen=True, slots=True)
class TiffLevel:
    """One level of the pyramid."""

    width: int
    """px"""
    height: int
    """px"""
    mpp: float
    """Micrometres per pixel."""


class TiledTiff:
    """Write tiles of side `tile` px into an open file, which stays open; close (or leave the
    `with`) to write the directories.

    kind: "rgb" (uint8, JPEG 4:2:0), "uint8" or "uint32" (one sample, deflate). Edge tiles are
    padded by repeating the edge (rgb) or with 0.
    """

    def __init__(
        self,
        stream: BinaryIO,
        levels: Sequence[TiffLevel],
        *,
        kind: Literal["rgb", "uint8", "uint32"],
        tile: int = 256,
    ) -> None:
        self._levels, self._kind, self._tile = tuple(levels), kind, tile
        self._places = [np.zeros((2, self._count(level)), np.uint64) for level in self._levels]
        self._file = stream
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def __enter__(self) -> TiledTiff:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def write(self, level: int, row: int, col: int, pixels: NDArray[np.generic]) -> None:
        """Write pixels (h, w[, 3]) whose corner is tile (row, col) of a level: one tile or many."""
        side = self._tile
        for r in range(-(-pixels.shape[0] // side)):
            for c in range(-(-pixels.shape[1] // side)):
                part = pixels[r * side : (r + 1) * side, c * side : (c + 1) * side]
                self._write_tile(level, row + r, col + c, part)

    def close(self) -> None:
        """Write the directories; the file is complete after this."""
        link = 8
        for index in range(len(self._levels)):
            self._file.write(b"\0" * (-self._file.tell() % 8))
            start = self._file.tell()
            body, next_link = self._directory(index, start)
            self._file.write(body)
            self._file.seek(link)
            self._file.write(struct.pack("<Q", start))
            self._file.seek(0, 2)
            link = next_link

    def _across(self, level: TiffLevel) -> int:
        return -(-level.width // self._tile)

    def _count(self, level: TiffLevel) -> int:
        return self._across(level) * -(-level.height // self._tile)

    def _write_tile(self, level: int, row: int, col: int, part: NDArray[np.generic]) -> None:
        gap = ((0, self._tile - part.shape[0]), (0, self._tile - part.shape[1]))
        if self._kind == "rgb":
            full = (
                np.pad(part, (*gap, (0, 0)), mode="edge")
                if any(map(any, gap))
                else np.ascontiguousarray(part)
            )
            data = imagecodecs.jpeg8_encode(
                full, level=_JPEG_QUALITY, colorspace="rgb", subsampling="420"
            )
        else:
            full = np.pad(part, gap) if any(map(any, gap)) else np.ascontiguousarray(part)
            data = imagecodecs.deflate_encode(
                full.astype(full.dtype.newbyteorder("<")).tobytes(), level=4
            )
        place = row * self._across(self._levels[level]) + col
        self._places[level][:, place] = (self._file.tell(), len(data))
        self._file.write(data)

    def _directory(self, index: int, start: int) -> tuple[bytes, int]:
        """The bytes of one directory that begins at `start`, and where its link to the next one
        lies."""
        level, rgb = self._levels[index], self._kind == "rgb"
        bits = 32 if self._kind == "uint32" else 8
        scale = 10**4 * 1000
        density = (round(scale / level.mpp), 1000)  # px a centimetre
        tags: list[tuple[int, int, Sequence[int]]] = [
            (254, _LONG8, [1 if index else 0]),
            (256, _LONG8, [level.width]),
            (257, _LONG8, [level.height]),
            (258, _SHORT, [bits] * (3 if rgb else 1)),
            (259, _SHORT, [7 if rgb else 8]),
            (262, _SHORT, [6 if rgb else 1]),
            (277, _SHORT, [3 if rgb else 1]),
            (282, _RATIONAL, density),
            (283, _RATIONAL, density),
            (284, _SHORT, [1]),
            (296, _SHORT, [_CENTIMETRE]),
            (322, _SHORT, [self._tile]),
            (323, _SHORT, [self._tile]),
            (324, _LONG8, self._places[index][0].tolist()),
            (325, _LONG8, self._places[index][1].tolist()),
            (339, _SHORT, [1] * (3 if rgb else 1)),
        ]
        if rgb:
            tags.append((530, _SHORT, [2, 2]))
            tags.sort()
        entries, values = b"", b""
        after = start + 8 + 20 * len(tags) + 8
        for code, kind, numbers in tags:
            data = struct.pack(f"<{len(numbers)}{_FORMAT[kind]}", *numbers)
            count = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
            if len(data) <= 8:
                field = data.ljust(8, b"\0")
            else:
                field = struct.pack("<Q", after + len(values))
                values += data + b"\0" * (-len(data) % 8)
            entries += struct.pack("<HHQ", code, kind, count) + field
        head = struct.pack("<Q", len(tags)) + entries
        return head + struct.pack("<Q", 0) + values, start + len(head)
