"""Flat images as slides: PNG, JPEG and TIFF (plain or OME) of 8-bit RGB(A) or grey, held in memory as one level."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from quadrat.errors import SlideError
from quadrat.geometry import MPP_MAX, MPP_MIN
from quadrat.slides.array import ArraySlide
from quadrat.slides.protocol import Rgb, Slide, SlideInfo, on_white
from quadrat.slides.recognise import Found, recognise

MAX_PIXELS = 1 << 30
"""Flat images are held whole: 3 GiB of RGB is the limit."""
_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


class FlatSlide(ArraySlide):
    """A flat image decoded whole at opening; pickles as path and mpp."""

    __slots__ = ("_override",)

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._override = mpp
        pixels, stated = _read_tiff(found) if found.format == "TIFF" else _read_pillow(found)
        size = pixels.shape[0], pixels.shape[1]
        reader = "tifffile" if found.format == "TIFF" else "pillow"
        info = SlideInfo(found.format, reader, None, (), None, size, (size,))
        super().__init__(pixels, name=found.name, mpp=mpp or stated, path=str(found.path), info=info)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override)


def open_flat(found: Found, *, mpp: tuple[float, float] | None) -> Slide:
    """Open a recognised flat image.

    Raises:
        SlideError: more than 2^30 px, more than 8 bits, other than RGB(A) or grey, or damaged.
    """
    return FlatSlide(found, mpp=mpp)


def _reopen(path: str, mpp: tuple[float, float] | None) -> FlatSlide:
    return FlatSlide(recognise(Path(path)), mpp=mpp)


def ome_mpp(path: Path) -> tuple[float, float] | None:
    """(rows, columns) um/px from an OME-TIFF's PhysicalSizeY and X, where they are plausible; else None."""
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata
    if not xml:
        return None
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    found: list[float] = []
    for axis in "YX":
        value = None if pixels is None else pixels.get(f"PhysicalSize{axis}")
        unit = "µm" if pixels is None else pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if value is None or unit not in _MICROMETRES:
            return None
        found.append(float(value) * _MICROMETRES[unit])
    return (found[0], found[1]) if all(MPP_MIN <= value <= MPP_MAX for value in found) else None


def _check_size(found: Found, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise SlideError(
            f"{found.path}: {width} x {height} px is more than the {MAX_PIXELS} px that a flat image may have; "
            "convert it to a tiled pyramid (OME-TIFF or generic tiled TIFF)"
        )


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Pillow refuses 179 Mpx and more; our own limit is checked instead."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _read_pillow(found: Found) -> tuple[Rgb, None]:
    """Pixels of a PNG or JPEG; such files state dots per inch at best, so there is no mpp."""
    try:
        with _pillow_limit_lifted(), Image.open(found.file, formats=["PNG", "JPEG"]) as image:
            _check_size(found, image.height, image.width)
            if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA"):
                raise SlideError(f"{found.path}: pixel mode {image.mode} is not 8-bit RGB, RGBA or grey; convert it first")
            if image.mode in ("LA", "PA") or "transparency" in image.info:
                return on_white(np.asarray(image.convert("RGBA"))), None
            return _as_rgb(np.asarray(image if image.mode in ("RGB", "RGBA", "L") else image.convert("RGB")), found), None
    except (OSError, SyntaxError, ValueError) as error:
        word = "truncated" if "truncated" in str(error) or "incomplete" in str(error) else "damaged"
        raise SlideError(f"{found.path}: the {found.format} image is {word} ({error})") from error


def _read_tiff(found: Found) -> tuple[Rgb, tuple[float, float] | None]:
    """Pixels and mpp (rows, columns) of a TIFF's first picture."""
    try:
        with tifffile.TiffFile(found.file) as tiff:
            series = tiff.series[0].levels[0]
            page = tiff.pages.first
            axes = "".join(axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 or axis in "YX")
            if axes not in ("YX", "YXS", "SYX", "CYX") or series.dtype != np.uint8 or int(page.photometric) > 6:
                raise SlideError(
                    f"{found.path}: a TIFF of {series.dtype} with axes {series.axes} {series.shape} is not one picture "
                    "of 8-bit RGB, RGBA or grey; convert it first"
                )
            sizes = dict(zip(series.axes, series.shape, strict=True))
            _check_size(found, sizes["Y"], sizes["X"])
            pixels = series.asarray().reshape([sizes[axis] for axis in axes])
            grey_inverted = int(page.photometric) == 0
            stated = _resolution_mpp(page)
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError) as error:
        raise SlideError(f"{found.path}: the TIFF image cannot be decoded ({error})") from error
    pixels = np.moveaxis(pixels, 0, -1) if axes in ("SYX", "CYX") else pixels
    if grey_inverted:
        pixels = np.uint8(255) - pixels
    return _as_rgb(pixels, found), ome_mpp(found.file) or stated


def _resolution_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """(rows, columns) um/px from resolution tags in pixels a centimetre; an inch is a printer's unit."""
    unit, row, col = (page.tags.valueof(tag) for tag in (296, 283, 282))
    if unit is None or int(unit) != 3 or row is None or col is None or not row[0] or not col[0]:
        return None
    mpp = 1e4 * row[1] / row[0], 1e4 * col[1] / col[0]
    return mpp if all(MPP_MIN <= value <= MPP_MAX for value in mpp) else None


def _as_rgb(pixels: Rgb, found: Found) -> Rgb:
    """uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) to (h, w, 3)."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return on_white(pixels)
    if pixels.shape[2] != 3:
        raise SlideError(f"{found.path}: {pixels.shape[2]} channels; a picture has 1 (grey), 3 (RGB) or 4 (RGBA)")
    return np.ascontiguousarray(pixels)
