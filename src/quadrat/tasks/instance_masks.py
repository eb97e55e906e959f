"""Instance segmentation by region: a box and a mask per object (Mask R-CNN, He et al. 2017), for
large or few objects.

Windows emit candidates; which of them stay is decided once per slide, on integers, by an exact
suppression; then each shard outlines its own objects. Schedule-exact: windows are canonical, and
everything in a window is a function of that window.

Inside a window there is no top-k, and proposals suppress each other only among the anchors of the
window's own core. So an object across a seam keeps a proposal on either side, and the suppression
over the slide chooses between them; two windows that see it a little differently can never each
leave it to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image, masks_to_boxes

from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.objects import FLAG_CAPPED, FLAG_OCCLUDED, ObjectTable, Polygons
from quadrat.core.predictions import (
    BOX_UNIT,
    Array,
    Arrays,
    Candidates,
    MaskCandidates,
    Prediction,
    mask_boxes,
    quantise_score,
)
from quadrat.core.runs import Runs, paint
from quadrat.metrics.instance import METRICS
from quadrat.models.found import NEAR_PX, Found
from quadrat.models.mask_rcnn import MASK_SIDE, MaskRCNN, RegionOutput
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
from quadrat.stitching.maps import quantise
from quadrat.stitching.masks import outlines, paste
from quadrat.stitching.parts import load_objects, object_part
from quadrat.stitching.suppression import suppress
from quadrat.store.predictions import MaskStorage, MaskStore

PROPOSAL_SCORE = 0.1
"""Anchors that are less likely an object become no region."""
PROPOSAL_IOU = 0.7
"""Of proposals of one core that overlap by more, the better one becomes a region."""
CANDIDATE_SCORE = 0.2
"""Regions below this score emit nothing; the working threshold lies above it."""
LEAST_TRUTH_PX = 9
"""Smaller pieces of an object at the border of a patch are not learnt from."""


Masks = SlideView[MaskStore]


def select(view: Masks) -> Arrays:
    """Candidates that become objects, in canonical order: class_id (k,), shard (k, 2), row (k,)
    among the shard's candidates, bbox (k, 4) row0, col0, row1, col1 in grid px."""
    spec, frame = view.spec, view.frame
    least = max(1, round(spec.thresholds["min_area_um2"] / frame.mpp**2))
    score = quantise_score(np.array([spec.thresholds["score"]]))[0]
    # a package from before there was a choice compares boxes
    by_mask = spec.thresholds.get("by_mask", 0.0) > 0
    rows, parts = [np.zeros(0, np.int64)], [MaskCandidates.empty()]
    for shard in view.shards:
        found = view.predictions.read(shard, pixels=by_mask)
        centre = (found.box[:, :2] + found.box[:, 2:]) / (2 * BOX_UNIT)
        keep = (found.score >= score) & (found.area >= least)
        # beyond the slide there is only fill, of which a network may make what it likes
        keep &= ((centre >= 0) & (centre < (frame.width, frame.height))).all(axis=1)
        keep &= view.allows(*found.cell.T)
        rows.append(np.flatnonzero(keep))
        parts.append(found.take(rows[-1]))
    merged = MaskCandidates.concatenate(parts)
    kept = suppress(
        merged,
        iou=spec.thresholds["iou"],
        class_aware=spec.thresholds["class_aware"] > 0,
        by_mask=by_mask,
    )
    cell = merged.cell[kept].astype(np.int64)
    shards = cell // spec.lattice.shard
    order = np.lexsort((cell[:, 1], cell[:, 0], shards[:, 1], shards[:, 0]))
    kept = kept[order]
    return {
        "class_id": merged.class_id[kept],
        "shard": shards[order],
        "row": np.concatenate(rows)[kept],
        "bbox": mask_boxes(merged.box[kept]),
    }


