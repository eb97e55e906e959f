"""How well objects were detected on slides: the METRICS of detection, for boxes by overlap and for
points by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import cKDTree

from quadrat.annotations import SlideTruth
from quadrat.core.errors import AnnotationError
from quadrat.metrics.counts import count_figures
from quadrat.metrics.matching import (
    MISSED,
    NOTHING,
    Detection,
    Matches,
    average_precision,
    box_iou,
    class_confusion,
    detection_by_class,
    macro_f1,
    match_boxes,
    match_points,
)
from quadrat.metrics.protocol import (
    AS_USUAL,
    Answer,
    Confusion,
    Curve,
    Judging,
    Metrics,
    inside_bounds,
    need,
)
from quadrat.metrics.ranking import (
    IOUS,
    Hits,
    average_precision_101,
    ranked_curves,
    ranked_figures,
    scored_hits,
)

__all__ = [
    "METRICS",
    "Detection",
    "DetectionMeasured",
    "Matches",
    "average_precision",
    "box_iou",
    "detection_by_class",
    "macro_f1",
    "match_boxes",
    "match_points",
]
F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectionMeasured:
    """One slide's objects against the truth.

    planted, found, matched: (classes,) int64, matched within classes. confusion: int64 (classes +
    1, classes + 1) of matches made whatever the class, rows truth, columns found; the last row is
    what was found beside any truth, the last column what was missed. score float32, class_id uint8,
    hits uint16 (n,): the found objects for average precision; bit k of a hit: it takes a truth of
    its class at ``IOUS[k]`` (of points: bit 0, within the distance). ``by_distance``: truth was
    points.
    """

    planted: Ids
    found: Ids
    matched: Ids
    confusion: Ids
    score: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.uint8]
    hits: Hits
    by_distance: bool


@dataclass(frozen=True, slots=True)
class _Sides:
    """Truth and found objects that are judged: extents x0, y0, x1, y1 in grid px and classes;
    ``xy`` centres."""

    truth: F64
    truth_class: Ids
    found: F64
    found_class: Ids
    score: npt.NDArray[np.float32]


class DetectionMetrics:
    """F1 at the working threshold, average precision over what scores the answer holds, and
    agreement of counts."""

    main = "f1"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        how: Judging = AS_USUAL,
    ) -> DetectionMeasured:
        """One slide. With bounds, objects on both sides count whose centre lies inside. See
        ``protocol.Metrics``."""
        sides = _judged_sides(answer, expected, how)
        points = expected.point_diameter_um > 0
        own, free = (
            _match(sides, answer, how, points=points, within=within) for within in (True, False)
        )
        k = len(classes)
        return DetectionMeasured(
            planted=np.bincount(sides.truth_class, minlength=k),
            found=np.bincount(sides.found_class, minlength=k),
            matched=np.bincount(sides.truth_class[own.truth], minlength=k),
            confusion=class_confusion(
                free, truth_class=sides.truth_class, found_class=sides.found_class, n_classes=k
            ),
            score=sides.score,
            class_id=sides.found_class.astype(np.uint8),
            hits=_near_hits(sides, answer, how) if points else _box_hits(sides),
            by_distance=points,
        )

    def additive(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """F1, precision and recall: ``_any`` whatever the class, ``_micro`` within classes,
        ``_macro`` and ``.<class>``; ``f1`` is ``f1_any`` for points and ``f1_macro`` for boxes."""
        k = len(classes)
        planted, found, matched = (
            _sum(measured, name, (k,)) for name in ("planted", "found", "matched")
        )
        of_class = tuple(
            Detection(*row)
            for row in zip(matched.tolist(), planted.tolist(), found.tolist(), strict=True)
        )
        paired = int(_sum(measured, "confusion", (k + 1, k + 1))[:k, :k].sum())
        both = {
            "any": Detection(paired, int(planted.sum()), int(found.sum())),
            "micro": Detection(int(matched.sum()), int(planted.sum()), int(found.sum())),
        }
        figures = {"f1_macro": macro_f1(of_class)}
        for mark, names in (("_", both), (".", dict(zip(classes, of_class, strict=True)))):
            for name, d in names.items():
                figures |= {
                    f"f1{mark}{name}": d.f1,
                    f"precision{mark}{name}": d.precision,
                    f"recall{mark}{name}": d.recall,
                }
        by_distance = any(m.by_distance for m in measured)
        return {"f1": figures["f1_any" if by_distance else "f1_macro"]} | figures

    def summarise(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures: those above, average precision (see :meth:`ranked`), and count agreement
        over slides."""
        counts = (
            [np.stack([getattr(m, side) for m in measured]) for side in ("planted", "found")]
            if measured
            else []
        )
        figures = self.additive(measured, classes=classes) | self.ranked(measured, classes=classes)
        return figures | (count_figures(counts[0], counts[1], classes=classes) if counts else {})

    def ranked(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """Average precision, pooled over slides in the order given: ``ap50`` and ``ap50_95`` of
        boxes, ``ap_distance`` of points. It is that of the scores the answers hold: run with a low
        threshold for the whole curve."""
        if not measured:
            return {}
        score, class_id, hits = (
            np.concatenate([getattr(m, name) for m in measured])
            for name in ("score", "class_id", "hits")
        )
        planted = _sum(measured, "planted", (len(classes),))
        if not any(m.by_distance for m in measured):
            return ranked_figures(score, class_id, hits, planted, classes=classes)
        figures = {}
        for k, name in enumerate(classes):
            own = class_id == k
            figures[f"ap_distance.{name}"] = average_precision_101(
                score[own], hits[own] > 0, planted=int(planted[k])
            )
        known = [v for v in figures.values() if not np.isnan(v)]
        return {"ap_distance": float(np.mean(known)) if known else float("nan")} | figures

    def confusion(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Objects of each class matched with one of each class, missed, or found where none is."""
        matrix = _sum(measured, "confusion", (len(classes) + 1,) * 2)
        return Confusion(matrix, (*classes, NOTHING), (*classes, MISSED), "objects")

    def curves(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Of each class at an IoU of 0.5, of points within the distance."""
        if not measured:
            return ()
        score, class_id, hits = (
            np.concatenate([getattr(m, name) for m in measured])
            for name in ("score", "class_id", "hits")
        )
        return ranked_curves(
            score, class_id, hits, _sum(measured, "planted", (len(classes),)), classes=classes
        )


def _judged_sides(answer: Answer, expected: SlideTruth, how: Judging) -> _Sides:
    objects, table = expected.objects, need(answer.objects, "objects")
    if objects is None:
        raise AnnotationError("the truth holds no objects, which detections are compared with")
    if expected.point_diameter_um > 0:
        xy, truth_class = objects.points(answer.frame.box, answer.scale)
        truth = np.concatenate([xy, xy], axis=1)
    else:
        truth, truth_class = objects.boxes(answer.frame.box, answer.scale)
    found = table.bbox[:, [1, 0, 3, 2]]
    keep_truth, keep_found = (
        inside_bounds((side[:, :2] + side[:, 2:]) / 2, expected.bounds, answer, block=how.block)
        for side in (truth, found)
    )
    return _Sides(
        truth=truth[keep_truth],
        truth_class=truth_class[keep_truth].astype(np.int64),
        found=found[keep_found],
        found_class=table.class_id[keep_found].astype(np.int64),
        score=table.score[keep_found],
    )


def _match(sides: _Sides, answer: Answer, how: Judging, *, points: bool, within: bool) -> Matches:
    """Pairs at the working threshold; ``within`` classes, or whatever the class."""
    truth_class, found_class = sides.truth_class, sides.found_class
    if not within:
        truth_class, found_class = np.zeros_like(truth_class), np.zeros_like(found_class)
    if points:
        return match_points(
            _centres(sides.truth),
            _centres(sides.found),
            truth_class=truth_class,
            found_class=found_class,
            mpp=answer.frame.mpp,
            distance_um=how.distance_um,
        )
    return match_boxes(
        sides.truth,
        sides.found,
        sides.score,
        truth_class=truth_class,
        found_class=found_class,
        iou=how.iou,
    )


def _box_hits(sides: _Sides) -> Hits:
    """Hits within classes at every IoU of ``IOUS``."""
    pair_found, pair_truth = shapely.STRtree(shapely.box(*sides.truth.T)).query(
        shapely.box(*sides.found.T)
    )
    same = sides.truth_class[pair_truth] == sides.found_class[pair_found]
    pair_found, pair_truth = pair_found[same], pair_truth[same]
    value = box_iou(sides.truth[pair_truth], sides.found[pair_found])
    keep = value >= IOUS[0]
    return scored_hits(
        pair_truth[keep], pair_found[keep], value[keep], sides.score, n_truth=len(sides.truth)
    )


def _near_hits(sides: _Sides, answer: Answer, how: Judging) -> Hits:
    """Hits within classes and the distance: in order of score, each takes the nearest
    free point.
    """
    reach = how.distance_um / answer.frame.mpp
    tree = cKDTree(_centres(sides.truth))
    near = tree.sparse_distance_matrix(cKDTree(_centres(sides.found)), reach, output_type="ndarray")
    truth, found = near["i"].astype(np.int64), near["j"].astype(np.int64)
    same = sides.truth_class[truth] == sides.found_class[found]
    value = 1 - near["v"][same] / reach
    return scored_hits(
        truth[same],
        found[same],
        value,
        sides.score,
        n_truth=len(sides.truth),
        thresholds=np.zeros(1),
    )


def _centres(xyxy: F64) -> F64:
    centres: F64 = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    return centres


def _sum(measured: Sequence[DetectionMeasured], name: str, shape: tuple[int, ...]) -> Ids:
    total: Ids = np.zeros(shape, np.int64)
    for m in measured:
        total = total + getattr(m, name)
    return total


METRICS: Metrics[DetectionMeasured] = DetectionMetrics()
