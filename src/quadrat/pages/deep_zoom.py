"""A slide in deep zoom: square JPEG tiles by level and place, cut from its own levels.

Level ``n`` of ``n + 1`` is level 0 of the slide, each one below it half as large (as in Microsoft's
Deep Zoom). Tiles are exact in level-0 px, so that what is drawn over them lies where it should:
where a level of the slide is not a power of two smaller, the tile is resampled from its place.
"""

from __future__ import annotations

import math

import numpy as np
import simplejpeg
from PIL import Image

from quadrat.core.geometry import Box, ReadPlan
from quadrat.slides.protocol import Rgb, Slide
from quadrat.slides.source import SlideSource

TILE = 512
"""Side of a tile in px."""
QUALITY = 85
PIECE_PX = 4096
"""Level px per side that are read at once for a tile of a slide without small levels (48 MiB)."""
_REACH = 4
"""Level px around a tile that resampling may look at, so that no line is seen between tiles."""
_NEAR = 1.01
"""A level that is coarser than asked for by less than this is taken as it is."""


class DeepZoom:
    """The tiles of an open slide. It is safe to read from several threads."""

    __slots__ = ("_sources", "height", "levels", "slide", "width")

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.width, self.height = slide.levels[0].width, slide.levels[0].height
        self.levels = levels_of(self.width, self.height)
        self._sources = [_whole_level(slide, i) for i in range(len(slide.levels))]

    def jpeg(self, level: int, col: int, row: int) -> bytes | None:
        """A tile; None: there is none at that place.

        Raises:
            SlideError: the slide cannot be read.
        """
        pixels = self.tile(level, col, row)
        return None if pixels is None else encoded(pixels)

    def tile(self, level: int, col: int, row: int) -> Rgb | None:
        """Pixels of a tile, uint8 (h, w, 3). One that ends with the slide is stretched to whole
        px, as a viewer that knows the slide's size squeezes it again."""
        if not (0 <= level < self.levels and col >= 0 and row >= 0):
            return None
        factor = 1 << (self.levels - 1 - level)
        width, height = -(-self.width // factor), -(-self.height // factor)
        x0, y0 = col * TILE, row * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        if x0 >= x1 or y0 >= y1:
            return None
        return self._cut((x0, y0, x1, y1), factor)

    def _cut(self, box: tuple[int, int, int, int], factor: int) -> Rgb:
        """A box of px that are ``factor`` level-0 px wide."""
        fine = [i for i, one in enumerate(self.slide.levels) if one.down_row <= factor * _NEAR]
        index = max(fine, key=lambda i: self.slide.levels[i].down_row)
        level = self.slide.levels[index]
        x0, y0, x1, y1 = box
        across, down = factor / level.down_col, factor / level.down_row
        if max((x1 - x0) * across, (y1 - y0) * down) > PIECE_PX and max(x1 - x0, y1 - y0) > 1:
            return self._joined(box, factor)
        left, top = x0 * across, y0 * down
        right, bottom = min(x1 * across, level.width), min(y1 * down, level.height)
        whole = across.is_integer() and down.is_integer()
        wanted = Box(math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right))
        wanted = wanted.pad(0 if whole else _REACH).intersect(level.box)
        pixels = self._sources[index].read(wanted)
        if pixels.shape[:2] == (y1 - y0, x1 - x0):
            return pixels
        kind = Image.Resampling.BOX if whole else Image.Resampling.HAMMING
        inside = left - wanted.col0, top - wanted.row0, right - wanted.col0, bottom - wanted.row0
        return np.asarray(Image.fromarray(pixels).resize((x1 - x0, y1 - y0), kind, box=inside))

    def _joined(self, box: tuple[int, int, int, int], factor: int) -> Rgb:
        """The same from up to four parts of it, so that memory stays bounded."""
        x0, y0, x1, y1 = box
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        half = [(a, (a + b + 1) // 2, b) for a, b in ((x0, x1), (y0, y1))]
        for left, right in zip(half[0], half[0][1:], strict=False):
            for top, bottom in zip(half[1], half[1][1:], strict=False):
                if left < right and top < bottom:
                    part = self._cut((left, top, right, bottom), factor)
                    out[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return out


def levels_of(width: float, height: float) -> int:
    """How many levels a picture has, down to one px."""
    return math.ceil(math.log2(max(width, height, 1))) + 1


def encoded(pixels: Rgb) -> bytes:
    """Pixels uint8 (h, w, 3) as a JPEG file."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=QUALITY))


def _whole_level(slide: Slide, index: int) -> SlideSource:
    """A level as it is; tiles that cannot be decoded are white."""
    level = slide.levels[index]
    plan = ReadPlan(
        level=index,
        ratio_row=1.0,
        ratio_col=1.0,
        scale_row=level.down_row,
        scale_col=level.down_col,
        mpp=1.0,
        height=level.height,
        width=level.width,
    )
    return SlideSource(slide, plan, damaged="mark")
