"""How well objects were delineated on slides: the METRICS of instance segmentation, from label
images block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations import SlideTruth
from quadrat.core.errors import AnnotationError, QuadratError
from quadrat.metrics.counts import count_figures
from quadrat.metrics.matching import MISSED, NOTHING, Matches, class_confusion
from quadrat.metrics.overlaps import (
    OverlapCounts,
    Overlaps,
    Quality,
    aggregated_jaccard,
    jaccard_sums,
    panoptic_quality,
    panoptic_quality_by_class,
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
from quadrat.metrics.ranking import Hits, ranked_curves, ranked_figures, scored_hits
from quadrat.metrics.truth_blocks import slide_overlaps

__all__ = [
    "METRICS",
    "InstanceMeasured",
    "OverlapCounts",
    "Overlaps",
    "Quality",
    "aggregated_jaccard",
    "panoptic_quality",
    "panoptic_quality_by_class",
]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class InstanceMeasured:
    """One slide's label image against the truth.

    matched, missed, extra int64 and iou_sum float64 (1 + classes,): the sums of panoptic quality,
    first of all objects taken as one class, then of each class. jaccard: (2,) int64, intersection
    and union of AJI. foreground: (3,) int64 px, in both, in truth, in the result. planted, found:
    (classes,) int64, objects annotated and rows of the object table. drawn: (classes,) int64 truth
    objects that cover a pixel. confusion: int64 (classes + 1, classes + 1), masks matched at IoU >
    0.5 whatever the class (see ``matching.class_confusion``). score float32, class_id uint8, hits
    uint16 (n,): the rows for average precision of masks (see ``ranking``).
    """

    matched: Ids
    missed: Ids
    extra: Ids
    iou_sum: npt.NDArray[np.float64]
    jaccard: Ids
    foreground: Ids
    planted: Ids
    found: Ids
    drawn: Ids
    confusion: Ids
    score: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.uint8]
    hits: Hits


class InstanceMetrics:
    """PQ, SQ, DQ, AJI, AP of masks, Dice of the foreground and agreement of counts; pooled over
    slides and as means."""

    main = "pq"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        how: Judging = AS_USUAL,
    ) -> InstanceMeasured:
        """One slide, block by block. With bounds, objects on both sides are judged whose centroid
        lies inside; the others are as if they were not there. See ``protocol.Metrics``.

        Raises:
            QuadratError: the label image holds an id that the object table has not.
        """
        table, labels, truth = (
            need(answer.objects, "objects"),
            need(answer.labels, "label image"),
            expected.objects,
        )
        if truth is None:
            raise AnnotationError(
                "the truth holds no objects, which a label image is compared with"
            )
        k = len(classes)
        xy, class_id = truth.points(answer.frame.box, answer.scale)
        annotated = class_id[inside_bounds(xy, expected.bounds, answer, block=how.block)]
        keep = inside_bounds(table.centroid[:, ::-1], expected.bounds, answer, block=how.block)
        counts, truth_class = slide_overlaps(
            labels, truth, answer, keep=keep, bounds=expected.bounds, block=how.block
        )
        overlaps = Overlaps.of(counts)
        if len(overlaps.found_ids) and int(overlaps.found_ids[-1]) > len(table):
            raise QuadratError(
                f"the label image holds the id {overlaps.found_ids[-1]}, the table {len(table)} "
                "objects"
            )
        found_class = table.class_id.astype(np.int64)
        quality = (
            panoptic_quality(overlaps),
            *panoptic_quality_by_class(
                overlaps, truth_class, found_class[overlaps.found_ids - 1], n_classes=k
            ),
        )
        hit = overlaps.iou > 0.5
        free = Matches(overlaps.pair_truth[hit], overlaps.pair_found[hit], overlaps.iou[hit])
        shown_class = found_class[overlaps.found_ids - 1]
        return InstanceMeasured(
            matched=np.array([q.matched for q in quality], np.int64),
            missed=np.array([q.missed for q in quality], np.int64),
            extra=np.array([q.extra for q in quality], np.int64),
            iou_sum=np.array([q.iou_sum for q in quality]),
            jaccard=np.array(jaccard_sums(overlaps), np.int64),
            foreground=np.array(
                [
                    a.sum()
                    for a in (overlaps.intersection, overlaps.truth_area, overlaps.found_area)
                ],
                np.int64,
            ),
            planted=np.bincount(annotated, minlength=k).astype(np.int64),
            found=np.bincount(found_class[keep], minlength=k).astype(np.int64),
            drawn=np.bincount(truth_class, minlength=k).astype(np.int64),
            confusion=class_confusion(
                free, truth_class=truth_class, found_class=shown_class, n_classes=k
            ),
            score=table.score[keep],
            class_id=table.class_id[keep],
            hits=_mask_hits(overlaps, truth_class, found_class, table.score)[keep],
        )

    def additive(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``pq``, ``sq``, ``dq``, ``aji`` and ``dice`` from the sums over slides;
        ``..._image_mean``: the mean of the slides' own. ``.<class>`` of each class,
        ``pq_class_mean`` the mean of the classes that occur."""
        total = _pooled(measured, len(classes) + 1)
        figures = {name: getattr(total[0], name) for name in ("pq", "sq", "dq")}
        for name, quality in zip(classes, total[1:], strict=True):
            figures |= {
                f"{figure}.{name}": getattr(quality, figure) for figure in ("pq", "sq", "dq")
            }
        figures["pq_class_mean"] = _mean([q.pq for q in total[1:]])
        shared, union = (sum(int(m.jaccard[i]) for m in measured) for i in (0, 1))
        both, truth, found = (sum(int(m.foreground[i]) for m in measured) for i in (0, 1, 2))
        figures["aji"] = shared / union if union else float("nan")
        figures["dice"] = 2 * both / (truth + found) if truth + found else float("nan")
        own = [_pooled([m], len(classes) + 1)[0] for m in measured]
        for name in ("pq", "sq", "dq"):
            figures[f"{name}_image_mean"] = _mean([getattr(q, name) for q in own])
        figures["aji_image_mean"] = _mean(
            [m.jaccard[0] / m.jaccard[1] if m.jaccard[1] else float("nan") for m in measured]
        )
        return figures

    def summarise(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures: those above, ``ap50`` and ``ap50_95`` of masks, and count agreement over
        slides."""
        figures = self.additive(measured, classes=classes)
        if not measured:
            return figures
        score, class_id, hits = (
            np.concatenate([getattr(m, name) for m in measured])
            for name in ("score", "class_id", "hits")
        )
        drawn = np.sum([m.drawn for m in measured], axis=0)
        figures |= ranked_figures(score, class_id, hits, drawn, classes=classes)
        planted, found = (
            np.stack([getattr(m, side) for m in measured]) for side in ("planted", "found")
        )
        return figures | count_figures(planted, found, classes=classes)

    def confusion(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Objects of each class matched with one of each class, missed, or found where none is (IoU
        of masks > 0.5)."""
        matrix = np.zeros((len(classes) + 1,) * 2, np.int64)
        for m in measured:
            matrix += m.confusion
        return Confusion(matrix, (*classes, NOTHING), (*classes, MISSED), "objects")

    def curves(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Of each class at an IoU of masks of 0.5."""
        if not measured:
            return ()
        score, class_id, hits = (
            np.concatenate([getattr(m, name) for m in measured])
            for name in ("score", "class_id", "hits")
        )
        drawn = np.sum([m.drawn for m in measured], axis=0)
        return ranked_curves(score, class_id, hits, drawn, classes=classes)


def _mask_hits(
    overlaps: Overlaps, truth_class: Ids, found_class: Ids, score: npt.NDArray[np.float32]
) -> Hits:
    """Hits within classes of every row of the object table, by the IoU of masks."""
    row = overlaps.found_ids[overlaps.pair_found] - 1
    same = truth_class[overlaps.pair_truth] == found_class[row]
    return scored_hits(
        overlaps.pair_truth[same],
        row[same],
        overlaps.iou[same],
        score,
        n_truth=len(overlaps.truth_ids),
    )


def _pooled(measured: Sequence[InstanceMeasured], rows: int) -> list[Quality]:
    """Quality from the slides' sums: of all objects, then of each class."""
    sums = [
        np.sum([getattr(m, name) for m in measured], axis=0) if measured else np.zeros(rows)
        for name in ("matched", "missed", "extra", "iou_sum")
    ]
    return [Quality(int(a), int(b), int(c), float(d)) for a, b, c, d in zip(*sums, strict=True)]


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN where none is."""
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


METRICS: Metrics[InstanceMeasured] = InstanceMetrics()
