"""Agreement of two label images: panoptic quality and aggregated Jaccard index, from overlaps that
are counted block by block.

Kirillov et al., "Panoptic Segmentation", CVPR 2019 (arXiv:1801.00868): PQ, SQ, DQ; matched at IoU >
0.5, where a match is unique. Kumar et al., IEEE TMI 36(7), 2017, algorithm 1: AJI.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.metrics.ratios import F64, Ids, ratio

_BITS = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class OverlapCounts:
    """How many pixels each pair (true id, found id) shares. The counts of blocks can be added."""

    key: npt.NDArray[np.uint64]
    """(k,) true id * 2**32 + found id, ascending and unique, never 0 (background on background)."""
    pixels: Ids
    """(k,) pixels of each pair."""

    @staticmethod
    def of(truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer]) -> OverlapCounts:
        """Count one block: two label images of one shape, ids 0 (none) to 2**32 - 1.

        Raises:
            ValueError: the shapes differ.
        """
        if truth.shape != found.shape:
            raise ValueError(
                f"label images of shapes {truth.shape} and {found.shape} cannot be compared"
            )
        key = (truth.astype(np.uint64) << _BITS | found.astype(np.uint64)).ravel()
        # neighbours along a row are mostly equal, and sorting runs is far cheaper than sorting
        # pixels
        starts = np.flatnonzero(
            np.concatenate([np.ones(min(1, key.size), np.bool_), key[1:] != key[:-1]])
        )
        return OverlapCounts(*_sums(key[starts], np.diff(np.append(starts, key.size))))

    @staticmethod
    def total(blocks: Iterable[OverlapCounts]) -> OverlapCounts:
        """The sum of all blocks, in any order."""
        parts = list(blocks)
        key = np.concatenate([np.zeros(0, np.uint64), *(p.key for p in parts)])
        return OverlapCounts(
            *_sums(key, np.concatenate([np.zeros(0, np.int64), *(p.pixels for p in parts)]))
        )

    @property
    def truth_id(self) -> Ids:
        return (self.key >> _BITS).astype(np.int64)

    @property
    def found_id(self) -> Ids:
        return (self.key & _LOW).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Overlaps:
    """OverlapCounts as a table: all objects, and all pairs of objects that overlap."""

    truth_ids: Ids
    """(n,) ids of the true objects, ascending."""
    truth_area: Ids
    """(n,) px of each."""
    found_ids: Ids
    """(m,) ids of the found objects, ascending."""
    found_area: Ids
    """(m,) px of each."""
    pair_truth: Ids
    """(p,) index into ``truth_ids``."""
    pair_found: Ids
    """(p,) index into ``found_ids``."""
    intersection: Ids
    """(p,) px that both share."""
    iou: F64
    """(p,) in 0-1."""

    @staticmethod
    def of(counts: OverlapCounts) -> Overlaps:
        """Areas and IoU from the counts."""
        truth, found = counts.truth_id, counts.found_id
        truth_ids, truth_area = _sums(truth, counts.pixels)
        found_ids, found_area = _sums(found, counts.pixels)
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
    """Panoptic quality of one class: pq = sq * dq; NaN where there is neither a true nor a found
    object (sq: no match)."""

    matched: int
    """Matched pairs."""
    missed: int
    """True objects without a match."""
    extra: int
    """Found objects without a match."""
    iou_sum: float
    """Sum of the IoU of the matched pairs."""

    @property
    def sq(self) -> float:
        """Mean IoU of the matched pairs."""
        return ratio(self.iou_sum, self.matched)

    @property
    def dq(self) -> float:
        """F1 of detection at IoU > 0.5."""
        return ratio(self.matched, self.matched + (self.missed + self.extra) / 2)

    @property
    def pq(self) -> float:
        """Sum of the matched IoU over matched + half of the missed and the extra ones."""
        return ratio(self.iou_sum, self.matched + (self.missed + self.extra) / 2)


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


def jaccard_sums(overlaps: Overlaps) -> tuple[int, int]:
    """Pixels of the intersection and of the union that AJI divides; they may be added over images.

    Every true object takes the found one of highest IoU (ties: lower id). The objects that are left
    over are added to the union.
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


def _sums(key: npt.NDArray[Any], pixels: Ids) -> tuple[npt.NDArray[Any], Ids]:
    """The distinct keys above 0, ascending, and the sum of the pixels of each."""
    unique, inverse = np.unique(key, return_inverse=True)
    total = np.zeros(len(unique), np.int64)
    np.add.at(total, inverse, pixels)
    return unique[unique > 0], total[unique > 0]
