"""Tissue in a low-power picture, and why the rest is not tissue: every pixel gets one reason
(pure).

Tissue absorbs, and not all colours alike. Glass does not absorb. Shadows, dust and edges of
coverslips absorb without colour. Ink has its own colours (see absorption.py). The border of a piece
is where the density falls to a share of that of the densest tissue nearby. So blur does not widen
dark tissue, and pale tissue needs no threshold of its own. A fixed least density keeps an empty
slide empty. Lengths are in um, areas in mm2.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.slides.tissue.absorption import Floats, Mask, Rgb, frame_of, ink_of, optical_density

ANALYSED: Final = 0
GLASS: Final = 1
GREY: Final = 2
PEN: Final = 3
BORDER: Final = 4
SPECKS: Final = 5
REASONS: Final = ("", "glass", "shadow, dust", "pen", "dark border", "specks")
"""What a code means: the code is the index."""
FILLED: Final = 6
"""Tissue as well: a gap or hole that is filled."""

SMOOTH_UM = 6.0
THRESHOLD = 0.06
"""Least tissue score, in units of optical density (natural logarithm)."""
EDGE_SHARE, EDGE_REACH_UM, EDGE_MAX = 0.4, 16.0, 0.4
"""The border of tissue is where the score is this share of the highest score within reach, but
never above the maximum."""
CHROMA_MIN, CHROMA_SHARE = 0.015, 0.15
"""The colours are grey if their densities differ by less than this, absolute and as a share of the
strongest."""
PEN_MIN_MM2, PEN_MARGIN_UM = 0.01, 32.0
BORDER_MIN_MM2, BORDER_MARGIN_UM = 0.01, 24.0
OPEN_UM = 12.0
FILL_UM, HOLE_MAX_MM2 = 64.0, 0.05
SPECK_MAX_MM2 = 0.02
SPECK_MAX_SHARE = 0.05
"""In small images, a speck is at most this share of the image."""

Codes = npt.NDArray[np.uint8]


def classify_overview(
    rgb: Rgb,
    *,
    mpp: float,
    min_mm2: float = SPECK_MAX_MM2,
    fill_um: float = FILL_UM,
    hole_mm2: float = HOLE_MAX_MM2,
    margin_um: float = 0.0,
    threshold: float = THRESHOLD,
) -> Codes:
    """Codes uint8 (h, w) of an overview uint8 (h, w, 3): 0 is tissue, ``FILLED`` tissue too, else
    the index in ``REASONS``. For transmitted light only (see ``absorption.dark_field``).

    Args:
        rgb: the overview.
        mpp: um/px of the overview, best 4-16.
        min_mm2: smaller pieces are specks (in small images at most a share of the image).
        fill_um: gaps that are narrower count as tissue, except along the border of the overview.
        hole_mm2: smaller holes do, except at the border.
        margin_um: how much glass around the tissue counts as tissue.
        threshold: the least tissue score (optical density): lower for pale stain, higher for dirt.
    """
    per_mm2 = (1000 / mpp) ** 2
    density = optical_density(rgb)
    frame = _grown(_without_small(frame_of(rgb), BORDER_MIN_MM2 * per_mm2), BORDER_MARGIN_UM / mpp)
    smooth = ndimage.gaussian_filter(density, (SMOOTH_UM / mpp, SMOOTH_UM / mpp, 0), mode="nearest")
    pen = (
        _grown(ink_of(smooth, frame=frame, min_px=PEN_MIN_MM2 * per_mm2), PEN_MARGIN_UM / mpp)
        & ~frame
    )
    banned = frame | pen
    score, coloured = _score(smooth)
    dense = score > _edge(np.where(banned, 0, score), threshold, mpp=mpp)
    seen = dense & coloured & ~banned
    found = _close(_open(seen, OPEN_UM / mpp), fill_um / 2 / mpp) & ~banned
    found = _without_holes(found, hole_mm2 * per_mm2) & ~banned
    tissue = _without_small(found, min(min_mm2 * per_mm2, SPECK_MAX_SHARE * found.size))
    if margin_um > 0:
        tissue = _grown(tissue, margin_um / mpp) & ~banned
    codes = np.full(tissue.shape, GLASS, np.uint8)
    codes[dense & ~coloured] = GREY
    codes[found] = SPECKS
    codes[pen] = PEN
    codes[frame] = BORDER
    codes[tissue] = ANALYSED
    codes[tissue & found & ~seen] = FILLED
    return codes


def is_tissue(codes: Codes) -> Mask:
    """Which codes say that a pixel is tissue; a bool array of the same shape."""
    return np.asarray((codes == ANALYSED) | (codes == FILLED))


def _score(density: Floats) -> tuple[Floats, Mask]:
    """Tissue score (density of green plus the difference of the colours), and whether there is
    colour at all."""
    strongest = density.max(axis=2)
    chroma = strongest - density.min(axis=2)
    return density[..., 1] + chroma, (chroma > CHROMA_MIN) & (chroma > CHROMA_SHARE * strongest)


def _edge(score: Floats, least: float, *, mpp: float) -> Floats:
    """The score that makes a px tissue, float32 (h, w): a share of the highest score nearby, within
    bounds."""
    side = 2 * round(EDGE_REACH_UM / mpp) + 1
    nearby = ndimage.maximum_filter(score, side, mode="nearest")
    return np.asarray(np.clip(EDGE_SHARE * nearby, least, max(EDGE_MAX, least)), np.float32)


def _grown(mask: Mask, radius: float) -> Mask:
    """The mask and everything within ``radius`` px of it."""
    return np.asarray(_distance(~mask) <= radius) if mask.any() else mask


def _open(mask: Mask, radius: float) -> Mask:
    """Remove everything that a disc of ``radius`` px does not fit into. The mask is taken to
    continue outside the image."""
    core = _distance(mask) > radius
    return np.asarray(_distance(~core) <= radius) if core.any() else core


def _close(mask: Mask, radius: float) -> Mask:
    """Fill everything that a disc of ``radius`` px does not fit into. Outside the image there is
    room for it, so a strip along the border is not filled."""
    room = int(radius) + 1
    gaps = _open(np.pad(~mask, room, constant_values=True), radius)
    return ~gaps[room:-room, room:-room]


def _without_holes(mask: Mask, min_px: float) -> Mask:
    """The mask, with 4-connected holes of less than ``min_px`` px filled that do not touch the
    border of the image."""
    holes = np.pad(~mask, 1, constant_values=True)
    labels, count = ndimage.label(holes)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    keep[labels[0, 0]] = True
    return np.asarray(~(holes & keep[labels])[1:-1, 1:-1])


def _distance(mask: Mask) -> Floats:
    """Distance in px from each px of ``mask`` to the nearest px outside; infinite if there
    is none."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(mask), np.float32)


def _without_small(mask: Mask, min_px: float) -> Mask:
    """The 4-connected components of at least ``min_px`` px."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    keep[0] = False
    return np.asarray(keep[labels])
