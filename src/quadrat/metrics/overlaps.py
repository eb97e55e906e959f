"""Agreement of two label images: panoptic quality and aggregated Jaccard index, from overlaps
counted block by block.

Kirillov et al., "Panoptic Segmentation", CVPR 2019 (arXiv:1801.00868): PQ, SQ, DQ; matched at IoU >
0.5, where a match is unique. Kumar et al., IEEE TMI 36(7), 2017, algorithm 1: AJI.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

_BITS = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class OverlapCounts:
    """How many pixels each pair (truth id, found id) shares; blocks of a slide are counted apart
    and added.

    key: (k,) uint64, truth id * 2**32 + found id, ascending and unique, never 0 (background on
    background). pixels: (k,) int64.
    """

    key: npt.NDArray[np.uint64]
    pixels: Ids

    @staticmethod
    def of(truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer]) -> OverlapCounts:
        """Count one block: two label images of one shape, ids 0 (none) to 2**32 - 1.

        Raises:
            ValueError: shapes that differ.
        """
        if truth.shape != found.shape:
            raise ValueError(
                f"label images of shapes {truth.shape} and {found.shape} cannot be compared"
            )
        key = (truth.astype(np.uint64) << _BITS | found.astype(np.uint64)).ravel()
        # runs first: neighbours along a row are mostly alike, and sorting runs is far cheaper than
        # sorting pixels
        starts = np.flatnonzero(
            np.concatenate([np.ones(min(1, key.size), np.bool_), key[1:] != key[:-1]])
        )
        return _reduce(key[starts], np.diff(np.append(starts, key.size)))

    @staticmethod
    def total(blocks: Iterable[OverlapCounts]) -> OverlapCounts:
        """The sum of all blocks (in any order)."""
        parts = list(blocks)
        if not parts:
            return OverlapCounts(np.zeros(0, np.uint64), np.zeros(0, np.int64))
        return _reduce(
            np.concatenate([p.key for p in parts]), np.concatenate([p.pixels for p in parts])
        )

    def __add__(self, other: OverlapCounts) -> OverlapCounts:
        return OverlapCounts.total([self, other])

    @property
    def truth_id(self) -> Ids:
        return (self.key >> _BITS).astype(np.int64)

    @property
    def found_id(self) -> Ids:
        return (self.key & _LOW).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Overlaps:
    """OverlapCounts as a table: ids and areas of all objects, and one row a pair that overlaps.

    truth_ids, found_ids: ascending ids; truth_area, found_area: their pixels. pair_truth,
    pair_found: (p,) indices into them; intersection: (p,) pixels; iou: (p,) float64.
    """

    truth_ids: Ids
    truth_area: Ids
    found_ids: Ids
    found_area: Ids
    pair_truth: Ids
    pair_found: Ids
    intersection: Ids
    iou: npt.NDArray[np.float64]

    @staticmethod
    def of(counts: OverlapCounts) -> Overlaps:
        """Areas and IoU from the counts."""
        truth, found = counts.truth_id, counts.found_id
        truth_ids, truth_area = _areas(truth, counts.pixels)
        found_ids, found_area = _areas(found, counts.pixels)
        both = (truth > 0) & (found > 0)
        pair_truth = np.searchsorted(truth_ids, truth[both])
        pair_found = np.searchsorted(found_ids, found[both])
        shared = counts.pixels[both]
        iou = shared / (truth_area[pair_truth] + found_area[pair_found] - shared)
        return Overlaps(
            truth_ids, truth_area, found_ids, found_area, pair_truth, pair_found, shared, iou
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic quality of one class: pq = sq * dq; NaN where nothing was planted nor found (sq:
    nothing matched)."""

    matched: int
    missed: int
    extra: int
    iou_sum: float

    @property
    def sq(self) -> float:
        """Mean IoU of the matched pairs."""
        return self.iou_sum / self.matched if self.matched else float("nan")

    @property
    def dq(self) -> float:
        """F1 of detection at IoU > 0.5."""
        whole = self.matched + (self.missed + self.extra) / 2
        return self.matched / whole if whole else float("nan")

    @property
    def pq(self) -> float:
        """Sum of the matched IoU over matched + half of the missed and the extra ones."""
        whole = self.matched + (self.missed + self.extra) / 2
        return self.iou_sum / whole if whole else float("nan")


