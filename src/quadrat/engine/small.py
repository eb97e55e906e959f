"""Whether slides are so small that a process of its own for the work would only cost time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import SlideError
from quadrat.slides.source import open_source

SMALL_PX = 1 << 23
"""Px of the model's grid of all slides together: some seconds of a network. To start worker
processes takes as long, since each imports torch."""
SMALL_SLIDES = 8
SMALL_BYTES = 1 << 26
"""Limits up to which files are opened to see how large their pictures are."""


def are_small(pipeline: Pipeline, slides: Sequence[SlideRef]) -> bool:
    """Whether all slides together are done before worker processes were ready; not of those that
    cannot be opened."""
    if not 0 < len(slides) <= SMALL_SLIDES or any(_is_large(ref) for ref in slides):
        return False
    px = 0
    for ref in slides:
        try:
            px += _px(pipeline, ref)
        except SlideError:  # the run says what is wrong with it, and a worker is where it may crash
            return False
    return px <= SMALL_PX


def _is_large(ref: SlideRef) -> bool:
    path = Path(ref.path)
    return not path.is_file() or path.stat().st_size > SMALL_BYTES


def _px(pipeline: Pipeline, ref: SlideRef) -> int:
    with open_source(
        ref.path,
        scene=ref.scene,
        mpp=pipeline.model.grid_mpp,
        slide_mpp=ref.mpp if ref.mpp is not None else pipeline.slide.mpp,
        allow_upsampling=True,
        unit=pipeline.model.unit,
    ) as source:
        return source.frame.box.area
