"""Small pictures of a slide's objects at the model's mpp: some at random, some that the model is
least sure of, and some of the fullest places."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.core.geometry import Box, plan_read
from quadrat.core.objects import Polygons
from quadrat.outputs.overlay import draw_overlay
from quadrat.pages.folder import Finished
from quadrat.pages.things import Indices, Places, Things, decoded
from quadrat.pages.vectors import heat
from quadrat.slides.protocol import Rgb, Slide
from quadrat.slides.source import SlideSource

EACH = 4
"""Crops of a kind."""
LEAST_PX, MOST_PX = 128, 512
"""Side of a crop in px of the model's grid: half as long again as the object."""
RANDOM, UNSURE, HOTSPOT = "random", "least sure", "hotspot"
MOST_OUTLINES = 400


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a crop is to show."""

    why: str
    """RANDOM, UNSURE or HOTSPOT."""
    index: int
    """The object."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A crop."""

    chosen: Chosen
    """What it shows."""
    pixels: Rgb
    """The slide itself."""
    drawn: Rgb
    """With outlines; as large, or twice as large."""


def choose(slide: Finished, places: Places) -> list[Chosen]:
    """Which objects to show: equal for equal results. One object is shown once."""
    taken: set[int] = set()
    out = list[Chosen]()
    for why, ranked in (
        (UNSURE, np.argsort(places.score, kind="stable")[: 4 * EACH]),
        (HOTSPOT, _fullest(slide, places)),
        (RANDOM, _drawn(slide.name, len(places))),
    ):
        new = [int(i) for i in ranked if int(i) not in taken][:EACH]
        taken.update(new)
        out += [Chosen(why, i) for i in new]
    return [one for why in (RANDOM, UNSURE, HOTSPOT) for one in out if one.why == why]


def cut(slide: Finished, picture: Slide, things: Things, chosen: list[Chosen]) -> Iterator[Cut]:
    """The crops of chosen objects.

    Raises:
        SlideError: the slide cannot be read.
    """
    frame = slide.summary.frame
    plan = plan_read(
        picture.levels,
        slide_mpp=frame.mpp_l0,
        mpp=frame.mpp,
        slide=slide.name,
        allow_upsampling=True,
    )
    source = SlideSource(picture, plan, damaged="mark", unit=frame.unit)
    classes = slide.summary.provenance.classes
    colors = np.array([one.color for one in classes], np.uint8)
    for one in chosen:
        box = _box(things.places, one.index, source)
        pixels = source.read(box)
        near = _meeting(things.places, source.frame.scale.box_l0(box))
        zoom = 2 if box.height <= LEAST_PX else 1
        drawn = _drawn_over(pixels, things, near, box, source, colors, width=1.5, zoom=zoom)
        mine = np.array([one.index])
        drawn = _drawn_over(drawn, things, mine, box, source, colors, width=3, scale=zoom)
        yield Cut(one, pixels, drawn)


def _drawn_over(
    pixels: Rgb,
    things: Things,
    indices: Indices,
    box: Box,
    source: SlideSource,
    colors: npt.NDArray[np.uint8],
    *,
    width: float,
    zoom: int = 1,
    scale: int = 1,
) -> Rgb:
    """Outlines over the pixels of a box, which are ``scale`` times as large already."""
    outlines = _polygons(decoded(things.outlines(indices)), box, source)
    return draw_overlay(
        pixels,
        polygons=replace(outlines, xy=outlines.xy * scale),
        class_id=things.places.class_id[indices],
        colors=colors,
        width=width,
        zoom=zoom,
        corner_px=scale,
    )


def _fullest(slide: Finished, places: Places) -> Indices:
    """The object with the highest score in each of the fullest squares; the largest regions; the
    tiles that most surely are of the class that most are."""
    if not len(places):
        return np.zeros(0, np.intp)
    everything = np.ones(len(places), bool)
    if slide.count is None:
        common = places.class_id == np.argmax(np.bincount(places.class_id))
        return np.argsort(np.where(common, -places.score, np.inf), kind="stable")[: 4 * EACH]
    if slide.regions:
        return np.argsort(-places.side, kind="stable")[: 4 * EACH]
    side = LEAST_PX * slide.summary.frame.scale_row
    counts = heat(places, slide.size_l0, side, shown=everything)
    fullest = np.argsort(-counts.ravel(), kind="stable")[: 4 * EACH]
    height, width = counts.shape
    column = np.clip((places.x / side).astype(np.int64), 0, width - 1)
    line = np.clip((places.y / side).astype(np.int64), 0, height - 1)
    cell, best = line * width + column, list[int]()
    for one in fullest[counts.ravel()[fullest] > 0]:
        inside = np.flatnonzero(cell == one)
        best.append(int(inside[np.argmax(places.score[inside])]))
    return np.array(best, np.intp)


def _drawn(name: str, n: int) -> npt.NDArray[np.int64]:
    """Objects in a random order that follows from the slide's name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).permutation(n)[: 4 * EACH]


def _box(places: Places, index: int, source: SlideSource) -> Box:
    """The square around an object, inside the slide where it can be."""
    frame = source.frame
    scale = np.array([frame.scale_col, frame.scale_row])
    low, high = places.box[index, :2] / scale, places.box[index, 2:] / scale
    side = int(np.clip(1.5 * float((high - low).max()), LEAST_PX, MOST_PX))
    centre = (low + high) / 2
    col, row = (
        max(0, min(int(middle - side / 2), whole - side))
        for middle, whole in zip(centre, (frame.width, frame.height), strict=True)
    )
    return Box(row, col, row + side, col + side)


def _meeting(places: Places, box_l0: tuple[float, float, float, float]) -> Indices:
    x0, y0, x1, y1 = places.box.T
    left, top, right, bottom = box_l0
    return np.flatnonzero((x1 > left) & (x0 < right) & (y1 > top) & (y0 < bottom))[:MOST_OUTLINES]


def _polygons(found: npt.NDArray[np.object_], box: Box, source: SlideSource) -> Polygons:
    """Outlines in px of a crop."""
    if not len(found):
        return Polygons(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    _, xy, (rings, polygons) = shapely.to_ragged_array(found)
    inside = source.frame.scale.from_l0(xy) - np.array([box.col0, box.row0])
    return Polygons(inside, rings.astype(np.int64), polygons.astype(np.int64))
