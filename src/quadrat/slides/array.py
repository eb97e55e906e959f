"""A slide held in memory, for tests, phantoms and users who already have the pixels."""

from __future__ import annotations

import numpy as np

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, Level
from quadrat.slides.protocol import Closing, Rgb, SlideInfo, on_canvas


class ArraySlide(Closing):
    """A slide of one level from an array, uint8 (height, width, 3). The array is not copied.

    ``mpp`` is um/px, one value or (rows, columns).

    Raises:
        SlideError: the array is not uint8 (h, w, 3), or it has no pixels.
    """

    __slots__ = ("_array", "info", "levels", "mpp", "name", "path")

    def __init__(
        self,
        array: Rgb,
        *,
        name: str = "array",
        mpp: float | tuple[float, float] | None = None,
        path: str = "",
        info: SlideInfo | None = None,
    ) -> None:
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or array.size == 0:
            raise SlideError(
                f"{name}: an array of {array.dtype}{array.shape} is not a picture of uint8 "
                "(height, width, 3)"
            )
        self._array = array
        height, width = array.shape[:2]
        self.name = name
        self.path = path
        self.levels = (Level(height, width, 1.0, 1.0),)
        self.mpp = (float(mpp), float(mpp)) if isinstance(mpp, int | float) else mpp
        self.info = info or SlideInfo("array", "memory", None, (), None)

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of level 0, uint8 (h, w, 3), white outside. The result is always a
        copy."""
        whole = self.levels[level].box
        return on_canvas(box, whole, lambda part: self._array[part.slices_in(whole)].copy())

    def tiles(self, level: int) -> None:
        """None: there are no compressed tiles."""