def stitch(view: Masks, shard: ShardIndex) -> Arrays:
    """The selected objects of one shard, each with its outline."""
    chosen = {name: view.selection()[name] for name in ("shard", "row", "bbox")}
    own = np.flatnonzero((chosen["shard"] == np.array(shard)).all(axis=1))
    table, polygons, runs = outlines(view.predictions.read(shard).take(chosen["row"][own]))
    hidden = np.zeros(len(own), bool)
    if len(own):
        extent = Box(
            *(
                int(v)
                for v in (
                    *chosen["bbox"][own, :2].min(axis=0),
                    *chosen["bbox"][own, 2:].max(axis=0),
                )
            )
        )
        hidden = ~np.isin(own + 1, _paint_later(view, chosen, shard, extent, runs, own))
    flags = table.flags | np.where(hidden, FLAG_OCCLUDED, 0).astype(np.uint8)
    return object_part(table=replace(table, flags=flags), polygons=polygons, runs=runs)


def paint_shard(view: Masks, shard: ShardIndex, first_id: FirstIds) -> Array:
    """Gather the objects that touch the shard from the shards that own them; later ids lie on
    top."""
    box = view.spec.lattice.shard_box(shard).intersect(view.frame.box)
    chosen = {name: view.selection()[name] for name in ("shard", "bbox")}
    out = np.zeros(box.shape, np.uint32)
    for other in _shards_of(chosen["shard"][_meets(chosen["bbox"], box)]):
        part = view.part(other)
        _, _, runs = load_objects(part)
        ids = np.arange(first_id[other], first_id[other] + len(part["class_id"]), dtype=np.uint32)
        out = np.maximum(out, paint(runs, ids, box, np.uint32))
    return out


