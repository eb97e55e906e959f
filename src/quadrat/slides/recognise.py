"""Which reader can open what lies at a path, or one sentence on why none can."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import openslide

from quadrat.core.errors import SlideError
from quadrat.slides.dicom import BIG_ENDIAN, DEFLATED, read_instance
from quadrat.slides.dicom_series import Series, choose_series, series_in, series_of
from quadrat.slides.tiff_directory import tiff_directory
from quadrat.slides.tiff_extent import MAGIC as TIFF_MAGIC
from quadrat.slides.tiff_extent import missing_bytes
from quadrat.slides.tiff_pictures import choose, openslide_shows, pictures_of

FLAT = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "BMP": rb"BM.{4}\0{4}",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF.{4}WEBP",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "PPM": rb"P[1-6]\s",
}
"""Flat images by Pillow's name of the format: how their files begin."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that can be read."""

    path: Path
    """The path as the caller gave it."""
    file: Path
    """The file to open."""
    name: str
    """Name of the slide."""
    reader: Literal["openslide", "tiff", "flat", "ome-zarr"]
    """Which reader opens it."""
    format: str
    """Vendor or file format."""
    scene: str = ""
    """Which of its pictures is meant, by name or number; "": the only one, or the largest."""
    files: tuple[Path, ...] = ()
    """All files of a DICOM slide."""


def recognise(path: Path, *, scene: str = "") -> Found:
    """Look at a path without decoding pixels. ``scene``: see ``Found``.

    Raises:
        SlideError: the path is missing, empty, truncated, not allowed to be read, not a picture, or
            a folder that is neither one DICOM series nor an OME-Zarr image.
    """
    found = _recognise(path, scene)
    if scene and found.reader not in ("tiff", "ome-zarr") and not path.is_dir():
        raise SlideError(
            f"{path}: {found.format} is read as one picture, so it has no scene '{scene}'; leave "
            "the scene out"
        )
    return replace(found, scene=scene)


def _recognise(path: Path, scene: str) -> Found:
    if path.is_dir():
        return _recognise_folder(path, scene)
    if path.name in ("zarr.json", ".zattrs", ".zgroup"):
        raise SlideError(f"{path}: the metadata of a zarr folder; give the folder that it lies in")
    head = _head(path)
    if head.startswith(TIFF_MAGIC):
        check_complete(path)
    vendor = _vendor(path)
    if head.startswith(TIFF_MAGIC) and (
        vendor is None or (vendor == "generic-tiff" and (scene or not _openslide_shows(path)))
    ):
        return Found(path, path, path.stem, "tiff", "OME-TIFF" if _is_ome(path) else "TIFF")
    if head[128:132] == b"DICM":
        return _recognise_dicom(path)
    if vendor is not None:
        return Found(path, path, path.stem, "openslide", vendor)
    for kind, start in FLAT.items():
        if re.match(start, head, re.DOTALL):
            return Found(path, path, path.stem, "flat", kind)
    raise SlideError(
        f"{path}: neither a slide format that OpenSlide knows nor a TIFF or flat image "
        f"({', '.join(FLAT)}); it begins with {head[:12]!r}"
    )


def _head(path: Path) -> bytes:
    """The first bytes of a file. It must exist, hold at least one byte, and be readable."""
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


def _openslide_shows(path: Path) -> bool:
    """Whether OpenSlide shows the picture of a generic tiled TIFF, with its levels."""
    at = path.stat()
    return _shows(path, (at.st_ino, at.st_size, at.st_mtime_ns))


@lru_cache(maxsize=256)
def _shows(path: Path, stamp: tuple[int, int, int]) -> bool:
    """A worker opens a slide again and again, and some files have thousands of pages."""
    with tiff_directory(path) as tiff:
        return openslide_shows(tiff, choose(pictures_of(tiff), scene="", path=path))


def _is_ome(path: Path) -> bool:
    with tiff_directory(path) as tiff:
        return bool(tiff.is_ome)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray"))


def _recognise_folder(folder: Path, scene: str) -> Found:
    try:
        names = [path.name for path in folder.iterdir()]
    except PermissionError:
        raise SlideError(f"{folder}: permission to read the folder is denied") from None
    if is_zarr(folder):
        return Found(folder, folder, _called(folder), "ome-zarr", "OME-Zarr")
    if not names:
        raise SlideError(f"{folder}: the folder is empty")
    series = series_in(folder)
    if not series:
        raise SlideError(
            f"{folder}: a folder without DICOM slide files and not an OME-Zarr image; give a slide "
            "file instead"
        )
    chosen = choose_series(series, scene=scene, path=folder)
    return _found_dicom(folder, chosen.files[0], chosen, name=_called(folder))


def _called(folder: Path) -> str:
    """A folder's name, of ``.`` and ``..`` that of the folder that is meant."""
    return (folder.resolve() if folder.name in ("", "..") else folder).name


def _recognise_dicom(path: Path) -> Found:
    """One file of a DICOM series. OpenSlide also opens the other files of the series, so all of
    them must be complete."""
    instance = read_instance(path)
    if instance is not None and instance.syntax in (DEFLATED, BIG_ENDIAN):
        raise SlideError(
            f"{path}: DICOM in the transfer syntax {instance.syntax} (deflated or big endian) is "
            "not read; convert it to explicit little endian (e.g. with dcmconv +te)"
        )
    if instance is not None and not instance.is_slide:
        raise SlideError(
            f"{path}: a DICOM file that is not a whole-slide image (SOP class "
            f"{instance.sop_class or 'unstated'})"
        )
    return _found_dicom(path, path, series_of(path), name=_called(path.parent))


def _found_dicom(path: Path, file: Path, series: Series, *, name: str) -> Found:
    series.check_whole()
    if _vendor(file) != "dicom":
        raise SlideError(
            f"{path}: a DICOM whole-slide image that OpenSlide does not read (damaged, or of an "
            "unknown kind)"
        )
    return Found(path, file, name, "openslide", "dicom", files=series.files)


def check_complete(path: Path) -> None:
    """Refuse a TIFF file that is shorter than its own directories state (an incomplete copy or
    upload).

    Raises:
        SlideError: a tile, strip or directory lies beyond the end of the file, or the directories
            make no sense.
    """
    size = path.stat().st_size
    try:
        missing = missing_bytes(path)
    except (ValueError, struct.error) as error:
        raise SlideError(f"{path}: damaged: its TIFF directory makes no sense ({error})") from error
    if missing:
        raise SlideError(
            f"{path}: truncated: its directory needs at least {size + missing} bytes, the file "
            f"has {size}"
        )
