"""Whether a smaller picture shows the same as a larger one, so that it can be a level of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box
from quadrat.slides.protocol import Rgb

GRID = 4
"""So many places per side are compared."""
SIDE_PX = 16
"""Side of a place in px of the smaller picture."""
CELLS = 4
"""A place is compared in so many cells per side. Their means do not depend on how the writer
reduced."""
SHARE, FLOOR = 0.5, 6.0
"""The mean difference that is allowed: a share of the standard deviation, and grey levels. Two
pictures that have nothing in common differ by more than one standard deviation."""

Read = Callable[[int, Box], Rgb]


def shows_same(read: Read, *, small: int, large: int, sizes: dict[int, tuple[int, int]]) -> bool:
    """Compare two levels of one file. ``read`` gives the pixels of a box of a level, ``sizes`` the
    (height, width) of levels. A place that cannot be decoded proves nothing; if that is all of
    them, they are not the same."""
    (height, width), whole = sizes[small], Box(0, 0, *sizes[large])
    down = sizes[large][0] / height, sizes[large][1] / width
    side = min(SIDE_PX, height, width)
    ours, theirs = [], []
    for number in range(GRID * GRID):
        row = (number // GRID) * (height - side) // (GRID - 1)
        col = (number % GRID) * (width - side) // (GRID - 1)
        place = Box(
            round(row * down[0]),
            round(col * down[1]),
            round((row + side) * down[0]),
            round((col + side) * down[1]),
        )
        try:
            pair = (
                read(small, Box(row, col, row + side, col + side)),
                read(large, place.intersect(whole)),
            )
        except DamagedTileError:
            continue
        ours.append(_cells(pair[0]))
        theirs.append(_cells(pair[1]))
    if not ours:
        return False
    a, b = np.stack(ours), np.stack(theirs)
    return bool(np.abs(a - b).mean() <= SHARE * b.std() + FLOOR)


def unlike_note(sizes: Sequence[tuple[int, int]]) -> str:
    """What a user should know of pictures (height, width) that are not used as levels."""
    listed = ", ".join(f"{width} x {height} px" for height, width in sizes)
    return f"not used as a level, because it shows something else: {listed}"


def _cells(pixels: Rgb) -> npt.NDArray[np.float32]:
    """The mean colour of each cell."""
    bands = [
        Image.fromarray(np.ascontiguousarray(pixels[..., band])).resize(
            (CELLS, CELLS), Image.Resampling.BOX
        )
        for band in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(band, np.float32) for band in bands])
