"""Slides that OpenSlide opens. It is the reference; native tiles serve levels where both agree.

Three faults are worked around (all measured). Outside the slide OpenSlide returns transparent
black. A handle that has met one corrupt tile fails for every later read. A level with a downsample
that is not a whole number is shifted by a part of a pixel, which depends on where the region
starts. So pixels are cut from blocks at fixed places: a region is the same whole or in parts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import openslide

from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box, Level, pyramid_levels
from quadrat.slides.blocks import from_blocks
from quadrat.slides.cache import BlockCache
from quadrat.slides.colour_profile import handle_profile
from quadrat.slides.dicom import mistagged_sizes
from quadrat.slides.dicom_series import links_to
from quadrat.slides.native import NativeTiles, pages_by_size
from quadrat.slides.ome_xml import OmeImage, parse_ome
from quadrat.slides.protocol import (
    Reopened,
    Rgb,
    SlideInfo,
    TileGrid,
    damaged_tile,
    on_canvas,
    on_white,
    white,
)
from quadrat.slides.recognise import Found
from quadrat.slides.same_picture import shows_same, unlike_note
from quadrat.slides.scanned_part import bounds_of
from quadrat.slides.self_check import refuse_reason
from quadrat.slides.tiff_directory import tiff_directory
from quadrat.slides.tiff_mpp import Stated, stated_mpp
from quadrat.slides.tile_codec import ycbcr_to_rgb

BLOCK_PX = 512
PIECE_PX = 128
"""A damaged block is read again in pieces of this side, if the file states no tile size."""
NATIVE_VENDORS = (
    "aperio",
    "generic-tiff",
    "leica",
    "philips",
    "philips-tiff",
    "trestle",
    "ventana",
)
"""TIFF formats with pages that may be tried as levels; the self-check decides. Only the first two
were tried on real files. Hamamatsu is not among them: each of its pages is one JPEG stream."""
MPP_PROPERTIES = {
    "openslide.mpp": ("openslide.mpp-y", "openslide.mpp-x"),
    "Aperio MPP": ("aperio.MPP", "aperio.MPP"),
    "DICOM PixelSpacing": ("dicom.PixelSpacing[0]", "dicom.PixelSpacing[1]"),
}
"""Where a scanner's um/px (of DICOM: mm/px) stands, by source: properties of rows and columns. The
first source that states one counts."""
MISTAGGED = (
    "the DICOM header says RGB, but the JPEG frames are YCbCr: colours are converted after reading"
)


class OpenSlideSlide(Reopened):
    """A slide read through OpenSlide. Safe to read from several threads; pickles as path and mpp.

    Raises:
        SlideError: OpenSlide cannot open it, or its colours would be read wrongly.
    """

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._links = links_to(found.files, slide=found.path)
        if self._links is None:
            self._set_up(found, mpp)
            return
        try:
            self._set_up(replace(found, file=min(Path(self._links.name).iterdir())), mpp)
        except BaseException:
            self._links.cleanup()
            raise

    def _set_up(self, found: Found, mpp: tuple[float, float] | None) -> None:
        """Open the file and learn what it states of itself."""
        self._found = found
        self._override = mpp
        self._lock = Lock()
        self._stamp = _stamp(found)
        self._handle = _open(found)
        self._downsamples = self._handle.level_downsamples
        self._tile_sizes = _tile_sizes(self._handle)
        self._cache = BlockCache()
        self._lost: dict[tuple[int, int, int], tuple[DamagedTileError, ...]] = {}
        self.name = found.name
        self.path = str(found.path)
        self.levels: tuple[Level, ...] = pyramid_levels(
            [(h, w) for w, h in self._handle.level_dimensions]
        )
        stated = _stated_mpp(self._handle, found)
        self.mpp = mpp or (None if stated is None else stated.mpp)
        self._ycbcr = mistagged_sizes(found.files)
        self._native, reader = self._open_native()
        try:
            notes = self._drop_unlike()
            self.info = _info(
                self._handle,
                found,
                reader=reader,
                notes=notes + ((MISTAGGED,) if self._ycbcr else ()),
                mpp_source="" if mpp or stated is None else stated.source,
            )
        except BaseException:
            self.close()
            raise

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""
        native = self._native if self._native and level in self._native.levels else None
        read = partial(self._read_blocks if native is None else native.read, level)
        return on_canvas(box, self.levels[level].box, read)

    def tiles(self, level: int) -> TileGrid | None:
        """The compressed tiles of a level, if the native reader serves it; see ``Slide.tiles``."""
        return None if self._native is None else self._native.grid(level)

    def close(self) -> None:
        """Close the files; reading afterwards fails."""
        self._handle.close()
        if self._native is not None:
            self._native.close()
        if self._links is not None:
            self._links.cleanup()

    def _drop_unlike(self) -> tuple[str, ...]:
        """Of a generic TIFF, keep the levels down to the first one that shows something else; a
        note on those that go."""
        if self._found.format != "generic-tiff":
            return ()
        sizes = {index: level.box.shape for index, level in enumerate(self.levels)}
        for index in range(1, len(sizes)):
            if not shows_same(self.read, small=index, large=index - 1, sizes=sizes):
                gone, self.levels = self.levels[index:], self.levels[:index]
                return (unlike_note([level.box.shape for level in gone]),)
        return ()

    def _read_blocks(self, level: int, box: Box) -> Rgb:
        """Pixels of a box inside the level, cut from blocks of 512 px at fixed places."""

        def block(row: int, col: int) -> Rgb:
            key = level, row, col
            pixels = self._cache.get(key, partial(self._read_block, *key))
            for lost in self._lost.get(key, ()):
                if not Box(*lost.box).intersect(box).empty:
                    raise lost
            return pixels

        return from_blocks(box, (BLOCK_PX, BLOCK_PX), block)

    def _read_block(self, level: int, row: int, col: int) -> Rgb:
        """One block. Tiles that cannot be decoded are white in it and listed in ``_lost``."""
        block = Box(row, col, row + 1, col + 1).scale_out(BLOCK_PX, BLOCK_PX)
        place = block.intersect(self.levels[level].box)
        if _stamp(self._found) != self._stamp:
            raise SlideError(
                f"{self.path}: the file was changed while it was read; run again when nothing "
                "writes to it"
            )
        try:
            return self._ask(self._handle, level, place)
        except openslide.OpenSlideError:
            with self._lock:  # this handle refuses all later reads, good tiles too
                pixels, lost, self._handle = self._read_pieces(level, place)
                self._lost[level, row, col] = lost
            return pixels

    def _read_pieces(
        self, level: int, place: Box
    ) -> tuple[Rgb, tuple[DamagedTileError, ...], openslide.OpenSlide]:
        """A block tile by tile: its pixels, the tiles that are lost, and a handle that still works.
        After each failure a new handle is opened."""
        handle = _open(self._found)
        try:  # the other handle may have failed because of another thread
            return self._ask(handle, level, place), (), handle
        except openslide.OpenSlideError:
            handle = _open(self._found)
        pixels, lost = white(place.shape), list[DamagedTileError]()
        for tile in self._tiles_of(level, place):
            piece = tile.intersect(place)
            try:
                pixels[piece.slices_in(place)] = self._ask(handle, level, piece)
            except openslide.OpenSlideError as error:
                lost.append(damaged_tile(self.path, level=level, box=tile, reason=error))
                handle = _open(self._found)
        return pixels, tuple(lost), handle

    def _tiles_of(self, level: int, place: Box) -> list[Box]:
        """The tiles of the file that touch a box, cut at the edge of the level. They are pieces of
        128 px if the file states no tile size."""
        height, width = self._tile_sizes[level]
        rows = range(place.row0 // height, -(-place.row1 // height))
        cols = range(place.col0 // width, -(-place.col1 // width))
        whole = self.levels[level].box
        return [
            Box(r * height, c * width, (r + 1) * height, (c + 1) * width).intersect(whole)
            for r in rows
            for c in cols
        ]

    def _ask(self, handle: openslide.OpenSlide, level: int, place: Box) -> Rgb:
        # OpenSlide divides by this number, so multiply by the same
        down = self._downsamples[level]
        location = round(place.col0 * down), round(place.row0 * down)
        rgba = np.asarray(handle.read_region(location, level, (place.width, place.height)))
        if self.levels[level].box.shape in self._ycbcr:
            rgba = np.concatenate([ycbcr_to_rgb(rgba[..., :3]), rgba[..., 3:]], axis=2)
        return on_white(rgba)

    def _reference(self, level: int, place: Box) -> Rgb:
        """A few pixels through OpenSlide alone, for the self-check."""
        try:
            return self._ask(self._handle, level, place)
        except openslide.OpenSlideError as error:
            self._handle = _open(self._found)
            raise damaged_tile(self.path, level=level, box=place, reason=error) from error

    def _open_native(self) -> tuple[NativeTiles | None, str]:
        """The native reader of the levels where it shows what OpenSlide shows, and a sentence on
        who reads what."""
        other = f"openslide {openslide.__library_version__}"
        pages = pages_by_size(self._found.file) if self._found.format in NATIVE_VENDORS else {}
        levels = {
            index: pages[level.box.shape]
            for index, level in enumerate(self.levels)
            if level.box.shape in pages
        }
        if not levels:
            return None, other
        native = NativeTiles(self._found.file, levels, missing=self._read_blocks)
        refused: list[str] = []
        lacking = [index for index, level in levels.items() if not level.counts.all()]
        for index in levels:
            shifted = not float(self._downsamples[index]).is_integer()
            reason = refuse_reason(native, index, reference=self._reference, shifted=shifted)
            if self._found.format == "aperio" and lacking and index > lacking[0]:
                # OpenSlide redraws an Aperio tile from the finer level if one of the tiles below it
                # is missing there
                reason = f"level {index}: level {lacking[0]} has missing tiles"
            if reason is not None:
                refused.append(reason)
                del native.levels[index]
        doubts = f" (native tiles refused: {'; '.join(refused)})" if refused else ""
        if not native.levels:
            native.close()
            return None, other + doubts
        rest = [str(index) for index in range(len(self.levels)) if index not in native.levels]
        return (
            native,
            f"native tiles; {other} for level {', '.join(rest)}{doubts}"
            if rest
            else "native tiles",
        )


def _stamp(found: Found) -> tuple[int, int, int]:
    """Inode, size and time of change of the file. OpenSlide opens it by name again and again."""
    try:
        at = found.file.stat()
    except OSError as error:
        raise SlideError(f"{found.path}: the file cannot be read ({error.strerror})") from error
    return at.st_ino, at.st_size, at.st_mtime_ns


def _open(found: Found) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(str(found.file))
    except openslide.OpenSlideError as error:
        one_of_many = found.format == "dicom" and found.path == found.file
        remedy = "; give the folder that holds all its files" if one_of_many else ""
        raise SlideError(
            f"{found.path}: OpenSlide cannot open this {found.format} slide ({error}){remedy}"
        ) from error


def _tile_sizes(handle: openslide.OpenSlide) -> list[tuple[int, int]]:
    """(height, width) of the tiles of each level, or 128 px if the file states none."""
    properties, levels = handle.properties, range(handle.level_count)
    sides = (
        [f"openslide.level[{level}].tile-{side}" for side in ("height", "width")]
        for level in levels
    )
    return [
        (int(properties.get(height, PIECE_PX)), int(properties.get(width, PIECE_PX)))
        for height, width in sides
    ]


def _stated_mpp(handle: openslide.OpenSlide, found: Found) -> Stated | None:
    """um/px of (rows, columns) at level 0 as the file states it; None if it states nothing that can
    mean micrometres.

    If only one axis is stated, pixels are taken to be square.
    """
    properties = handle.properties
    if found.format == "generic-tiff":
        with tiff_directory(found.file) as tiff:
            page, columns_rows = tiff.pages.first, handle.dimensions
            size = columns_rows[1], columns_rows[0]
            ome = parse_ome(tiff.ome_metadata, size=size) if tiff.is_ome else OmeImage()
            return stated_mpp(tiff, page, ome)
    for source, names in MPP_PROPERTIES.items():
        row, col = (_number(properties.get(name)) for name in names)
        row, col = row or col, col or row
        if row is not None and col is not None:
            factor = 1000.0 if source.startswith("DICOM") else 1.0
            return Stated((row * factor, col * factor), source)
    height, width = (_number(properties.get(f"dicom.ImagedVolume{s}")) for s in ("Height", "Width"))
    if height is None or width is None:
        return None
    columns, rows = handle.dimensions
    return Stated((1000 * height / rows, 1000 * width / columns), "DICOM ImagedVolume")


def _number(text: str | None) -> float | None:
    """A positive number, with a decimal point or comma; None if there is none."""
    try:
        number = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _info(
    handle: openslide.OpenSlide,
    found: Found,
    *,
    reader: str,
    notes: tuple[str, ...],
    mpp_source: str,
) -> SlideInfo:
    properties = handle.properties
    try:
        objective: float | None = float(properties["openslide.objective-power"])
    except (KeyError, ValueError):
        objective = None
    associated = tuple(sorted(handle.associated_images))
    profile = handle_profile(handle)
    return SlideInfo(
        found.format,
        reader,
        objective,
        associated,
        bounds_of(handle),
        icc_profile=profile,
        mpp_source=mpp_source,
        notes=notes,
    )
