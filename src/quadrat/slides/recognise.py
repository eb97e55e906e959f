"""What lies at a path, and which reader takes it: every reason for not reading it is one sentence here."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openslide
import tifffile

from quadrat.errors import SlideError
from quadrat.slides.tiff_extent import MAGIC as TIFF_MAGIC
from quadrat.slides.tiff_extent import missing_bytes

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
SERIES_TAG = struct.pack("<HH", 0x0020, 0x000E) + b"UI"
"""DICOM Series Instance UID as it stands in an explicit-VR little-endian header."""


@dataclass(frozen=True, slots=True)
class Found:
    """A readable file: the path as given, the file to open, the slide's name, who reads it, and its format."""

    path: Path
    file: Path
    name: str
    reader: Literal["openslide", "flat"]
    format: str


def recognise(path: Path) -> Found:
    """Look at a path without decoding pixels.

    Raises:
        SlideError: missing, a folder without one DICOM series, empty, not allowed, truncated or not a picture.
    """
    if path.is_dir():
        return _recognise_dicom_folder(path)
    head = _head(path)
    if head.startswith(TIFF_MAGIC):
        check_complete(path)
    vendor = _vendor(path)
    if vendor == "generic-tiff" and not _one_picture(path):
        return Found(path, path, path.stem, "flat", "TIFF")
    if vendor is not None:
        name = path.parent.name if vendor == "dicom" else path.stem
        return Found(path, path, name, "openslide", vendor)
    for magic, kind in ((PNG_MAGIC, "PNG"), (JPEG_MAGIC, "JPEG"), *((magic, "TIFF") for magic in TIFF_MAGIC)):
        if head.startswith(magic):
            return Found(path, path, path.stem, "flat", kind)
    if head[128:132] == b"DICM":
        raise SlideError(f"{path}: a DICOM file that is not a whole-slide image, or is truncated")
    raise SlideError(
        f"{path}: neither a slide format that OpenSlide knows nor a PNG, JPEG or TIFF image (it begins with {head[:12]!r})"
    )


def _head(path: Path) -> bytes:
    """The first bytes of a file that exists, is not empty and may be read."""
    try:
        if path.stat().st_size == 0:
            raise SlideError(f"{path}: the file is empty (0 bytes)")
        if not os.access(path, os.R_OK):
            raise PermissionError
        with path.open("rb") as file:
            return file.read(256)
    except FileNotFoundError:
        raise SlideError(f"{path}: there is no such file") from None
    except PermissionError:
        raise SlideError(f"{path}: permission to read the file is denied") from None
    except OSError as error:
        raise SlideError(f"{path}: the file cannot be read ({error.strerror or error})") from error


def _vendor(path: Path) -> str | None:
    try:
        return openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError as error:
        raise SlideError(f"{path}: OpenSlide cannot read the file ({error})") from error


def _one_picture(path: Path) -> bool:
    """Whether a tiled TIFF is one picture of 8-bit RGB(A) or grey.

    OpenSlide shows the first plane of a stack or of separate channels as if it were the picture, and scales 16 bits.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            series, page = tiff.series[0].levels[0], tiff.pages.first
            axes = "".join(axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 or axis in "YX")
            return axes in ("YX", "YXS") and series.dtype == "uint8" and int(page.planarconfig) == 1
    except (tifffile.TiffFileError, ValueError, IndexError) as error:
        raise SlideError(f"{path}: the TIFF directory cannot be understood ({error})") from error


def _recognise_dicom_folder(folder: Path) -> Found:
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in (".dcm", ".dicom"))
    except PermissionError:
        raise SlideError(f"{folder}: permission to read the folder is denied") from None
    if not files:
        raise SlideError(f"{folder}: a folder without DICOM (.dcm) files; give a slide file instead")
    series = {uid for uid in map(_series, files) if uid is not None}
    if len(series) > 1:
        raise SlideError(f"{folder}: holds {len(series)} DICOM series; keep one in a folder, or give one of its files")
    for file in files:
        _head(file)
        if _vendor(file) == "dicom":
            return Found(folder, file, folder.name, "openslide", "dicom")
    raise SlideError(f"{folder}: none of its {len(files)} DICOM files is a whole-slide image, or all are truncated")


def _series(file: Path) -> bytes | None:
    """The Series Instance UID found in the first 64 KiB, or None."""
    try:
        with file.open("rb") as stream:
            head = stream.read(1 << 16)
    except OSError:
        return None
    at = head.find(SERIES_TAG)
    if at < 0:
        return None
    (length,) = struct.unpack_from("<H", head, at + 6)
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ")


def check_complete(path: Path) -> None:
    """Refuse a TIFF-family file that is shorter than its own directories say (a broken copy or upload).

    Raises:
        SlideError: a tile, strip or directory lies beyond the end of the file, or the directories make no sense.
    """
    size = path.stat().st_size
    try:
        missing = missing_bytes(path)
    except (ValueError, struct.error) as error:
        raise SlideError(f"{path}: damaged: its TIFF directory makes no sense ({error})") from error
    if missing:
        raise SlideError(f"{path}: truncated: its directory speaks of at least {size + missing} bytes, the file has {size}")
