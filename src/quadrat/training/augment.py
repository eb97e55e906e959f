"""Augmentation: pure functions of (pixels, truth, generator), so that a resumed training sees the
same samples again.

Pixels change in the order in which a slide is made: staining, the scanner's colours, its optics,
its sensor, the file's compression. Arithmetic is element by element (no BLAS), so that it does not
depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

from quadrat.config.pipeline import Augmentation
from quadrat.models.task import Crop

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
WHITE = 255
"""The grey value of glass."""
DENSITY = -np.log((np.arange(256) + 1) / 256)
"""Optical density (natural logarithm) of the grey values 0-255; 0 at white."""
TISSUE_DENSITY = 0.15
"""Mean optical density from which on a shift of the staining counts in full. White glass gets
nothing of it."""
HUE_PER_COLOUR = 0.5
"""rad of hue per unit of ``colour``: 0.2 turns hues by up to 6 degrees."""
BLURRED, SHARPENED, NOISY = 0.3, 0.2, 0.5
"""Shares of the samples that are blurred, sharpened and made noisy, where the strength is not 0."""
SHARPENING_SIGMA = 1.0
"""px of the Gaussian of the unsharp mask."""
JPEG_QUALITY = (40, 95)
"""The lowest and the highest quality."""


def augment_colour(rgb: Rgb, rng: np.random.Generator, how: Augmentation) -> Rgb:
    """uint8 RGB (h, w, 3) as of another laboratory and scanner; shapes and places stay. The input
    is not written to."""
    if how.stain:
        rgb = restained(rgb, rng, strength=how.stain)
    if how.colour:
        rgb = recoloured(rgb, rng, strength=how.colour)
    if how.blur:
        rgb = refocused(rgb, rng, sigma=how.blur)
    if how.noise and rng.random() < NOISY:
        rgb = noisy(rgb, rng, deviation=rng.uniform(0, how.noise))
    if how.jpeg and rng.random() < how.jpeg:
        rgb = recompressed(rgb, quality=int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)))
    return rgb


def restained(rgb: Rgb, rng: np.random.Generator, *, strength: float) -> Rgb:
    """Another staining: the amounts of haematoxylin, eosin and the third stain are scaled at random
    (s.d. ``strength``).

    The density of each channel is scaled and shifted by half as much, which changes the tint of the
    stains. The unmixing is that of Ruifrok and Johnston (2001), the idea that of Tellez et al.
    (2018, doi:10.1109/TMI.2018.2820199). White stays white. Strength 0 gives the image back.
    """
    if strength == 0:
        return rgb
    amount = np.clip(1 + strength * rng.standard_normal(3), 0.2, 3)
    tint = np.clip(1 + 0.5 * strength * rng.standard_normal(3), 0.2, 3)
    shift = 0.5 * strength * rng.standard_normal(3)
    matrix = (
        (hed_from_rgb * amount) @ rgb_from_hed
    ) * tint  # rows: density of a channel before, columns: after
    tissue = np.full((3, 1), 1 / (3 * TISSUE_DENSITY))
    mixed = _mixed(np.take(DENSITY.astype(np.float32), _planes(rgb)), np.hstack([-matrix, tissue]))
    exponent, part = mixed[:3], np.minimum(mixed[3], 1, out=mixed[3])
    for channel in range(3):
        exponent[channel] -= part * np.float32(shift[channel])
    np.exp(exponent, out=exponent)
    exponent *= 256
    exponent -= 1
    return _rounded(exponent)


def recoloured(rgb: Rgb, rng: np.random.Generator, *, strength: float) -> Rgb:
    """Another scanner: brightness, contrast and saturation by up to 1 +- ``strength``, hue by up to
    half of it in rad.

    One affine map of the colours; contrast is about the image's mean grey. Strength 0 gives the
    image back.
    """
    if strength == 0:
        return rgb
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    angle = rng.uniform(-strength, strength) * HUE_PER_COLOUR
    luminance = np.array([0.299, 0.587, 0.114])
    saturated = saturation * np.eye(3) + (1 - saturation) * luminance[:, None]
    matrix = saturated @ _turn_of_hue(angle) * brightness * contrast
    planes = _planes(rgb).astype(np.float32)
    mean = float(planes.mean(axis=(1, 2)) @ luminance) * brightness
    mixed = _mixed(planes, matrix)
    mixed += np.float32(mean * (1 - contrast))
    return _rounded(mixed)


def refocused(rgb: Rgb, rng: np.random.Generator, *, sigma: float) -> Rgb:
    """Out of focus by up to ``sigma`` px (Gaussian), sharpened by up to as much (unsharp mask), or,
    mostly, as it is."""
    choice, amount = rng.random(), rng.uniform(0, sigma)
    if choice >= BLURRED + SHARPENED or amount < 0.1:
        return rgb
    planes = _planes(rgb).astype(np.float32)
    blurred = choice < BLURRED
    width = amount if blurred else SHARPENING_SIGMA
    soft = ndimage.gaussian_filter(planes, (0, width, width), truncate=3, mode="nearest")
    return _rounded(soft if blurred else planes + np.float32(amount) * (planes - soft))


def noisy(rgb: Rgb, rng: np.random.Generator, *, deviation: float) -> Rgb:
    """Gaussian noise, each channel by itself; ``deviation``: its s.d. in grey values."""
    noise = rng.standard_normal((3, *rgb.shape[:2]), dtype=np.float32)
    noise *= np.float32(deviation)
    noise += _planes(rgb)
    return _rounded(noise)


def recompressed(rgb: Rgb, *, quality: int) -> Rgb:
    """What JPEG of a quality (1-100, chroma at half resolution) leaves of an image."""
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    out: Rgb = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return out


def random_patch(
    rgb: Rgb, crop: Crop, rng: np.random.Generator, *, side: int, how: Augmentation
) -> tuple[Rgb, Crop]:
    """A patch of ``side`` px at a random place, zoom and turn. Without zoom and turn, whole pixels
    are cut out.

    The patch stays inside the window where there is room for it, and lies in its middle otherwise.
    """
    angle = float(rng.uniform(-how.rotate, how.rotate)) if how.rotate else 0.0
    reach = math.log1p(how.scale)
    scale = math.exp(rng.uniform(-reach, reach)) if how.scale else 1.0
    height, width = rgb.shape[:2]
    if angle == 0 and scale == 1:
        row, col = (int(rng.integers(0, max(0, extent - side) + 1)) for extent in (height, width))
        return warp(
            rgb, crop, side=side, centre=(row + side / 2, col + side / 2), angle=0.0, scale=1.0
        )
    half = half_extent(side, angle=angle, scale=scale)
    spots = rng.random(2)
    room = (max(0.0, extent - 2 * half) for extent in (height, width))
    row, col = (
        (extent - r) / 2 + r * s for extent, r, s in zip((height, width), room, spots, strict=True)
    )
    return warp(rgb, crop, side=side, centre=(row, col), angle=angle, scale=scale)


def half_extent(side: int, *, angle: float, scale: float) -> float:
    """How far a turned and zoomed patch reaches from its centre, along rows and columns, in px of
    its source."""
    turn = math.radians(angle)
    return side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn))) / scale


def warp(
    rgb: Rgb,
    crop: Crop,
    *,
    side: int,
    centre: tuple[float, float],
    angle: float,
    scale: float,
    outline: Literal["ellipse", "rectangle"] = "ellipse",
    fill: int = 0,
) -> tuple[Rgb, Crop]:
    """A square patch around a point, turned and zoomed: pixels bilinear, maps nearest, boxes with
    what they hold.

    Args:
        rgb: uint8 (h, w, 3). Outside it the patch is white, as beyond the edge of a slide.
        crop: the truth of the same place; boxes row0, col0, row1, col1.
        side: height and width of the patch in px.
        centre: (row, col) in px of the source, corner-based; the middle of the patch.
        angle: degrees by which the content turns anticlockwise.
        scale: px of the patch per px of the source; above 1 things grow.
        outline: what a box bounds: an "ellipse" (cells and nuclei: no box grows by turning) or the
            whole "rectangle".
        fill: value of the maps outside the source.
    """
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    # source = centre + back @ (patch - middle), rows down: anticlockwise on the screen
    back = np.array([[cos, sin], [-sin, cos]])
    middle = side / 2
    offset = np.asarray(centre, np.float64) - back @ [middle, middle]
    coefficients = (back[1, 1], back[1, 0], offset[1], back[0, 1], back[0, 0], offset[0])
    image = Image.fromarray(np.ascontiguousarray(rgb)).transform(
        (side, side),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=(WHITE,) * 3,
    )
    steps = np.arange(side) + 0.5
    rows, cols = (
        np.floor(back[i, 0] * steps[:, None] + back[i, 1] * steps + offset[i]).astype(np.intp)
        for i in (0, 1)
    )
    inside = (rows >= 0) & (rows < crop.shape[0]) & (cols >= 0) & (cols < crop.shape[1])
    index = np.where(inside, rows, 0) * crop.shape[1] + np.where(inside, cols, 0)
    maps = {name: _gathered(a, index, inside, fill) for name, a in crop.maps.items()}
    boxes = _moved_boxes(crop.boxes, back, np.asarray(centre, np.float64), middle, outline)
    at = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((at >= 0) & (at < side)).all(axis=1)
    return np.asarray(image), Crop(
        (side, side), maps, boxes[kept], crop.box_class[kept], crop.label
    )


def _gathered(
    a: npt.NDArray[Any], index: npt.NDArray[np.intp], inside: npt.NDArray[np.bool_], fill: int
) -> npt.NDArray[Any]:
    out = np.ascontiguousarray(a).reshape(-1)[index]
    out[~inside] = fill
    return out


def _moved_boxes(
    boxes: npt.NDArray[np.float64],
    back: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    middle: float,
    outline: str,
) -> npt.NDArray[np.float64]:
    """Bounds (n, 4) of turned and zoomed rectangles, or of the ellipses in them."""
    forth = np.linalg.inv(back)
    at = ((boxes[:, :2] + boxes[:, 2:]) / 2 - centre) @ forth.T + middle
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    bound = half @ np.abs(forth.T) if outline == "rectangle" else np.sqrt(half**2 @ (forth.T**2))
    return np.concatenate([at - bound, at + bound], axis=1)


def _turn_of_hue(angle: float) -> npt.NDArray[np.float64]:
    """The rotation of RGB about its grey axis by ``angle`` rad (Rodrigues); rows in,
    columns out.
    """
    across = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]]) / math.sqrt(3)
    return np.asarray(
        math.cos(angle) * np.eye(3) + (1 - math.cos(angle)) / 3 + math.sin(angle) * across
    )


def _mixed(planes: Floats, matrix: npt.NDArray[np.float64]) -> Floats:
    """(3, h, w) by a matrix (3, k), rows in: float32 (k, h, w)."""
    weights = matrix.astype(np.float32)
    out = np.empty((matrix.shape[1], *planes.shape[1:]), np.float32)
    for k, plane in enumerate(out):
        np.multiply(planes[0], weights[0, k], out=plane)
        plane += planes[1] * weights[1, k]
        plane += planes[2] * weights[2, k]
    return out


def _planes(rgb: Rgb) -> Rgb:
    """(h, w, 3) to contiguous (3, h, w)."""
    return np.ascontiguousarray(np.moveaxis(rgb, 2, 0))


def _rounded(planes: Floats) -> Rgb:
    """(3, h, w) in 0-255 to uint8 (h, w, 3)."""
    planes += np.float32(0.5)
    np.clip(planes, 0, 255.5, out=planes)
    out = np.empty((*planes.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(planes):
        out[..., channel] = plane.astype(np.uint8)
    return out
