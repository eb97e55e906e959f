"""Semantic segmentation: which class has each pixel, and the connected regions of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.predictions import Array, Arrays, Prediction
from quadrat.metrics.semantic import METRICS
from quadrat.models.task import (
    Crop,
    FirstIds,
    LabelImage,
    ModelSpec,
    Parts,
    SlideView,
    Stitched,
    Task,
    TruthWindow,
)
from quadrat.models.unet import UNet
from quadrat.stitching.maps import argmax_classes, crop_core, quantise
from quadrat.stitching.regions import region_part, region_parts
from quadrat.store.predictions import MapStorage, MapStore

UNKNOWN = -1
"""Target of a pixel of which nothing is known."""


Maps = SlideView[MapStore]


def stitch(view: Maps, shard: ShardIndex) -> Arrays:
    """What one shard knows of its regions."""
    box = view.spec.lattice.shard_box(shard).intersect(view.frame.box)
    around = box.pad(1)
    inside = around.intersect(view.frame.box)
    maps = view.predictions.read(inside)
    classes = np.zeros(around.shape, np.uint8)
    classes[inside.slices_in(around)] = class_map(view, inside, maps)
    score = maps[(slice(None), *box.slices_in(inside))].max(axis=0)
    return region_part(classes, score, origin=(box.row0, box.col0))


def paint(view: Maps, shard: ShardIndex, first_id: FirstIds) -> Array:
    """The class map itself (0 = background, class + 1); regions under the least area stay in it."""
    box = view.spec.lattice.shard_box(shard).intersect(view.frame.box)
    return class_map(view, box, view.predictions.read(box))


def class_map(view: Maps, box: Box, maps: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Classes uint8 (h, w) of the maps of a box; what the user's regions exclude is background."""
    rows, cols = np.arange(box.row0, box.row1), np.arange(box.col0, box.col1)
    return np.where(view.allows(rows[:, None], cols[None, :]), argmax_classes(maps), np.uint8(0))


class SemanticTask(Task):
    """Maps are uint8 (1 + classes, h, w): probabilities of background, then of each class; argmax
    decides."""

    name = "semantic"
    default_thresholds: Mapping[str, float] = {"min_area_um2": 400.0}
    learns_from_partial = True
    metrics = METRICS
    parts = Parts(stitch)
    label_image = LabelImage(name="classes", dtype="uint8", reduce="mode", paint=paint)

    def storage(self, spec: ModelSpec) -> MapStorage:
        return MapStorage(1 + len(spec.classes))

    def build(self, spec: ModelSpec) -> nn.Module:
        return UNet(spec.widths, outputs=1 + len(spec.classes), out_stride=1, encoder=spec.encoder)

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        return Crop(
            shape=truth.regions.shape, maps={"classes": truth.regions, "known": truth.known}
        )

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        return {
            "classes": np.where(crop.maps["known"], crop.maps["classes"].astype(np.int64), UNKNOWN)
        }

    def loss(
        self, output: Tensor, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        wanted = targets["classes"]
        known = wanted != UNKNOWN
        entropies = functional.cross_entropy(output, wanted, ignore_index=UNKNOWN, reduction="sum")
        cross_entropy = entropies / known.sum().clamp(min=1)
        probability = torch.softmax(output, dim=1) * known[:, None]
        truth = (
            functional.one_hot(wanted.clamp(min=0), output.shape[1]).movedim(-1, 1).to(output.dtype)
            * known[:, None]
        )
        overlap = (probability * truth).sum(dim=(0, 2, 3))
        dice = (2 * overlap + 1) / ((probability + truth).sum(dim=(0, 2, 3)) + 1)
        terms = {"cross_entropy": cross_entropy, "dice": 1 - dice.mean()}
        return terms | {"loss": terms["cross_entropy"] + terms["dice"]}

    def answer(self, output: Tensor, spec: ModelSpec) -> Tensor:
        return crop_core(quantise(torch.softmax(output, dim=1)), halo=spec.lattice.halo)

    def decode(
        self, answer: Tensor, cells: Sequence[CoreIndex], spec: ModelSpec
    ) -> list[Prediction]:
        return list(answer.numpy())

    def merge(self, view: Maps) -> Stitched:
        least = view.spec.thresholds["min_area_um2"] / view.frame.mpp**2
        shard_px = view.spec.lattice.shard
        return Stitched(
            objects=region_parts(view.shards, view.part, shard_px=shard_px, min_area_px=least),
            object_type="annotation",
        )


TASK = SemanticTask()
