"""Questions about a connected component of any size, answered tile by tile: nothing beyond the
largest block is guessed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell

Mask = npt.NDArray[np.bool_]
TILE_PX = 1024


@dataclass(frozen=True, slots=True)
class _Tile:
    """One visited tile."""

    sides: tuple[npt.NDArray[np.int32], ...]
    """Components along its sides (top, bottom, left, right); 0 for none."""
    wanted: frozenset[int]
    """The components that hold a wanted pixel."""


def component_holds(
    read: Callable[[Box], npt.NDArray[np.uint8]],
    start: tuple[int, int],
    *,
    slide: Box,
    mask: Callable[[npt.NDArray[np.uint8]], Mask],
    wanted: Callable[[npt.NDArray[np.uint8], Box], Mask],
    tile: int = TILE_PX,
) -> bool:
    """Whether the 4-connected component of ``mask`` that holds ``start`` also holds a wanted pixel,
    anywhere on the slide.

    The component is followed over the slide, upper tiles first, until a wanted pixel is found or it
    ends. In memory are one tile and the sides of visited tiles (16 * ``tile`` bytes each), whatever
    the size of the component.

    Args:
        read: stitched maps (channels, h, w) of a box inside the slide.
        start: (row, col) grid px, a pixel of the component.
        slide: the slide.
        mask: maps to bool (h, w), the pixels that can be connected.
        wanted: maps and their box to bool (h, w).
        tile: side of a tile in px; it does not change the answer.
    """
    tiles: dict[Cell, _Tile] = {}

    def load(cell: Cell) -> npt.NDArray[np.int32]:
        box = Box(cell[0], cell[1], cell[0] + 1, cell[1] + 1).scale_out(tile, tile).intersect(slide)
        maps = read(box)
        labels, _ = ndimage.label(mask(maps))
        hit = frozenset(np.unique(labels[wanted(maps, box)]).tolist()) - {0}
        tiles[cell] = _Tile(
            (labels[0].copy(), labels[-1].copy(), labels[:, 0].copy(), labels[:, -1].copy()), hit
        )
        return np.asarray(labels, np.int32)

    last = (slide.row1 - 1) // tile, (slide.col1 - 1) // tile
    home = start[0] // tile, start[1] // tile
    first = int(load(home)[start[0] % tile, start[1] % tile])
    queue = [(home, first)]
    reached = {(home, first)}
    while queue:
        cell, label = heapq.heappop(queue)
        if label in tiles[cell].wanted:
            return True
        for side, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            other = cell[0] + down, cell[1] + right
            at = tiles[cell].sides[side] == label
            if not at.any() or not (0 <= other[0] <= last[0] and 0 <= other[1] <= last[1]):
                continue
            if other not in tiles:
                load(other)
            for found in np.unique(tiles[other].sides[side ^ 1][at]).tolist():
                if found and (other, found) not in reached:
                    reached.add((other, found))
                    heapq.heappush(queue, (other, found))
    return False
