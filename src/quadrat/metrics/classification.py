"""Figures of classification from class indices and scores.

Balanced accuracy: Brodersen et al., ICPR 2010. AUROC by ranks: Hanley and McNeil, Radiology 143(1),
1982.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from quadrat.annotations import SlideTruth
from quadrat.core.geometry import Box
from quadrat.metrics.protocol import AS_USUAL, Answer, Confusion, Curve, Judging, Metrics, need
from quadrat.metrics.ranking import precision_recall
from quadrat.metrics.semantic import Counts, confusion

__all__ = ["METRICS", "auroc", "balanced_accuracy", "confusion", "recalls"]
F64 = npt.NDArray[np.float64]


def recalls(matrix: Counts) -> npt.NDArray[np.float64]:
    """Share of each true class (row) that was found as such; NaN for a class that
    does not occur.
    """
    planted = matrix.sum(axis=1)
    share: npt.NDArray[np.float64] = np.divide(
        np.diag(matrix), planted, out=np.full(len(matrix), np.nan), where=planted > 0
    )
    return share


def balanced_accuracy(matrix: Counts) -> float:
    """Mean recall of the classes that occur in truth; NaN where none does."""
    found = recalls(matrix)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN unless both occur.
    Both (n,)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def macro_auroc(truth: npt.NDArray[np.integer], probability: F64) -> tuple[float, F64]:
    """AUROC of each class against the rest (classes,), NaN where not defined, and the mean of the
    defined ones.

    truth: (n,) class indices; probability: (n, classes).
    """
    one = np.array([auroc(truth == k, probability[:, k]) for k in range(probability.shape[1])])
    known = one[~np.isnan(one)]
    return (float(known.mean()) if len(known) else float("nan")), one


@dataclass(frozen=True, slots=True)
class ClassificationMeasured:
    """One slide: its label (-1 none) and mean probabilities (classes,); the truth (m,) int64 and
    the probabilities (m, classes) float32 of its judged tiles."""

    label: int
    probability: F64
    tile_truth: npt.NDArray[np.int64]
    tile_probability: npt.NDArray[np.float32]


class ClassificationMetrics:
    """Balanced accuracy, AUROC (one against the rest, macro) and accuracy: of slides, and of tiles
    where regions are drawn."""

    main = "balanced_accuracy"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        how: Judging = AS_USUAL,
    ) -> ClassificationMeasured:
        """One slide; a slide without tiles has probabilities of 0. See
        :class:`quadrat.metrics.protocol.Metrics`.

        A tile's truth is the class that covers most of it (of equals the first), if more than
        ``how.tile_share`` of the tile's part on the slide (and inside the bounds) is annotated with
        any class.
        """
        tiles = need(answer.tiles, "tile scores")
        whole = tiles.probability.astype(np.float64)
        row_sum = whole.sum(axis=1, keepdims=True)
        rows = np.divide(whole, row_sum, out=np.zeros_like(whole), where=row_sum > 0)
        total = whole.sum(axis=0)
        mean = total / total.sum() if total.sum() > 0 else np.zeros(len(classes))
        truth = np.full(len(rows), -1, np.int64)
        if expected.regions is not None and answer.core > 0:
            truth = np.array(
                [_tile_truth(cell, answer, expected, how) for cell in tiles.cell.tolist()], np.int64
            ).reshape(-1)
        judged = truth >= 0
        return ClassificationMeasured(
            expected.label, mean, truth[judged], rows[judged].astype(np.float32)
        )

    def additive(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``balanced_accuracy`` (of slides where any has a label, else of tiles), recall of each
        class, accuracy, AUROC."""
        truth, probability, unit = judged_units(measured)
        figures = _figures(truth, probability, classes)
        return figures | {
            f"{unit}_balanced_accuracy": figures["balanced_accuracy"],
            f"judged_{unit}s": float(len(truth)),
        }

    def summarise(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures; those of tiles are ``tile_...`` where slides have labels and regions are
        drawn as well."""
        figures = self.additive(measured, classes=classes)
        truth, probability = tile_units(measured)
        if len(truth) and "judged_tiles" not in figures:
            of_tiles = _figures(truth, probability, classes)
            figures |= {f"tile_{name}": value for name, value in of_tiles.items()} | {
                "judged_tiles": float(len(truth))
            }
        return figures

    def confusion(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Slides (or tiles, as for the main figure) of each class taken for each class."""
        truth, probability, unit = judged_units(measured)
        return Confusion(
            unit_confusion(truth, probability, len(classes)),
            tuple(classes),
            tuple(classes),
            f"{unit}s",
        )

    def curves(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Precision and recall of each class against the rest, by its probability."""
        truth, probability, _ = judged_units(measured)
        curves = []
        for k, name in enumerate(classes):
            hit = truth == k
            if hit.any():
                curves.append(
                    Curve(name, *precision_recall(probability[:, k], hit, planted=int(hit.sum())))
                )
        return tuple(curves)


def judged_units(
    measured: Sequence[ClassificationMeasured],
) -> tuple[npt.NDArray[np.int64], F64, str]:
    """Truth (n,), probabilities (n, classes) and "slide" or "tile": what the main figure is taken
    over."""
    labelled = [m for m in measured if m.label >= 0]
    if labelled:
        return (
            np.array([m.label for m in labelled], np.int64),
            np.stack([m.probability for m in labelled]),
            "slide",
        )
    return *tile_units(measured), "tile"


def tile_units(measured: Sequence[ClassificationMeasured]) -> tuple[npt.NDArray[np.int64], F64]:
    """Truth (n,) and probabilities (n, classes) of the judged tiles of all slides."""
    if not measured:
        return np.zeros(0, np.int64), np.zeros((0, 0))
    return (
        np.concatenate([m.tile_truth for m in measured]),
        np.concatenate([m.tile_probability for m in measured]).astype(np.float64),
    )


def unit_confusion(truth: npt.NDArray[np.int64], probability: F64, n_classes: int) -> Counts:
    """Confusion of truth (n,) and the most probable class (of equals the first), int64 (classes,
    classes)."""
    found = np.argmax(probability, axis=1) if len(truth) else truth
    return confusion(truth, found, n_values=n_classes)


def _figures(
    truth: npt.NDArray[np.int64], probability: F64, classes: Sequence[str]
) -> dict[str, float]:
    matrix = unit_confusion(truth, probability, len(classes))
    mean, of_class = (
        macro_auroc(truth, probability)
        if len(truth)
        else (float("nan"), np.full(len(classes), np.nan))
    )
    total = int(matrix.sum())
    figures = {
        "balanced_accuracy": balanced_accuracy(matrix),
        "accuracy": float(np.trace(matrix) / total) if total else float("nan"),
        "auroc": mean,
    }
    figures |= {
        f"recall.{name}": float(v) for name, v in zip(classes, recalls(matrix), strict=True)
    }
    return figures | {f"auroc.{name}": float(v) for name, v in zip(classes, of_class, strict=True)}


def _tile_truth(cell: Sequence[int], answer: Answer, expected: SlideTruth, how: Judging) -> int:
    """Class of one tile by the drawn regions, -1 where too little of it is annotated."""
    row, col = cell[0] * answer.core, cell[1] * answer.core
    box = Box(row, col, row + answer.core, col + answer.core).intersect(answer.frame.box)
    assert expected.regions is not None
    regions = expected.regions.regions(box, answer.scale)
    if expected.bounds is not None:
        regions = np.where(expected.bounds.regions(box, answer.scale) > 0, regions, 0)
    cover = np.bincount(regions.ravel(), minlength=2)
    enough = cover[1:].sum() > how.tile_share * cover.sum()
    return int(np.argmax(cover[1:])) if enough else -1


METRICS: Metrics[ClassificationMeasured] = ClassificationMetrics()