def panoptic_quality(overlaps: Overlaps) -> Quality:
    """Quality of all objects taken as one class."""
    hit = overlaps.iou > 0.5
    matched = int(hit.sum())
    return Quality(
        matched,
        len(overlaps.truth_ids) - matched,
        len(overlaps.found_ids) - matched,
        float(overlaps.iou[hit].sum()),
    )


def panoptic_quality_by_class(
    overlaps: Overlaps, truth_class: Ids, found_class: Ids, *, n_classes: int
) -> tuple[Quality, ...]:
    """Quality of each class; objects of different classes never match.

    truth_class, found_class: class of each of ``overlaps.truth_ids`` and ``overlaps.found_ids``,
    0..n_classes - 1.

    Raises:
        ValueError: a class array of another length than its ids.
    """
    if len(truth_class) != len(overlaps.truth_ids) or len(found_class) != len(overlaps.found_ids):
        raise ValueError(
            "truth_class and found_class must give one class for each id of the overlaps"
        )
    of_pair = truth_class[overlaps.pair_truth]
    hit = (overlaps.iou > 0.5) & (of_pair == found_class[overlaps.pair_found])
    matched = np.bincount(of_pair[hit], minlength=n_classes)
    iou_sum = np.bincount(of_pair[hit], weights=overlaps.iou[hit], minlength=n_classes)
    planted = np.bincount(truth_class, minlength=n_classes)
    found = np.bincount(found_class, minlength=n_classes)
    rows = zip(
        matched.tolist(),
        (planted - matched).tolist(),
        (found - matched).tolist(),
        iou_sum.tolist(),
        strict=True,
    )
    return tuple(Quality(*row) for row in rows)


def aggregated_jaccard(overlaps: Overlaps) -> float:
    """AJI: every truth object takes the found one of highest IoU (ties: lower id), the rest is
    added to the union."""
    shared, union = jaccard_sums(overlaps)
    return shared / union if union else float("nan")


def jaccard_sums(overlaps: Overlaps) -> tuple[int, int]:
    """Pixels of the intersection and of the union that AJI divides; they may be added
    over images.
    """
    order = np.lexsort((overlaps.pair_found, -overlaps.iou, overlaps.pair_truth))
    _, first = np.unique(overlaps.pair_truth[order], return_index=True)
    best = order[first]
    truth, found, shared = (
        overlaps.pair_truth[best],
        overlaps.pair_found[best],
        overlaps.intersection[best],
    )
    union = int((overlaps.truth_area[truth] + overlaps.found_area[found] - shared).sum())
    union += int(np.delete(overlaps.truth_area, truth).sum())
    union += int(np.delete(overlaps.found_area, np.unique(found)).sum())
    return int(shared.sum()), union


def _reduce(key: npt.NDArray[np.uint64], pixels: Ids) -> OverlapCounts:
    """Sum the pixels of equal keys; background on background is dropped."""
    unique, inverse = np.unique(key, return_inverse=True)
    summed = np.zeros(len(unique), np.int64)
    np.add.at(summed, inverse, pixels)
    return OverlapCounts(unique[unique > 0], summed[unique > 0])


def _areas(ids: Ids, pixels: Ids) -> tuple[Ids, Ids]:
    unique, inverse = np.unique(ids[ids > 0], return_inverse=True)
    area = np.zeros(len(unique), np.int64)
    np.add.at(area, inverse, pixels[ids > 0])
    return unique, area
