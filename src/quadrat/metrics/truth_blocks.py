"""Overlaps of a slide's label image with its truth, block by block, although the truth numbers its
objects anew in each crop.

Each true object is counted once, whole, by the block that holds its first pixel (top row, then
leftmost). For this a block asks for a crop that holds all objects that meet the block. Pixels
without truth are counted by the block they lie in. So the sum does not depend on the blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import Truth
from quadrat.core.geometry import Box
from quadrat.metrics.overlaps import OverlapCounts
from quadrat.metrics.protocol import Answer, Labels, blocks
from quadrat.metrics.ratios import Ids

_TRUTH = np.uint64(1) << np.uint64(32)


@dataclass(frozen=True, slots=True)
class _Crop:
    """The truth of one block, with all objects that meet it."""

    box: Box
    """The crop, grid px."""
    labels: Ids
    """(h, w) ids 1..k of the evaluated objects, 0 none."""
    class_id: Ids
    """(k,)"""
    owned: npt.NDArray[np.bool_]
    """(k,) whether the block counts the object."""


def slide_overlaps(
    labels: Labels,
    truth: Truth,
    answer: Answer,
    *,
    keep: npt.NDArray[np.bool_],
    bounds: Truth | None,
    block: int,
) -> tuple[OverlapCounts, Ids]:
    """Overlap counts of the whole slide, and the class of each true object, by ascending id (1, 2
    ...).

    Args:
        labels: the label image of the result.
        truth: the true objects.
        answer: gives the slide's grid.
        keep: (rows of the object table,) the found objects that are evaluated. The others are
            treated as background. Ids that are not in the table stay.
        bounds: true objects whose centroid (mean of pixel centres) lies outside are treated as
            background.
        block: side of a block, px.
    """
    parts, classes = [], []
    last = 0
    for core in blocks(answer.frame.box, block):
        crop = _truth_crop(truth, core, answer, bounds)
        found = _kept(labels(crop.box), keep)
        inner = core.slices_in(crop.box)
        numbers = np.concatenate(
            [[0], np.where(crop.owned, last + np.cumsum(crop.owned), 0)]
        ).astype(np.int64)
        whole = OverlapCounts.of(numbers[crop.labels], found)
        of_truth = whole.key >= _TRUTH
        parts.append(OverlapCounts(whole.key[of_truth], whole.pixels[of_truth]))
        outside = np.where(crop.labels[inner] == 0, found[inner], 0)
        parts.append(OverlapCounts.of(np.zeros(core.shape, np.int64), outside))
        classes.append(crop.class_id[crop.owned])
        last += int(crop.owned.sum())
    return OverlapCounts.total(parts), np.concatenate([np.zeros(0, np.int64), *classes])


def _truth_crop(truth: Truth, core: Box, answer: Answer, bounds: Truth | None) -> _Crop:
    """The truth of the block ``core``."""
    extents, _ = truth.boxes(core, answer.scale)
    box = core
    if len(extents):
        low, high = extents[:, :2].min(axis=0), extents[:, 2:].max(axis=0)
        box = core.union(
            Box(*(math.floor(v) for v in low[::-1]), *(math.ceil(v) for v in high[::-1]))
        )
        box = box.intersect(answer.frame.box)
    drawn, class_id = truth.instances(box, answer.scale)
    labels = drawn.astype(np.int64)
    pixel = np.flatnonzero(labels)
    ids = labels.ravel()[pixel]
    first = np.zeros(len(class_id) + 1, np.int64)
    first[ids[::-1]] = pixel[::-1]  # the last assignment stays: the first pixel
    rows, cols = first[1:] // box.width + box.row0, first[1:] % box.width + box.col0
    owned = (rows >= core.row0) & (rows < core.row1) & (cols >= core.col0) & (cols < core.col1)
    if bounds is None:
        return _Crop(box, labels, class_id.astype(np.int64), owned)
    area = np.bincount(ids, minlength=len(class_id) + 1)[1:]
    at = [
        (np.bincount(ids, weights=index + 0.5, minlength=len(class_id) + 1)[1:] / area).astype(
            np.int64
        )
        for index in (pixel // box.width, pixel % box.width)
    ]
    inside = bounds.regions(box, answer.scale)[at[0], at[1]] > 0
    return _Crop(
        box,
        np.concatenate([[False], inside])[labels] * labels,
        class_id.astype(np.int64),
        owned & inside,
    )


def _kept(found: npt.NDArray[np.integer], keep: npt.NDArray[np.bool_]) -> Ids:
    """A label image without the objects that are not kept."""
    if keep.all():
        return found.astype(np.int64)
    inside = np.concatenate([[False], keep])
    known = np.where(found <= len(keep), found, 0)
    return np.where((found > len(keep)) | inside[known], found, 0).astype(np.int64)
