"""What every slide offers, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box, Level
from quadrat.slides.tile_codec import TileCodec

Rgb = npt.NDArray[np.uint8]
"""Pixels, uint8, shape (height, width, 3)."""
WHITE = 255
"""What lies outside a slide, and behind transparent pixels."""


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a file says of itself.

    format: vendor or file format. reader: what decodes its pixels. objective: magnification as
    stated, or None. associated: names of label, macro and thumbnail images (listed, never read).
    bounds: the scanned part in level-0 px where the file states one (not subtracted: level-0 px
    always means the full frame). icc_profile: the name of the colour profile, listed and not
    applied. notes: sentences on what a user should know of the pixels.
    """

    format: str
    reader: str
    objective: float | None
    associated: tuple[str, ...]
    bounds: Box | None
    icc_profile: str | None = None
    notes: tuple[str, ...] = ()


class TileGrid(Protocol):
    """The compressed tiles of one level as the file holds them; tile (0, 0) begins at
    pixel (0, 0).
    """

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) in px; the last tiles reach beyond the level."""
        ...

    @property
    def codec(self) -> TileCodec:
        """What turns a tile's bytes into pixels."""
        ...

    def data(self, row: int, col: int) -> bytes:
        """The bytes of one tile, not decoded.

        Raises:
            DamagedTileError: the bytes do not begin and end like a tile of this compression.
            SlideError: the file cannot be read.
        """
        ...


class Slide(Protocol):
    """One picture in pyramid levels. Safe to read from several threads; pickles as its path and
    mpp, not its handle."""

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
        """Level-0 um/px of (rows, columns) as the file states it, or the override;
        not yet judged.
        """
        ...

    @property
    def info(self) -> SlideInfo:
        """What the file says of itself."""
        ...

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box``, in that level's own px; white where it lies outside; the same whole or
        in parts.

        Raises:
            DamagedTileError: a tile that the box touches cannot be decoded; other boxes can
            still be read. SlideError: the file cannot be read; names the slide.
        """
        ...

    def tiles(self, level: int) -> TileGrid | None:
        """The level's own compressed tiles, where they are what ``read`` shows and can be moved;
        else None."""
        ...

    def close(self) -> None:
        """Give the file handle back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def damaged_tile(path: object, *, level: int, box: Box, reason: object) -> DamagedTileError:
    """The error for a tile (or block) of a level that cannot be decoded."""
    return DamagedTileError(
        f"{path}: the tile at {box} of level {level} is damaged ({reason}); fetch the file again, "
        "or leave the tile out with --set slide.damaged=mark",
        level=level,
        box=(box.row0, box.col0, box.row1, box.col1),
    )


class Closing:
    """The context-manager half of a slide."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to give back."""


class Reopened(Closing):
    """The half of a slide that pickles it as its path and mpp, not its handle."""

    __slots__ = ()
    path: str
    _override: tuple[float, float] | None

    def __reduce__(self) -> tuple[object, ...]:
        from quadrat.slides.opening import reopen

        return reopen, (self.path, self._override)


def on_canvas(box: Box, whole: Box, read: Callable[[Box], Rgb]) -> Rgb:
    """Pixels of a box, white outside ``whole``; ``read`` gives those of a box inside it."""
    inside = box.intersect(whole)
    if inside.empty:
        return white(box.shape)
    pixels = read(inside)
    if inside == box:
        return pixels
    out = white(box.shape)
    out[inside.slices_in(box)] = pixels
    return out


def white(shape: tuple[int, int]) -> Rgb:
    """A white picture, uint8 (height, width, 3)."""
    return np.full((*shape, 3), WHITE, np.uint8)


def on_white(rgba: Rgb) -> Rgb:
    """Composite uint8 (h, w, 4) with straight alpha on white; integer arithmetic,
    rounded half up.
    """
    alpha = rgba[..., 3]
    if alpha.min(initial=WHITE) == WHITE:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha[..., None].astype(np.uint32)
    mixed = rgba[..., :3] * weight + WHITE * (WHITE - weight)
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)
