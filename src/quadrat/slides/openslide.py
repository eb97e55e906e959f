"""Slides that OpenSlide opens; it is the reference, and the native tile reader serves what it agrees with.

Traps it works around (all measured): outside the slide the colour is transparent black; a handle that met one corrupt
tile fails for ever after; a level whose downsample is not whole is shifted by a part of a pixel that depends on where
the region starts. So pixels are cut from canonical blocks at fixed places: a region is the same whole or in parts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import openslide

from quadrat.errors import SlideError
from quadrat.geometry import Box, Level, pyramid_levels
from quadrat.slides.cache import BlockCache
from quadrat.slides.native import NativeTiles
from quadrat.slides.protocol import Closing, Rgb, Slide, SlideInfo, on_white, white
from quadrat.slides.recognise import Found, recognise

BLOCK_PX = 512
NATIVE_VENDORS = ("aperio", "generic-tiff")
CHECKED_BLOCKS = 3
SHIFT_TOLERANCE = 3.0
"""Mean grey levels by which a native block may differ from one that OpenSlide shifts by a part of a pixel."""


class OpenSlideSlide(Closing):
    """A slide read through OpenSlide, from several threads if need be; pickles as path and mpp."""

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._found = found
        self._override = mpp
        self._lock = Lock()
        self._handle = _open(found)
        self._cache = BlockCache()
        self.name = found.name
        self.path = str(found.path)
        self.levels: tuple[Level, ...] = pyramid_levels([(h, w) for w, h in self._handle.level_dimensions])
        self.mpp = mpp if mpp is not None else _stated_mpp(self._handle, found)
        self._native = self._open_native()
        self.info = _info(self._handle, found, native=self._native is not None)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (str(self._found.path), self._override)

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""
        whole = self.levels[level].box
        inside = box.intersect(whole)
        if inside.empty:
            return white(box.shape)
        native = self._native is not None and whole.shape in self._native.levels
        pixels = self._native.read(whole.shape, inside) if self._native and native else self._read_blocks(level, inside)
        if inside == box:
            return pixels
        out = white(box.shape)
        out[inside.slices_in(box)] = pixels
        return out

    def close(self) -> None:
        """Give the file handles back; reading afterwards fails."""
        self._handle.close()
        if self._native is not None:
            self._native.close()

    def _read_blocks(self, level: int, box: Box) -> Rgb:
        """Pixels of a box inside the level, cut from blocks of 512 px at fixed places."""
        out = np.empty((*box.shape, 3), np.uint8)
        for row, col in box.cells(BLOCK_PX):
            place = Box(row, col, row + 1, col + 1).scale_out(BLOCK_PX, BLOCK_PX).intersect(self.levels[level].box)
            part = place.intersect(box)
            block = self._cache.get((level, row, col), partial(self._read_block, level, place))
            out[part.slices_in(box)] = block[part.slices_in(place)]
        return out

    def _read_block(self, level: int, place: Box) -> Rgb:
        try:
            return self._ask(self._handle, level, place)
        except openslide.OpenSlideError as first:
            with self._lock:  # the handle refuses all reads from now on, good tiles included
                self._handle = _open(self._found)
            try:
                return self._ask(self._handle, level, place)
            except openslide.OpenSlideError as error:
                with self._lock:
                    self._handle = _open(self._found)
                raise SlideError(f"{self.path}: level {level} cannot be read at {place} ({error})") from first

    def _ask(self, handle: openslide.OpenSlide, level: int, place: Box) -> Rgb:
        down = handle.level_downsamples[level]  # OpenSlide divides by this one, so it is the one to multiply by
        location = round(place.col0 * down), round(place.row0 * down)
        return on_white(np.asarray(handle.read_region(location, level, (place.width, place.height))))

    def _open_native(self) -> NativeTiles | None:
        """The native reader, if it reads level 0 and each level it offers looks like OpenSlide's."""
        if self._found.format not in NATIVE_VENDORS:
            return None
        native = NativeTiles.open(self._found.file)
        try:
            for index, level in enumerate(self.levels):
                if level.box.shape in native.levels and not self._agrees(native, index):
                    del native.levels[level.box.shape]
        except SlideError:  # a damaged tile among the checked ones: OpenSlide is to say so when it is read
            native.levels.clear()
        if self.levels[0].box.shape in native.levels:
            return native
        native.close()
        return None

    def _agrees(self, native: NativeTiles, index: int) -> bool:
        """Whether blocks on the level's diagonal are equal (for shifted levels: alike) in both readers."""
        box = self.levels[index].box
        exact = float(self._handle.level_downsamples[index]).is_integer()
        for step in range(CHECKED_BLOCKS):
            row, col = (side // 128 * step // CHECKED_BLOCKS * 128 for side in box.shape)
            place = Box(row, col, row + 128, col + 128).intersect(box)
            ours = native.read(box.shape, place).astype(np.int16)
            theirs = self._ask(self._handle, index, place)
            difference = np.abs(ours - theirs)
            if (exact and difference.any()) or difference.mean() > SHIFT_TOLERANCE + 0.1 * theirs.std():
                return False
        return True


def open_openslide(found: Found, *, mpp: tuple[float, float] | None) -> Slide:
    """Open a recognised file with OpenSlide."""
    return OpenSlideSlide(found, mpp=mpp)


def _reopen(path: str, mpp: tuple[float, float] | None) -> OpenSlideSlide:
    return OpenSlideSlide(recognise(Path(path)), mpp=mpp)


def _open(found: Found) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(str(found.file))
    except openslide.OpenSlideError as error:
        raise SlideError(f"{found.path}: OpenSlide cannot open this {found.format} slide ({error})") from error


def _stated_mpp(handle: openslide.OpenSlide, found: Found) -> tuple[float, float] | None:
    """Level-0 um/px (rows, columns) from the file; None where it states none that can mean micrometres.

    A resolution in dots per inch is what image programs write for printers (72, 96, 300), not a measurement.
    """
    properties = handle.properties
    if found.format == "generic-tiff":
        from quadrat.slides.flat import ome_mpp

        stated = ome_mpp(found.file)
        if stated is not None:
            return stated
        if properties.get("tiff.ResolutionUnit") != "centimeter":
            return None
    row, col = (properties.get(f"openslide.mpp-{axis}") for axis in "yx")
    try:
        return (float(row), float(col)) if row is not None and col is not None else None
    except ValueError:
        return None


def _info(handle: openslide.OpenSlide, found: Found, *, native: bool) -> SlideInfo:
    properties = handle.properties
    sizes = tuple((h, w) for w, h in handle.level_dimensions)
    try:
        objective: float | None = float(properties["openslide.objective-power"])
    except (KeyError, ValueError):
        objective = None
    try:
        left, top, width, height = (int(properties[f"openslide.bounds-{key}"]) for key in ("x", "y", "width", "height"))
        bounds: Box | None = Box(top, left, top + height, left + width)
    except (KeyError, ValueError):
        bounds = None
    reader = "native tiles" if native else f"openslide {openslide.__library_version__}"
    return SlideInfo(found.format, reader, objective, tuple(sorted(handle.associated_images)), bounds, sizes[0], sizes)
