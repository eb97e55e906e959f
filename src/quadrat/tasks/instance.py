"""Instance segmentation from dense maps: each object's own outline, one owner each.

The network gives foreground, inner distance (0 at the border, 1 at the object's innermost pixel;
the distance of Bai & Urtasun 2017, scaled per object) and class. Objects come from the *stitched*
maps by seeds and watershed, never from a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.outlines import boundary_edges, link_edges
from quadrat.core.predictions import Array, Arrays, Prediction
from quadrat.core.runs import paint
from quadrat.metrics.instance import METRICS
from quadrat.models.task import (
    Crop,
    FirstIds,
    LabelImage,
    ModelSpec,
    Parts,
    SlideView,
    Stitched,
    Task,
    ThresholdGrid,
    TruthWindow,
)
from quadrat.models.unet import UNet
from quadrat.stitching.features import measure_runs
from quadrat.stitching.maps import crop_core, quantise
from quadrat.stitching.ownership import FIRST_MARGIN, Decoded, SeedRule, decode_shard
from quadrat.stitching.parts import load_runs, load_table, object_part
from quadrat.store.predictions import MapStorage, MapStore

FOREGROUND, DISTANCE, FIRST_CLASS = 0, 1, 2
DISTANCE_WEIGHT = 4.0
CONTACT_WEIGHT, CONTACT_PX = 4.0, 5


Maps = SlideView[MapStore]


def stitch(view: Maps, shard: ShardIndex) -> Arrays:
    """The objects that one shard owns, from the stitched maps."""
    spec, frame = view.spec, view.frame
    decoded = decode_shard(
        view.predictions.read,
        spec.lattice.shard_box(shard),
        slide=frame.box,
        rule=SeedRule(
            foreground=round(spec.thresholds["foreground"] * 255),
            seed=round(spec.thresholds["seed"] * 255),
            min_area_px=max(1, round(spec.thresholds["min_area_um2"] / frame.mpp**2)),
            cap_px=round(spec.thresholds["cap_um"] / frame.mpp),
        ),
    )
    decoded = decoded.only(view.allows(*decoded.anchors.T))
    n = len(decoded.anchors)
    edges = boundary_edges(
        decoded.padded, origin=(decoded.box.row0, decoded.box.col0), runs=decoded.runs
    )
    return object_part(
        table=objects_of(decoded), polygons=link_edges(edges, n=n), runs=decoded.runs
    )


def paint_shard(view: Maps, shard: ShardIndex, first_id: FirstIds) -> Array:
    """Gather the runs that touch the shard from every shard with objects that can reach it; later
    ids lie on top."""
    lattice = view.spec.lattice
    box = lattice.shard_box(shard).intersect(view.frame.box)
    out = np.zeros(box.shape, np.uint32)
    for other in lattice.shards(box.pad(reach_px(view)).intersect(view.frame.box)):
        if other not in first_id:
            continue
        part = view.part(other)
        row0, col0, row1, col1 = part["extent"]
        if row0 >= box.row1 or row1 <= box.row0 or col0 >= box.col1 or col1 <= box.col0:
            continue
        first = first_id[other]
        ids = np.arange(first, first + len(part["class_id"]), dtype=np.uint32)
        paint(load_runs(part), ids, box, np.uint32, onto=out)
    return out


class InstanceTask(Task):
    """See the module's text; maps are uint8 (2 + classes, h, w): foreground, inner distance, class
    probabilities."""

    name = "instance"
    default_thresholds: Mapping[str, float] = {
        "foreground": 0.5,
        "seed": 0.5,
        "min_area_um2": 8.0,
        "cap_um": 1000.0,
    }
    learns_from_partial = True
    metrics = METRICS
    parts = Parts(stitch)
    label_image = LabelImage(name="objects", dtype="uint32", reduce="nearest", paint=paint_shard)
    threshold_grid = ThresholdGrid({"foreground": (0.5, 0.4, 0.6), "seed": (0.5, 0.4, 0.6, 0.7)})

    def storage(self, spec: ModelSpec) -> MapStorage:
        return MapStorage(FIRST_CLASS + len(spec.classes))

    def build(self, spec: ModelSpec) -> nn.Module:
        return UNet(
            spec.widths,
            outputs=FIRST_CLASS + len(spec.classes),
            out_stride=1,
            encoder=spec.encoder,
        )

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        classes = np.concatenate([[0], truth.label_class + 1]).astype(np.uint8)[truth.labels]
        maps: Arrays = {
            "distance": inner_distance(truth.labels),
            "classes": classes,
            "known": truth.known,
        }
        maps["contact"] = contact(truth.labels)
        return Crop(shape=truth.labels.shape, maps=maps)

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        return {
            "distance": crop.maps["distance"].astype(np.float32) / 255,
            "classes": crop.maps["classes"].astype(np.int64),
            "known": crop.maps["known"].astype(np.float32),
            "contact": crop.maps["contact"].astype(np.float32),
        }

    def loss(
        self, output: Tensor, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        known = targets["known"]
        area = known.sum().clamp(min=1)
        inside = (targets["classes"] > 0).to(output.dtype) * known
        stress = 1 + CONTACT_WEIGHT * targets["contact"]
        fg = output[:, FOREGROUND]
        probability = torch.sigmoid(fg) * known
        dice = 1 - (2 * (probability * inside).sum() + 1) / (probability.sum() + inside.sum() + 1)
        entropy = (
            functional.binary_cross_entropy_with_logits(fg, inside, weight=known, reduction="sum")
            / area
        )
        terms = {"foreground": entropy + dice}
        error = (torch.sigmoid(output[:, DISTANCE]) - targets["distance"]).abs()
        terms["distance"] = DISTANCE_WEIGHT * (error * (0.3 + inside) * known * stress).sum() / area
        if len(spec.classes) > 1:
            # class 0 of the target is background: ignored, the foreground map answers for it
            wanted = torch.where(known > 0, targets["classes"], 0) - 1
            terms["class"] = functional.cross_entropy(
                output[:, FIRST_CLASS:], wanted, ignore_index=-1
            )
            terms["class"] = torch.nan_to_num(terms["class"])
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms

    def answer(self, output: Tensor, spec: ModelSpec) -> Tensor:
        values = torch.cat(
            [torch.sigmoid(output[:, :FIRST_CLASS]), torch.softmax(output[:, FIRST_CLASS:], dim=1)],
            dim=1,
        )
        return crop_core(quantise(values), halo=spec.lattice.halo)

    def decode(
        self, answer: Tensor, cells: Sequence[CoreIndex], spec: ModelSpec
    ) -> list[Prediction]:
        return list(answer.numpy())

    def merge(self, view: Maps) -> Stitched:
        return Stitched(objects=[partial(part_of, view, shard) for shard in view.shards])


def contact(labels: Array) -> Array:
    """bool (h, w): pixels of an object from which another one is at most ``CONTACT_PX // 2`` px
    away.

    There objects are separated, so errors weigh more (the idea of the weight map of Ronneberger et
    al. 2015).
    """
    other = ndimage.minimum_filter(
        np.where(labels > 0, labels, np.iinfo(labels.dtype).max), CONTACT_PX
    )
    nearest = ndimage.maximum_filter(labels, CONTACT_PX)
    touching: Array = (labels > 0) & (other < nearest)
    return touching


def inner_distance(labels: Array) -> Array:
    """int32 (h, w) labels to uint8 (h, w): distance to the object's border over the object's
    largest, 255 = innermost.

    Pixels next to another label count as border, so that touching objects are separated.
    """
    inner = labels > 0
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        low = [slice(None)] * 2
        high = [slice(None)] * 2
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        inner[tuple(low)] &= ~differs
        inner[tuple(high)] &= ~differs
    distance = np.where(labels > 0, ndimage.distance_transform_edt(inner) + 1, 0)
    largest = np.zeros(int(labels.max(initial=0)) + 1)
    np.maximum.at(largest, labels.ravel(), distance.ravel())
    return np.floor(distance / np.maximum(largest, 1)[labels] * 255 + 0.5).astype(np.uint8)


def part_of(view: Maps, shard: ShardIndex) -> tuple[ObjectTable, Polygons]:
    """The objects of one shard with their outlines."""
    return load_table(view.part(shard))


def reach_px(view: Maps) -> int:
    """How far beyond its own shard an object can lie: the greatest margin of a block."""
    return max(FIRST_MARGIN, round(view.spec.thresholds["cap_um"] / view.frame.mpp))


def objects_of(decoded: Decoded) -> ObjectTable:
    """The table of a decoded shard: class by the sum of quantised probabilities, score = mean
    foreground, in integers."""
    origin = (decoded.box.row0, decoded.box.col0)
    measured, sums = measure_runs(
        decoded.padded, decoded.maps, decoded.runs, n=len(decoded.anchors), origin=origin
    )
    return measured.table(
        class_id=np.argmax(sums[FIRST_CLASS:], axis=0).astype(np.uint8),
        score=(sums[FOREGROUND] / np.maximum(measured.area_px, 1) / 255).astype(np.float32),
        anchor=decoded.anchors,
        flags=decoded.flags,
    )


TASK = InstanceTask()
