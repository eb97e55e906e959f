"""Tiles of TIFF-family slides, read with ``pread`` and decoded by imagecodecs instead of OpenSlide.

OpenSlide spends most of its time in a cairo blit, and it shifts (blurs) levels whose downsample is not whole by up to
half a level-0 pixel (openslide#641, #719). The native tile has neither fault. It is used only where a self-check
at opening finds it equal to OpenSlide, which stays the reference.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import tifffile

from quadrat.errors import SlideError
from quadrat.geometry import Box
from quadrat.slides.cache import BlockCache
from quadrat.slides.protocol import Rgb, white

MAX_TILE_PX = 2048
"""Larger tiles (whole-width strips of some scanners) would be decoded for every small read."""
COMPRESSIONS = {1, 5, 7, 8, 32946, 33003, 33005, 34712}
"""None, LZW, JPEG, deflate (2), JPEG 2000 (3). Tests have JPEG, deflate and 33005; the self-check judges the rest."""


@dataclass(frozen=True, slots=True)
class NativeLevel:
    """One tiled page: size in px, tile size, and where each tile lies in the file (raster order)."""

    page: tifffile.TiffPage
    height: int
    width: int
    tile: tuple[int, int]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def across(self) -> int:
        """Tiles a row."""
        return -(-self.width // self.tile[1])

    def tile_box(self, row: int, col: int) -> Box:
        """The tile's part of the level (the last ones are cut at the edge)."""
        top, left = row * self.tile[0], col * self.tile[1]
        return Box(top, left, min(top + self.tile[0], self.height), min(left + self.tile[1], self.width))


@dataclass(slots=True)
class NativeTiles:
    """The tiled levels of one TIFF-family file, by (height, width); safe to read from several threads."""

    path: Path
    levels: dict[tuple[int, int], NativeLevel]
    handle: int
    cache: BlockCache = field(default_factory=BlockCache)
    lock: Lock = field(default_factory=Lock)

    @staticmethod
    def open(path: Path) -> NativeTiles:
        """List the pages that can be read natively; none is an answer, too."""
        levels: dict[tuple[int, int], NativeLevel] = {}
        with tifffile.TiffFile(path) as tiff:
            for page in tiff.pages:
                level = _native_level(page) if isinstance(page, tifffile.TiffPage) else None
                if level is not None:
                    levels.setdefault((level.height, level.width), level)
        return NativeTiles(path=path, levels=levels, handle=os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self, size: tuple[int, int], box: Box) -> Rgb:
        """Pixels of ``box`` (inside the level) of the level of that (height, width), uint8 (h, w, 3).

        Raises:
            SlideError: a tile cannot be read or decoded.
        """
        level = self.levels[size]
        out = white(box.shape)
        rows = range(box.row0 // level.tile[0], -(-box.row1 // level.tile[0]))
        cols = range(box.col0 // level.tile[1], -(-box.col1 // level.tile[1]))
        for row in rows:
            for col in cols:
                place = level.tile_box(row, col)
                part = place.intersect(box)
                pixels = self.cache.get((*size, row, col), partial(self._decode, level, row, col))
                out[part.slices_in(box)] = pixels[part.slices_in(place)]
        return out

    def _decode(self, level: NativeLevel, row: int, col: int) -> Rgb:
        index = row * level.across + col
        place = level.tile_box(row, col)
        try:
            data = os.pread(self.handle, int(level.counts[index]), int(level.offsets[index]))
            decoded, _, _ = level.page.decode(data, index, jpegtables=level.page.jpegtables)
        except Exception as error:  # codecs raise a class each; whatever it is, this tile is lost
            raise SlideError(
                f"{self.path}: the tile at {place} of the level of {level.width} x {level.height} px is "
                f"damaged ({type(error).__name__}: {error})"
            ) from error
        if decoded is None or decoded.ndim != 4 or decoded.shape[3] != 3 or decoded.dtype != np.uint8:
            raise SlideError(f"{self.path}: the tile at {place} does not decode to uint8 (height, width, 3)")
        return np.ascontiguousarray(decoded[0, : place.height, : place.width])

    def close(self) -> None:
        """Give the file handle back."""
        with self.lock:
            if self.handle >= 0:
                os.close(self.handle)
                self.handle = -1


def _native_level(page: tifffile.TiffPage) -> NativeLevel | None:
    """The page as a level, or None where OpenSlide must serve it (strips, missing tiles, rare formats)."""
    plain = page.is_tiled and page.dtype == np.uint8 and page.samplesperpixel == 3 and page.planarconfig == 1
    if not plain or int(page.compression) not in COMPRESSIONS or page.ndim != 3:
        return None
    height, width = page.imagelength, page.imagewidth
    tile = page.tilelength, page.tilewidth
    counts, offsets = np.array(page.databytecounts, np.int64), np.array(page.dataoffsets, np.int64)
    tiles = -(-height // tile[0]) * -(-width // tile[1]) if min(tile) else 0
    if max(tile) > MAX_TILE_PX or len(counts) != tiles or len(offsets) != tiles or counts.min(initial=1) <= 0:
        return None  # a tile of 0 bytes is drawn by OpenSlide from a coarser level
    page.decode, page.jpegtables  # noqa: B018 - both look into the file once and remember, so ask while it is open
    return NativeLevel(page, height, width, tile, offsets, counts)
