"""Pictures of a result: outlines, class tints, dots and maps drawn on RGB arrays, with Pillow and
numpy.

All images are uint8 (h, w, 3). ``figures.py`` sets these pictures on a page with legend and scale
bars.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from quadrat.core.objects import Frame, Polygons

Rgb = npt.NDArray[np.uint8]
_SUPERSAMPLE = 3
_VIRIDIS = (
    (68, 1, 84),
    (72, 26, 108),
    (71, 47, 125),
    (65, 68, 135),
    (57, 86, 140),
    (49, 104, 142),
    (42, 120, 142),
    (35, 136, 142),
    (31, 152, 139),
    (34, 168, 132),
    (53, 183, 121),
    (84, 197, 104),
    (122, 209, 81),
    (165, 219, 54),
    (210, 226, 27),
    (253, 231, 37),
)
"""Every 17th colour of viridis (S. van der Walt, N. Smith, E. Firing; CC0,
https://bids.github.io/colormap)."""
BLANK = (246, 246, 246)
"""Colour of places without a value."""


def draw_overlay(
    image: Rgb,
    *,
    polygons: Polygons,
    class_id: npt.NDArray[np.uint8],
    colors: npt.NDArray[np.uint8],
    width: float = 1.5,
    zoom: int = 1,
    corner_px: float = 1.0,
) -> Rgb:
    """Draw outlines of polygons on an image that is enlarged by ``zoom``.

    Args:
        image: uint8 (h, w, 3).
        polygons: in px of ``image`` (before zoom), corner-based.
        class_id: (n,) uint8, one per polygon.
        colors: (classes, 3) uint8.
        width: line width in px of the result.
        zoom: integer factor by which the image is enlarged first (bicubic), so that lines stay thin
            on magnified tissue.
        corner_px: corners are cut at this distance (px of ``image``), which makes smooth outlines
            of pixel stairs.

    Returns:
        uint8 (h * zoom, w * zoom, 3).
    """
    height, width_px = image.shape[0] * zoom, image.shape[1] * zoom
    picture = Image.fromarray(image)
    if zoom > 1:
        picture = picture.resize((width_px, height), Image.Resampling.BICUBIC)
    large = picture.resize(
        (width_px * _SUPERSAMPLE, height * _SUPERSAMPLE), Image.Resampling.NEAREST
    )
    draw = ImageDraw.Draw(large)
    stroke = max(1, round(width * _SUPERSAMPLE))
    xy, starts = _cut_corners(polygons, corner_px)
    xy = xy * (zoom * _SUPERSAMPLE)
    inks = [tuple(c) for c in colors.tolist()]
    owner = np.repeat(class_id, np.diff(polygons.polygon_starts)).tolist()
    for ring, class_index in enumerate(owner):  # a picture shows thousands of objects, not millions
        points = xy[starts[ring] : starts[ring + 1]].ravel().tolist()
        draw.line(points, fill=inks[class_index], width=stroke, joint="curve")
    return np.asarray(large.reduce(_SUPERSAMPLE))


def _cut_corners(polygons: Polygons, corner_px: float) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Two points per edge, ``corner_px`` (at most half the edge) from its ends, as closed rings;
    and the offsets of the rings."""
    vertices = np.diff(polygons.ring_starts)
    keep = np.ones(len(polygons.xy), bool)
    keep[polygons.ring_starts[1:] - 1] = False
    start = polygons.xy[keep]
    step = polygons.xy[np.flatnonzero(keep) + 1] - start
    length = np.hypot(step[:, 0], step[:, 1])[:, None]
    inset = step * np.minimum(0.5, corner_px / np.maximum(length, 1e-9))
    points = np.stack([start + inset, start + step - inset], axis=1).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(2 * (vertices - 1))])
    closed = np.insert(points, offsets[1:], points[offsets[:-1]], axis=0) if len(points) else points
    return closed, (offsets + np.arange(len(offsets))).tolist()


def blend_classes(
    image: Rgb,
    class_map: npt.NDArray[np.uint8],
    colors: npt.NDArray[np.uint8],
    *,
    alpha: float = 0.45,
    hidden: Collection[int] = (),
) -> Rgb:
    """Tint an image by class.

    Args:
        image: uint8 (h, w, 3).
        class_map: (h, w) uint8; values of at least ``len(colors)`` are not tinted.
        colors: (classes, 3) uint8.
        alpha: share of the class colour, 0-1.
        hidden: classes that are not tinted either, such as background.
    """
    if class_map.shape != image.shape[:2]:
        raise ValueError(f"class map is {class_map.shape}, the image {image.shape[:2]}")
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    weight = np.zeros(256, np.float32)
    weight[: len(colors)] = alpha
    weight[list(hidden)] = 0
    share = weight[class_map][..., None]
    return _to_bytes(image * (1 - share) + table[class_map] * share)


def draw_dots(
    image: Rgb,
    xy: npt.NDArray[np.float64],
    *,
    class_id: npt.NDArray[np.uint8],
    colors: npt.NDArray[np.uint8],
    radius: float = 2.0,
    alpha: float = 0.7,
    fade: float = 0.35,
) -> Rgb:
    """Draw a dot at each (x, y) px. Overlapping dots have the mean of their colours and are denser,
    so their order does not matter.

    Args:
        image: uint8 (h, w, 3).
        xy: (n, 2) float64, corner-based px; dots outside the image are ignored.
        class_id: (n,) uint8.
        colors: (classes, 3) uint8.
        radius: px.
        alpha: opacity of a single dot, 0-1.
        fade: share of white that is mixed into the image first, so that dots stand out, 0-1.
    """
    height, width = image.shape[:2]
    at = np.floor(xy).astype(np.int64)
    inside = ((at >= 0) & (at < (width, height))).all(axis=1)
    flat = at[inside, 1] * width + at[inside, 0]
    ink = np.zeros((height, width, 3), np.float32)
    total = np.zeros((height, width), np.float32)
    for index, color in enumerate(colors.astype(np.float32)):
        points = np.bincount(flat[class_id[inside] == index], minlength=height * width)
        cover = _stamp(points.reshape(height, width).astype(np.float32), radius)
        ink += cover[..., None] * color
        total += cover
    paper = image * np.float32(1 - fade) + np.float32(255 * fade)
    inked = total > 0  # little of most pictures
    over = total[inked][:, None]
    share = 1 - (1 - alpha) ** over
    paper[inked] = paper[inked] * (1 - share) + ink[inked] / np.maximum(over, 1e-6) * share
    return _to_bytes(paper)


def _stamp(points: npt.NDArray[np.float32], radius: float) -> npt.NDArray[np.float32]:
    """Sum of discs with soft rims at the given points (weights (h, w))."""
    reach = math.ceil(radius + 0.5)
    padded = np.pad(points, reach)
    height, width = points.shape
    out = np.zeros_like(points)
    for dr in range(-reach, reach + 1):
        for dc in range(-reach, reach + 1):
            weight = min(1.0, max(0.0, radius + 0.5 - math.hypot(dr, dc)))
            if weight > 0:
                out += (
                    weight
                    * padded[reach + dr : reach + dr + height, reach + dc : reach + dc + width]
                )
    return out


def density_map(
    centroid: npt.NDArray[np.float64], frame: Frame, *, cell_um: float = 50.0
) -> npt.NDArray[np.float32]:
    """Objects per mm2 in square cells from the corner of the slide.

    Args:
        centroid: (n, 2) float64 (row, col) grid px, inside the frame.
        frame: the grid of the slide.
        cell_um: side of a cell; the last row and column may reach beyond the slide and count as
            whole cells.

    Returns:
        float32 (rows, cols), cell (i, j) covers um [i, i + 1) x [j, j + 1) * cell_um.
    """
    cell_px = cell_um / frame.mpp
    shape = math.ceil(frame.height / cell_px), math.ceil(frame.width / cell_px)
    at = np.clip(np.floor(centroid / cell_px).astype(np.int64), 0, np.array(shape) - 1)
    counts = np.bincount(at[:, 0] * shape[1] + at[:, 1], minlength=shape[0] * shape[1])
    return (counts.reshape(shape) / (cell_um / 1000) ** 2).astype(np.float32)


def colorize(
    values: npt.NDArray[np.floating],
    *,
    low: float,
    high: float,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Rgb:
    """Colours of viridis from ``low`` (dark blue) to ``high`` (yellow), clipped. BLANK if nan or
    outside ``mask``."""
    anchors = np.array(_VIRIDIS, np.float64)
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    shown = ~np.isnan(scaled) if mask is None else mask & ~np.isnan(scaled)
    place = np.clip(np.where(shown, scaled, 0), 0, 1) * (len(anchors) - 1)
    channels = [np.interp(place, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.where(
        shown[..., None], _to_bytes(np.stack(channels, axis=-1)), np.array(BLANK, np.uint8)
    )


def _to_bytes(values: npt.NDArray[np.floating]) -> Rgb:
    rounded: Rgb = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return rounded
