"""Slides cut from blocks (tiles, strips, chunks) at fixed places: a region is the same whole or in
parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from quadrat.core.geometry import Box, Level, pyramid_levels
from quadrat.slides.cache import CACHE_BYTES, BlockCache
from quadrat.slides.protocol import Closing, Rgb, SlideInfo, TileGrid, white


class BlockSlide(Closing):
    """What such slides share; a subclass decodes one block of one level.

    ``grids`` has the (height, width) of the blocks of every level, in px.
    """

    def __init__(
        self,
        *,
        name: str,
        path: str,
        sizes: Sequence[tuple[int, int]],
        grids: Sequence[tuple[int, int]],
        mpp: tuple[float, float] | None,
        info: SlideInfo,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.name = name
        self.path = path
        self.levels: tuple[Level, ...] = pyramid_levels(sizes)
        self.mpp = mpp
        self.info = info
        self._grids = tuple(grids)
        self._cache = BlockCache(cache_bytes)

    def decode(self, level: int, row: int, col: int, place: Box) -> Rgb:
        """One block, uint8 (h, w, 3): ``place`` is its part inside the level.

        Raises:
            DamagedTileError: it cannot be decoded.
        """
        raise NotImplementedError

    def tiles(self, level: int) -> TileGrid | None:
        """No compressed tiles are handed out."""
        return None

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""
        whole = self.levels[level].box
        inside = box.intersect(whole)
        out = np.empty((*box.shape, 3), np.uint8) if inside == box else white(box.shape)
        if inside.empty:
            return out
        height, width = self._grids[level]
        for row in range(inside.row0 // height, -(-inside.row1 // height)):
            for col in range(inside.col0 // width, -(-inside.col1 // width)):
                place = Box(
                    row * height, col * width, (row + 1) * height, (col + 1) * width
                ).intersect(whole)
                part = place.intersect(inside)
                block = self._cache.get(
                    (level, row, col), partial(self.decode, level, row, col, place)
                )
                out[part.slices_in(box)] = block[part.slices_in(place)]
        return out
