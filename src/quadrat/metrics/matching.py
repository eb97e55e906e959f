"""One-to-one matching of detections with truth, by box overlap or by distance; precision, recall,
F1, AP.

Boxes: found ones in order of falling score each take the free truth box of highest IoU, as COCO
does (cocodataset.org, detection evaluation); points: the nearest pairs first. Both are greedy and
at most one-to-one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import cKDTree

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
NOTHING, MISSED = "(nothing)", "(missed)"
"""In a confusion of objects: the truth of what was found where none is, and the answer to what was
not found."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Matched pairs: (m,) indices into truth and found, and the IoU or the distance
    of each pair.
    """

    truth: Ids
    found: Ids
    value: F64


@dataclass(frozen=True, slots=True)
class Detection:
    """Detection figures of one class; NaN where the denominator is 0."""

    matched: int
    planted: int
    found: int

    @property
    def precision(self) -> float:
        return self.matched / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        return self.matched / self.planted if self.planted else float("nan")

    @property
    def f1(self) -> float:
        """2 matched / (planted + found); NaN where there is neither."""
        return (
            2 * self.matched / (self.planted + self.found)
            if self.planted + self.found
            else float("nan")
        )


def match_boxes(
    truth: F64,
    found: F64,
    score: npt.NDArray[np.floating],
    *,
    truth_class: Ids,
    found_class: Ids,
    iou: float = 0.5,
) -> Matches:
    """Match boxes of one class at IoU >= ``iou``.

    truth (n, 4) and found (m, 4): x0, y0, x1, y1 in one frame; score (m,); classes (n,) and (m,).
    Ties in score are broken by y0, x0, then class of the found box; ties in IoU by those of the
    truth box: the order of rows is of no consequence unless rows are equal.
    """
    pair_found, pair_truth = shapely.STRtree(shapely.box(*truth.T)).query(
        shapely.box(*found.T), predicate="intersects"
    )
    same = truth_class[pair_truth] == found_class[pair_found]
    pair_found, pair_truth = pair_found[same], pair_truth[same]
    value = box_iou(truth[pair_truth], found[pair_found])
    keep = value >= iou
    pair_found, pair_truth, value = pair_found[keep], pair_truth[keep], value[keep]
    rank = np.empty(len(found), np.int64)
    rank[np.lexsort((found_class, found[:, 0], found[:, 1], -score.astype(np.float64)))] = (
        np.arange(len(found))
    )
    order = np.lexsort((truth[pair_truth, 0], truth[pair_truth, 1], -value, rank[pair_found]))
    return _greedy(pair_truth[order], pair_found[order], value[order])


def match_points(
    truth: F64, found: F64, *, truth_class: Ids, found_class: Ids, mpp: float, distance_um: float
) -> Matches:
    """Match points of one class at most ``distance_um`` apart, the nearest pairs first; value is
    the distance in um.

    truth (n, 2) and found (m, 2): x, y in one frame of ``mpp`` um/px. Ties are broken by y, x of
    truth, then of found.
    """
    near = cKDTree(truth).sparse_distance_matrix(
        cKDTree(found), distance_um / mpp, output_type="ndarray"
    )
    pair_truth, pair_found = near["i"].astype(np.int64), near["j"].astype(np.int64)
    distance = near["v"] * mpp
    same = truth_class[pair_truth] == found_class[pair_found]
    pair_truth, pair_found, distance = pair_truth[same], pair_found[same], distance[same]
    keys = (
        found[pair_found, 0],
        found[pair_found, 1],
        truth[pair_truth, 0],
        truth[pair_truth, 1],
        distance,
    )
    order = np.lexsort(keys)
    return _greedy(pair_truth[order], pair_found[order], distance[order])


def box_iou(a: F64, b: F64) -> F64:
    """IoU of row i of ``a`` with row i of ``b``; both (n, 4) x0, y0, x1, y1."""
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.clip(side, 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    iou: F64 = np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)
    return iou


def detection_by_class(
    matches: Matches, *, truth_class: Ids, found_class: Ids, n_classes: int
) -> tuple[Detection, ...]:
    """Figures of each class 0..n_classes - 1 from matches made within classes."""
    matched = np.bincount(truth_class[matches.truth], minlength=n_classes).tolist()
    planted = np.bincount(truth_class, minlength=n_classes).tolist()
    found = np.bincount(found_class, minlength=n_classes).tolist()
    return tuple(Detection(*row) for row in zip(matched, planted, found, strict=True))


def class_confusion(matches: Matches, *, truth_class: Ids, found_class: Ids, n_classes: int) -> Ids:
    """Matches made whatever the class: int64 (n_classes + 1, n_classes + 1), rows truth, columns
    found; the last row is what was found beside any truth, the last column what was missed."""
    truth, k = np.full(len(found_class), n_classes), n_classes
    truth[matches.found] = truth_class[matches.truth]
    missed = np.delete(truth_class, matches.truth)
    code = np.concatenate([truth * (k + 1) + found_class, missed * (k + 1) + k])
    return np.bincount(code, minlength=(k + 1) ** 2).reshape(k + 1, k + 1).astype(np.int64)


def macro_f1(classes: tuple[Detection, ...]) -> float:
    """Mean F1 of the classes that were planted or found; NaN where none was."""
    scores = [c.f1 for c in classes if c.planted + c.found]
    return float(np.mean(scores)) if scores else float("nan")


def average_precision(matches: Matches, score: npt.NDArray[np.floating], *, planted: int) -> float:
    """Area under the precision-recall curve of one class at the matches' IoU, every point used
    (PASCAL VOC 2010+).

    score: (m,) of all found objects. Found objects of equal score enter together. NaN where nothing
    was planted.
    """
    if planted == 0:
        return float("nan")
    hit = np.zeros(len(score), np.bool_)
    hit[matches.found] = True
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(
        np.diff(score[order], append=np.nan) != 0
    )  # NaN differs from all: the last one counts
    true = np.cumsum(hit[order])[last]
    precision = np.maximum.accumulate((true / (last + 1))[::-1])[::-1]
    return float((np.diff(true / planted, prepend=0.0) * precision).sum())


def _greedy(pair_truth: Ids, pair_found: Ids, value: F64) -> Matches:
    """Take pairs in the given order, each side once."""
    free_truth = set(pair_truth.tolist())
    free_found = set(pair_found.tolist())
    taken = []
    for k, (t, f) in enumerate(zip(pair_truth.tolist(), pair_found.tolist(), strict=True)):
        if t in free_truth and f in free_found:
            free_truth.remove(t)
            free_found.remove(f)
            taken.append(k)
    index = np.array(taken, np.int64)
    return Matches(
        pair_truth[index].astype(np.int64), pair_found[index].astype(np.int64), value[index]
    )
