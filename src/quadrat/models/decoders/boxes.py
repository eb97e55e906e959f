"""Boxes, or boxes with masks, as torchvision's detection models give them: any network that lists
the objects of a window.

An object belongs to the core that holds the centre of its box, so of two windows that both see it
one emits it. If they see it a little differently and both emit it, the suppression over the whole
slide keeps one. A list has no stride and no receptive field that could be measured, and most such
networks cut it to the best so many of a window: the answer is schedule-exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.predictions import BOX_UNIT, Array, Candidates, MaskCandidates
from quadrat.models.decoders.decoder import Decoder, Outputs, nothing
from quadrat.models.decoders.maps import SLACK, described
from quadrat.models.foreign.head import ForeignHead, Option
from quadrat.models.found import Found, boxes_of, masks_of, owned

LEAST_SCORE = 0.1
"""Objects below this score are left out at once; the working threshold lies above it."""
FORMATS = ("xyxy", "cxcywh")
BOX_OPTIONS: dict[str, Option | None] = {
    "least_score": LEAST_SCORE,
    "first_label": 1.0,
    "format": "xyxy",
}
MASK_OPTIONS: dict[str, Option | None] = BOX_OPTIONS | {"mask": 0.5}
ROW = {"boxes": (4,), "scores": (), "labels": ()}
"""Shape of one object in each output."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The objects of a window that its core owns."""

    row: Array
    """(n,) their places in the network's list."""
    box: Array
    """(n, 4) int64 x0, y0, x1, y1 in 1/16 grid px."""
    score: Array
    """(n,) float64 in 0-1."""
    class_id: Array
    """(n,) int64."""
    pixel: Array
    """(n, 2) int64 row, column of the box's centre in grid px."""


@dataclass(frozen=True, slots=True)
class FoundBoxes(Found):
    """Lists of boxes, one per window."""

    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> Candidates:
        found = self.listed(index, cell, lattice)
        return boxes_of(found.box, found.score, found.class_id, found.pixel)

    def listed(self, index: int, cell: CoreIndex, lattice: Lattice) -> Listed:
        """The objects of window ``index`` that ``cell`` owns.

        Raises:
            PackageError: a score that is no probability, or a label without a class.
        """
        head, window = self.head, lattice.window_box(cell)
        boxes, scores, labels = (
            self.raw[n][index].cpu().double().numpy() for n in ("boxes", "scores", "labels")
        )
        if head.activation == "logits":
            scores = 1 / (1 + np.exp(-scores))
        elif len(scores) and (scores.min() < -SLACK or scores.max() > 1 + SLACK):
            raise PackageError(
                f"decoder boxes: output 'scores' has {scores.min():.3g} to {scores.max():.3g}, and "
                "the card says probabilities: write 'activation: logits'"
            )
        row = np.flatnonzero(scores >= head.number("least_score", LEAST_SCORE))
        class_id = self._classes(labels[row])
        if head.options.get("format", "xyxy") == "cxcywh":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        corner = np.array([window.col0, window.row0] * 2)
        box = np.floor((boxes[row] + corner) * BOX_UNIT + 0.5).astype(np.int64)
        pixel = (box[:, [1, 0]] + box[:, [3, 2]]) // (2 * BOX_UNIT)
        keep = owned(pixel, cell, lattice) & (box[:, 2:] - box[:, :2] >= BOX_UNIT).all(axis=1)
        return Listed(row[keep], box[keep], scores[row[keep]], class_id[keep], pixel[keep])

    def _classes(self, labels: Array) -> Array:
        first = int(self.head.number("first_label", 1))
        class_id = labels.astype(np.int64) - first
        wrong = (class_id < 0) | (class_id >= self.head.classes)
        if wrong.any():
            raise PackageError(
                f"decoder boxes: the network gives label {labels[wrong][0]:g}, and the card has "
                f"{self.head.classes} classes from {first} on: name all classes, or set the option "
                "first_label"
            )
        return class_id


