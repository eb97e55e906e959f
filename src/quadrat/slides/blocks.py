"""A region pasted together from blocks at fixed places: it is the same whole or in parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quadrat.core.geometry import Box
from quadrat.slides.protocol import Rgb


def from_blocks(box: Box, side: tuple[int, int], block: Callable[[int, int], Rgb]) -> Rgb:
    """Pixels of a box inside a level, uint8 (h, w, 3).

    Args:
        box: what to read, in px of the level.
        side: (height, width) of a block (tile, strip or chunk) in px; block (0, 0) begins at pixel
            (0, 0).
        block: returns the block (row, column), uint8 (h, w, 1 or 3); it may end where the level
            ends.
    """
    height, width = side
    out = np.empty((*box.shape, 3), np.uint8)
    for row in range(box.row0 // height, -(-box.row1 // height)):
        top = row * height
        row0, row1 = max(box.row0, top), min(box.row1, top + height)
        for col in range(box.col0 // width, -(-box.col1 // width)):
            left = col * width
            col0, col1 = max(box.col0, left), min(box.col1, left + width)
            out[row0 - box.row0 : row1 - box.row0, col0 - box.col0 : col1 - box.col0] = block(
                row, col
            )[row0 - top : row1 - top, col0 - left : col1 - left]
    return out
