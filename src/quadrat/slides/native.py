"""Tiles of TIFF slides, read with ``pread`` and decoded one by one instead of through OpenSlide.

OpenSlide spends most of its time in a cairo blit. It also shifts (blurs) a level by up to half a
level-0 pixel if its downsample is not a whole number (openslide#641, #719). The native reader does
neither. It is used only where a self-check finds it equal to OpenSlide, which stays the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box
from quadrat.slides.blocks import from_blocks
from quadrat.slides.cache import BlockCache
from quadrat.slides.protocol import Rgb, TileGrid, damaged_tile
from quadrat.slides.tiff_directory import tiff_directory
from quadrat.slides.tile_codec import TileCodec

MAX_TILE_PX = 2048
"""Larger tiles (strips as wide as the slide, of some scanners) would be decoded for every small
read."""
PLAIN = (1, 5, 8, 32946)
"""Compressions without loss: none, LZW, deflate (2). tifffile decodes them."""
JPEG2000 = {33003: "ycbcr", 33005: "rgb", 34712: "rgb"}
"""Compressions by JPEG 2000, and what their codestreams hold."""
JPEG = 7
RGB, YCBCR = 2, 6
"""Photometric interpretations."""


@dataclass(frozen=True, slots=True)
class NativeLevel:
    """One tiled page of a file: its size, its tiles, and where each tile lies (in raster order)."""

    size: tuple[int, int]
    """(height, width) of the level in px."""
    tile: tuple[int, int]
    """(height, width) of a tile in px."""
    offsets: npt.NDArray[np.int64]
    """(tiles,) int64: the first byte of each tile in the file."""
    counts: npt.NDArray[np.int64]
    """(tiles,) int64: the bytes of each tile; 0 if the file does not hold the tile."""
    codec: TileCodec | None
    """How a tile is compressed; None for compressions without loss."""
    decode: Callable[[bytes, int], Rgb]
    """From the bytes and the index of a tile to uint8 (h, w, 3), at least the part inside the
    level."""

    @property
    def across(self) -> int:
        """Tiles per row."""
        return -(-self.size[1] // self.tile[1])

    def tile_box(self, row: int, col: int) -> Box:
        """The part of a tile inside the level (the last tiles are cut at the edge)."""
        top, left = row * self.tile[0], col * self.tile[1]
        return Box(
            top, left, min(top + self.tile[0], self.size[0]), min(left + self.tile[1], self.size[1])
        )


class NativeTiles:
    """The tiled levels of one file, by level index. Safe to read from several threads.

    ``missing(level, box)`` returns the pixels of a tile that the file does not hold.
    """

    __slots__ = ("_cache", "_handle", "_missing", "_stamp", "levels", "path")

    def __init__(
        self,
        path: Path,
        levels: Mapping[int, NativeLevel],
        *,
        missing: Callable[[int, Box], Rgb] | None = None,
    ) -> None:
        self.path = path
        self.levels = dict(levels)
        self._missing = missing
        self._cache = BlockCache()
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stamp = _stamp(self._handle)

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` (inside the level), uint8 (h, w, 3).

        Raises:
            DamagedTileError: a tile that the box touches cannot be decoded.
            SlideError: the file cannot be read, or has changed since it was opened.
        """
        if _stamp(self._handle) != self._stamp:
            raise SlideError(
                f"{self.path}: the file was changed while it was read; run again when nothing "
                "writes to it"
            )

        def tile(row: int, col: int) -> Rgb:
            return self._cache.get((level, row, col), partial(self._decode, level, row, col))

        return from_blocks(box, self.levels[level].tile, tile)

    def grid(self, level: int) -> TileGrid | None:
        """The compressed tiles of a level, if they are JPEG or JPEG 2000 and none is missing."""
        found = self.levels.get(level)
        if found is None or found.codec is None or not found.counts.all():
            return None
        return NativeGrid(tiles=self, level=level, tile=found.tile, codec=found.codec)

    def data(self, level: int, row: int, col: int) -> bytes:
        """The bytes of one tile.

        Raises:
            SlideError: the file cannot be read, or ends within the tile.
        """
        grid = self.levels[level]
        index = row * grid.across + col
        nbytes, offset = int(grid.counts[index]), int(grid.offsets[index])
        try:
            data = os.pread(self._handle, nbytes, offset)
        except OSError as error:
            raise SlideError(
                f"{self.path}: bytes {offset} to {offset + nbytes} cannot be read "
                f"({error.strerror})"
            ) from error
        if len(data) < nbytes:
            raise SlideError(
                f"{self.path}: the file ends within a tile at byte {offset + len(data)}; it was "
                "truncated while it was open"
            )
        return data

    def damaged(self, level: int, row: int, col: int, reason: object) -> DamagedTileError:
        """The error for a tile that cannot be decoded."""
        return damaged_tile(
            self.path, level=level, box=self.levels[level].tile_box(row, col), reason=reason
        )

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _decode(self, level: int, row: int, col: int) -> Rgb:
        grid = self.levels[level]
        index = row * grid.across + col
        if not grid.counts[index]:
            if self._missing is None:
                raise self.damaged(level, row, col, "the file does not hold it")
            return self._missing(level, grid.tile_box(row, col))
        data = self.data(level, row, col)
        try:
            pixels = grid.decode(data, index)
        except ValueError as error:
            raise self.damaged(level, row, col, error) from error
        if grid.codec is not None and pixels.shape[:2] != grid.tile:
            raise self.damaged(
                level,
                row,
                col,
                f"it is {pixels.shape[1]} x {pixels.shape[0]} px, not {grid.tile[::-1]}",
            )
        return pixels


