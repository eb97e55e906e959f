"""The truth of a training sample, cut, mirrored and turned with its pixels (pure)."""

from __future__ import annotations

import numpy as np

from quadrat.models.task import Crop


def cut(crop: Crop, row: int, col: int, height: int, width: int) -> Crop:
    """The part of a crop's truth. Boxes with their centre outside are dropped; the others may reach
    outside."""
    boxes = crop.boxes - np.array([row, col, row, col], np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre >= 0).all(axis=1) & (centre[:, 0] < height) & (centre[:, 1] < width)
    return Crop(
        shape=(height, width),
        maps={name: a[row : row + height, col : col + width] for name, a in crop.maps.items()},
        boxes=boxes[inside],
        box_class=crop.box_class[inside],
        label=crop.label,
    )


def flipped(crop: Crop) -> Crop:
    """Mirrored left to right."""
    width = crop.shape[1]
    row0, col0, row1, col1 = crop.boxes.T
    boxes = np.stack([row0, width - col1, row1, width - col0], axis=1)
    return Crop(
        crop.shape, {n: a[:, ::-1] for n, a in crop.maps.items()}, boxes, crop.box_class, crop.label
    )


def turned(crop: Crop) -> Crop:
    """Turned by 90 degrees as ``np.rot90`` does (anticlockwise)."""
    height, width = crop.shape
    row0, col0, row1, col1 = crop.boxes.T
    boxes = np.stack([width - col1, row0, width - col0, row1], axis=1)
    return Crop(
        (width, height),
        {n: np.rot90(a) for n, a in crop.maps.items()},
        boxes,
        crop.box_class,
        crop.label,
    )
