"""DICOM slides: whether each file is complete, and whether its colours are what its header states.

pydicom reads the header; OpenSlide reads the pixels. OpenSlide trusts PhotometricInterpretation
more than the JPEG stream. Some writers state RGB for YCbCr frames, and OpenSlide then shows
luminance as red. Such frames are found by what their stream states, never by how they look.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, cast

from quadrat.core.errors import SlideError

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
HEADER_BYTES, ELEMENT_BYTES = 1 << 30, 2048
"""The memory that a header may take, and what pydicom needs for an element besides its value."""
_WANTED = [
    *(0x00080008, 0x00080016, 0x0008103E, 0x0020000E),
    *(0x00280004, 0x00400512, 0x00480006, 0x00480007),
]
_PER_FRAME, _PIXELS = 0x52000000, 0x7FE00010
_PIXEL_ELEMENT = re.compile(rb"\xe0\x7f\x10\x00O[BW]\0\0")
"""How pixel data begin where value representations are explicit: tag, OB or OW, two zero bytes."""
_FRAMES_END = b"\xfe\xff\xdd\xe0" + bytes(4)
_UNDEFINED = 0xFFFFFFFF
_FRAME_HEAD_BYTES, _SEARCH_BYTES = 4096, 1 << 20

Colours = Literal["ycbcr", "rgb"]


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of one DICOM file without decoding its pixels."""

    sop_class: str
    """UID of the kind of object in the file; empty if the transfer syntax hides it."""
    syntax: str
    """UID of the transfer syntax, which names the compression."""
    series: str = ""
    """UID of the series: the levels of one slide have the same."""
    photometric: str = ""
    """What the header states of the colours, such as RGB or YBR_FULL_422."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the picture (Total Pixel Matrix) in px; (0, 0) if none is stated."""
    frame_head: bytes = b""
    """The first bytes of the first frame; empty if frames are not compressed."""
    missing_bytes: int = 0
    """How many bytes of the frames are missing at the end of the file."""
    name: str = ""
    """What the header calls the series (SeriesDescription), or else its glass (Container
    Identifier)."""
    associated: bool = False
    """Whether it is a label or an overview, not a level of the slide."""

    @property
    def is_slide(self) -> bool:
        return self.sop_class == WSI_CLASS


def read_instance(path: Path) -> Instance | None:
    """Read the header of a file; None for a file that is not DICOM.

    Raises:
        SlideError: the file cannot be read, or its header is damaged or truncated.
    """
    try:
        at = path.stat()
        return _read(path, (at.st_ino, at.st_size, at.st_mtime_ns))
    except PermissionError:
        raise SlideError(f"{path}: permission to read the file is denied") from None
    except OSError as error:
        raise SlideError(f"{path}: the file cannot be read ({error.strerror or error})") from error


@lru_cache(maxsize=1024)
def _read(path: Path, stamp: tuple[int, int, int]) -> Instance | None:
    """Opening a slide looks at each file of the series twice; the second time nothing is read."""
    with path.open("rb") as file:
        file.seek(128)
        return _instance(file, path) if file.read(4) == b"DICM" else None


def mistagged_sizes(files: Iterable[Path]) -> frozenset[tuple[int, int]]:
    """(height, width) of those files of a slide with a header that states RGB and JPEG frames that
    are YCbCr.

    Raises:
        SlideError: the reverse (header YBR, frames RGB). OpenSlide's conversion clips colours, so
            they cannot be restored.
    """
    found = set()
    for file in files:
        instance = read_instance(file)
        if instance is None:
            continue
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
    """What a JPEG stream states about its three components; None if it leaves this to the
    container.

    JFIF means YCbCr (JFIF 1.02; ITU-T T.871). Adobe's APP14 states which. Components named R, G and
    B are RGB. Components that are sampled more coarsely than the first are chroma. Component ids 1,
    2, 3 alone prove nothing: scanners use them for RGB, too.
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
    """From a start-of-frame segment: precision, height, width, number of components, then id,
    sampling and table of each component."""
    if len(frame) < 15 or frame[5] != 3:
        return None
    ids, sampling = bytes(frame[6:15:3]), frame[7:15:3]
    if ids == b"RGB":
        return "rgb"
    return "ycbcr" if sampling[0] != sampling[1] else None


class _Inflate(Exception):
    """pydicom reads a whole file at once in one case only: to inflate it."""


class _Bounded:
    """A file as pydicom sees it: the header takes a bounded amount of memory, whatever lengths it
    states."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._read, self._size, self._left = file.read, size, HEADER_BYTES

    def read(self, nbytes: int = -1) -> bytes:
        if nbytes < 0:
            raise _Inflate
        found = self._read(min(nbytes, self._size))
        self._left -= len(found) + ELEMENT_BYTES
        if self._left < 0:
            raise ValueError(f"it would take more than {HEADER_BYTES} bytes of memory")
        return found