class InstanceMasksTask(Task):
    """Candidates own their anchor, a pixel of the proposal's anchor cell; results are masks with a
    class and a score."""

    name = "instance_masks"
    default_thresholds: Mapping[str, float] = {
        "score": 0.5,
        "iou": 0.4,
        "class_aware": 0.0,
        "by_mask": 0.0,
        "min_area_um2": 8.0,
    }
    learns_from_partial = False
    metrics = METRICS
    parts = Parts(stitch, select)
    label_image = LabelImage(name="objects", dtype="uint32", reduce="nearest", paint=paint_shard)
    threshold_grid = ThresholdGrid(
        {"score": (0.5, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9), "iou": (0.4, 0.3, 0.5)}
    )

    def storage(self, spec: ModelSpec) -> MaskStorage:
        return MaskStorage()

    def build(self, spec: ModelSpec) -> nn.Module:
        return MaskRCNN(spec.widths, classes=len(spec.classes), encoder=spec.encoder)

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        classes = np.concatenate([[0], truth.label_class + 1]).astype(np.uint8)[truth.labels]
        return Crop(shape=truth.labels.shape, maps={"labels": truth.labels, "classes": classes})

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        """Maps, from which the loss takes boxes and masks: so however many objects there are,
        batches stack."""
        return {name: crop.maps[name].astype(np.int32) for name in ("labels", "classes")}

    def loss(
        self, output: RegionOutput, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        maps = zip(targets["labels"], targets["classes"], strict=True)
        terms = region_losses(output, [objects_in(labels, classes) for labels, classes in maps])
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    @torch.no_grad()
    def decode(
        self, output: RegionOutput | Found, cells: Sequence[CoreIndex], spec: ModelSpec
    ) -> list[Prediction]:
        if isinstance(output, Found):
            return output.of_cores(cells, spec.lattice)
        return [decode_window(output[i : i + 1], cell, spec) for i, cell in enumerate(cells)]

    def merge(self, view: Masks) -> Stitched:
        def part_of(shard: ShardIndex) -> tuple[ObjectTable, Polygons]:
            table, polygons, _ = load_objects(view.part(shard))
            return table, polygons

        return Stitched(objects=[partial(part_of, shard) for shard in view.shards])


def objects_in(labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """What the two-stage loss wants to know of one patch, from its label map (h, w) and its map of
    classes + 1 (h, w).

    boxes (n, 4) float x0, y0, x1, y1, corner-based; labels (n,) int64, class + 1; masks (n, h, w)
    bool.
    """
    ids, count = torch.unique(labels, return_counts=True)
    ids = ids[(ids > 0) & (count >= LEAST_TRUTH_PX)]
    masks = labels[None] == ids[:, None, None]
    boxes = masks_to_boxes(masks).float()
    boxes[:, 2:] += 1  # torchvision names the last pixel, not the edge beyond it
    first = masks.flatten(1).to(torch.uint8).argmax(dim=1)
    return {"boxes": boxes, "labels": classes.flatten()[first].long(), "masks": masks}


def region_losses(output: RegionOutput, truth: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The five terms of Mask R-CNN over a batch: objectness and box of proposals; class, box and
    mask of regions."""
    rpn, heads, shape = output.network.rpn, output.network.regions, output.shape
    anchors = [output.anchors()] * len(output)
    objectness, deltas = output.proposals()
    labels, matched = rpn.assign_targets_to_anchors(anchors, truth)
    wanted = rpn.box_coder.encode(matched, anchors)
    terms = dict(
        zip(
            ("proposal", "proposal_box"),
            rpn.compute_loss(objectness, deltas.flatten(0, 1), labels, wanted),
            strict=True,
        )
    )
    decoded = rpn.box_coder.decode(deltas.detach().flatten(0, 1), anchors).reshape(
        len(output), -1, 4
    )
    sizes = [len(level[0].flatten()) for level in output.objectness]
    proposals, _ = rpn.filter_proposals(decoded, objectness, [shape] * len(output), sizes)
    proposals, at, labels, wanted = heads.select_training_samples(proposals, truth)
    features = {str(i): f for i, f in enumerate(output.features)}
    shapes = [shape] * len(output)
    scored = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, shapes)))
    terms |= dict(zip(("class", "box"), fastrcnn_loss(*scored, labels, wanted), strict=True))
    inside = [torch.where(label > 0)[0] for label in labels]
    proposals = [p[i] for p, i in zip(proposals, inside, strict=True)]
    logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, proposals, shapes)))
    at = [index[i] for index, i in zip(at, inside, strict=True)]
    masks, classes = [t["masks"] for t in truth], [t["labels"] for t in truth]
    return terms | {"mask": maskrcnn_loss(logits, proposals, masks, classes, at)}


def decode_window(output: RegionOutput, cell: CoreIndex, spec: ModelSpec) -> MaskCandidates:
    """The candidates of one core from a batch of one window."""
    window = spec.lattice.window_box(cell)
    network, corner = (
        output.network,
        torch.tensor([window.col0, window.row0] * 2, dtype=torch.float64),
    )
    boxes, pixel = propose(output, cell, spec)
    if not len(boxes):
        return MaskCandidates.empty()
    logits, refined = network.classify(output, boxes)
    score, class_id = torch.softmax(logits.double(), dim=1)[:, 1:].max(dim=1)
    final = clip_boxes_to_image(refined[torch.arange(len(refined)), class_id + 1], output.shape)
    integer = _sixteenths(final.double().cpu() + corner)
    good = (score.cpu() >= CANDIDATE_SCORE) & torch.from_numpy(
        (integer[:, 2:] - integer[:, :2] >= BOX_UNIT).all(axis=1)
    )
    if not bool(good.any()):
        return MaskCandidates.empty()
    index = torch.where(good)[0].numpy()
    on_device = torch.from_numpy(index).to(final.device)
    probability = (
        quantise(network.masks(output, final[on_device], class_id[on_device])).cpu().numpy()
    )
    area, starts, bits = paste(probability.reshape(-1, MASK_SIDE, MASK_SIDE), integer[index])
    low, high = (
        np.array([window.col0, window.row0]) + NEAR_PX,
        np.array([window.col1, window.row1]) - NEAR_PX,
    )
    cut = (integer[index, :2] < low * BOX_UNIT).any(axis=1) | (
        integer[index, 2:] > high * BOX_UNIT
    ).any(axis=1)
    found = MaskCandidates(
        box=integer[index],
        score=quantise_score(score.cpu().numpy()[index]),
        class_id=class_id.cpu().numpy()[index].astype(np.uint8),
        cell=pixel[index],
        area=area,
        flags=np.where(cut, FLAG_CAPPED, 0).astype(np.uint8),
        starts=starts,
        bits=bits,
    )
    return found.take(np.flatnonzero(area))


def propose(output: RegionOutput, cell: CoreIndex, spec: ModelSpec) -> tuple[Tensor, Array]:
    """Regions (n, 4) in px of the window that the anchors of its core propose, and (n, 2) int32
    their pixels in grid px."""
    lattice, window = spec.lattice, spec.lattice.window_box(cell)
    pixel = output.network.anchor_pixels([(f.shape[-2], f.shape[-1]) for f in output.features])
    objectness, deltas = output.proposals()
    score = torch.sigmoid(objectness[0].double()).cpu()
    inner = ((pixel >= lattice.halo) & (pixel < lattice.halo + lattice.core)).all(dim=1)
    index = torch.where(inner & (score >= PROPOSAL_SCORE))[0]
    at = index.to(deltas.device)
    boxes = output.network.rpn.box_coder.decode(deltas[0, at], [output.anchors()[at]]).reshape(
        -1, 4
    )
    boxes = clip_boxes_to_image(boxes, output.shape)
    integer = _sixteenths(boxes.double().cpu())
    good = np.flatnonzero((integer[:, 2:] - integer[:, :2] >= BOX_UNIT).all(axis=1))
    proposals = Candidates(
        box=integer[good],
        score=quantise_score(score.numpy()[index.numpy()[good]]),
        class_id=np.zeros(len(good), np.uint8),
        cell=(pixel.numpy()[index.numpy()[good]] + np.array([window.row0, window.col0])).astype(
            np.int32
        ),
    )
    kept = suppress(proposals, iou=PROPOSAL_IOU)
    return boxes[torch.from_numpy(good[kept]).to(boxes.device)], proposals.cell[kept]


def _sixteenths(boxes: Tensor) -> Array:
    """(n, 4) int32 in 1/16 px, rounded half up."""
    return np.floor(boxes.numpy() * BOX_UNIT + 0.5).astype(np.int32)


def _paint_later(
    view: Masks,
    chosen: Mapping[str, Array],
    shard: ShardIndex,
    extent: Box,
    runs: Runs,
    own: Array,
) -> Array:
    """Ids (index in the selection + 1) that are seen in ``extent`` when the shard's objects and all
    later ones are painted."""
    seen = paint(runs, (own + 1).astype(np.uint32), extent, np.uint32)
    later = _meets(chosen["bbox"], extent)
    later[: own[0]] = False
    later[own] = False
    for other in _shards_of(chosen["shard"][later]):
        theirs = np.flatnonzero(later & (chosen["shard"] == np.array(other)).all(axis=1))
        _, _, over = outlines(view.predictions.read(other).take(chosen["row"][theirs]))
        seen = np.maximum(seen, paint(over, (theirs + 1).astype(np.uint32), extent, np.uint32))
    return np.unique(seen)


def _meets(bbox: Array, box: Box) -> Array:
    """Which of the boxes (n, 4) row0, col0, row1, col1 share a pixel with ``box``."""
    meets: Array = (
        (bbox[:, 0] < box.row1)
        & (bbox[:, 2] > box.row0)
        & (bbox[:, 1] < box.col1)
        & (bbox[:, 3] > box.col0)
    )
    return meets


def _shards_of(shards: Array) -> list[ShardIndex]:
    """The different rows of (n, 2), in order."""
    return [ShardIndex((int(r), int(c))) for r, c in np.unique(shards, axis=0)]


TASK = InstanceMasksTask()
