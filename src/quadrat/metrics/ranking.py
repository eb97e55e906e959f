"""Average precision as COCO computes it, from any table of overlapping pairs (boxes, masks, or
points by nearness).

Lin et al., "Microsoft COCO", ECCV 2014; the evaluation at cocodataset.org (pycocotools.cocoeval),
without crowds, size ranges or a limit of objects an image. Objects of equal score keep the order
they are given in, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from quadrat.metrics.protocol import Curve

IOUS = np.linspace(0.5, 0.95, 10)
"""The thresholds of AP@[.5:.95]; bit k of a hit is that of ``IOUS[k]``."""
RECALLS = np.linspace(0.0, 1.0, 101)
Ids = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Hits = npt.NDArray[np.uint16]


def scored_hits(
    pair_truth: Ids,
    pair_found: Ids,
    value: F64,
    score: npt.NDArray[np.floating],
    *,
    n_truth: int,
    thresholds: F64 = IOUS,
) -> Hits:
    """Which found objects take a truth object, at each threshold: uint16 (n,), bit k for
    ``thresholds[k]``.

    In order of falling score (equal ones in the order given) every found object takes the free
    truth of the highest ``value`` (of equals the last) that is at least the threshold. pair_truth,
    pair_found, value: (p,), the pairs that may match; score: (n,) of all found objects.
    """
    by_found = np.lexsort((pair_truth, pair_found))
    starts = np.searchsorted(pair_found[by_found], np.arange(len(score) + 1))
    order = np.argsort(-score.astype(np.float64), kind="stable")
    least = np.minimum(thresholds, 1 - 1e-10)  # an IoU of 1 that rounding lessened is one
    hits: Hits = _take(
        order,
        starts,
        pair_truth[by_found].astype(np.int64),
        value[by_found].astype(np.float64),
        least,
        n_truth,
    )
    return hits


@njit(cache=True)
def _take(order: Ids, starts: Ids, truth: Ids, value: F64, thresholds: F64, n_truth: int) -> Hits:
    hits = np.zeros(len(order), np.uint16)
    for k in range(len(thresholds)):
        taken = np.zeros(n_truth, np.bool_)
        for found in order:
            best, least = -1, thresholds[k]
            for p in range(starts[found], starts[found + 1]):
                if not taken[truth[p]] and value[p] >= least:
                    best, least = truth[p], value[p]
            if best >= 0:
                taken[best] = True
                hits[found] |= np.uint16(1 << k)
    return hits


def precision_recall(
    score: npt.NDArray[np.floating], hit: npt.NDArray[np.bool_], *, planted: int
) -> tuple[F64, F64, F64]:
    """Score, precision and recall (n,) after each found object, in order of falling score (equal
    ones as given)."""
    order = np.argsort(-score.astype(np.float64), kind="stable")
    true = np.cumsum(hit[order])
    return (
        score[order].astype(np.float64),
        true / np.arange(1, len(order) + 1),
        true / max(1, planted),
    )


def average_precision_101(
    score: npt.NDArray[np.floating], hit: npt.NDArray[np.bool_], *, planted: int
) -> float:
    """Mean over recalls 0, 0.01 ... 1 of the best precision at that recall or beyond; NaN where
    nothing was planted."""
    if planted == 0:
        return float("nan")
    _, precision, recall = precision_recall(score, hit, planted=planted)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(best, 0.0)[np.minimum(at, len(best))].sum() / len(RECALLS))


def ranked_curves(
    score: npt.NDArray[np.floating],
    class_id: npt.NDArray[np.integer],
    hits: Hits,
    planted: Ids,
    *,
    classes: Sequence[str],
) -> tuple[Curve, ...]:
    """Precision and recall at the first threshold (bit 0 of the hits) of each class that was
    planted; arguments as below."""
    curves = []
    for k in np.flatnonzero(planted > 0).tolist():
        own = class_id == k
        curves.append(
            Curve(
                classes[k],
                *precision_recall(score[own], hits[own] & 1 > 0, planted=int(planted[k])),
            )
        )
    return tuple(curves)


def ranked_figures(
    score: npt.NDArray[np.floating],
    class_id: npt.NDArray[np.integer],
    hits: Hits,
    planted: Ids,
    *,
    classes: Sequence[str],
) -> dict[str, float]:
    """``ap50`` and ``ap50_95``, of each class and their mean over the classes that were planted.

    score, class_id, hits: (n,) of all slides' objects, slide after slide; planted: (classes,).
    """
    figures: dict[str, float] = {}
    table = np.full((len(classes), len(IOUS)), np.nan)
    for k, name in enumerate(classes):
        own = class_id == k
        for i in range(len(IOUS)):
            hit = hits[own] >> np.uint16(i) & 1 > 0
            table[k, i] = average_precision_101(score[own], hit, planted=int(planted[k]))
        figures |= {f"ap50.{name}": float(table[k, 0]), f"ap50_95.{name}": float(table[k].mean())}
    known = table[planted > 0]
    mean = known.mean(axis=0) if len(known) else np.full(len(IOUS), np.nan)
    return {"ap50": float(mean[0]), "ap50_95": float(mean.mean())} | figures
