"""What every slide offers, whatever file it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from quadrat.geometry import Box, Level

Rgb = npt.NDArray[np.uint8]
"""Pixels, uint8, shape (height, width, 3)."""
WHITE = 255
"""What lies outside a slide, and behind transparent pixels."""


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a file says of itself.

    format: vendor or file format. reader: what decodes its pixels. objective: magnification as stated, or None.
    associated: names of label, macro and thumbnail images (listed, never read). bounds: the scanned part in level-0 px
    where the file states one (not subtracted: level-0 px always means the full frame). size: level-0 (height, width).
    level_sizes: (height, width) of every level.
    """

    format: str
    reader: str
    objective: float | None
    associated: tuple[str, ...]
    bounds: Box | None
    size: tuple[int, int]
    level_sizes: tuple[tuple[int, int], ...]


class Slide(Protocol):
    """One picture in pyramid levels. Safe to read from several threads; pickles as its path and mpp, not its handle."""

    @property
    def name(self) -> str:
        """File stem, or the folder's name for a folder of DICOM instances."""
        ...

    @property
    def path(self) -> str:
        """Where it was opened from."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """Largest first."""
        ...

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Level-0 um/px of (rows, columns) as the file states it, or the override; not yet judged."""
        ...

    @property
    def info(self) -> SlideInfo:
        """What the file says of itself."""
        ...

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box``, in that level's own px; white where it lies outside; the same whole or in parts.

        Raises:
            SlideError: the pixels cannot be decoded; names the slide and the place.
        """
        ...

    def close(self) -> None:
        """Give the file handle back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None: ...


class Closing:
    """The context-manager half of a slide."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to give back."""


def white(shape: tuple[int, int]) -> Rgb:
    """A white picture, uint8 (height, width, 3)."""
    return np.full((*shape, 3), WHITE, np.uint8)


def on_white(rgba: Rgb) -> Rgb:
    """Composite uint8 (h, w, 4) with straight alpha on white; integer arithmetic, rounded half up."""
    alpha = rgba[..., 3]
    if alpha.min(initial=WHITE) == WHITE:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha[..., None].astype(np.uint32)
    mixed = rgba[..., :3] * weight + WHITE * (WHITE - weight)
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)
