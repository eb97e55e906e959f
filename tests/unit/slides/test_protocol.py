"""What all readers share."""

import numpy as np

from quadrat.slides.protocol import on_white


def test_transparent_black_is_white() -> None:
    assert on_white(np.zeros((2, 2, 4), np.uint8)).tolist() == np.full((2, 2, 3), 255).tolist()
