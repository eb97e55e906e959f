"""How well objects were delineated on slides: the METRICS of instance segmentation, from label
images block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth
from quadrat.core.errors import AnnotationError, QuadratError
from quadrat.metrics.counts import count_sizes
from quadrat.metrics.matching import Pairs, class_confusion, object_confusion
from quadrat.metrics.overlaps import (
    Overlaps,
    Quality,
    jaccard_sums,
    panoptic_quality,
    panoptic_quality_by_class,
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
from quadrat.metrics.ranking import Hits, Ranked, ranked_curves, ranked_figures, scored_hits
from quadrat.metrics.ratios import F64, Ids, mean_defined, ratio, summed
from quadrat.metrics.truth_blocks import slide_overlaps


@dataclass(frozen=True, slots=True)
class InstanceMeasured:
    """The label image of one slide, compared with the truth.

    The arrays of panoptic quality are (1 + classes,): first all objects taken as one class, then
    each class.
    """

    matched: Ids
    """(1 + classes,) matched pairs."""
    missed: Ids
    """(1 + classes,) true objects without a match."""
    extra: Ids
    """(1 + classes,) found objects without a match."""
    iou_sum: F64
    """(1 + classes,) sum of the IoU of the matched pairs."""
    jaccard: Ids
    """(2,) px: intersection and union of AJI."""
    foreground: Ids
    """(3,) px: in both, in the truth, in the result."""
    planted: Ids
    """(classes,) true objects."""
    found: Ids
    """(classes,) rows of the object table."""
    drawn: Ids
    """(classes,) true objects that cover a pixel."""
    confusion: Ids
    """Masks matched at IoU > 0.5, of any classes; see
    :func:`quadrat.metrics.matching.class_confusion`."""
    ranked: Ranked
    """The rows of the object table, for average precision of masks."""


class InstanceMetrics:
    """PQ, SQ, DQ, AJI, AP of masks and Dice of the foreground; pooled over slides and as means."""

    main = "pq"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        settings: MetricSettings = DEFAULT_SETTINGS,
    ) -> InstanceMeasured:
        """One slide, block by block. With bounds, an object counts if its centroid lies inside, on
        both sides; the others are treated as background. See
        :class:`quadrat.metrics.protocol.Metrics`.

        Raises:
            QuadratError: the label image holds an id that is not in the object table.
        """
        table = required(answer.objects, "objects")
        labels, truth = required(answer.labels, "label image"), expected.objects
        if truth is None:
            raise AnnotationError(
                "the truth holds no objects, which a label image is compared with"
            )
        k, block = len(classes), settings.block
        xy, class_id = truth.points(answer.frame.box, answer.scale)
        annotated = class_id[inside_bounds(xy, expected.bounds, answer, block=block)]
        keep = inside_bounds(table.centroid[:, ::-1], expected.bounds, answer, block=block)
        counts, truth_class = slide_overlaps(
            labels, truth, answer, keep=keep, bounds=expected.bounds, block=block
        )
        overlaps = Overlaps.of(counts)
        if len(overlaps.found_ids) and int(overlaps.found_ids[-1]) > len(table):
            raise QuadratError(
                f"the label image holds the id {overlaps.found_ids[-1]}, the table {len(table)} "
                "objects"
            )
        found_class = table.class_id.astype(np.int64)
        shown_class = found_class[overlaps.found_ids - 1]
        quality = (
            panoptic_quality(overlaps),
            *panoptic_quality_by_class(overlaps, truth_class, shown_class, n_classes=k),
        )
        pairs = Pairs(overlaps.pair_truth, overlaps.pair_found, overlaps.iou)
        hits = _mask_hits(overlaps, pairs, truth_class, found_class, table.score)
        areas = overlaps.intersection, overlaps.truth_area, overlaps.found_area
        return InstanceMeasured(
            matched=np.array([q.matched for q in quality], np.int64),
            missed=np.array([q.missed for q in quality], np.int64),
            extra=np.array([q.extra for q in quality], np.int64),
            iou_sum=np.array([q.iou_sum for q in quality]),
            jaccard=np.array(jaccard_sums(overlaps), np.int64),
            foreground=np.array([area.sum() for area in areas], np.int64),
            planted=np.bincount(annotated, minlength=k).astype(np.int64),
            found=np.bincount(found_class[keep], minlength=k).astype(np.int64),
            drawn=np.bincount(truth_class, minlength=k).astype(np.int64),
            confusion=class_confusion(
                pairs.take(pairs.value > 0.5),
                truth_class=truth_class,
                found_class=shown_class,
                n_classes=k,
            ),
            ranked=Ranked(table.score[keep], table.class_id[keep], hits[keep]),
        )

    def additive(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``pq``, ``sq``, ``dq``, ``aji`` and ``dice`` from the sums over slides;
        ``..._image_mean``: the mean of the slides' own. ``.<class>`` of each class,
        ``pq_class_mean`` the mean of the classes that occur."""
        names = ("pq", "sq", "dq")
        whole, *of_class = _qualities(measured, len(classes))
        figures = {name: getattr(whole, name) for name in names}
        for of, quality in zip(classes, of_class, strict=True):
            figures |= {f"{name}.{of}": getattr(quality, name) for name in names}
        figures["pq_class_mean"] = mean_defined([q.pq for q in of_class])
        both, truth, found = summed(measured, "foreground", (3,)).tolist()
        figures["aji"] = ratio(*summed(measured, "jaccard", (2,)).tolist())
        figures["dice"] = ratio(2 * both, truth + found)
        own = [_qualities([m], len(classes))[0] for m in measured]
        for name in names:
            figures[f"{name}_image_mean"] = mean_defined([getattr(q, name) for q in own])
        figures["aji_image_mean"] = mean_defined([ratio(*m.jaccard.tolist()) for m in measured])
        return figures

    def sizes(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``count_planted`` and ``count_found``: objects, and of each class."""
        return count_sizes(measured, classes=classes)

    def summarise(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures: those of ``additive``, and ``ap50`` and ``ap50_95`` of masks."""
        figures = self.additive(measured, classes=classes)
        if not measured:
            return figures
        drawn = summed(measured, "drawn", (len(classes),))
        return figures | ranked_figures(Ranked.of_slides(measured), drawn, classes=classes)

    def confusion(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Objects of each class matched with one of each class, missed, or found where none is (IoU
        of masks > 0.5)."""
        shape = (len(classes) + 1,) * 2
        return object_confusion(summed(measured, "confusion", shape), classes)

    def curves(
        self, measured: Sequence[InstanceMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Of each class at an IoU of masks of 0.5."""
        drawn = summed(measured, "drawn", (len(classes),))
        return ranked_curves(Ranked.of_slides(measured), drawn, classes=classes)


def _mask_hits(
    overlaps: Overlaps,
    pairs: Pairs,
    truth_class: Ids,
    found_class: Ids,
    score: npt.NDArray[np.float32],
) -> Hits:
    """Hits within classes of every row of the object table, by the IoU of masks."""
    rows = Pairs(pairs.truth, overlaps.found_ids[pairs.found] - 1, pairs.value)
    return scored_hits(
        rows.of_one_class(truth_class, found_class), score, n_truth=len(overlaps.truth_ids)
    )


def _qualities(measured: Sequence[InstanceMeasured], n_classes: int) -> list[Quality]:
    """Quality from the slides' sums: of all objects, then of each class."""
    shape = (n_classes + 1,)
    counts = (summed(measured, name, shape).tolist() for name in ("matched", "missed", "extra"))
    iou_sum = np.sum([m.iou_sum for m in measured], axis=0) if measured else np.zeros(shape)
    return [Quality(*row) for row in zip(*counts, iou_sum.tolist(), strict=True)]


METRICS: Metrics[InstanceMeasured] = InstanceMetrics()
