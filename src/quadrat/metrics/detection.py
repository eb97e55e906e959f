"""How well objects were detected on slides: the METRICS of detection, for boxes by overlap and for
points by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth
from quadrat.core.errors import AnnotationError
from quadrat.metrics.counts import count_sizes
from quadrat.metrics.matching import (
    Detection,
    Pairs,
    class_confusion,
    macro_f1,
    match_boxes,
    match_points,
    near_points,
    object_confusion,
    overlapping_boxes,
)
from quadrat.metrics.protocol import (
    DEFAULT_SETTINGS,
    Answer,
    Confusion,
    Curve,
    Metrics,
    MetricSettings,
    inside_bounds,
    required,
)
from quadrat.metrics.ranking import (
    IOUS,
    Hits,
    Ranked,
    nearest_figures,
    ranked_curves,
    ranked_figures,
    scored_hits,
)
from quadrat.metrics.ratios import F64, Ids, summed


@dataclass(frozen=True, slots=True)
class DetectionMeasured:
    """The objects of one slide, compared with the truth."""

    planted: Ids
    """(classes,) true objects."""
    found: Ids
    """(classes,) found objects."""
    matched: Ids
    """(classes,) pairs matched within the class."""
    confusion: Ids
    """Matches of any classes; see :func:`quadrat.metrics.matching.class_confusion`."""
    ranked: Ranked
    """The found objects, for average precision."""
    by_distance: bool
    """Whether the truth was points."""


@dataclass(frozen=True, slots=True)
class _Sides:
    """The true and the found objects that are evaluated, in grid px."""

    truth: F64
    """(n, 4) x0, y0, x1, y1; of points both corners are the point."""
    truth_class: Ids
    """(n,)"""
    found: F64
    """(m, 4) x0, y0, x1, y1."""
    found_class: Ids
    """(m,)"""
    score: npt.NDArray[np.float32]
    """(m,) in 0-1."""

    def without_classes(self) -> _Sides:
        """The same objects, all of one class."""
        return replace(self, truth_class=self.truth_class * 0, found_class=self.found_class * 0)


class DetectionMetrics:
    """F1 at the working threshold, and average precision over the scores that the answer holds."""

    main = "f1"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        settings: MetricSettings = DEFAULT_SETTINGS,
    ) -> DetectionMeasured:
        """One slide. With bounds, an object counts if its centre lies inside, on both sides. See
        :class:`quadrat.metrics.protocol.Metrics`."""
        sides = _evaluated_sides(answer, expected, settings)
        points = expected.point_diameter_um > 0
        own, free = (
            _match(of, answer, settings, points=points) for of in (sides, sides.without_classes())
        )
        k = len(classes)
        hits = _near_hits(sides, answer, settings) if points else _box_hits(sides)
        return DetectionMeasured(
            planted=np.bincount(sides.truth_class, minlength=k),
            found=np.bincount(sides.found_class, minlength=k),
            matched=np.bincount(sides.truth_class[own.truth], minlength=k),
            confusion=class_confusion(
                free, truth_class=sides.truth_class, found_class=sides.found_class, n_classes=k
            ),
            ranked=Ranked(sides.score, sides.found_class.astype(np.uint8), hits),
            by_distance=points,
        )

    def additive(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """F1, precision and recall: ``_any`` with the class ignored, ``_micro`` within classes,
        ``_macro`` and ``.<class>``. ``f1`` is ``f1_any`` for points and ``f1_macro`` for boxes."""
        k = len(classes)
        matched, planted, found = (
            summed(measured, name, (k,)).tolist() for name in ("matched", "planted", "found")
        )
        of_class = tuple(Detection(*row) for row in zip(matched, planted, found, strict=True))
        paired = int(summed(measured, "confusion", (k + 1, k + 1))[:k, :k].sum())
        both = {
            "any": Detection(paired, sum(planted), sum(found)),
            "micro": Detection(sum(matched), sum(planted), sum(found)),
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

    def sizes(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``count_planted`` and ``count_found``: objects, and of each class."""
        return count_sizes(measured, classes=classes)

    def summarise(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures: those of ``additive``, and average precision (see :meth:`ranked`)."""
        figures = self.additive(measured, classes=classes)
        return figures | self.ranked(measured, classes=classes) if measured else figures

    def ranked(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """Average precision, all slides ranked together in the order given: ``ap50`` and
        ``ap50_95`` of boxes, ``ap_distance`` of points. It is that of the scores the answers hold:
        run with a low threshold for the whole curve."""
        by_distance = any(m.by_distance for m in measured)
        planted = summed(measured, "planted", (len(classes),))
        figures = nearest_figures if by_distance else ranked_figures
        return figures(Ranked.of_slides(measured), planted, classes=classes)

    def confusion(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Objects of each class matched with one of each class, missed, or found where none is."""
        return object_confusion(summed(measured, "confusion", (len(classes) + 1,) * 2), classes)

    def curves(
        self, measured: Sequence[DetectionMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Of each class at an IoU of 0.5, of points within the distance."""
        planted = summed(measured, "planted", (len(classes),))
        return ranked_curves(Ranked.of_slides(measured), planted, classes=classes)


def _evaluated_sides(answer: Answer, expected: SlideTruth, settings: MetricSettings) -> _Sides:
    objects, table = expected.objects, required(answer.objects, "objects")
    if objects is None:
        raise AnnotationError("the truth holds no objects, which detections are compared with")
    if expected.point_diameter_um > 0:
        xy, truth_class = objects.points(answer.frame.box, answer.scale)
        truth = np.concatenate([xy, xy], axis=1)
    else:
        truth, truth_class = objects.boxes(answer.frame.box, answer.scale)
    found = table.bbox[:, [1, 0, 3, 2]]
    keep_truth, keep_found = (
        inside_bounds(_centres(side), expected.bounds, answer, block=settings.block)
        for side in (truth, found)
    )
    return _Sides(
        truth=truth[keep_truth],
        truth_class=truth_class[keep_truth].astype(np.int64),
        found=found[keep_found],
        found_class=table.class_id[keep_found].astype(np.int64),
        score=table.score[keep_found],
    )


def _match(sides: _Sides, answer: Answer, settings: MetricSettings, *, points: bool) -> Pairs:
    """The matches within classes at the working threshold."""
    if points:
        return match_points(
            _centres(sides.truth),
            _centres(sides.found),
            truth_class=sides.truth_class,
            found_class=sides.found_class,
            mpp=answer.frame.mpp,
            distance_um=settings.distance_um,
        )
    return match_boxes(
        sides.truth,
        sides.found,
        sides.score,
        truth_class=sides.truth_class,
        found_class=sides.found_class,
        iou=settings.iou,
    )


def _box_hits(sides: _Sides) -> Hits:
    """Hits within classes at every IoU of ``IOUS``."""
    pairs = overlapping_boxes(sides.truth, sides.found, iou=float(IOUS[0]))
    pairs = pairs.of_one_class(sides.truth_class, sides.found_class)
    return scored_hits(pairs, sides.score, n_truth=len(sides.truth))


def _near_hits(sides: _Sides, answer: Answer, settings: MetricSettings) -> Hits:
    """Hits within classes and the distance: in order of falling score, each object takes the
    nearest free point."""
    pairs = near_points(
        _centres(sides.truth),
        _centres(sides.found),
        mpp=answer.frame.mpp,
        distance_um=settings.distance_um,
    ).of_one_class(sides.truth_class, sides.found_class)
    return scored_hits(
        replace(pairs, value=-pairs.value),
        sides.score,
        n_truth=len(sides.truth),
        thresholds=np.array([-np.inf]),
    )


def _centres(xyxy: F64) -> F64:
    centres: F64 = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    return centres


METRICS: Metrics[DetectionMeasured] = DetectionMetrics()
