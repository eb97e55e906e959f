"""TIFF and OME-TIFF pictures that OpenSlide does not open: pyramids in SubIFDs, planes, strips,
other compressions.

tifffile reads the directories. Pixels are read tile by tile or strip by strip, so a large picture
is never whole in memory (except a compressed picture in one strip). Layout: TIFF 6.0; OME-TIFF
(docs.openmicroscopy.org).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from quadrat.core.errors import SlideError
from quadrat.core.geometry import MPP_MAX, MPP_MIN, Box, Level, pyramid_levels
from quadrat.slides.colour_profile import profile_name
from quadrat.slides.native import NativeLevel, NativeTiles
from quadrat.slides.ome_xml import OmeImage, colours_are_rgb, parse_ome
from quadrat.slides.protocol import Reopened, Rgb, SlideInfo, TileGrid, on_canvas, white
from quadrat.slides.recognise import Found
from quadrat.slides.tiff_directory import tiff_directory
from quadrat.slides.tiff_planes import plane_levels, unsupported

_CENTIMETRE = 3
_ICC = 34675


class TiffSlide(Reopened):
    """The main picture of a TIFF with its pyramid. Safe to read from several threads; pickles as
    path and mpp.

    Raises:
        SlideError: not one picture of 8-bit RGB(A) or grey, compressed in a way that is not read,
            or damaged.
    """

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._override = mpp
        self.name = found.name
        self.path = str(found.path)
        with tiff_directory(found.file) as tiff:
            picture = _Picture(found, tiff)
            planes = picture.planes()
            self.info = picture.info()
            self.levels: tuple[Level, ...] = pyramid_levels(picture.sizes())
            stated = picture.ome.mpp or resolution_mpp(picture.page)
        self.mpp = mpp or stated
        self._planes = [NativeTiles(found.file, levels, missing=_blank) for levels in planes]

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""
        return on_canvas(box, self.levels[level].box, partial(self._read_inside, level))

    def _read_inside(self, level: int, box: Box) -> Rgb:
        parts = [plane.read(level, box) for plane in self._planes]
        return parts[0] if len(parts) == 1 else np.stack([part[..., 0] for part in parts], axis=-1)

    def tiles(self, level: int) -> TileGrid | None:
        """The compressed tiles of a level, if they are JPEG or JPEG 2000; see ``Slide.tiles``."""
        return self._planes[0].grid(level) if len(self._planes) == 1 else None

    def close(self) -> None:
        """Close the files; reading afterwards fails."""
        for plane in self._planes:
            plane.close()


def ome_mpp(path: Path) -> tuple[float, float] | None:
    """um/px of (rows, columns) from PhysicalSizeY and PhysicalSizeX of an OME-TIFF; None if they
    are not plausible."""
    with tiff_directory(path) as tiff:
        return parse_ome(tiff.ome_metadata).mpp


def resolution_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """um/px of (rows, columns) from resolution tags in pixels per centimetre. Pixels per inch are
    meant for printers."""
    unit, row, col = (page.tags.valueof(tag) for tag in (296, 283, 282))
    if (
        unit is None
        or int(unit) != _CENTIMETRE
        or row is None
        or col is None
        or not row[0]
        or not col[0]
    ):
        return None
    mpp = 1e4 * row[1] / row[0], 1e4 * col[1] / col[0]
    return mpp if all(MPP_MIN <= value <= MPP_MAX for value in mpp) else None


def _blank(level: int, box: Box) -> Rgb:
    """A tile that a sparse file does not hold is white, as OpenSlide draws it."""
    return white(box.shape)


class _Picture:
    """The main picture of an open TIFF: its largest series."""

    def __init__(self, found: Found, tiff: tifffile.TiffFile) -> None:
        if tiff.is_ndpi:
            raise SlideError(
                f"{found.path}: a Hamamatsu NDPI file that OpenSlide refuses: it is damaged or "
                "truncated"
            )
        self.found, self.tiff = found, tiff
        sizes = [dict(zip(s.axes, s.shape, strict=True)) for s in tiff.series]
        areas = [size.get("Y", 0) * size.get("X", 0) for size in sizes]
        self.index = areas.index(max(areas))
        self.series = tiff.series[self.index]
        self.page: tifffile.TiffPage = self.series.keyframe
        self.ome = parse_ome(tiff.ome_metadata, index=self.index) if tiff.is_ome else OmeImage()

    def planes(self) -> list[dict[int, NativeLevel]]:
        """Levels by index: of one interleaved plane, or of three colour planes."""
        path, series = self.found.path, self.series
        axes = "".join(
            axis
            for axis, size in zip(series.axes, series.shape, strict=True)
            if size > 1 or axis in "YX"
        )
        if axes not in ("YX", "YXS", "SYX", "CYX") or series.dtype != np.uint8:
            raise SlideError(
                f"{path}: a TIFF of {series.dtype} with axes {series.axes} {series.shape} is not "
                "one picture of 8-bit RGB, RGBA or grey; convert it first"
            )
        if axes == "CYX" and not colours_are_rgb(self.ome.channel_colours):
            colours = ", ".join(self.ome.channel_colours)
            raise SlideError(
                f"{path}: its channels have the colours {colours}, not red, green and blue: "
                "fluorescence, not a picture in natural colours; render it to RGB first"
            )
        problem = unsupported(self.page)
        if problem is not None:
            raise SlideError(f"{path}: {problem}; convert it first")
        found = [plane_levels(level, tiff=self.tiff, path=path) for level in series.levels]
        return [dict(enumerate(levels)) for levels in zip(*found, strict=True)]

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the levels."""
        pages = (level.keyframe for level in self.series.levels)
        return [(int(page.imagelength), int(page.imagewidth)) for page in pages]

    def info(self) -> SlideInfo:
        """What the file states about itself."""
        others = [
            s
            for i, s in enumerate(self.tiff.series)
            if i != self.index and not s.keyframe.is_reduced
        ]
        return SlideInfo(
            format=self.found.format,
            reader=f"tifffile {tifffile.__version__}",
            objective=self.ome.objective,
            associated=tuple(sorted(s.name or f"series {s.index}" for s in others)),
            bounds=None,
            icc_profile=profile_name(self.page.tags.valueof(_ICC)),
        )
