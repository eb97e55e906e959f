"""Average precision as COCO computes it, from any table of overlapping pairs (boxes, masks, or
points by nearness).

Lin et al., "Microsoft COCO", ECCV 2014; the evaluation at cocodataset.org (pycocotools.cocoeval),
without crowds, size ranges or a limit of objects per image. Objects of equal score keep the order
they are given in, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.metrics.matching import Pairs
from quadrat.metrics.protocol import Curve
from quadrat.metrics.ratios import F64, Ids, mean_defined

IOUS = np.linspace(0.5, 0.95, 10)
"""The thresholds of AP@[.5:.95]; bit k of a hit belongs to ``IOUS[k]``."""
RECALLS = np.linspace(0.0, 1.0, 101)
Hits = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The found objects of one or more slides, as average precision needs them."""

    score: npt.NDArray[np.float32]
    """(n,) in 0-1."""
    class_id: npt.NDArray[np.uint8]
    """(n,) index of the class."""
    hits: Hits
    """(n,) bit k: the object takes a true object of its class at ``IOUS[k]``. Of points only bit 0
    is used: within the distance."""

    @staticmethod
    def of_slides(measured: Sequence[Any]) -> Ranked:
        """The field ``ranked`` of all slides, slide after slide."""
        parts = [m.ranked for m in measured]
        return Ranked(
            np.concatenate([np.zeros(0, np.float32), *(p.score for p in parts)]),
            np.concatenate([np.zeros(0, np.uint8), *(p.class_id for p in parts)]),
            np.concatenate([np.zeros(0, np.uint16), *(p.hits for p in parts)]),
        )

    def of_class(
        self, class_id: int, threshold: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Score (m,) and hit (m,) of the objects of a class, at ``IOUS[threshold]``."""
        own = self.class_id == class_id
        return self.score[own], self.hits[own] >> np.uint16(threshold) & 1 > 0


def scored_hits(
    pairs: Pairs, score: npt.NDArray[np.floating], *, n_truth: int, thresholds: F64 = IOUS
) -> Hits:
    """Which found objects take a true one, at each threshold: uint16 (n,), bit k for
    ``thresholds[k]``.

    In order of falling score (equal ones in the order given), each found object takes the free true
    object of highest value (of equals the last), if that is at least the threshold.

    Args:
        pairs: the pairs that may match; a higher value is a better match.
        score: (n,) of all found objects.
        n_truth: number of true objects.
        thresholds: rising, at most 16.
    """
    by_found = np.lexsort((pairs.truth, pairs.found))
    starts = np.searchsorted(pairs.found[by_found], np.arange(len(score) + 1))
    order = np.argsort(-score.astype(np.float64), kind="stable")
    least = np.minimum(thresholds, 1 - 1e-10)  # an IoU of 1 may be a little less after rounding
    truth, value = pairs.truth[by_found].astype(np.int64), pairs.value[by_found].astype(np.float64)
    hits: Hits = _take(order, starts, truth, value, least, n_truth)
    return hits


@kernel
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


def average_precision(
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


def ranked_curves(ranked: Ranked, planted: Ids, *, classes: Sequence[str]) -> tuple[Curve, ...]:
    """Precision and recall of each class that was planted, at the first threshold. planted:
    (classes,) true objects."""
    return tuple(
        Curve(classes[k], *precision_recall(*ranked.of_class(k, 0), planted=int(planted[k])))
        for k in np.flatnonzero(planted > 0).tolist()
    )


def ranked_figures(ranked: Ranked, planted: Ids, *, classes: Sequence[str]) -> dict[str, float]:
    """``ap50`` and ``ap50_95``: means over the classes that were planted, then of each class.
    planted: (classes,) true objects."""
    figures: dict[str, float] = {}
    table = np.full((len(classes), len(IOUS)), np.nan)
    for k, name in enumerate(classes):
        for i in range(len(IOUS)):
            table[k, i] = average_precision(*ranked.of_class(k, i), planted=int(planted[k]))
        figures |= {f"ap50.{name}": float(table[k, 0]), f"ap50_95.{name}": float(table[k].mean())}
    known = table[planted > 0]
    mean = known.mean(axis=0) if len(known) else np.full(len(IOUS), np.nan)
    return {"ap50": float(mean[0]), "ap50_95": float(mean.mean())} | figures


def nearest_figures(ranked: Ranked, planted: Ids, *, classes: Sequence[str]) -> dict[str, float]:
    """``ap_distance``: mean over the classes that were planted, then of each class. planted:
    (classes,) true objects."""
    of_class = [
        average_precision(*ranked.of_class(k, 0), planted=int(planted[k]))
        for k in range(len(classes))
    ]
    figures = {f"ap_distance.{name}": v for name, v in zip(classes, of_class, strict=True)}
    return {"ap_distance": mean_defined(of_class)} | figures
