"""A slide that is an array."""

import numpy as np
import pytest

from quadrat.core.errors import SlideError
from quadrat.slides.array import ArraySlide


def test_an_array_that_is_no_picture_is_refused() -> None:
    with pytest.raises(SlideError, match="uint8"):
        ArraySlide(np.zeros((4, 4), np.uint8))
