"""What OpenSlide does not tell of DICOM slides: whether a file is whole, and whether its colours
are what it says.

Only the header is parsed (DICOM PS3.5, section 7: explicit and implicit VR, little endian; A.4:
encapsulated frames); pixels are OpenSlide's. OpenSlide trusts PhotometricInterpretation over the
JPEG stream; some writers say RGB of YCbCr frames, and then it shows luminance as red. Such frames
are found by what their stream states, never by their looks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from quadrat.core.errors import SlideError

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
IMPLICIT, DEFLATED, BIG_ENDIAN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
SUFFIXES = (".dcm", ".dicom", "")
_ITEM, _ITEM_END, _SEQUENCE_END, _PIXELS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_TEXTS = {
    0x00020010: "syntax",
    0x00080016: "sop_class",
    0x0020000E: "series",
    0x00280004: "photometric",
    0x00480006: "columns",
    0x00480007: "rows",
}
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations with a length of four bytes."""
_UNDEFINED = 0xFFFFFFFF
_FRAME_HEAD_BYTES = 4096

Colours = Literal["ycbcr", "rgb"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM file: what its header states, the first bytes of its first frame, and the bytes it
    lacks.

    size: (height, width) of the picture (Total Pixel Matrix), (0, 0) if it states none.
    """

    sop_class: str
    series: str
    syntax: str
    photometric: str
    size: tuple[int, int]
    frame_head: bytes
    missing_bytes: int

    @property
    def is_slide(self) -> bool:
        return self.sop_class == WSI_CLASS


class _Short(Exception):
    """The file ends before what is to be read; carries where that would have ended."""


def read_instance(path: Path) -> Instance | None:
    """Parse a file's header; None for what is not DICOM, or is deflated or big-endian (which is
    left to OpenSlide).

    Raises:
        SlideError: the header makes no sense, or the file ends in it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(128)
        if file.read(4) != b"DICM":
            return None
        size = file.seek(0, 2)
        try:
            return _parse(_Stream(file, size))
        except _Short as short:
            raise SlideError(
                f"{path}: truncated: its DICOM header reaches to byte {short} or beyond, the file "
                f"has {size}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise SlideError(
                f"{path}: damaged: its DICOM header makes no sense ({error})"
            ) from error


def series_instances(path: Path) -> list[tuple[Path, Instance]]:
    """The slide instances among a folder's DICOM files, or those of a file's series beside it; by
    name.

    Raises:
        SlideError: one of them cannot be read or is truncated.
    """
    folder = path if path.is_dir() else path.parent
    wanted = None if path.is_dir() else read_instance(path)
    found = []
    for file in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES):
        try:
            instance = read_instance(file)
        except PermissionError:
            raise SlideError(f"{file}: permission to read the file is denied") from None
        if (
            instance is None
            or not instance.is_slide
            or (wanted is not None and instance.series != wanted.series)
        ):
            continue
        if instance.missing_bytes:
            size = file.stat().st_size
            raise SlideError(
                f"{file}: truncated: its frames end at byte {size + instance.missing_bytes} or "
                f"later, the file has {size}"
            )
        found.append((file, instance))
    return found


def mistagged_sizes(path: Path) -> frozenset[tuple[int, int]]:
    """(height, width) of the levels whose header says RGB while their JPEG frames are YCbCr.

    Raises:
        SlideError: the reverse (header YBR, frames RGB): OpenSlide's conversion clips, so
        nothing brings the colours back.
    """
    found = set()
    for file, instance in series_instances(path):
        colours = jpeg_colours(instance.frame_head) if instance.syntax in JPEG else None
        if colours == "rgb" and instance.photometric.startswith("YBR"):
            raise SlideError(
                f"{file}: the DICOM header says {instance.photometric} but the JPEG frames state "
                "RGB, so their colours would be "
                "read wrongly; correct PhotometricInterpretation to RGB (e.g. with dcmodify)"
            )
        if colours == "ycbcr" and instance.photometric == "RGB":
            found.add(instance.size)
    return frozenset(found)


def jpeg_colours(stream: bytes) -> Colours | None:
    """What a JPEG stream states of its three components; None where it leaves it to the container.

    JFIF means YCbCr (JFIF 1.02; ITU-T T.871); Adobe's APP14 says which; components named R, G, B
    are RGB; and chroma that is sampled more coarsely is chroma. Component ids 1, 2, 3 alone prove
    nothing: scanners use them for RGB, too.
    """
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        body = stream[at + 4 : at + 2 + length]
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            return "ycbcr"
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            return "rgb" if body[11] == 0 else "ycbcr"
        if 0xC0 <= marker <= 0xC2:
            return _component_colours(body)
        if marker == 0xDA:
            return None
        at += 2 + length
    return None


