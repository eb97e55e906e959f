"""Agreement of two class maps, from a confusion matrix that is added up block by block.

Dice: L. R. Dice, Ecology 26(3), 1945; IoU: P. Jaccard, 1912. Pooled: pixels of all blocks first,
then the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations import SlideTruth
from quadrat.core.errors import AnnotationError
from quadrat.metrics.protocol import (
    AS_USUAL,
    Answer,
    Confusion,
    Curve,
    Judging,
    Metrics,
    blocks,
    need,
)

Counts = npt.NDArray[np.int64]
BACKGROUND = "background"


def confusion(
    truth: npt.NDArray[np.integer], found: npt.NDArray[np.integer], *, n_values: int
) -> Counts:
    """Pixels of each pair of values: int64 (n_values, n_values), rows truth, columns found;
    matrices may be added.

    Raises:
        ValueError: shapes that differ, or a value outside 0..n_values - 1.
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


def dice(matrix: Counts) -> npt.NDArray[np.float64]:
    """Dice of every value, float64 (n_values,); NaN where it is neither in truth nor in result."""
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def iou(matrix: Counts) -> npt.NDArray[np.float64]:
    """Intersection over union of every value, float64 (n_values,); NaN where it is in neither."""
    shared = np.diag(matrix)
    return _ratio(shared, matrix.sum(axis=0) + matrix.sum(axis=1) - shared)


def _ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(
        part, whole, out=np.full(len(part), np.nan), where=whole > 0
    )
    return ratio


@dataclass(frozen=True, slots=True)
class SemanticMeasured:
    """Pixels of each pair of values, int64 (1 + classes, 1 + classes): rows truth, columns found, 0
    = background."""

    matrix: Counts


class SemanticMetrics:
    """Dice and IoU of the background and every class over the judged pixels of all slides, pooled.

    Judged is what lies inside the bounds; without bounds all of a completely annotated slide, else
    annotated pixels alone.
    """

    main = "dice"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        how: Judging = AS_USUAL,
    ) -> SemanticMeasured:
        """One slide, block by block. See :class:`quadrat.metrics.protocol.Metrics`."""
        labels, regions = need(answer.labels, "class map"), expected.regions
        if regions is None:
            raise AnnotationError("the truth holds no regions, which a class map is compared with")
        matrix = np.zeros((len(classes) + 1,) * 2, np.int64)
        for box in blocks(answer.frame.box, how.block):
            truth = regions.regions(box, answer.scale)
            if expected.bounds is not None:
                judged = expected.bounds.regions(box, answer.scale) > 0
            else:
                judged = np.ones(truth.shape, np.bool_) if expected.complete else truth > 0
            matrix += confusion(truth[judged], labels(box)[judged], n_values=len(matrix))
        return SemanticMeasured(matrix)

    def additive(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``dice`` and ``iou``: means over the values (background and classes) that occur in truth;
        then of each value."""
        matrix = pooled(measured, len(classes) + 1)
        names, occurs = (BACKGROUND, *classes), matrix.sum(axis=1) > 0
        figures: dict[str, float] = {}
        for figure, values in (("dice", dice(matrix)), ("iou", iou(matrix))):
            figures[figure] = float(values[occurs].mean()) if occurs.any() else float("nan")
            figures |= {f"{figure}.{name}": float(v) for name, v in zip(names, values, strict=True)}
        total = int(matrix.sum())
        return figures | {
            "pixel_accuracy": float(np.trace(matrix) / total) if total else float("nan")
        }

    def summarise(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures; ``judged_px`` says over how many pixels."""
        judged = pooled(measured, len(classes) + 1).sum()
        return self.additive(measured, classes=classes) | {"judged_px": float(judged)}

    def confusion(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Pixels of each truth taken for each value."""
        names = (BACKGROUND, *classes)
        return Confusion(pooled(measured, len(names)), names, names, "pixels")

    def curves(
        self, measured: Sequence[SemanticMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """None: a class map has no scores."""
        return ()


def pooled(measured: Sequence[SemanticMeasured], n_values: int) -> Counts:
    """The sum of all slides' matrices, (n_values, n_values)."""
    matrix: Counts = np.sum([m.matrix for m in measured], axis=0, dtype=np.int64, initial=0)
    return matrix if len(measured) else np.zeros((n_values, n_values), np.int64)


METRICS: Metrics[SemanticMeasured] = SemanticMetrics()
