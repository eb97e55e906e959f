"""Outlines of masks along the edges of pixels."""

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp

from quadrat.annotations.outlines import mask_parts
from quadrat.annotations.record import Record, to_annotations
from quadrat.core.geometry import Box, Scale


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_the_outline_of_a_mask_filled_again_is_the_mask(mask):
    record = Record("a", "x", "region", mask_parts(mask))
    drawn = to_annotations([record], [0], classes=("x",), kind="region")
    filled = drawn.regions(Box(0, 0, *mask.shape), Scale(1.0, 1.0))
    np.testing.assert_array_equal(filled > 0, mask)
