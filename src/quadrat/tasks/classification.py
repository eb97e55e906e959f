"""Classification: what the picture shows, for each tile, flat image or slide; the slide's answer is
the mean of its tiles.

Every core gives one row (class probabilities, embedding); the slide's probabilities are the mean
over the very rows that the heatmap shows. The network pools its whole window, so it is
schedule-exact (canonical windows), not tiling-exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.core.lattice import CoreIndex
from quadrat.core.predictions import Arrays, Prediction, TileScores, quantise_score
from quadrat.metrics.classification import METRICS
from quadrat.models.task import Crop, ModelSpec, SlideView, Stitched, Task, TruthWindow
from quadrat.models.unet import TileClassifier
from quadrat.store.predictions import TableStorage, TableStore

IGNORE = -1


class ClassificationTask(Task):
    """One row per core: probability uint16 (classes,), embedding float16."""

    name = "classification"
    default_thresholds: Mapping[str, float] = {}
    learns_from_partial = True
    has_background = False
    metrics = METRICS

    def storage(self, spec: ModelSpec) -> TableStorage[TileScores]:
        return TableStorage(TileScores)

    def build(self, spec: ModelSpec) -> nn.Module:
        return TileClassifier(
            spec.widths, classes=len(spec.classes), encoder=spec.encoder, dropout=spec.dropout
        )

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        return Crop(shape=truth.regions.shape, maps={"classes": truth.regions}, label=truth.label)

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        """The crop's own label, else the class that covers most of it; -1 (ignored) where nothing
        is annotated."""
        if crop.label >= 0:
            return {"label": np.array(crop.label, np.int64)}
        cover = np.bincount(crop.maps["classes"].ravel(), minlength=len(spec.classes) + 1)[1:]
        label = int(np.argmax(cover)) if cover.any() else IGNORE
        return {"label": np.array(label, np.int64)}

    def loss(
        self, output: Tensor, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        logits = output[:, : len(spec.classes)]
        if not bool((targets["label"] != IGNORE).any()):
            return {"loss": logits.sum() * 0}
        return {"loss": functional.cross_entropy(logits, targets["label"], ignore_index=IGNORE)}

    def answer(self, output: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
        k = len(spec.classes)
        return torch.softmax(output[:, :k].double(), dim=1), output[:, k:].to(torch.float16)

    def decode(
        self, answer: tuple[Tensor, Tensor], cells: Sequence[CoreIndex], spec: ModelSpec
    ) -> list[Prediction]:
        probability, embedding = quantise_score(answer[0].numpy()), answer[1].numpy()
        return [
            TileScores(
                cell=np.array([cell], np.int32),
                probability=probability[i : i + 1],
                embedding=embedding[i : i + 1],
            )
            for i, cell in enumerate(cells)
        ]

    def merge(self, view: SlideView[TableStore[TileScores]]) -> Stitched:
        none = TileScores(
            np.zeros((0, 2), np.int32),
            np.zeros((0, len(view.spec.classes)), np.uint16),
            np.zeros((0, 0), np.float16),
        )
        rows = [view.predictions.read(shard) for shard in view.shards]
        tiles = TileScores.concatenate(rows) if rows else none
        return Stitched(tiles=tiles.take(np.lexsort((tiles.cell[:, 1], tiles.cell[:, 0]))))


TASK = ClassificationTask()
