"""Regions as polygons."""

import json

import numpy as np
from shapely.geometry import shape

from quadrat.phantom.features import region_lines


def test_regions_that_touch_in_a_corner_and_have_holes_give_valid_polygons() -> None:
    codes = np.array(
        [[1, 1, 1, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [2, 0, 1, 0, 1]],
        np.uint8,
    )
    polygons = [
        shape(json.loads(line)["geometry"]) for line in region_lines(1, 1, codes, 8, (40, 38))
    ]
    assert all(polygon.is_valid for polygon in polygons)
    assert (
        sum(polygon.area for polygon in polygons[:-1])
        == np.count_nonzero(codes == 1) * 64 - 2 * 8 * 2
    )
    assert polygons[-1].bounds == (0, 32, 8, 38)
