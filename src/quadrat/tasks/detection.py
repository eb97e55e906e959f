"""Object detection with a dense head: what is where, as boxes; the fast way to count.

Every cell of the head (4 x 4 px) scores each class and gives the distances to the four sides of the
object it lies in (FCOS, Tian et al. 2019), with a score that peaks at the object's centre
(CenterNet, Zhou et al. 2019). Windows emit candidates; the slide-level suppression is done once,
globally and exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from quadrat.core.kernel import kernel
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.predictions import (
    BOX_UNIT,
    SCORE_MAX,
    Array,
    Arrays,
    Candidates,
    Prediction,
    quantise_score,
)
from quadrat.metrics.detection import METRICS
from quadrat.models.found import Found
from quadrat.models.task import (
    Crop,
    ModelSpec,
    SlideView,
    Stitched,
    Task,
    ThresholdGrid,
    TruthWindow,
)
from quadrat.models.unet import UNet
from quadrat.stitching.suppression import suppress
from quadrat.store.predictions import TableStorage, TableStore

CELL = 4
"""Side of a head cell in input px."""
SIZE_UNIT = 8.0
"""The head's unit of length in grid px: exp(output) * SIZE_UNIT."""
CANDIDATE_SCORE = 0.1
"""Cells below this score emit nothing; the working threshold lies above it."""
SPREAD = 0.16
"""Standard deviation of the centre peak as a share of the object's side."""
PART_ROWS = 65_536
"""Objects per part of the merged answer."""
LEAST_HEAT = 0.2
"""Cells with at least this much of an object's peak learn its box."""


Boxes = SlideView[TableStore[Candidates]]


