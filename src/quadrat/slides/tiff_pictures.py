"""Which pictures a TIFF file holds, which of them is the slide, and which pages are its levels.

The order of the pages and their flags are what writers make of them. Sizes are facts. So the slide
is the largest picture, and a level is a picture that is as large as a reduction of it. Whether it
shows the same is checked where the pixels are read (``tiff.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tifffile

from quadrat.core.errors import SlideError
from quadrat.slides.orientation import ORIENTATION

LIKE = 4
"""A picture with more than a 4th of the largest one's pixels is of like size."""
SHOWN = 8
ASSOCIATED = re.compile(r"(?<![a-z])(label|macro|thumbnail|overview)(?![a-z])", re.IGNORECASE)
"""The words, whole ones, by which names say that a picture is not the slide."""
_BY_PAGE = ("generic", "uniform")
"""Kinds of file, as tifffile names them, that state nothing on how pages belong together."""
_OPENSLIDE_CODECS = (1, 5, 7, 8, 32773, 32946)
"""None, LZW, JPEG, deflate, PackBits."""
_OPENSLIDE_COLOURS = (0, 1, 2, 3, 6)
"""Grey (white or black is zero), RGB, palette, YCbCr."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a file, alone or with its own levels."""

    index: int
    """Its number in the file, from 0."""
    name: str
    """What the file calls it, or ""."""
    levels: tuple[tifffile.TiffPageSeries, ...]
    """The picture, and the levels that the file itself puts below it."""
    is_reduced: bool
    """Whether the file flags it as a smaller version of another picture."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px."""
        return _size(self.levels[0])

    @property
    def area(self) -> int:
        """Pixels."""
        return math.prod(self.size)

    @property
    def is_associated(self) -> bool:
        """Whether its name says that it is a label, a macro or a thumbnail."""
        return ASSOCIATED.search(self.name) is not None

    @property
    def called(self) -> str:
        """Number, name and size, for messages."""
        name = f" '{self.name}'" if self.name else ""
        return f"{self.index}{name} ({self.size[1]} x {self.size[0]} px)"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The picture that is the slide, and the rest of the file."""

    main: Picture
    """The slide."""
    levels: tuple[tifffile.TiffPageSeries, ...]
    """The slide and what may be its smaller levels, largest first; several may be of one size."""
    unsure: Mapping[int, Picture]
    """Levels that are taken by their size alone, by index: what they show is not known."""
    others: tuple[Picture, ...]
    """The other pictures."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the levels."""
        return [_size(level) for level in self.levels]


def pictures_of(tiff: tifffile.TiffFile) -> list[Picture]:
    """The pictures of an open file in their order, with the levels that SubIFDs (or OME) state."""
    if tiff.series[0].kind in _BY_PAGE:
        pages = (page.aspage() for page in tiff.pages)
        found = [(page, tuple(_page_levels(page))) for page in pages]
        return [
            Picture(index, _page_name(page), levels, bool(page.is_reduced))
            for index, (page, levels) in enumerate(found)
            if levels
        ]
    return [
        Picture(index, series.name, tuple(series.levels), bool(series.keyframe.is_reduced))
        for index, series in enumerate(tiff.series)
    ]


def choose(pictures: Sequence[Picture], *, scene: str, path: object) -> Chosen:
    """The picture called ``scene`` (its name or its number), else the largest one, with its levels.

    Raises:
        SlideError: there is no such scene, or several pictures are of like size and none is named.
    """
    if not pictures:
        raise SlideError(f"{path}: no page of the TIFF file holds pixels of a known kind")
    main = _named(pictures, scene, path) if scene else _largest(pictures)
    size, kind = main.size, _kind(main.levels[0])
    found: list[tuple[tifffile.TiffPageSeries, Picture | None]] = [
        (level, None) for level in main.levels[1:] if is_reduction(_size(level), size)
    ]
    sure = {_size(level) for level, _ in found}
    others: list[Picture] = []
    for picture in pictures:
        if picture is main:
            continue
        alike = _kind(picture.levels[0]) == kind and not picture.is_associated
        if alike and is_reduction(picture.size, size) and picture.size not in sure:
            found.append((picture.levels[0], picture))
        else:
            others.append(picture)
    if not scene:
        refuse_like(main, others, path)
    found.sort(key=lambda pair: _size(pair[0]), reverse=True)
    return Chosen(
        main,
        (main.levels[0], *(level for level, _ in found)),
        {at: picture for at, (_, picture) in enumerate(found, start=1) if picture is not None},
        tuple(others),
    )


def is_reduction(small: tuple[int, int], large: tuple[int, int]) -> bool:
    """Whether one factor above 1 explains both sides, to a pixel: writers round up or down."""
    low = max(full / (side + 1) for full, side in zip(large, small, strict=True))
    high = min(full / max(side - 1, 1) for full, side in zip(large, small, strict=True))
    return low <= high and high > 1 and small[0] < large[0] and small[1] < large[1]


