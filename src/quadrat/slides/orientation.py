"""How a picture is to be turned before it is shown: EXIF and TIFF tag 274 (TIFF 6.0, Orientation).

Viewers show flat pictures turned, so annotations are drawn on the turned picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from quadrat.core.geometry import Box

Number = TypeVar("Number", int, float)
Pixel = TypeVar("Pixel", bound=np.generic)
ORIENTATION = 274
"""The number of the tag."""
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True, slots=True)
class Orientation:
    """From stored to shown pixels: transpose, then flip."""

    value: int = 1
    """1 to 8; anything else counts as 1, as in viewers."""

    @property
    def turns(self) -> tuple[bool, bool, bool]:
        """Whether to transpose, to flip rows, to flip columns."""
        return _TURNS.get(self.value, (False, False, False))

    @property
    def is_upright(self) -> bool:
        """Whether the stored picture is shown as it is."""
        return not any(self.turns)

    @property
    def note(self) -> str:
        """What a user should know."""
        return f"shown turned, as its orientation ({self.value}) states and viewers do"

    def shown(self, pair: tuple[Number, Number]) -> tuple[Number, Number]:
        """Of a pair for rows and columns of the stored picture (its sides, its mpp): the pair of
        the shown one."""
        return (pair[1], pair[0]) if self.turns[0] else pair

    def upright(self, pixels: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
        """Stored pixels (h, w, ...) as they are shown."""
        transpose, rows, cols = self.turns
        turned = pixels.swapaxes(0, 1) if transpose else pixels
        turned = turned[::-1] if rows else turned
        return np.ascontiguousarray(turned[:, ::-1] if cols else turned)

    def stored(self, box: Box, shown: Box) -> Box:
        """Where a box of the shown picture lies in the stored one. ``shown``: the whole."""
        transpose, rows, cols = self.turns
        row0, row1 = _flipped(box.row0, box.row1, shown.row1) if rows else (box.row0, box.row1)
        col0, col1 = _flipped(box.col0, box.col1, shown.col1) if cols else (box.col0, box.col1)
        return Box(col0, row0, col1, row1) if transpose else Box(row0, col0, row1, col1)


def _flipped(start: int, stop: int, length: int) -> tuple[int, int]:
    return length - stop, length - start