def _component_colours(frame: bytes) -> Colours | None:
    """From a start-of-frame segment: precision, height, width, count, then id, sampling and table
    of each component."""
    if len(frame) < 15 or frame[5] != 3:
        return None
    ids, sampling = bytes(frame[6:15:3]), frame[7:15:3]
    if ids == b"RGB":
        return "rgb"
    return "ycbcr" if sampling[0] != sampling[1] else None


class _Stream:
    """Bytes by position, with an error for those beyond the end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.explicit = True

    def take(self, at: int, nbytes: int) -> bytes:
        if at + nbytes > self.size:
            raise _Short(at + nbytes)
        self.file.seek(at)
        return self.file.read(nbytes)

    def element(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, value representation, where the value begins, and its length."""
        group, number = struct.unpack("<HH", self.take(at, 4))
        tag = group << 16 | number
        if group == 0xFFFE or not (self.explicit or group == 2):
            return tag, b"", at + 8, struct.unpack("<I", self.take(at + 4, 4))[0]
        kind = self.take(at + 4, 2)
        if not kind.isalpha():
            raise ValueError(f"value representation {kind!r} at byte {at}")
        if kind in _LONG:
            return tag, kind, at + 12, struct.unpack("<I", self.take(at + 8, 4))[0]
        return tag, kind, at + 8, struct.unpack("<H", self.take(at + 6, 2))[0]


def _parse(stream: _Stream) -> Instance | None:
    facts: dict[str, bytes] = {}
    at, missing, head = 132, 0, b""
    while at < stream.size:
        tag, _, start, length = stream.element(at)
        if tag >> 16 != 2 and stream.explicit and facts.get("syntax"):
            syntax = _text(facts["syntax"])
            if syntax in (DEFLATED, BIG_ENDIAN):
                return None
            if syntax == IMPLICIT:
                stream.explicit = False
                tag, _, start, length = stream.element(at)
        if tag == _PIXELS:
            missing, head = _pixels(stream, start, length)
            break
        if tag in _TEXTS:
            facts[_TEXTS[tag]] = stream.take(start, length)
        at = _after(stream, start, length)
    else:
        if at > stream.size:
            raise _Short(at)
        if _text(facts.get("sop_class", b"")) == WSI_CLASS:
            raise _Short(stream.size + 1)  # a slide without pixels has lost them
    rows, columns = (int.from_bytes(facts.get(key, b""), "little") for key in ("rows", "columns"))
    texts = {
        key: _text(facts.get(key, b"")) for key in ("sop_class", "series", "syntax", "photometric")
    }
    return Instance(**texts, size=(rows, columns), frame_head=head, missing_bytes=missing)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _after(stream: _Stream, start: int, length: int) -> int:
    """Where the element ends whose value begins at ``start``; sequences of undefined length are
    walked."""
    if length != _UNDEFINED:
        return start + length
    at = start
    while True:
        tag, _, inner, size = stream.element(at)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return inner
        at = _after(stream, inner, size)


def _pixels(stream: _Stream, start: int, length: int) -> tuple[int, bytes]:
    """Bytes that the frames lack, and the first bytes of the first frame."""
    if length != _UNDEFINED:
        return max(0, start + length - stream.size), b""
    head = b""
    try:
        items = _items(stream, start)
        next(items)  # the offset table
        first, nbytes = next(items)
        head = stream.take(first, min(nbytes, _FRAME_HEAD_BYTES, stream.size - first))
        if stream.take(stream.size - 8, 8) == struct.pack("<HHI", 0xFFFE, 0xE0DD, 0):
            return 0, head  # it ends as frames end: no need to walk over thousands of them
        for _ in items:
            pass
    except _Short as short:
        return int(short.args[0]) - stream.size, head
    except StopIteration:
        raise ValueError("there are no frames") from None
    return 0, head


def _items(stream: _Stream, at: int) -> Iterator[tuple[int, int]]:
    """Where the fragments of encapsulated frames begin, and their lengths."""
    while True:
        tag, _, start, length = stream.element(at)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM or length == _UNDEFINED:
            raise ValueError(f"no frame begins at byte {at}")
        if start + length > stream.size:
            raise _Short(start + length)
        yield start, length
        at = start + length
