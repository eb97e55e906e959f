"""The light of the glass, and what is no bright field."""

import numpy as np

from helpers.tissue_pictures import PURPLE, glass, paint
from quadrat.slides.tissue.absorption import dark_field, glass_light


def test_the_light_of_a_picture_without_glass_is_white() -> None:
    image = glass()
    paint(image, (200, 300), 1000, PURPLE)
    assert np.allclose(np.exp(glass_light(image)) - 1, 245)


def test_dense_tissue_that_fills_the_picture_is_no_fluorescence() -> None:
    assert dark_field(np.full((50, 50, 3), (100, 50, 130), np.uint8)) is None
    assert dark_field(glass()) is None
