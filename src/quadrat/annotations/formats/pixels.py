"""Pictures that hold labels or a mask, as they are stored: PNG, TIFF, OME-Zarr."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from quadrat.core.errors import AnnotationError
from quadrat.slides.flat import MAX_PIXELS, pillow_limit_lifted
from quadrat.slides.tiff_directory import UNREADABLE, refuse_document_type
from quadrat.slides.tiff_planes import palette_colours

_DAMAGED = (*UNREADABLE, SyntaxError, MemoryError)
"""What Pillow, tifffile and their codecs raise at damaged files."""
_TIFF_JPEG = (6, 7)
"""Compressions of a TIFF."""
_MODES = ("1", "L", "LA", "P", "I", "I;16", "I;16B", "RGB", "RGBA", "PA")
"""Modes of Pillow that are numbers, indices of a palette, or red, green and blue."""
_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


@dataclass(frozen=True, slots=True)
class Pixels:
    """What is stored in a picture."""

    values: npt.NDArray[Any]
    """(h, w) bool or whole numbers, of a palette image the indices; or (h, w, 3 or 4) colours."""
    palette: npt.NDArray[np.uint8] | None = None
    """(n, 3) red, green and blue of each index, or None."""
    jpeg: bool = False
    """Compressed as JPEG, which alters values."""


def read_pixels(path: Path) -> Pixels:
    """The pixels of a flat image or an OME-Zarr label image.

    Raises:
        AnnotationError: unreadable, more than 2^30 px, several pages, or neither whole numbers
            >= 0 nor colours.
    """
    try:
        if path.is_dir():
            from quadrat.slides.ome_zarr_labels import (
                read_ome_zarr_labels,  # zarr is slow to load, and few need it
            )

            pixels = Pixels(read_ome_zarr_labels(path))
        else:
            pixels = _of_tiff(path) if _is_tiff(path) else _of_flat(path)
    except _DAMAGED as error:
        raise AnnotationError(f"{path}: cannot be read as a label image ({error})") from error
    values = pixels.values
    if values.ndim == 3 and values.shape[2] in (3, 4) and _is_grey(values):
        values = values[..., 0]  # a grey mask saved as RGB
    whole = values.dtype.kind in "bu" or (values.dtype.kind == "i" and values.min(initial=0) >= 0)
    if not whole or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        raise AnnotationError(
            f"{path}: {values.dtype}{values.shape} is not a label image; want one channel of whole "
            "numbers >= 0"
        )
    return Pixels(values, pixels.palette, pixels.jpeg)


def labels_in(pixels: Pixels, path: Path) -> npt.NDArray[np.integer]:
    """Values (h, w) that are numbers: whole, >= 0, of a palette image the indices. ``path``: for
    messages.

    Raises:
        AnnotationError: JPEG, or colours.
    """
    if pixels.jpeg:
        raise AnnotationError(jpeg_refusal(path))
    if pixels.values.ndim == 3:
        raise AnnotationError(
            f"{path}: {pixels.values.dtype}{pixels.values.shape} holds colours; want one channel "
            "of whole numbers >= 0, or data.annotations: mask with data.mask_colours"
        )
    values: npt.NDArray[np.integer] = (
        pixels.values.astype(np.uint8) if pixels.values.dtype == np.bool_ else pixels.values
    )
    return values


def jpeg_refusal(path: Path) -> str:
    """Why JPEG holds no numbers or colours of classes: it changes them at edges."""
    return (
        f"{path}: compressed as JPEG, which alters values, so that they are no numbers or colours "
        "of labels or classes; export it as PNG or TIFF, or learn what lies above a threshold "
        "(data.annotations: mask, data.mask_threshold: 127)"
    )


def _is_grey(values: npt.NDArray[Any]) -> bool:
    same = (values[..., :3] == values[..., :1]).all()
    opaque = values.shape[2] == 3 or (values[..., 3] == np.iinfo(values.dtype).max).all()
    return bool(same and opaque)


def _of_flat(path: Path) -> Pixels:
    with pillow_limit_lifted(), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise AnnotationError(
                f"{path}: {image.width} x {image.height} px is more than the {MAX_PIXELS} "
                "px that are read of such a file; convert it to TIFF or OME-Zarr"
            )
        if image.mode not in _MODES:
            raise AnnotationError(
                f"{path}: pixel mode {image.mode}; want whole numbers, a palette, or red, green "
                "and blue"
            )
        jpeg = image.format == "JPEG"
        if image.mode in ("LA", "PA"):
            return Pixels(np.asarray(image.convert("RGBA")), jpeg=jpeg)
        palette = None
        if image.mode == "P":
            stated = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette = np.zeros((256, 3), np.uint8)  # an index beyond the stated ones is black
            palette[: len(stated)] = stated
        return Pixels(np.asarray(image), palette, jpeg)


def _of_tiff(path: Path) -> Pixels:
    """The first page. Smaller pages (the levels of a pyramid) may follow it, but none of the same
    size.

    Raises:
        AnnotationError: there is another page of the same size, the description has a document
            type, or colours are neither red, green and blue nor of a palette.
    """
    with tifffile.TiffFile(path) as tiff:
        refuse_document_type(tiff)
        first = tiff.pages.first
        in_page = tiff.series[0].size // first.size  # ImageJ has several planes in one
        planes = max(in_page, sum(page.shape == first.shape for page in tiff.pages))
        if planes > 1:
            raise AnnotationError(
                f"{path}: holds {planes} pictures of one size; a label image has one, so export "
                "the right one alone"
            )
        values = first.asarray()
        if first.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3:
            values = np.moveaxis(values, 0, -1)
        while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
        if values.ndim == 3 and first.photometric not in _COLOUR:
            raise AnnotationError(
                f"{path}: {values.shape[2]} channels that are not red, green and blue; export one "
                "channel"
            )
        palette = None
        if first.photometric == tifffile.PHOTOMETRIC.PALETTE and first.colormap is not None:
            palette = palette_colours(first)
        return Pixels(values, palette, int(first.compression) in _TIFF_JPEG)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