@dataclass(frozen=True, slots=True)
class FoundMasks(FoundBoxes):
    """Lists of boxes with masks over the whole window, one per window."""

    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> MaskCandidates:
        found, window = self.listed(index, cell, lattice), lattice.window_box(cell)
        masks = self.raw["masks"][index]
        rows = torch.from_numpy(found.row).to(masks.device)
        side = masks.shape[-1]
        if side != window.width:
            raise PackageError(
                f"decoder masks: output 'masks' is {described(masks)}, and a mask must cover the "
                f"window of {window.width} px"
            )
        pixels = masks[rows].reshape(-1, side, side) >= self.head.number("mask", 0.5)
        inside, bounds = crops(list(pixels.cpu().numpy()))
        corner = np.array([window.row0, window.col0] * 2)
        return masks_of(
            inside,
            bounds + corner,
            found.score,
            found.class_id,
            found.pixel,
            window=(window.row0, window.col0, window.row1, window.col1),
        )


def crops(masks: Sequence[Array]) -> tuple[Array, Array]:
    """Masks bool (h, w) cut to what they hold: inside (m,) uint8 and bounds (n, 4) as in
    :func:`quadrat.stitching.masks.pack`; those of an empty mask are empty."""
    pieces, bounds = [np.zeros(0, np.uint8)], np.zeros((len(masks), 4), np.int64)
    for i, mask in enumerate(masks):
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            own = Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
            bounds[i] = own.row0, own.col0, own.row1, own.col1
            pieces.append(mask[own.row0 : own.row1, own.col0 : own.col1].ravel().astype(np.uint8))
    return np.concatenate(pieces), bounds


def adapt_boxes(outputs: Outputs, head: ForeignHead) -> FoundBoxes:
    """Checked lists of boxes."""
    names = ("boxes", "scores", "labels")
    _check(outputs, names, head, "boxes")
    return FoundBoxes({name: outputs[name] for name in names}, head)


def adapt_masks(outputs: Outputs, head: ForeignHead) -> FoundMasks:
    """Checked lists of boxes with masks."""
    names = ("boxes", "scores", "labels", "masks")
    _check(outputs, names, head, "masks")
    return FoundMasks({name: outputs[name] for name in names}, head)


def _check(outputs: Outputs, names: Sequence[str], head: ForeignHead, decoder: str) -> None:
    chosen = head.options.get("format", "xyxy")
    if chosen not in FORMATS:
        raise ConfigError(
            f"decoder {decoder}: option format is {chosen}; it must be {' or '.join(FORMATS)}"
        )
    missing = [name for name in names if name not in outputs]
    if missing:
        raise PackageError(
            f"decoder {decoder} needs an output '{missing[0]}', and the network gives "
            f"{', '.join(outputs) or 'none'}: name its outputs in the card"
        )
    for boxes, *others in zip(*(outputs[name] for name in names), strict=True):
        for name, given in zip(names, (boxes, *others), strict=True):
            row = tuple(given.shape[1:])
            fits = row[-2:] == (row[-1],) * 2 if name == "masks" else row == ROW[name]
            if not fits or len(given) != len(boxes):
                wanted = {"boxes": "(n, 4)", "masks": "(n, 1, side, side)"}.get(name, "(n,)")
                raise PackageError(
                    f"decoder {decoder}: output '{name}' of a window is {described(given)}, and it "
                    f"must be {wanted}, with n = {len(boxes)} as its boxes"
                )


BOXES = Decoder(
    name="boxes",
    task="detection",
    outputs=("boxes", "scores", "labels"),
    activation="probabilities",
    options=BOX_OPTIONS,
    local=False,
    reach=nothing,
    adapt=adapt_boxes,
)
MASKS = Decoder(
    name="masks",
    task="instance_masks",
    outputs=("boxes", "scores", "labels", "masks"),
    activation="probabilities",
    options=MASK_OPTIONS,
    local=False,
    reach=nothing,
    adapt=adapt_masks,
)
