"""Light and ink in a low-power picture: optical densities, pens, dark borders, dark fields (pure).

The density of stained tissue is the sum of its stains (Beer-Lambert; Ruifrok and Johnston 2001). So
colours are judged as densities against the light through bare glass. That light is not even. It is
estimated on the glass of the same picture as a smooth surface: an upper envelope (asymmetric least
squares; Newey and Powell 1987), because anything on the glass only takes light away. Densities are
natural logarithms, float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Rgb = npt.NDArray[np.uint8]

WHITE_LIGHT = 245.0
"""The light if a picture shows no glass."""
GLASS_LEAST, GLASS_TINT, GLASS_PINK, GLASS_ROUGH = 120, 0.16, 0.045, 0.012
"""Glass is at least this bright. The densities of its colours differ by at most TINT, and by at
most PINK if green is the darkest (as in tissue). Its density varies by at most ROUGH (standard
deviation) from px to px."""
GLASS_BLOCKS, GLASS_BLOCK_PX = 16, 12
"""Blocks per side in which glass is searched, and the least px of glass that a block needs to
count."""
ENVELOPE, ENVELOPE_ROUNDS, ENVELOPE_SLACK = 0.95, 12, 0.05

DARK_FIELD_LEVEL, BRIGHT_LEVEL, BRIGHT_SHARE = 48, 100, 0.02
BORDER_LEVEL = 64
"""A frame consists of pixels darker than this in every colour that are connected with the edge of
the picture."""

INK_CORE, INK_EDGE = 0.75, 0.3
"""Density of the strongest colour in the core of a stroke, and at its edge."""


def dark_field(rgb: Rgb) -> str | None:
    """What was found if a picture cannot be transmitted light (fluorescence, an empty black image),
    else None.

    In transmitted light, tissue and glass are bright in all colours somewhere. Emitted light is
    not.
    """
    ordered = np.sort(rgb, axis=2)
    bright = float((ordered[..., 0] >= BRIGHT_LEVEL).mean())
    middle = float(np.median(ordered[..., 1]))
    if bright >= BRIGHT_SHARE or middle >= DARK_FIELD_LEVEL:
        return None
    return (
        f"the background is dark (median grey level {middle:.0f} of 255, and {bright:.1%} of it "
        f"brighter than {BRIGHT_LEVEL})"
    )


def optical_density(rgb: Rgb) -> Floats:
    """Density against the light through glass, float32 (h, w, 3), natural logarithm, never
    negative."""
    table = np.log(np.arange(256, dtype=np.float32) + 1)
    return np.maximum(glass_light(rgb) - table[rgb], 0, dtype=np.float32)


def glass_light(rgb: Rgb) -> Floats:
    """Logarithm of the light (plus one) through bare glass, float32 (h, w, 3). It is the same
    everywhere if the picture shows too little glass."""
    logs = np.log(rgb.astype(np.float32) + 1)
    glass = _glass(rgb, logs)
    size = (rgb.shape[0], rgb.shape[1])
    places, levels = _block_levels(logs, glass)
    if len(places) < 3:
        return np.broadcast_to(np.float32(np.log(WHITE_LIGHT + 1)), (*size, 3))
    if len(places) < 24:
        return np.broadcast_to(np.quantile(levels, 0.9, axis=0).astype(np.float32), (*size, 3))
    surface = _envelope(places, levels)
    rows, cols = (np.linspace(-1, 1, n) for n in size)
    row, col = rows[:, None, None], cols[None, :, None]
    light = (
        surface[0]
        + surface[1] * row
        + surface[2] * col
        + surface[3] * row**2
        + surface[4] * row * col
        + surface[5] * col**2
    )
    low, high = levels.min(axis=0) - ENVELOPE_SLACK, levels.max(axis=0) + ENVELOPE_SLACK
    return np.asarray(np.clip(light, low, high), np.float32)


def _glass(rgb: Rgb, logs: Floats) -> Mask:
    """Pixels that may be glass: bright, almost without colour, smooth. The pure white of unscanned
    parts does not count."""
    tint = logs.max(axis=2) - logs.min(axis=2)
    pink = logs.min(axis=2) == logs[..., 1]
    green = logs[..., 1]
    mean = ndimage.uniform_filter(green, 3, mode="nearest")
    rough = np.sqrt(np.maximum(ndimage.uniform_filter(green**2, 3, mode="nearest") - mean**2, 0))
    glass = (
        (rgb.min(axis=2) >= GLASS_LEAST)
        & (rough <= GLASS_ROUGH)
        & (tint <= np.where(pink, GLASS_PINK, GLASS_TINT))
    )
    scanned: Mask = glass & (rgb.min(axis=2) < 255)
    return scanned if scanned.sum() > 0.02 * glass.size else glass


def _block_levels(logs: Floats, glass: Mask) -> tuple[F64, F64]:
    """Places (n, 2), from -1 to 1, and log light (n, 3) of the blocks that show glass: the mean of
    the brighter half."""
    places, levels = [], []
    edges = [np.linspace(0, n, GLASS_BLOCKS + 1).astype(int) for n in glass.shape]
    for i in range(GLASS_BLOCKS):
        for j in range(GLASS_BLOCKS):
            part = (slice(edges[0][i], edges[0][i + 1]), slice(edges[1][j], edges[1][j + 1]))
            values = logs[part][glass[part]]
            if len(values) >= GLASS_BLOCK_PX:
                total = values.sum(axis=1)
                levels.append(values[total >= np.median(total)].mean(axis=0))
                places.append(((2 * i + 1) / GLASS_BLOCKS - 1, (2 * j + 1) / GLASS_BLOCKS - 1))
    return np.array(places, np.float64).reshape(-1, 2), np.array(levels, np.float64).reshape(-1, 3)


def _envelope(places: F64, levels: F64) -> F64:
    """Coefficients (6, 3) of 1, r, c, r2, rc, c2: a surface near the top of the levels. First a
    plane is fitted, then a quadratic surface."""
    r, c = places.T
    terms = np.stack([np.ones_like(r), r, c, r**2, r * c, c**2], axis=1)
    # keeps the surface low where there is no glass
    stiff = np.diag([0, 0.02, 0.02, 0.1, 0.1, 0.1]) * len(r) * 0.1
    out = np.zeros((6, 3))
    weight = np.ones(len(r))
    for turn in range(ENVELOPE_ROUNDS):
        used = slice(0, 3) if turn < ENVELOPE_ROUNDS // 2 else slice(0, 6)
        base, weighted = terms[:, used], terms[:, used] * weight[:, None]
        out[used] = np.linalg.solve(base.T @ weighted + stiff[used, used], weighted.T @ levels)
        below = (terms @ out - levels).max(axis=1)
        weight = np.where(below > 0, 1 - ENVELOPE, ENVELOPE)
        # well below the surface there is something on the glass
        if turn >= ENVELOPE_ROUNDS // 2:
            weight = weight * (below < ENVELOPE_SLACK)
    return out


def frame_of(rgb: Rgb) -> Mask:
    """Black borders, bool (h, w): dark pixels that are connected with the edge of the picture."""
    dark = rgb.max(axis=2) < BORDER_LEVEL
    return np.asarray(ndimage.binary_propagation(_rim(dark), mask=dark), np.bool_)


def _rim(mask: Mask) -> Mask:
    rim = np.zeros_like(mask)
    rim[[0, -1]], rim[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
    return rim


def ink_of(density: Floats, *, frame: Mask, min_px: float) -> Mask:
    """Strokes of blue, green, red or black ink outside ``frame`` with a core of at least
    ``min_px``, and their paler rims.

    density: float32 (h, w, 3); frame: bool (h, w); returns bool (h, w). H&E and DAB absorb green
    more than red. Blue and green ink absorb red more. Red ink absorbs blue as well and leaves red.
    Black ink absorbs all colours alike.
    """
    red, green, blue = (density[..., i] for i in range(3))
    strongest, weakest = density.max(axis=2), density.min(axis=2)
    # the second: ink over tissue
    cool = (red > 1.2 * green + 0.05) | ((red > 0.88 * green) & (red > 1.7))
    warm = (blue > 0.72 * green) & (green > 0.55 * blue) & (red < 0.25 * green)
    black = strongest - weakest < 0.25 * strongest
    core = (
        (cool & (strongest > INK_CORE)) | (warm & (green > 1.0)) | (black & (weakest > 0.9))
    ) & ~frame
    labels, count = ndimage.label(core)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    large[0] = False
    # pale black is a shadow, and may lead anywhere
    rim = (strongest > INK_EDGE) & ((red > 1.05 * green) | warm) & ~frame
    return np.asarray(ndimage.binary_propagation(large[labels], mask=large[labels] | rim))
