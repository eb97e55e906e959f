"""PNG, JPEG and other flat images as slides: 8-bit RGB(A), grey or palette, decoded whole into one
level."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import numpy as np
from PIL import Image

from quadrat.core.errors import SlideError
from quadrat.slides.array import ArraySlide
from quadrat.slides.colour_profile import profile_name
from quadrat.slides.orientation import ORIENTATION, Orientation
from quadrat.slides.protocol import Reopened, Rgb, SlideInfo, on_white
from quadrat.slides.recognise import FLAT, Found

MAX_PIXELS = 1 << 30
"""A flat image is held whole in memory: 3 GiB of RGB is the limit."""
PX_A_BYTE = {"PNG": 8 * 1032, "JPEG": 2048}
"""The most pixels that a byte of a file can hold. Deflate reaches 1032 to 1, on 1-bit pixels. JPEG
needs a little more than one bit for 64 px (Huffman codes); the rest is margin. A file that declares
more px is damaged, and is not decoded. Other formats have no such limit."""


class FlatSlide(Reopened, ArraySlide):
    """A flat image, decoded whole when it is opened. It pickles as path and mpp.

    Such files state dots per inch at best, so they have no mpp of their own.

    Raises:
        SlideError: more than 2^30 px, more than 8 bits, neither RGB(A) nor grey, or damaged.
    """

    __slots__ = ("_found", "_override")

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._found, self._override = found, mpp
        stored, profile, turn = _read(found)
        pixels = turn.upright(stored)
        notes = () if turn.is_upright else (turn.note,)
        info = SlideInfo(
            found.format,
            "pillow",
            None,
            (),
            None,
            icc_profile=profile_name(profile),
            notes=notes,
        )
        super().__init__(pixels, name=found.name, mpp=mpp, path=str(found.path), info=info)


def _check_size(found: Found, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise SlideError(
            f"{found.path}: {width} x {height} px is more than the {MAX_PIXELS} px that a flat "
            "image may have; convert it to a tiled pyramid (OME-TIFF or generic tiled TIFF)"
        )
    nbytes = found.file.stat().st_size
    if height * width > nbytes * PX_A_BYTE.get(found.format, MAX_PIXELS):
        raise SlideError(
            f"{found.path}: damaged or truncated: it declares {width} x {height} px but has only "
            f"{nbytes} bytes"
        )


def orientation_of(image: Image.Image) -> Orientation:
    """What an open picture states, without decoding it. EXIF that cannot be read states nothing,
    nor does EXIF that follows the pixels of a PNG."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif"}:
        return Orientation()
    try:
        return Orientation(int(image.getexif().get(ORIENTATION, 1)))
    except Exception:  # Pillow raises whatever a damaged block leads to
        return Orientation()


class _Lifted:
    """How many are within ``pillow_limit_lifted``, and what holds outside."""

    lock = Lock()
    inside = 0
    outside = ExitStack()


@contextmanager
def pillow_limit_lifted() -> Iterator[None]:
    """Pillow refuses images of 179 Mpx and more. Within this context only our own limit counts.
    The limit is one for all threads: it holds again when the last one leaves."""
    with _Lifted.lock:
        if _Lifted.inside == 0:
            _Lifted.outside = ExitStack()
            _Lifted.outside.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _Lifted.outside.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
        _Lifted.inside += 1
    try:
        yield
    finally:
        with _Lifted.lock:
            _Lifted.inside -= 1
            if _Lifted.inside == 0:
                _Lifted.outside.close()


def _read(found: Found) -> tuple[Rgb, bytes | None, Orientation]:
    """Stored pixels, ICC profile and orientation of a flat image."""
    try:
        with pillow_limit_lifted(), Image.open(found.file, formats=[*FLAT]) as image:
            _check_size(found, image.height, image.width)
            if found.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
                raise SlideError(
                    f"{found.path}: holds {getattr(image, 'n_frames', 1)} pictures (an animation); "
                    "save the one that is meant as a file of its own"
                )
            if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA"):
                raise SlideError(
                    f"{found.path}: pixel mode {image.mode} is not 8-bit RGB, RGBA or grey; "
                    "convert it first"
                )
            profile = image.info.get("icc_profile")
            turn = orientation_of(image)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                return on_white(np.asarray(image.convert("RGBA"))), profile, turn
            return np.asarray(image.convert("RGB")), profile, turn
    except (OSError, SyntaxError, ValueError) as error:
        word = "truncated" if "truncated" in str(error) or "incomplete" in str(error) else "damaged"
        raise SlideError(f"{found.path}: the {found.format} image is {word} ({error})") from error
