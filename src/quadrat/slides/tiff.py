"""TIFF and OME-TIFF pictures that no vendor's format is: pyramids in pages or SubIFDs, planes,
strips, all compressions that imagecodecs reads.

tifffile reads the directories. Pixels are read tile by tile or strip by strip, so a large picture
is never whole in memory (except a compressed picture in one strip). Layout: TIFF 6.0; OME-TIFF
(docs.openmicroscopy.org).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import numpy as np
import tifffile

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, Level, pyramid_levels
from quadrat.slides.colour_profile import profile_name
from quadrat.slides.native import NativeLevel, NativeTiles
from quadrat.slides.ome_xml import OmeImage, colours_are_rgb, parse_ome
from quadrat.slides.orientation import ORIENTATION, Orientation
from quadrat.slides.protocol import Reopened, Rgb, SlideInfo, TileGrid, on_canvas, white
from quadrat.slides.recognise import Found
from quadrat.slides.same_picture import shows_same, unlike_note
from quadrat.slides.tiff_directory import tiff_directory
from quadrat.slides.tiff_mpp import stated_mpp
from quadrat.slides.tiff_pictures import Picture, choose, listed, pictures_of, refuse_like
from quadrat.slides.tiff_planes import plane_levels, unsupported

_ICC = 34675
CONVERT = "e.g. with 'vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg'"
"""A way to make any picture readable."""


class TiffSlide(Reopened):
    """The main picture of a TIFF with its pyramid. Safe to read from several threads; pickles as
    path, mpp and scene.

    Raises:
        SlideError: not one picture of 8-bit RGB(A) or grey, compressed in a way that is not read,
            or damaged.
    """

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._found, self._override = found, mpp
        self.name = found.name
        self.path = str(found.path)
        with tiff_directory(found.file) as tiff:
            picture = _Picture(found, tiff)
            planes = picture.planes()
            self._turn, stated = picture.orientation(), picture.stated
            levels = _alike(found, planes, picture.chosen.unsure)
            picture.refuse_unlike(levels)
            self.info = picture.info(levels, turn=self._turn, mpp_given=mpp is not None)
        sizes = [self._turn.shown(picture.chosen.sizes[level]) for level in levels]
        self.levels: tuple[Level, ...] = pyramid_levels(sizes)
        self.mpp = mpp or (None if stated is None else self._turn.shown(stated.mpp))
        self._planes = [
            NativeTiles(
                found.file,
                {index: plane[level] for index, level in enumerate(levels)},
                missing=_blank,
            )
            for plane in planes
        ]

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""
        return on_canvas(box, self.levels[level].box, partial(self._read_inside, level))

    def _read_inside(self, level: int, box: Box) -> Rgb:
        place = self._turn.stored(box, self.levels[level].box)
        parts = [plane.read(level, place) for plane in self._planes]
        pixels = parts[0] if len(parts) == 1 else np.stack([p[..., 0] for p in parts], axis=-1)
        return self._turn.upright(pixels)

    def tiles(self, level: int) -> TileGrid | None:
        """The compressed tiles of a level, if they are JPEG or JPEG 2000; see ``Slide.tiles``."""
        if len(self._planes) != 1 or not self._turn.is_upright:
            return None
        return self._planes[0].grid(level)

    def close(self) -> None:
        """Close the files; reading afterwards fails."""
        for plane in self._planes:
            plane.close()


def _blank(level: int, box: Box) -> Rgb:
    """A tile that a sparse file does not hold is white, as OpenSlide draws it."""
    return white(box.shape)


def _alike(
    found: Found, planes: list[dict[int, NativeLevel]], unsure: Collection[int]
) -> list[int]:
    """The levels that show the same picture, one of each size; those that are ``unsure`` are
    compared with the next larger one."""
    kept = [0]
    tiles = NativeTiles(found.file, planes[0], missing=_blank)
    sizes = {index: level.size for index, level in planes[0].items()}
    try:
        for index in list(sizes)[1:]:
            if sizes[index] == sizes[kept[-1]]:
                continue
            if index not in unsure or shows_same(
                tiles.read, small=index, large=kept[-1], sizes=sizes
            ):
                kept.append(index)
    finally:
        tiles.close()
    return kept


class _Picture:
    """The main picture of an open TIFF."""

    def __init__(self, found: Found, tiff: tifffile.TiffFile) -> None:
        if tiff.is_ndpi:
            raise SlideError(
                f"{found.path}: a Hamamatsu NDPI file that OpenSlide refuses: it is damaged or "
                "truncated"
            )
        self.found = found
        self.tiff = tiff
        self.chosen = choose(pictures_of(tiff), scene=found.scene, path=found.path)
        self.series = self.chosen.main.levels[0]
        self.page: tifffile.TiffPage = self.series.keyframe
        main = self.chosen.main
        self.ome = OmeImage()
        if tiff.is_ome:
            self.ome = parse_ome(tiff.ome_metadata, index=main.index, size=main.size)
        self.stated = stated_mpp(tiff, self.page, self.ome)

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
            raise SlideError(f"{path}: {problem}; convert it first ({CONVERT})")
        found = {
            at: plane_levels(level, tiff=self.tiff, path=path)
            for at, level in enumerate(self.chosen.levels)
            if unsupported(level.keyframe) is None
        }
        number = len(found[0])
        usable = {at: levels for at, levels in found.items() if len(levels) == number}
        return [{at: levels[plane] for at, levels in usable.items()} for plane in range(number)]

    def refuse_unlike(self, levels: list[int]) -> None:
        """Refuse a file with a picture of like size that is no level after all. ``levels``: which
        of the levels are used.

        Raises:
            SlideError: it names the pictures.
        """
        if not self.found.scene:
            refuse_like(self.chosen.main, self._unlike(levels), self.found.path)

    def _unlike(self, levels: list[int]) -> list[Picture]:
        return [picture for at, picture in self.chosen.unsure.items() if at not in levels]

    def orientation(self) -> Orientation:
        """How the picture is turned for showing.

        Raises:
            SlideError: it is turned, and tiled: programs do not agree on what that means.
        """
        turn = Orientation(int(self.page.tags.valueof(ORIENTATION) or 1))
        if not turn.is_upright and self.page.is_tiled:
            raise SlideError(
                f"{self.found.path}: a tiled picture with the orientation {turn.value}, which "
                "programs show in different ways; turn its pixels and set tag 274 to 1 "
                f"({CONVERT})"
            )
        return turn

    def info(self, levels: list[int], *, turn: Orientation, mpp_given: bool) -> SlideInfo:
        """What the file states about itself. ``levels``: which of the levels are used. ``turn``:
        see ``orientation``. ``mpp_given``: the user states the mpp, so the file's does not
        count."""
        chosen = self.chosen
        others = sorted([*chosen.others, *self._unlike(levels)], key=lambda picture: picture.index)
        unlike = [size for at, size in enumerate(chosen.sizes) if at not in levels]
        notes = list[str]()
        if others:
            notes.append(
                f"the file holds {len(others) + 1} pictures; shown is {chosen.main.called}; "
                f"others: {listed(others)}"
            )
        if unlike:
            notes.append(unlike_note(unlike))
        if not turn.is_upright:
            notes.append(turn.note)
        return SlideInfo(
            format=self.found.format,
            reader=f"tifffile {tifffile.__version__}",
            objective=self.ome.objective,
            associated=tuple(p.name for p in chosen.others if p.is_associated),
            bounds=None,
            icc_profile=profile_name(self.page.tags.valueof(_ICC)),
            notes=tuple(notes),
            mpp_source="" if mpp_given or self.stated is None else self.stated.source,
        )
