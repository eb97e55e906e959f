"""Whether native tiles show what OpenSlide shows, tried at opening on that very slide, level by
level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box
from quadrat.slides.native import NativeLevel, NativeTiles
from quadrat.slides.protocol import Rgb

CHECKED_TILES = 3
"""Tiles compared a level; fewer only where the level has fewer that both readers can decode."""
CHECKED_PX = 256
"""Of each tile this many rows and columns at most, its lower right corner (where padding shows)."""
SHIFT_TOLERANCE = 3.0
"""Mean grey levels by which a native block may differ from one that OpenSlide shifts by a part of a
pixel."""


def refuse_reason(
    native: NativeTiles, level: int, *, reference: Callable[[int, Box], Rgb], shifted: bool
) -> str | None:
    """Why this level must not be read natively; None if every compared tile is equal to the
    reference.

    The tile of most bytes (the most to tell apart), the last, the first and some between are taken.
    Of a ``shifted`` level, which the reference blurs by a part of a pixel away from (0, 0), the
    first tile must be equal and the others alike. A tile that does not decode is damaged and says
    nothing; if none does, the level is refused.
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
        if at_origin:  # read from (0, 0) on, nothing is shifted
            place = Box(0, 0, min(tile.row1, CHECKED_PX), min(tile.col1, CHECKED_PX))
        ours, theirs = (_try(read, level, place) for read in (native.read, reference))
        if ours is None:  # damaged, whatever the reference makes of it: reading it will say so
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
    """(row, column) of the tiles to compare, the most telling ones first, each once; more than are
    needed."""
    number = len(grid.counts)
    order = [int(grid.counts.argmax()), number - 1, 0, number // 2, number // 3, 2 * number // 3]
    if first:
        order.insert(0, 0)
    # missing tiles are the reference's own
    held = [index for index in dict.fromkeys(order) if grid.counts[index]]
    return (divmod(index, grid.across) for index in held)
