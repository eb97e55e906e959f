"""Annotations of flat pictures that are stored turned (EXIF, tag 274).

Viewers show such a picture upright, and so does quadrat; other programs draw on the pixels as they
are stored. The two differ in size if rows and columns are exchanged and the picture is not square:
then the size that an annotation file states tells which it means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from quadrat.annotations.record import Record, Sheet, same_size
from quadrat.annotations.types import F64
from quadrat.core.errors import AnnotationError, SlideError
from quadrat.slides.flat import orientation_of, pillow_limit_lifted
from quadrat.slides.orientation import ORIENTATION, Orientation
from quadrat.slides.tiff_directory import UNREADABLE, tiff_directory
from quadrat.slides.tiff_extent import MAGIC as TIFF_MAGIC
from quadrat.slides.tiff_pictures import choose, pictures_of

DrawnOn = Literal["auto", "shown", "stored"]
"""``data.drawn_on``."""
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a picture that is stored turned becomes upright."""

    orientation: Orientation
    """What its tag states; never upright."""
    stored: tuple[int, int]
    """(height, width) of the picture as it is stored."""

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of the picture as it is shown."""
        return self.orientation.shown(self.stored)

    def points(self, xy: F64) -> F64:
        """(k, 2) x, y, corner-based: of the stored picture to the shown one."""
        transpose, flip_rows, flip_cols = self.orientation.turns
        height, width = self.shown
        x, y = (xy[:, 1], xy[:, 0]) if transpose else (xy[:, 0], xy[:, 1])
        return np.column_stack([width - x if flip_cols else x, height - y if flip_rows else y])


def turn_of(picture: str) -> Turn | None:
    """How the picture at a path is to be turned; None for one that is upright, is no flat picture,
    or is not there."""
    path = Path(picture)
    if not picture or not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            is_tiff = stream.read(4) in TIFF_MAGIC
        return _of_tiff(path) if is_tiff else _of_flat(path)
    except (*UNREADABLE, SyntaxError, SlideError):
        return None  # no flat picture; or a damaged one, of which the reader of slides says so


def _of_flat(path: Path) -> Turn | None:
    with pillow_limit_lifted(), Image.open(path) as image:
        orientation = orientation_of(image)
        size = image.height, image.width
    return None if orientation.is_upright else Turn(orientation, size)


def _of_tiff(path: Path) -> Turn | None:
    """Of the picture that is the slide, as the reader of slides chooses it."""
    with tiff_directory(path) as tiff:
        main = choose(pictures_of(tiff), scene="", path=path).main
        orientation = Orientation(int(main.levels[0].keyframe.tags.valueof(ORIENTATION) or 1))
        return None if orientation.is_upright else Turn(orientation, main.size)


def is_stored_frame(
    stated: tuple[int, int] | None, turn: Turn, *, drawn_on: DrawnOn, where: str
) -> bool:
    """Whether annotations were drawn on the picture as it is stored, and not as it is shown.

    ``stated``: (height, width) that their file states, or None.

    Raises:
        AnnotationError: nobody can tell, or the stated size is not that of ``drawn_on``. The
            message begins with ``where``.
    """
    height, width = turn.stored
    about = f"{where}: its picture is shown turned (EXIF orientation {turn.orientation.value})"
    if drawn_on != "auto":
        wanted = turn.stored if drawn_on == "stored" else turn.shown
        if stated is not None and not same_size(stated, wanted):
            raise AnnotationError(
                f"{about}, and it states a picture of {stated[1]} x {stated[0]} px; that is not "
                f"the picture as it is {drawn_on}, as data.drawn_on says"
            )
        return drawn_on == "stored"
    if stated is None or turn.stored == turn.shown:
        why = "states no size" if stated is None else f"both are {width} x {height} px"
        raise AnnotationError(
            f"{about}, and nobody can tell whether it was drawn on that or on the pixels as they "
            f"are stored ({why}); set data.drawn_on to 'shown' or 'stored', or save the picture "
            "upright and draw on that"
        )
    return same_size(stated, turn.stored) and not same_size(stated, turn.shown)


def upright(sheet: Sheet, turn: Turn | None, *, drawn_on: DrawnOn) -> Sheet:
    """The sheet in the frame of the picture as it is shown.

    Raises:
        AnnotationError: see ``is_stored_frame``.
    """
    if turn is None or not sheet.records:
        return sheet
    if not is_stored_frame(sheet.size, turn, drawn_on=drawn_on, where=sheet.source):
        return sheet
    return replace(
        sheet,
        records=tuple(_turned(record, turn) for record in sheet.records),
        size=turn.shown,
        notes=(*sheet.notes, _note(turn)),
    )


def upright_pixels(
    values: npt.NDArray[Number], turn: Turn | None, *, drawn_on: DrawnOn, where: str
) -> tuple[npt.NDArray[Number], tuple[str, ...]]:
    """A label image or mask (h, w) in the frame of the picture as it is shown, and a note if it was
    turned.

    Raises:
        AnnotationError: see ``is_stored_frame``.
    """
    size = (values.shape[0], values.shape[1])
    if turn is None or not is_stored_frame(size, turn, drawn_on=drawn_on, where=where):
        return values, ()
    return turn.orientation.upright(values), (_note(turn),)


def _note(turn: Turn) -> str:
    height, width = turn.stored
    return (
        f"drawn on the picture as it is stored ({width} x {height} px), and turned as its EXIF "
        f"orientation ({turn.orientation.value}) says"
    )


def _turned(record: Record, turn: Turn) -> Record:
    parts = tuple(tuple(turn.points(ring) for ring in part) for part in record.parts)
    return replace(record, parts=parts, points=turn.points(record.points))
