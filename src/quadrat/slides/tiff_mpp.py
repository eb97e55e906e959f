"""The um/px that a TIFF file states, and where it states them.

A resolution may be a measurement or what an image program writes for printers. Printers use a few
round numbers of dots per inch; microscopes do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import tifffile

from quadrat.core.limits import MPP_MAX, MPP_MIN
from quadrat.slides.ome_xml import OmeImage
from quadrat.slides.units import micrometres

PRINTER_DPI = (
    *(72, 75, 80, 90, 96, 100, 110, 120, 144, 150, 160, 180, 192, 200, 220, 240, 250, 266, 288),
    *(300, 320, 350, 360, 400, 450, 480, 500, 600, 720, 800, 1000, 1200, 1440, 2400, 4800, 9600),
)
"""What printers, screens and desktop scanners use."""
INCH_MPP_MAX = 10.0
"""More um/px than that, stated per inch, are no microscope's."""
_INCH, _CENTIMETRE = 2, 3
_UM_PER = {_INCH: 25400.0, _CENTIMETRE: 10000.0}
_MILLIMETRE = 1000.0
_ROW, _COL, _UNIT = 283, 282, 296
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class Stated:
    """An mpp and its source."""

    mpp: tuple[float, float]
    """um/px of (rows, columns)."""
    source: str
    """Where the file states it."""


def stated_mpp(tiff: tifffile.TiffFile, page: tifffile.TiffPage, ome: OmeImage) -> Stated | None:
    """The mpp of a page of an open file: from OME-XML, else from ImageJ's unit, else from the
    resolution tags; None if nothing there can be a microscope's.

    If only one axis is stated, pixels are taken to be square.
    """
    if ome.mpp is not None:
        return Stated(ome.mpp, "OME PhysicalSize")
    if tiff.is_imagej:
        unit = _ESCAPE.sub(lambda at: chr(int(at[1], 16)), str(_imagej(tiff).get("unit", "")))
        length = micrometres(unit)
        found = None if length is None else _per_unit(page, length)
        if length is not None and found is not None and _is_microscopes(found, length):
            return Stated(found, f"ImageJ unit {unit}")
    unit_tag = page.tags.valueof(_UNIT)
    number = _INCH if unit_tag is None else int(unit_tag)
    if number not in _UM_PER:
        return None
    found = _per_unit(page, _UM_PER[number])
    if found is None or not _is_microscopes(found, _UM_PER[number]):
        return None
    return Stated(found, f"TIFF resolution per {'inch' if number == _INCH else 'centimetre'}")


def _imagej(tiff: tifffile.TiffFile) -> dict[str, object]:
    return dict(tiff.imagej_metadata or {})


def _per_unit(page: tifffile.TiffPage, length: float) -> tuple[float, float] | None:
    """um/px of (rows, columns) from px per ``length`` um."""
    row, col = (_resolution(page.tags.valueof(tag)) for tag in (_ROW, _COL))
    row, col = row or col, col or row
    return None if row is None or col is None else (length / row, length / col)


def _resolution(value: tuple[int, int] | None) -> float | None:
    return value[0] / value[1] if value and value[0] and value[1] else None


def _is_microscopes(mpp: tuple[float, float], length: float) -> bool:
    """Whether um/px stated per ``length`` um can be a microscope's. Scanners of paper state theirs
    per mm or more."""
    limit = INCH_MPP_MAX if length == _UM_PER[_INCH] else MPP_MAX
    paper = length >= _MILLIMETRE
    return all(MPP_MIN <= v <= limit and not (paper and _is_printers(v)) for v in mpp)


def _is_printers(mpp: float) -> bool:
    dpi = 25400 / mpp
    return any(abs(dpi - known) <= known * 2e-3 for known in PRINTER_DPI)
