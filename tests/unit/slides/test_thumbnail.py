"""A small picture of a slide, and its tissue drawn on it."""

import numpy as np

from quadrat.core.objects import Frame
from quadrat.slides.array import ArraySlide
from quadrat.slides.thumbnail import thumbnail, tissue_overlay
from quadrat.slides.tissue.mask import TissueMap


def test_a_mask_falls_where_the_tissue_is_whatever_its_scale() -> None:
    mask = np.zeros((10, 12), bool)
    mask[5:, 6:] = True
    tissue = TissueMap(mask, Frame(height=10, width=12, mpp=10, scale_row=100, scale_col=100))
    picture, frame = thumbnail(ArraySlide(np.full((1000, 1200, 3), 100, np.uint8)), longer_px=240)
    out = tissue_overlay(picture, frame=frame, tissue=tissue)
    kept = (out == 100).all(axis=2)
    assert kept[100:, 120:].all()
    assert kept.sum() == 100 * 120
