"""One-to-one matching of found objects with true ones, by box overlap or by distance.

Boxes: in order of falling score, each found box takes the free true box of highest IoU, as COCO
does (cocodataset.org, detection evaluation). Points: the nearest pairs are matched first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import cKDTree

from quadrat.metrics.protocol import Confusion
from quadrat.metrics.ratios import F64, Ids, mean_defined, ratio

NOTHING, MISSED = "(nothing)", "(missed)"
"""Names in a confusion of objects: the row of what was found where nothing is annotated, and the
column of what was not found."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a true and a found object."""

    truth: Ids
    """(m,) index of the true object."""
    found: Ids
    """(m,) index of the found object."""
    value: F64
    """(m,) how well they agree: IoU, or distance in um."""

    def take(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Pairs:
        return Pairs(self.truth[index], self.found[index], self.value[index])

    def of_one_class(self, truth_class: Ids, found_class: Ids) -> Pairs:
        """The pairs of two objects of the same class."""
        return self.take(truth_class[self.truth] == found_class[self.found])


@dataclass(frozen=True, slots=True)
class Detection:
    """How well the objects of one class were detected; NaN where a denominator is 0."""

    matched: int
    """Matched pairs."""
    planted: int
    """True objects."""
    found: int
    """Found objects."""

    @property
    def precision(self) -> float:
        return ratio(self.matched, self.found)

    @property
    def recall(self) -> float:
        return ratio(self.matched, self.planted)

    @property
    def f1(self) -> float:
        """2 matched / (planted + found)."""
        return ratio(2 * self.matched, self.planted + self.found)


def overlapping_boxes(truth: F64, found: F64, *, iou: float) -> Pairs:
    """All pairs of boxes with an IoU of at least ``iou`` (above 0), in any order; the value is the
    IoU. truth (n, 4) and found (m, 4): x0, y0, x1, y1 in one frame."""
    pair_found, pair_truth = shapely.STRtree(shapely.box(*truth.T)).query(shapely.box(*found.T))
    pairs = Pairs(pair_truth, pair_found, box_iou(truth[pair_truth], found[pair_found]))
    return pairs.take(pairs.value >= iou)


def near_points(truth: F64, found: F64, *, mpp: float, distance_um: float) -> Pairs:
    """All pairs of points at most ``distance_um`` apart, in any order; the value is the distance in
    um. truth (n, 2) and found (m, 2): x, y in one frame of ``mpp`` um/px."""
    near = cKDTree(truth).sparse_distance_matrix(
        cKDTree(found), distance_um / mpp, output_type="ndarray"
    )
    return Pairs(near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"] * mpp)


def match_boxes(
    truth: F64,
    found: F64,
    score: npt.NDArray[np.floating],
    *,
    truth_class: Ids,
    found_class: Ids,
    iou: float = 0.5,
) -> Pairs:
    """Match boxes of one class at IoU >= ``iou``; the value of a pair is its IoU.

    Ties in score are broken by y0, x0, then class of the found box. Ties in IoU are broken by y0,
    x0 of the true box. So the order of rows has no influence unless rows are equal.

    Args:
        truth: (n, 4) x0, y0, x1, y1.
        found: (m, 4) in the same frame.
        score: (m,) of the found boxes.
        truth_class: (n,).
        found_class: (m,).
        iou: the least IoU.
    """
    pairs = overlapping_boxes(truth, found, iou=iou).of_one_class(truth_class, found_class)
    rank = np.empty(len(found), np.int64)
    rank[np.lexsort((found_class, found[:, 0], found[:, 1], -score.astype(np.float64)))] = (
        np.arange(len(found))
    )
    box = truth[pairs.truth]
    return _greedy(pairs.take(np.lexsort((box[:, 0], box[:, 1], -pairs.value, rank[pairs.found]))))


def match_points(
    truth: F64, found: F64, *, truth_class: Ids, found_class: Ids, mpp: float, distance_um: float
) -> Pairs:
    """Match points of one class at most ``distance_um`` apart, the nearest pairs first; the value
    of a pair is its distance in um.

    truth (n, 2) and found (m, 2): x, y in one frame of ``mpp`` um/px. Ties are broken by y, x of
    the true point, then of the found one.
    """
    pairs = near_points(truth, found, mpp=mpp, distance_um=distance_um)
    pairs = pairs.of_one_class(truth_class, found_class)
    a, b = truth[pairs.truth], found[pairs.found]
    return _greedy(pairs.take(np.lexsort((b[:, 0], b[:, 1], a[:, 0], a[:, 1], pairs.value))))


def box_iou(a: F64, b: F64) -> F64:
    """IoU of row i of ``a`` with row i of ``b``; both (n, 4) x0, y0, x1, y1."""
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.clip(side, 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    iou: F64 = np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)
    return iou


def class_confusion(matches: Pairs, *, truth_class: Ids, found_class: Ids, n_classes: int) -> Ids:
    """Matches of any classes: int64 (n_classes + 1, n_classes + 1), truth by row, found by column.
    The last row is what was found where nothing is annotated, the last column what was missed."""
    truth, k = np.full(len(found_class), n_classes), n_classes
    truth[matches.found] = truth_class[matches.truth]
    missed = np.delete(truth_class, matches.truth)
    code = np.concatenate([truth * (k + 1) + found_class, missed * (k + 1) + k])
    return np.bincount(code, minlength=(k + 1) ** 2).reshape(k + 1, k + 1).astype(np.int64)


def object_confusion(matrix: Ids, classes: Sequence[str]) -> Confusion:
    """A sum of :func:`class_confusion` with its names."""
    return Confusion(matrix, (*classes, NOTHING), (*classes, MISSED), "objects")


def macro_f1(classes: tuple[Detection, ...]) -> float:
    """Mean F1 of the classes that were planted or found; NaN if there are none."""
    return mean_defined([c.f1 for c in classes])


def _greedy(pairs: Pairs) -> Pairs:
    """Take pairs in the given order, each object at most once."""
    free_truth, free_found = set(pairs.truth.tolist()), set(pairs.found.tolist())
    taken = []
    for k, (t, f) in enumerate(zip(pairs.truth.tolist(), pairs.found.tolist(), strict=True)):
        if t in free_truth and f in free_found:
            free_truth.remove(t)
            free_found.remove(f)
            taken.append(k)
    return pairs.take(np.array(taken, np.int64))