@dataclass(frozen=True, slots=True)
class NativeGrid:
    """The compressed tiles of one level; see ``TileGrid``."""

    tiles: NativeTiles
    """The file."""
    level: int
    """Index of the level in the file."""
    tile: tuple[int, int]
    """(height, width) of a tile in px."""
    codec: TileCodec
    """How a tile is compressed."""

    def data(self, row: int, col: int) -> bytes:
        """The bytes of one tile; see ``TileGrid.data``."""
        data = self.tiles.data(self.level, row, col)
        reason = self.codec.flaw(data)
        if reason is not None:
            raise self.tiles.damaged(self.level, row, col, reason)
        return data


def pages_by_size(path: Path) -> dict[tuple[int, int], NativeLevel]:
    """The pages of a file that can be read natively, the first one of each (height, width). There
    may be none.

    Raises:
        SlideError: the directories make no sense.
    """
    levels: dict[tuple[int, int], NativeLevel] = {}
    with tiff_directory(path) as tiff:
        for page in tiff.pages:
            level = native_level(page) if isinstance(page, tifffile.TiffPage) else None
            if level is not None:
                levels.setdefault(level.size, level)
    return levels


def native_level(page: tifffile.TiffPage) -> NativeLevel | None:
    """A page of an open file as a level; None if it has no tiles of 8-bit RGB that can be read
    here."""
    plain = (
        page.is_tiled
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
    )
    if not plain or page.ndim != 3:
        return None
    size, tile = (page.imagelength, page.imagewidth), (page.tilelength, page.tilewidth)
    counts, offsets = np.array(page.databytecounts, np.int64), np.array(page.dataoffsets, np.int64)
    tiles = -(-size[0] // tile[0]) * -(-size[1] // tile[1]) if min(tile) else 0
    if (
        max(tile) > MAX_TILE_PX
        or tiles == 0
        or len(counts) != tiles
        or len(offsets) != tiles
        or counts.min() < 0
    ):
        return None
    codec = _codec(page)
    if codec is not None:
        return NativeLevel(size, tile, offsets, counts, codec, lambda data, _: codec.decode(data))
    if int(page.compression) not in PLAIN:
        return None
    page.decode  # noqa: B018 - it reads the file once and remembers, so ask while it is open
    return NativeLevel(size, tile, offsets, counts, None, partial(decoded, page))


def _codec(page: tifffile.TiffPage) -> TileCodec | None:
    compression, photometric = int(page.compression), int(page.photometric)
    if compression == JPEG and photometric in (RGB, YCBCR):
        return TileCodec("jpeg", "rgb" if photometric == RGB else "ycbcr", page.jpegtables or b"")
    if compression in JPEG2000:
        return TileCodec("jpeg2000", "ycbcr" if JPEG2000[compression] == "ycbcr" else "rgb")
    return None


def decoded(page: tifffile.TiffPage, data: bytes, index: int) -> Rgb:
    """A tile or strip decoded by tifffile, uint8 (h, w, samples).

    Raises:
        ValueError: it is damaged.
    """
    try:
        pixels = page.decode(data, index, jpegtables=page.jpegtables)[0]
    except Exception as error:  # codecs raise a class each; whatever it is, this tile is lost
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if pixels is None or pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise ValueError("it does not decode to 8-bit samples")
    return np.ascontiguousarray(pixels[0])


def _stamp(handle: int) -> tuple[int, int]:
    """Size and time of change of an open file."""
    found = os.fstat(handle)
    return found.st_size, found.st_mtime_ns
