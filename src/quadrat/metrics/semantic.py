"""Agreement of two class maps, from a confusion matrix that is summed block by block.

Dice: L. R. Dice, Ecology 26(3), 1945. IoU: P. Jaccard, 1912. Pixels of all slides are summed first,
then the ratio is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth
from quadrat.core.errors import AnnotationError
from quadrat.metrics.protocol import (
    DEFAULT_SETTINGS,
    Answer,
    Confusion,
    Curve,
    Metrics,
    MetricSettings,
    blocks,
    required,
)
from quadrat.metrics.ratios import F64, mean_defined, ratio, ratios, summed

Counts = npt.NDArray[np.int64]
BACKGROUND = "background"


def confusion(
    truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer], *, n_values: int
) -> Counts:
    """Pixels of each pair of values: int64 (n_values, n_values), truth by row, found by column.
    Matrices may be added.

    Raises:
        ValueError: the shapes differ, or a value is outside 0..n_values - 1.
    """
    if truth.shape != found.shape:
        raise ValueError(f"maps of shapes {truth.shape} and {found.shape} cannot be compared")
    for name, values in (("truth", truth), ("found", found)):
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < n_values:
            raise ValueError(
                f"{name} holds values {values.min()}..{values.max()}, want 0..{n_values - 1}"
            )
    code = truth.astype(np.intp).ravel() * n_values + found.ravel()
    return np.bincount(code, minlength=n_values**2).reshape(n_values, n_values).astype(np.int64)


def dice(matrix: Counts) -> F64:
    """Dice of each value, float64 (n_values,); NaN where it is neither in truth nor in result."""
    return ratios(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def iou(matrix: Counts) -> F64:
    """IoU of each value, float64 (n_values,); NaN where it is neither in truth nor in result."""
    shared = np.diag(matrix)
    return ratios(shared, matrix.sum(axis=0) + matrix.sum(axis=1) - shared)


@dataclass(frozen=True, slots=True)
class SemanticMeasured:
    """One slide: how its pixels agree."""

    matrix: Counts
    """Pixels, int64 (1 + classes, 1 + classes): truth by row, found by column, 0 = background."""
    px_mm2: float
    """Area of a pixel, mm2."""


class SemanticMetrics:
    """Dice and IoU of the background and of each class, over the evaluated pixels of all slides.

    Evaluated pixels lie inside the bounds. Without bounds they are all pixels of a slide that is
    annotated completely, and else only the annotated pixels.
    """

    main = "dice"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        settings: MetricSettings = DEFAULT_SETTINGS,
    ) -> SemanticMeasured:
        """One slide, block by block. See :class:`quadrat.metrics.protocol.Metrics`."""
        labels, regions = required(answer.labels, "class map"), expected.regions
        if regions is None:
            raise AnnotationError("the truth holds no regions, which a class map is compared with")
        matrix = np.zeros((len(classes) + 1,) * 2, np.int64)
        for box in blocks(answer.frame.box, settings.block):
            truth = regions.regions(box, answer.scale)
            if expected.bounds is not None:
                evaluated = expected.bounds.regions(box, answer.scale) > 0
            else:
                evaluated = np.ones(truth.shape, np.bool_) if expected.complete else truth > 0
            matrix += confusion(truth[evaluated], labels(box)[evaluated], n_values=len(matrix))
        return SemanticMeasured(matrix, (answer.frame.mpp / 1000) ** 2)

    def additive(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``dice`` and ``iou``: means over the values (background and classes) that occur in the
        truth; then of each value."""
        matrix = _pooled(measured, classes)
        names, occurs = (BACKGROUND, *classes), matrix.sum(axis=1) > 0
        figures: dict[str, float] = {}
        for figure, values in (("dice", dice(matrix)), ("iou", iou(matrix))):
            figures[figure] = mean_defined(values[occurs])
            figures |= {f"{figure}.{name}": float(v) for name, v in zip(names, values, strict=True)}
        return figures | {"pixel_accuracy": ratio(float(np.trace(matrix)), float(matrix.sum()))}

    def sizes(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``evaluated_px``: pixels that were compared. ``annotated_mm2`` and ``found_mm2``: area
        among them of all classes together, and of each class."""
        sizes = {"evaluated_px": float(_pooled(measured, classes).sum())}
        for name, axis in (("annotated_mm2", 1), ("found_mm2", 0)):
            area = np.zeros(len(classes))
            for one in measured:
                area += one.matrix.sum(axis=axis)[1:] * one.px_mm2
            sizes[name] = float(area.sum())
            sizes |= {f"{name}.{of}": float(a) for of, a in zip(classes, area, strict=True)}
        return sizes

    def summarise(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures."""
        return self.additive(measured, classes=classes) | self.sizes(measured, classes=classes)

    def confusion(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Pixels of each truth that were found as each value."""
        names = (BACKGROUND, *classes)
        return Confusion(_pooled(measured, classes), names, names, "pixels")

    def curves(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """None: a class map has no scores."""
        return ()


def _pooled(measured: Sequence[SemanticMeasured], classes: Sequence[str]) -> Counts:
    return summed(measured, "matrix", (len(classes) + 1,) * 2)


METRICS: Metrics[SemanticMeasured] = SemanticMetrics()
