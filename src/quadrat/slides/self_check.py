"""Whether native tiles show what OpenSlide shows: each level of a slide is compared when it is
opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box
from quadrat.slides.native import NativeLevel, NativeTiles
from quadrat.slides.protocol import Rgb

CHECKED_TILES = 3
"""Tiles compared per level; fewer only if the level has fewer tiles that both readers can
decode."""
CHECKED_PX = 256
"""At most this many rows and columns of a tile are compared, at its lower right corner, where
padding shows."""
SHIFT_TOLERANCE = 3.0
"""Mean difference in grey levels that is allowed where OpenSlide shifts by a part of a pixel."""


def refuse_reason(
    native: NativeTiles, level: int, *, reference: Callable[[int, Box], Rgb], shifted: bool
) -> str | None:
    """Why this level must not be read natively; None if every compared tile is equal to the
    reference.

    Compared are the tile with the most bytes (it has the most to tell), the last, the first and
    some in between. The reference blurs a ``shifted`` level by a part of a pixel, except at (0, 0):
    there the first tile must be equal, and the others must be similar. A tile that does not decode
    is damaged and proves nothing. If no tile decodes, the level is refused.
    """
    compared = 0
    for row, col in _chosen(native.levels[level], first=shifted):
        tile = native.levels[level].tile_box(row, col)
        place = Box(
            max(tile.row0, tile.row1 - CHECKED_PX),
            max(tile.col0, tile.col1 - CHECKED_PX),
            tile.row1,
            tile.col1,
        )
        at_origin = shifted and (row, col) == (0, 0)
        if at_origin:  # from (0, 0) on nothing is shifted
            place = Box(0, 0, min(tile.row1, CHECKED_PX), min(tile.col1, CHECKED_PX))
        ours, theirs = (_try(read, level, place) for read in (native.read, reference))
        if ours is None:  # damaged, even if the reference shows something: reading it will fail
            continue
        if theirs is None:
            return f"level {level}: OpenSlide finds the tile at {tile} damaged"
        difference = np.abs(ours.astype(np.int16) - theirs)
        alike = (
            shifted and not at_origin and difference.mean() <= SHIFT_TOLERANCE + 0.1 * theirs.std()
        )
        if difference.any() and not alike:
            return f"level {level}: the tile at {tile} differs"
        compared += 1
        if compared == CHECKED_TILES:
            break
    return None if compared else f"level {level}: no tile to compare"


def _try(read: Callable[[int, Box], Rgb], level: int, place: Box) -> Rgb | None:
    try:
        return read(level, place)
    except DamagedTileError:
        return None


def _chosen(grid: NativeLevel, *, first: bool) -> Iterator[tuple[int, int]]:
    """(row, column) of the tiles to compare, the most telling ones first, each once. There are more
    than needed."""
    number = len(grid.counts)
    order = [int(grid.counts.argmax()), number - 1, 0, number // 2, number // 3, 2 * number // 3]
    if first:
        order.insert(0, 0)
    # missing tiles come from the reference anyway
    held = [index for index in dict.fromkeys(order) if grid.counts[index]]
    return (divmod(index, grid.across) for index in held)
