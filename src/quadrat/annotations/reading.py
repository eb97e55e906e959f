"""The records of one slide in an annotation file, whose format is recognised by its content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.annotations.delimited import read_delimited
from quadrat.annotations.geojson import read_geojson
from quadrat.annotations.record import Sheet
from quadrat.annotations.voc import read_voc
from quadrat.errors import AnnotationError

READ = "QuPath GeoJSON, Pascal VOC XML, or a table of points"
"""The formats, for messages."""
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What a file alone does not say.

    ``picture``: the slide's file name, which picks its records where a file serves several slides ("": the file has one).
    ``classes``, ``layout``, ``first_class``: for text files without a header and with numbered classes (see DataSection).
    """

    picture: str = ""
    classes: Sequence[str] = ()
    layout: str = "x y class"
    first_class: int | None = None


def read_sheet(path: Path, *, choice: Choice) -> Sheet:
    """The records of one slide.

    Raises:
        AnnotationError: unreadable, of no known format, or without the slide.
    """
    return _READERS[recognise(path)](path, choice)


def recognise(path: Path) -> str:
    """The format of a file by its first bytes.

    Raises:
        AnnotationError: there is no such file, it is empty, or of no known format.
    """
    try:
        head = path.open("rb").read(_HEAD)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")):
        return "geojson"
    if b"<annotation>" in start or b"<annotation " in start:
        return "voc"
    if b"\0" not in head:
        return "delimited"
    raise AnnotationError(f"{path}: no annotation file that quadrat reads; it reads {READ}")


_READERS: dict[str, Callable[[Path, Choice], Sheet]] = {
    "geojson": lambda path, choice: read_geojson(path),
    "voc": lambda path, choice: read_voc(path),
    "delimited": lambda path, choice: read_delimited(
        path, picture=choice.picture, classes=choice.classes, layout=choice.layout, first_class=choice.first_class
    ),
}