class DetectionTask(Task):
    """Candidates own their anchor, the cell that emitted them; results are boxes with a class and a
    score."""

    name = "detection"
    default_thresholds: Mapping[str, float] = {"score": 0.3, "iou": 0.4, "class_aware": 0.0}
    learns_from_partial = True
    metrics = METRICS
    candidate_thresholds: Mapping[str, float] = {"score": CANDIDATE_SCORE}
    threshold_grid = ThresholdGrid(
        {"score": tuple(round(0.15 + 0.05 * i, 2) for i in range(9)), "iou": (0.4, 0.3, 0.5)}
    )

    def storage(self, spec: ModelSpec) -> TableStorage[Candidates]:
        return TableStorage(Candidates)

    def build(self, spec: ModelSpec) -> nn.Module:
        network = UNet(
            spec.widths, outputs=len(spec.classes) + 4, out_stride=CELL, encoder=spec.encoder
        )
        # start from a low prior, or the many empty cells drown the first steps (Lin et al. 2017)
        bias = network.head.bias
        assert bias is not None
        nn.init.constant_(bias[: len(spec.classes)].detach(), -3.0)
        return network

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        shape = truth.labels.shape
        row, col = np.floor((truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2).astype(np.int64).T
        outside = (row < 0) | (col < 0) | (row >= shape[0]) | (col >= shape[1])
        # an object with its centre where nothing is known must not be learnt from next to it, by
        # its slope and its sides
        keep = outside | truth.known[np.where(outside, 0, row), np.where(outside, 0, col)]
        return Crop(
            shape=shape,
            maps={"known": truth.known},
            boxes=truth.boxes[keep],
            box_class=truth.box_class[keep],
            label=-1,
        )

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        rows, cols = crop.shape[0] // CELL, crop.shape[1] // CELL
        heat, sides, weight = dense_targets(
            crop.boxes, crop.box_class, rows, cols, len(spec.classes)
        )
        known = (
            crop.maps["known"][: rows * CELL, : cols * CELL]
            .reshape(rows, CELL, cols, CELL)
            .all(axis=(1, 3))
        )
        return {
            "heat": heat,
            "sides": sides,
            "weight": weight * known,
            "known": known.astype(np.float32),
        }

    def loss(
        self, output: Tensor, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        k = len(spec.classes)
        heat = targets["heat"]
        score = torch.sigmoid(output[:, :k]).clamp(1e-4, 1 - 1e-4)
        known = targets["known"][:, None]
        peak = (heat == 1) & (known > 0)
        positive = torch.log(score) * (1 - score) ** 2 * peak
        negative = torch.log(1 - score) * score**2 * (1 - heat) ** 4 * (heat != 1) * known
        count = peak.sum().clamp(min=1)
        terms = {"heat": -(positive.sum() + negative.sum()) / count}
        weight = targets["weight"]
        error = box_loss(sides_of(output[:, k:]), targets["sides"])
        terms["box"] = 2 * (error * weight).sum() / weight.sum().clamp(min=1)
        return terms | {"loss": terms["heat"] + terms["box"]}

    def answer(
        self, output: Tensor | Found, spec: ModelSpec
    ) -> tuple[Tensor, Tensor, Tensor] | Found:
        if isinstance(output, Found):
            return output
        k = len(spec.classes)
        score, class_id = torch.sigmoid(output[:, :k].double()).max(dim=1)
        return score, class_id, sides_of(output[:, k:].double())

    def decode(
        self,
        answer: tuple[Tensor, Tensor, Tensor] | Found,
        cells: Sequence[CoreIndex],
        spec: ModelSpec,
    ) -> list[Prediction]:
        if isinstance(answer, Found):
            return answer.of_cores(cells, spec.lattice)
        score, class_id, sides = (tensor.numpy() for tensor in answer)
        return [
            candidates_of(score[i], class_id[i], sides[i], cell, spec)
            for i, cell in enumerate(cells)
        ]

    def merge(self, view: Boxes) -> Stitched:
        thresholds = view.spec.thresholds
        merged = Candidates.concatenate([select(view, shard) for shard in view.shards])
        kept = suppress(merged, iou=thresholds["iou"], class_aware=thresholds["class_aware"] > 0)
        table = boxes_table(merged.take(kept))
        row, col = table.anchor.T
        shard = view.spec.lattice.shard
        table = table.take(np.lexsort((col, row, col // shard, row // shard)))
        chunks = [slice(start, start + PART_ROWS) for start in range(0, len(table), PART_ROWS)]
        return Stitched(objects=[partial(boxed, table, rows) for rows in chunks])


@kernel
def dense_targets(boxes, box_class, rows, cols, classes):  # type: ignore[no-untyped-def]
    """Boxes (n, 4) row0, col0, row1, col1 in crop px -> heat (classes, rows, cols), exactly 1 in
    the cell of each centre; sides (4, rows, cols) in px to top, left, bottom, right of the object
    with the highest peak there; weight (rows, cols)."""
    heat = np.zeros((classes, rows, cols), np.float32)
    sides = np.ones((4, rows, cols), np.float32)
    weight = np.zeros((rows, cols), np.float32)
    for i in range(boxes.shape[0]):
        row0, col0, row1, col1 = boxes[i]
        cy, cx = (row0 + row1) / 2, (col0 + col1) / 2
        spread_y, spread_x = max(SPREAD * (row1 - row0), 2.0), max(SPREAD * (col1 - col0), 2.0)
        for r in range(
            max(0, int((cy - 3 * spread_y) // CELL)),
            min(rows, int((cy + 3 * spread_y) // CELL) + 1),
        ):
            for c in range(
                max(0, int((cx - 3 * spread_x) // CELL)),
                min(cols, int((cx + 3 * spread_x) // CELL) + 1),
            ):
                y, x = (r + 0.5) * CELL, (c + 0.5) * CELL
                centre = int(cy // CELL) == r and int(cx // CELL) == c
                value = (
                    1.0
                    if centre
                    else 0.99
                    * np.exp(
                        -((y - cy) ** 2) / (2 * spread_y**2) - (x - cx) ** 2 / (2 * spread_x**2)
                    )
                )
                if value > heat[box_class[i], r, c]:
                    heat[box_class[i], r, c] = value
                if (
                    value >= LEAST_HEAT
                    and value > weight[r, c]
                    and row0 < y < row1
                    and col0 < x < col1
                ):
                    weight[r, c] = value
                    sides[0, r, c], sides[1, r, c] = y - row0, x - col0
                    sides[2, r, c], sides[3, r, c] = row1 - y, col1 - x
    return heat, sides, weight


def sides_of(output: Tensor) -> Tensor:
    """Head output (b, 4, h, w) to distances from the cell's centre to top, left, bottom, right in
    grid px."""
    return torch.exp(output.clamp(-4, 4)) * SIZE_UNIT


def box_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019), (b, h, w), of boxes given as distances (b, 4,
    h, w) from a point."""
    corners = [torch.stack([-s[:, 1], -s[:, 0], s[:, 3], s[:, 2]], dim=-1) for s in (found, wanted)]
    from torchvision.ops import generalized_box_iou_loss  # here: inference does without torchvision

    loss: Tensor = generalized_box_iou_loss(corners[0], corners[1], reduction="none")
    return loss


def candidates_of(
    score: Array, class_id: Array, sides: Array, cell: CoreIndex, spec: ModelSpec
) -> Candidates:
    """Candidates of the head cells inside one core. score (h, w), class_id (h, w), sides (4, h, w)
    of the window."""
    box = spec.lattice.window_box(cell)
    halo = spec.lattice.halo // CELL
    stop = halo + spec.lattice.core // CELL
    inner = np.zeros(score.shape, bool)
    inner[halo:stop, halo:stop] = score[halo:stop, halo:stop] >= CANDIDATE_SCORE
    r, c = np.nonzero(inner)
    y, x = box.row0 + r * CELL, box.col0 + c * CELL
    top, left, bottom, right = (
        np.floor(sides[i, r, c] * BOX_UNIT + 0.5).astype(np.int32) for i in range(4)
    )
    cy, cx = (y + CELL // 2) * BOX_UNIT, (x + CELL // 2) * BOX_UNIT
    corners = np.stack([cx - left, cy - top, cx + right, cy + bottom], axis=1).astype(np.int32)
    return Candidates(
        box=corners.reshape(-1, 4),
        score=quantise_score(score[r, c]),
        class_id=class_id[r, c].astype(np.uint8),
        cell=np.stack([y, x], axis=1).astype(np.int32).reshape(-1, 2),
    )


def select(view: Boxes, shard: ShardIndex) -> Candidates:
    """A shard's candidates at or above the working threshold, on the slide and where the user's
    regions allow them.
    """
    candidates = view.predictions.read(shard)
    keep = candidates.score >= quantise_score(np.array([view.spec.thresholds["score"]]))[0]
    # beyond the slide there is only fill, of which a network may make what it likes
    keep &= (candidates.cell < view.frame.box.shape).all(axis=1)
    keep &= view.allows(*candidates.cell.T)
    return candidates.take(keep)


def boxed(table: ObjectTable, rows: slice) -> tuple[ObjectTable, Polygons]:
    """Some objects with their boxes as outlines. Those of a whole slide would take more memory than
    all else."""
    part = table.take(rows)
    return part, Polygons.boxes(part.bbox)


def boxes_table(boxes: Candidates) -> ObjectTable:
    """Candidates as objects (area and perimeter of the box)."""
    x0, y0, x1, y1 = (boxes.box.astype(np.float64) / BOX_UNIT).T
    return ObjectTable(
        anchor=boxes.cell.astype(np.int64),
        class_id=boxes.class_id,
        score=(boxes.score / np.float64(SCORE_MAX)).astype(np.float32),
        bbox=np.stack([y0, x0, y1, x1], axis=1),
        centroid=np.stack([(y0 + y1) / 2, (x0 + x1) / 2], axis=1),
        area_px=(y1 - y0) * (x1 - x0),
        perimeter_px=2 * ((y1 - y0) + (x1 - x0)),
        flags=np.zeros(len(boxes), np.uint8),
    )


TASK = DetectionTask()