def _instance(file: BinaryIO, path: Path) -> Instance:
    """What an open DICOM file is; its frames are looked at if it is a slide."""
    size = file.seek(0, 2)
    bounded = cast(BinaryIO, _Bounded(file, size))
    try:
        found, explicit = _header(bounded)
        at = file.tell()
        if not found.is_slide:
            return found
        pixels = _pixels_at(file, at) if explicit else at
        if pixels < size:
            end, head = _frames(bounded, pixels + (8 if explicit else 4), size=size)
            return replace(found, frame_head=head, missing_bytes=max(0, end - size))
    except _Inflate:
        return Instance("", DEFLATED)
    except Exception as error:  # pydicom raises many classes, and none of them names the file
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of pydicom
            raise
        raise SlideError(
            f"{path}: damaged: its DICOM header makes no sense ({type(error).__name__}: {error})"
        ) from error
    raise SlideError(  # a slide without pixels has lost them
        f"{path}: truncated: its DICOM header reaches to byte {max(at, size + 1)} or beyond, the "
        f"file has {size}"
    )


def _header(file: BinaryIO) -> tuple[Instance, bool]:
    """What the header states, and whether value representations are explicit.

    The file is left at the pixel data or before them (see ``stop``), or at its end.
    """
    from pydicom.filereader import read_partial

    def stop(tag: int, kind: str | None, length: int) -> bool:
        """At the pixels, or at groups of every frame: pydicom takes 0.2 ms for each frame."""
        if length == _UNDEFINED and kind is not None and tag >= _PER_FRAME:
            return True
        return kind in (None, "OB", "OW") and tag == _PIXELS

    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is needed of the header is checked here
        data = read_partial(file, stop, specific_tags=_WANTED)
        syntax = str(data.file_meta.get("TransferSyntaxUID", ""))
        if syntax == BIG_ENDIAN:
            return Instance("", syntax), True
        found = Instance(
            str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID", "")),
            syntax,
            str(data.get("SeriesInstanceUID", "")),
            str(data.get("PhotometricInterpretation", "")),
            (int(data.get("TotalPixelMatrixRows", 0)), int(data.get("TotalPixelMatrixColumns", 0))),
            name=str(
                data.get("SeriesDescription") or data.get("ContainerIdentifier") or ""
            ).strip(),
            associated=re.search(r"\b(LABEL|OVERVIEW)\b", str(data.get("ImageType"))) is not None,
        )
    return found, not data.original_encoding[0]


def _pixels_at(file: BinaryIO, at: int) -> int:
    """Where the pixel data begin, at or after byte ``at``; beyond the end if there are none."""
    file.seek(at)
    rest = b""
    while block := file.read(_SEARCH_BYTES):
        rest += block
        found = _PIXEL_ELEMENT.search(rest)
        if found:
            return file.tell() - len(rest) + found.start()
        rest = rest[-7:]
    return file.tell() + 1


def _frames(file: BinaryIO, at: int, *, size: int) -> tuple[int, bytes]:
    """Where the frames end, and the first bytes of the first compressed frame.

    ``at``: where the length of the pixel data lies.
    """
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    file.seek(at)
    (length,) = struct.unpack("<I", file.read(4))
    if length != _UNDEFINED:
        return at + 4 + length, b""
    parse_basic_offsets(file)
    first = file.tell()
    head = file.read(8 + _FRAME_HEAD_BYTES)[8:]
    file.seek(-len(_FRAMES_END), 2)
    if file.read(8) == _FRAMES_END:  # it ends as frames end: no need to visit thousands of them
        return size, head
    file.seek(first)
    _, places = parse_fragments(file)
    if not places:
        raise ValueError("there are no frames")
    file.seek(places[-1] + 4)
    return places[-1] + 8 + struct.unpack("<I", file.read(4))[0] + len(_FRAMES_END), head