def openslide_shows(tiff: tifffile.TiffFile, chosen: Chosen) -> bool:
    """Whether OpenSlide's reader of generic tiled TIFF shows this picture of an open file with
    these levels, in these colours.

    It takes the first page and the tiled pages that are flagged as reduced, whatever their sides.
    It shows the first plane of separate channels as if it were the picture, takes a fourth sample
    of no stated meaning for alpha, scales 16 bits, and turns each tile by itself where the
    orientation is not 1. A level that may be another picture of like size is not left to it.
    """
    main = chosen.main
    if main.levels[0].keyframe.index != 0 or main.is_reduced or len(main.levels) > 1:
        return False
    if any(is_like(picture, main) for picture in chosen.unsure.values()):
        return False
    pages = (page.aspage() for page in tiff.pages[1:])
    shown = [_page_size(page) for page in pages if page.is_reduced and page.is_tiled]
    return sorted(shown, reverse=True) == chosen.sizes[1:] and all(
        _openslide_reads(level) for level in chosen.levels
    )


def _openslide_reads(level: tifffile.TiffPageSeries) -> bool:
    page = level.keyframe
    return bool(
        level.axes in ("YX", "YXS")
        and level.dtype == "uint8"
        and page.is_tiled
        and int(page.planarconfig) == 1
        and int(page.compression) in _OPENSLIDE_CODECS
        and int(page.photometric) in _OPENSLIDE_COLOURS
        and not (page.samplesperpixel == 4 and not any(page.extrasamples))
        and int(page.tags.valueof(ORIENTATION) or 1) == 1
    )


def _page_levels(page: tifffile.TiffPage) -> list[tifffile.TiffPageSeries]:
    """A page and its SubIFDs; none if the page has no pixels of a known kind."""
    if page.dtype is None or "Y" not in page.axes:
        return []
    pages = (page, *(found.aspage() for found in page.pages or ()))
    return [
        tifffile.TiffPageSeries([one], one.shape, one.dtype, one.axes, parent=page.parent)
        for one in pages
        if one.dtype is not None and "Y" in one.axes
    ]


def _page_name(page: tifffile.TiffPage) -> str:
    """PageName, or the first line of a description that is no metadata of a program."""
    name = page.tags.valueof(285) or page.description.partition("\n")[0]
    text = str(name).strip()
    return "" if text[:1] in "<{" or "=" in text or len(text) > 60 else text


def _size(level: tifffile.TiffPageSeries) -> tuple[int, int]:
    return _page_size(level.keyframe)


def _page_size(page: tifffile.TiffPage) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _kind(level: tifffile.TiffPageSeries) -> tuple[object, ...]:
    """What a picture and its levels have in common."""
    page = level.keyframe
    sides = tuple(n for axis, n in zip(level.axes, level.shape, strict=True) if axis not in "YX")
    return sides, str(level.dtype), int(page.samplesperpixel)


def _largest(pictures: Sequence[Picture]) -> Picture:
    unnamed = [picture for picture in pictures if not picture.is_associated]
    return max(unnamed or pictures, key=lambda picture: (picture.area, -picture.index))


def _named(pictures: Sequence[Picture], scene: str, path: object) -> Picture:
    found = [p for p in pictures if p.name == scene] or [
        p for p in pictures if str(p.index) == scene
    ]
    if len(found) != 1:
        raise SlideError(
            f"{path}: {len(found) or 'no'} pictures are called '{scene}'; it holds "
            f"{listed(pictures)}; give the number of one"
        )
    return found[0]


def is_like(picture: Picture, main: Picture) -> bool:
    """Whether a picture is of like size and kind, so that it could be the slide as well."""
    named = picture.is_associated and not main.is_associated
    # a mask of the slide is not another slide
    alike = _kind(picture.levels[0]) == _kind(main.levels[0])
    return picture.area * LIKE > main.area and alike and not named


def refuse_like(main: Picture, others: Sequence[Picture], path: object) -> None:
    """Refuse a file whose slide may be another picture.

    Raises:
        SlideError: it names the pictures of like size.
    """
    like = [picture for picture in others if is_like(picture, main)]
    if like:
        both = sorted([main, *like], key=lambda picture: picture.index)
        raise SlideError(
            f"{path}: holds {len(both)} pictures of like size: {listed(both)}; choose one with "
            "--scene (or the manifest's column 'scene'), by name or number"
        )


def listed(pictures: Sequence[Picture]) -> str:
    """Pictures for a message; of many, the first ones."""
    names = ", ".join(picture.called for picture in pictures[:SHOWN])
    more = len(pictures) - SHOWN
    return f"{names} and {more} more" if more > 0 else names
