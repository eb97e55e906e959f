"""The records of one slide from an annotation file of any format. The format is recognised by
content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadrat.annotations.formats.asap import read_asap
from quadrat.annotations.formats.coco import pictures_in, read_coco
from quadrat.annotations.formats.delimited import pictures_of_table, read_delimited
from quadrat.annotations.formats.geojson import read_geojson
from quadrat.annotations.formats.mask_image import Colours, colours_of
from quadrat.annotations.formats.pixel_records import read_picture
from quadrat.annotations.formats.table import pictures_of_parquet, read_parquet
from quadrat.annotations.formats.text import GZIP, is_packed, read_bytes, read_xml, unpacked
from quadrat.annotations.formats.voc import read_voc
from quadrat.annotations.orientation import DrawnOn, turn_of, upright
from quadrat.annotations.origin import Origin, placed
from quadrat.annotations.record import Sheet
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError
from quadrat.core.text import UTF16
from quadrat.core.unit import Mpp
from quadrat.core.xml import root_tag
from quadrat.slides.scanned_part import scanned_part

READ = (
    "QuPath GeoJSON, COCO JSON, Pascal VOC XML, ASAP XML, CSV or text of points or boxes, "
    "QuPath's table of measurements, quadrat's own Parquet table, and label images or masks (PNG, "
    "TIFF, OME-Zarr)"
)
"""The formats, for messages."""
_HEAD = 1 << 16
_REMEDIES = {
    UTF16: "UTF-16 text; save it as UTF-8",
    (
        GZIP,
        b"BZh91AY&SY",
        b"\xfd7zXZ",
        b"\x28\xb5\x2f\xfd",
    ): "compressed with bzip2, xz or zstd, or twice with gzip; unpack it",
    (
        b"PK\3\4",
        b"7z\xbc\xaf",
    ): "an archive or a workbook (zip, 7z, xlsx); unpack it, or save the sheet as CSV",
}
"""What to do about files that begin with these bytes."""
_PICTURES = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\xd8\xff", b"BM", b"GIF8")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a file alone does not state."""

    picture: str = ""
    """The file or the name of the slide, if the file serves several slides; "" if it serves one."""
    called: str = ""
    """Name of the slide in the manifest."""
    classes: Sequence[str] = ()
    """Class names, for text files with numbered classes and for masks."""
    layout: str = "x y class"
    """Order of the columns of text files without a header (see DataSection)."""
    first_class: int | None = None
    """Number of the first class, for text files with numbered classes."""
    pixels: str = ""
    """What an image is: "labels" (each value is an object), "mask" (see ``threshold``), or "" (a
    mask if it is of 1 bit, or of 8 and has the value 255)."""
    threshold: int | None = None
    """The foreground of a mask lies above it. None: see ``mask_image.mask_of``."""
    drawn_on: DrawnOn = "auto"
    """On what the annotations of a picture that is shown turned were drawn."""
    origin: Origin = "auto"
    """From which corner the coordinates count where only a part of the slide was scanned."""
    mpp: Mpp | None = None
    """um per level-0 px, for tables in um; None if nobody states it, "px" in pixel work, where such
    tables are refused."""
    colours: Colours = field(default_factory=dict)
    """What the colours of a mask mean; empty if they are not stated."""

    @staticmethod
    def of(data: DataSection, classes: Sequence[str]) -> Choice:
        """What a pipeline states about all its files."""
        return Choice(
            classes=tuple(classes),
            layout=data.point_layout,
            first_class=data.point_first_class,
            pixels=data.annotations if data.annotations in ("labels", "mask") else "",
            threshold=data.mask_threshold,
            colours=colours_of(data),
            drawn_on=data.drawn_on,
            origin=data.origin,
        )


def read_sheet(path: Path, *, choice: Choice) -> Sheet:
    """The records of one slide, in px of the slide as it is shown.

    Raises:
        AnnotationError: unreadable, of no known format, or without the slide; or nobody can tell
            whether they were drawn on the picture as it is shown, or from which corner they count.
    """
    sheet = _READERS[recognise(path)](path, choice)
    shown = upright(sheet, turn_of(choice.picture), drawn_on=choice.drawn_on)
    return placed(shown, scanned_part(choice.picture), origin=choice.origin)


def pictures(path: Path) -> list[str]:
    """The slides that a file serves, as it names them; [""] if it serves one.

    Raises:
        AnnotationError: unreadable, or of no known format.
    """
    many = {"coco": pictures_in, "delimited": pictures_of_table, "parquet": pictures_of_parquet}
    found = recognise(path)
    return many[found](path) if found in many else [""]


def recognise(path: Path) -> str:
    """The format of a file by its first bytes, not by its name; of the file inside, if it is packed
    with gzip. A folder must be one of zarr.

    Raises:
        AnnotationError: the file does not exist, is empty, or is of no known format.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
            return "pixels"
        raise AnnotationError(f"{path}: a folder that is no OME-Zarr; quadrat reads {READ}")
    with unpacked(path) as stream:
        head = stream.read(_HEAD)
    if not head.strip():
        raise AnnotationError(f"{path}: the file is empty")
    remedy = next((text for marks, text in _REMEDIES.items() if head.startswith(marks)), None)
    if remedy is not None:
        raise AnnotationError(f"{path}: {remedy}")
    found = _by_head(head, path)
    if found is None:
        raise AnnotationError(f"{path}: none of the formats that quadrat reads: {READ}")
    if found in ("pixels", "parquet") and is_packed(path):
        raise AnnotationError(f"{path}: a picture or a table packed with gzip; unpack it")
    return found


def _by_head(head: bytes, path: Path) -> str | None:
    if head.startswith(_PICTURES):
        return "pixels"
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return {"annotation": "voc", "ASAP_Annotations": "asap"}.get(read_xml(path, root_tag))
    if start.startswith((b"{", b"[")):
        return "coco" if _is_coco(start, path) else "geojson"
    return None if b"\0" in head else "delimited"


def _is_coco(start: bytes, path: Path) -> bool:
    """COCO has lists named images, annotations and categories. If the first bytes do not show
    which, the whole file is searched."""
    if start.startswith(b"["):
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"')
    if b'"features"' in start or b'"FeatureCollection"' in start or b'"Feature"' in start:
        return False
    if any(key in start for key in keys):
        return True
    content = read_bytes(path)
    return sum(key in content for key in keys) >= 2 and b'"features"' not in content


_READERS: dict[str, Callable[[Path, Choice], Sheet]] = {
    "geojson": lambda path, choice: read_geojson(path),
    "coco": lambda path, choice: read_coco(path, picture=choice.picture, called=choice.called),
    "voc": lambda path, choice: read_voc(path),
    "asap": lambda path, choice: read_asap(path),
    "delimited": lambda path, choice: read_delimited(
        path,
        picture=choice.picture,
        called=choice.called,
        classes=choice.classes,
        layout=choice.layout,
        first_class=choice.first_class,
        mpp=choice.mpp,
    ),
    "parquet": lambda path, choice: read_parquet(
        path, picture=choice.picture, called=choice.called
    ),
    "pixels": lambda path, choice: read_picture(
        path,
        meaning=choice.pixels,
        threshold=choice.threshold,
        colours=choice.colours,
        classes=choice.classes,
    ),
}
