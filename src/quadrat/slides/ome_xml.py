"""What the OME-XML of an OME-TIFF states: mpp, objective, and the colours of the channels.

Schema: https://www.openmicroscopy.org/Schemas/OME/2016-06/ . Nothing is guessed: a value that is
missing or not plausible is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

from quadrat.core.limits import MPP_MAX, MPP_MIN
from quadrat.core.xml import Element, XmlError, parse_xml
from quadrat.slides.units import micrometres

RED_GREEN_BLUE = ("FF0000", "00FF00", "0000FF")
_WHITE = "FFFFFF"


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One Image element."""

    mpp: tuple[float, float] | None = None
    """um/px of (rows, columns), or None."""
    objective: float | None = None
    """Nominal magnification, or None."""
    channel_colours: tuple[str, ...] = ()
    """RRGGBB of each channel that states a colour."""


def parse_ome(xml: str | None, *, index: int = 0, size: tuple[int, int] | None = None) -> OmeImage:
    """The ``index``-th Image of an OME-XML document. With ``size`` (height, width), it has to be of
    that size; if it is not, the only Image of that size counts (tifffile skips Images without
    pixels).

    The result states nothing if there is no such image, if the document is not well-formed, or if
    it declares a document type (``tiff_directory`` refuses such a file).
    """
    try:
        root = parse_xml(xml or "")
    except XmlError:
        return OmeImage()
    images = list(root.iterfind("{*}Image"))
    if size is not None:
        alike = [image for image in images if _size_px(image) == size]
        own = images[index : index + 1]
        images = own if own and own[0] in alike else alike if len(alike) == 1 else []
        index = 0
    image = next(islice(images, index, None), None)
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return OmeImage()
    channels = (channel.get("Color") for channel in pixels.iterfind("{*}Channel"))
    return OmeImage(
        _mpp(pixels),
        _objective(root, image),
        tuple(_rgb(colour) for colour in channels if colour is not None),
    )


def colours_are_rgb(colours: tuple[str, ...]) -> bool:
    """Whether three channels may be shown as red, green and blue: they state these colours, or
    white, which is the default of OME, or none."""
    return tuple(c.upper() for c in colours) == RED_GREEN_BLUE or all(
        c.upper() == _WHITE for c in colours
    )


def _size_px(image: Element) -> tuple[int, int] | None:
    """(height, width) of an Image, or None."""
    pixels = image.find("{*}Pixels")
    sides = [None if pixels is None else _number(pixels.get(f"Size{axis}")) for axis in "YX"]
    height, width = sides
    return None if height is None or width is None else (int(height), int(width))


def _number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _mpp(pixels: Element) -> tuple[float, float] | None:
    """um/px of (rows, columns); square pixels if one axis is not stated."""
    row, col = (_size(pixels, axis) for axis in "YX")
    row, col = (col if row is None else row), (row if col is None else col)
    if row is None or col is None or not all(MPP_MIN <= value <= MPP_MAX for value in (row, col)):
        return None
    return row, col


def _size(pixels: Element, axis: str) -> float | None:
    """um/px along an axis, None if it is not stated; NaN, which no mpp is, where the number or the
    unit makes no sense."""
    stated = pixels.get(f"PhysicalSize{axis}")
    if stated is None:
        return None
    value, factor = _number(stated), micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return math.nan if value is None or factor is None else value * factor


def _objective(root: Element, image: Element) -> float | None:
    settings = image.find("{*}ObjectiveSettings")
    if settings is None:
        return None
    for objective in root.iterfind(".//{*}Objective"):
        if objective.get("ID") == settings.get("ID"):
            return _number(objective.get("NominalMagnification"))
    return None


def _rgb(colour: str) -> str:
    """RRGGBB of a colour, which OME writes as RGBA in one signed 32-bit integer. Text that is not a
    number is returned as it is, for the message that refuses it."""
    number = _number(colour)
    return colour if number is None else f"{int(number) >> 8 & 0xFFFFFF:06X}"
