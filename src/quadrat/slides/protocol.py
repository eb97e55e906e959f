"""What every slide offers, whatever file it comes from: levels, mpp, and pixels by box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box, Level
from quadrat.slides.tile_codec import TileCodec

if TYPE_CHECKING:
    from quadrat.slides.recognise import Found

Rgb = npt.NDArray[np.uint8]
"""Pixels, uint8, shape (height, width, 3)."""
WHITE = 255
"""The grey level outside a slide, and behind transparent pixels."""


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a file states about itself."""

    format: str
    """Vendor or file format."""
    reader: str
    """What decodes the pixels."""
    objective: float | None
    """Magnification, or None."""
    associated: tuple[str, ...]
    """Names of label, macro and thumbnail images. They are listed, never read."""
    bounds: Box | None
    """The scanned part in level-0 px, or None. It is not subtracted: level-0 px always means the
    full frame."""
    icc_profile: str | None = None
    """Name of the colour profile, or None. It is listed, not applied."""
    mpp_source: str = ""
    """Where the file states its mpp; "" if it states none, or the user gave one."""
    notes: tuple[str, ...] = ()
    """Sentences on what a user should know about the pixels."""


class TileGrid(Protocol):
    """The compressed tiles of one level as they are in the file. Tile (0, 0) begins at pixel (0,
    0)."""

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) in px. The last tiles reach beyond the level."""
        ...

    @property
    def codec(self) -> TileCodec:
        """What turns the bytes of a tile into pixels."""
        ...

    def data(self, row: int, col: int) -> bytes:
        """The bytes of one tile, not decoded.

        Raises:
            DamagedTileError: the bytes do not begin and end like a tile of this compression.
            SlideError: the file cannot be read.
        """
        ...


class Slide(Protocol):
    """One picture in pyramid levels.

    It is safe to read from several threads. It pickles as its path and mpp, not as an open file.
    """

    @property
    def name(self) -> str:
        """File name without suffix, or the name of a folder of DICOM instances."""
        ...

    @property
    def path(self) -> str:
        """Where it was opened."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, largest first."""
        ...

    @property
    def mpp(self) -> tuple[float, float] | None:
        """um/px of (rows, columns) at level 0, as the file states it or as the caller gave it. Not
        checked yet."""
        ...

    @property
    def info(self) -> SlideInfo:
        """What the file states about itself."""
        ...

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box``, in px of that level, white outside the level. The same whether read
        whole or in parts.

        Raises:
            DamagedTileError: a tile that the box touches cannot be decoded. Other boxes can still
                be read.
            SlideError: the file cannot be read; the message names the slide.
        """
        ...

    def tiles(self, level: int) -> TileGrid | None:
        """The compressed tiles of a level if they are exactly what ``read`` shows, else None."""
        ...

    def close(self) -> None:
        """Close the file."""
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
    """Makes a slide a context manager that closes its file."""

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
        """Nothing to close."""


class Reopened(Closing):
    """Makes a slide pickle as its path, scene and mpp, not as an open file."""

    __slots__ = ()
    path: str
    _found: Found
    _override: tuple[float, float] | None

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (type(self), self.path, self._found.scene, self._override)


def _reopen(
    kind: Callable[..., Slide], path: str, scene: str, mpp: tuple[float, float] | None
) -> Slide:
    from quadrat.slides.recognise import recognise  # tifffile is slow to load, and few need it

    return kind(recognise(Path(path), scene=scene), mpp=mpp)


def on_canvas(box: Box, whole: Box, read: Callable[[Box], Rgb]) -> Rgb:
    """Pixels of a box, white outside ``whole``. ``read`` returns the pixels of a box inside
    ``whole``."""
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
    """uint8 (h, w, 4) with straight alpha, laid on white. Integer arithmetic, rounded half up."""
    alpha = rgba[..., 3]
    if alpha.min(initial=WHITE) == WHITE:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha[..., None].astype(np.uint32)
    mixed = rgba[..., :3] * weight + WHITE * (WHITE - weight)
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)
