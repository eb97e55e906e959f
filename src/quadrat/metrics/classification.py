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

from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box
from quadrat.metrics.protocol import (
    DEFAULT_SETTINGS,
    Answer,
    Confusion,
    Curve,
    Metrics,
    MetricSettings,
    required,
)
from quadrat.metrics.ranking import precision_recall
from quadrat.metrics.ratios import F64, Ids, mean_defined, ratio, ratios
from quadrat.metrics.semantic import Counts, confusion


def recalls(matrix: Counts) -> F64:
    """Share of each true class (row) that was found as such, (classes,); NaN for a class that does
    not occur."""
    return ratios(np.diag(matrix), matrix.sum(axis=1))


def auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN unless both occur.
    Both (n,)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


@dataclass(frozen=True, slots=True)
class ClassificationMeasured:
    """One slide and its tiles, compared with the truth."""

    label: int
    """The true class of the slide; -1: none."""
    probability: F64
    """(classes,) mean over the tiles, sum 1; 0 for a slide without tiles."""
    tile_truth: Ids
    """(m,) true class of each evaluated tile."""
    tile_probability: npt.NDArray[np.float32]
    """(m, classes) of the same tiles."""


@dataclass(frozen=True, slots=True)
class _Units:
    """What the figures are taken over: slides or tiles."""

    name: str
    """"slide" or "tile"."""
    truth: Ids
    """(n,) class."""
    probability: F64
    """(n, classes)."""


class ClassificationMetrics:
    """Balanced accuracy, AUROC (one class against the rest, mean of all) and accuracy: of slides,
    and of tiles where regions are drawn."""

    main = "balanced_accuracy"

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        settings: MetricSettings = DEFAULT_SETTINGS,
    ) -> ClassificationMeasured:
        """One slide. See :class:`quadrat.metrics.protocol.Metrics`.

        The truth of a tile is the class that covers most of it (of equals the first), if more than
        ``settings.tile_share`` of the tile's part on the slide (and inside the bounds) is annotated
        with any class. Other tiles are not evaluated.
        """
        tiles = required(answer.tiles, "tile scores")
        whole = tiles.probability.astype(np.float64)
        row_sum = whole.sum(axis=1, keepdims=True)
        rows = np.divide(whole, row_sum, out=np.zeros_like(whole), where=row_sum > 0)
        total = whole.sum(axis=0)
        mean = total / total.sum() if total.sum() > 0 else np.zeros(len(classes))
        truth = np.full(len(rows), -1, np.int64)
        if expected.regions is not None and answer.core > 0:
            truth = np.array(
                [_tile_truth(cell, answer, expected, settings) for cell in tiles.cell.tolist()],
                np.int64,
            ).reshape(-1)
        known = truth >= 0
        return ClassificationMeasured(
            expected.label, mean, truth[known], rows[known].astype(np.float32)
        )

    def additive(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``balanced_accuracy``, accuracy, recall and AUROC of slides if any has a label, else of
        tiles. Where there are slides with labels and tiles with a truth, the figures of tiles are
        ``tile_...``."""
        main, tiles = _main_units(measured), _tile_units(measured)
        figures = _figures(main, classes)
        figures[f"{main.name}_balanced_accuracy"] = figures["balanced_accuracy"]
        if len(tiles.truth) and main.name != tiles.name:
            figures |= {f"tile_{name}": v for name, v in _figures(tiles, classes).items()}
        return figures

    def sizes(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """``evaluated_slides`` and ``evaluated_tiles``: how many of them the figures are of."""
        main, tiles = _main_units(measured), _tile_units(measured)
        sizes = {f"evaluated_{main.name}s": float(len(main.truth))}
        return sizes | ({"evaluated_tiles": float(len(tiles.truth))} if len(tiles.truth) else {})

    def summarise(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> dict[str, float]:
        """All figures."""
        return self.additive(measured, classes=classes) | self.sizes(measured, classes=classes)

    def confusion(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> Confusion:
        """Slides (or tiles, as for the main figure) of each class that were found as each class."""
        units = _main_units(measured)
        names = tuple(classes)
        return Confusion(_confusion(units, len(names)), names, names, f"{units.name}s")

    def curves(
        self, measured: Sequence[ClassificationMeasured], *, classes: Sequence[str]
    ) -> tuple[Curve, ...]:
        """Precision and recall of each class against the rest, by its probability."""
        units = _main_units(measured)
        curves = []
        for k, name in enumerate(classes):
            hit = units.truth == k
            if hit.any():
                score = units.probability[:, k]
                curves.append(Curve(name, *precision_recall(score, hit, planted=int(hit.sum()))))
        return tuple(curves)


def _main_units(measured: Sequence[ClassificationMeasured]) -> _Units:
    """What the main figure is taken over: slides with a label if there are any, else tiles."""
    labelled = [m for m in measured if m.label >= 0]
    if not labelled:
        return _tile_units(measured)
    truth = np.array([m.label for m in labelled], np.int64)
    return _Units("slide", truth, np.stack([m.probability for m in labelled]))


def _tile_units(measured: Sequence[ClassificationMeasured]) -> _Units:
    """The evaluated tiles of all slides."""
    if not measured:
        return _Units("tile", np.zeros(0, np.int64), np.zeros((0, 0)))
    return _Units(
        "tile",
        np.concatenate([m.tile_truth for m in measured]),
        np.concatenate([m.tile_probability for m in measured]).astype(np.float64),
    )


def _confusion(units: _Units, n_classes: int) -> Counts:
    """Confusion of the truth and the most probable class (of equals the first), int64 (classes,
    classes)."""
    found = np.argmax(units.probability, axis=1) if len(units.truth) else units.truth
    return confusion(units.truth, found, n_values=n_classes)


def _figures(units: _Units, classes: Sequence[str]) -> dict[str, float]:
    matrix = _confusion(units, len(classes))
    recall = recalls(matrix)
    area = [
        auroc(units.truth == k, units.probability[:, k]) if len(units.truth) else float("nan")
        for k in range(len(classes))
    ]
    figures = {
        "balanced_accuracy": mean_defined(recall),
        "accuracy": ratio(float(np.trace(matrix)), float(matrix.sum())),
        "auroc": mean_defined(area),
    }
    figures |= {f"recall.{name}": float(v) for name, v in zip(classes, recall, strict=True)}
    return figures | {f"auroc.{name}": v for name, v in zip(classes, area, strict=True)}


def _tile_truth(
    cell: Sequence[int], answer: Answer, expected: SlideTruth, settings: MetricSettings
) -> int:
    """Class of one tile by the drawn regions, -1 where too little of it is annotated."""
    row, col = cell[0] * answer.core, cell[1] * answer.core
    box = Box(row, col, row + answer.core, col + answer.core).intersect(answer.frame.box)
    assert expected.regions is not None
    regions = expected.regions.regions(box, answer.scale)
    if expected.bounds is not None:
        regions = np.where(expected.bounds.regions(box, answer.scale) > 0, regions, 0)
    cover = np.bincount(regions.ravel(), minlength=2)
    enough = cover[1:].sum() > settings.tile_share * cover.sum()
    return int(np.argmax(cover[1:])) if enough else -1


METRICS: Metrics[ClassificationMeasured] = ClassificationMetrics()
