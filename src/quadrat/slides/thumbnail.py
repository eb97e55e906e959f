"""Two small pictures of a slide for people: a thumbnail, and the same with the tissue outlined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.core.geometry import plan_read
from quadrat.core.limits import MPP_MIN
from quadrat.core.objects import Frame
from quadrat.slides.protocol import Slide
from quadrat.slides.source import SlideSource
from quadrat.slides.tissue.mask import TissueMap, read_strips

Rgb = npt.NDArray[np.uint8]

THUMBNAIL_PX = 1024
"""About the length of the longer side."""
OUTLINE = (0, 160, 0)
"""Green, which neither H&E nor DAB contains."""
FADED = 0.65
"""How far the colours outside tissue move towards white (0-1)."""


def thumbnail(slide: Slide, *, longer_px: int = THUMBNAIL_PX) -> tuple[Rgb, Frame]:
    """The whole slide, uint8 (h, w, 3) of about ``longer_px``, and the frame that places it.

    The mpp of the slide does not matter here (many slides have none). So the mpp of the frame is
    not a measurement; only its scale is.

    Raises:
        SlideError: the slide cannot be read.
    """
    factor = max(1.0, max(slide.levels[0].box.shape) / longer_px)
    source = SlideSource(
        slide, plan_read(slide.levels, slide_mpp=MPP_MIN, mpp=MPP_MIN * factor, slide=slide.name)
    )
    return read_strips(source), source.frame


def tissue_overlay(picture: Rgb, *, frame: Frame, tissue: TissueMap) -> Rgb:
    """A picture uint8 (h, w, 3) in ``frame``, with tissue outlined in green and the rest faded. A
    new array."""
    rows, cols = (
        np.minimum(centres.astype(np.int64), side - 1)
        for centres, side in zip(frame.centres_in(tissue.frame), tissue.mask.shape, strict=True)
    )
    mask = tissue.mask[np.ix_(rows, cols)]
    out = picture.copy()
    out[~mask] = (255 - (255 - picture[~mask].astype(np.float32)) * (1 - FADED)).astype(np.uint8)
    out[ndimage.binary_dilation(mask, iterations=2) & ~mask] = OUTLINE
    return out
