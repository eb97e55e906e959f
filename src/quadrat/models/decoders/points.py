"""Heat maps with a peak at each object, one map per class, to boxes of one size.

A peak is a place that no other within a fixed neighbourhood exceeds, whatever their classes; of
equal ones the first in raster order. So each object is decided on the values around it, by the
window that owns it, and the halo covers all that it depends on. Values are compared as 16-bit whole
numbers; what lies outside of 0-1 (a map that was fitted, not squashed) counts as 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quadrat.core.errors import ConfigError
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.predictions import BOX_UNIT, SCORE_MAX, Candidates
from quadrat.models.decoders.decoder import Decoder, Outputs
from quadrat.models.decoders.maps import as_scores, map_of, peaks, share
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.found import Found, boxes_of, owned

LEAST_SCORE = 0.1
"""Peaks below this score are left out at once; the working threshold lies above it."""
CLASSES_UP_TO = 256


@dataclass(frozen=True, slots=True)
class FoundPoints(Found):
    """Heat maps (b, classes, h, w) under the name ``heat``."""

    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> Candidates:
        head, window = self.head, lattice.window_box(cell)
        heat = self.raw["heat"][index]
        best, class_id = strongest(heat, head)
        least = round(share(head, "least_score", LEAST_SCORE, decoder="points") * SCORE_MAX)
        at = torch.nonzero(peaks(best[None], radius_of(head))[0] & (best >= max(1, least)))
        score, classes = (m[at[:, 0], at[:, 1]].cpu().numpy() for m in (best, class_id))
        corner = np.array([window.row0, window.col0])
        step = head.out_stride * BOX_UNIT
        centre = at.cpu().numpy() * step + step // 2 + corner * BOX_UNIT
        half = max(BOX_UNIT, round(head.number("box_um", 0) / head.mpp * BOX_UNIT)) // 2
        box = np.concatenate([centre[:, ::-1] - half, centre[:, ::-1] + half], axis=1)
        pixel = centre // BOX_UNIT
        own = owned(pixel, cell, lattice)
        return boxes_of(box[own], score[own] / SCORE_MAX, classes[own], pixel[own])


def strongest(heat: Tensor, head: ForeignHead) -> tuple[Tensor, Tensor]:
    """Heat (classes, h, w) to the score and the class of the strongest class, int32 (h, w); the
    lower class of equal ones."""
    score = as_scores(torch.sigmoid(heat.double()) if head.activation == "logits" else heat)
    rank = torch.arange(CLASSES_UP_TO - 1, -1, -1, dtype=torch.int32, device=heat.device)
    key = (score * CLASSES_UP_TO + rank[: len(score), None, None]).amax(dim=0)
    return key // CLASSES_UP_TO, CLASSES_UP_TO - 1 - key % CLASSES_UP_TO


def radius_of(head: ForeignHead) -> int:
    """The neighbourhood of a peak in cells of the map: of the option ``radius_um``, or of a quarter
    of a box."""
    um = head.number("radius_um", 0) or head.number("box_um", 0) / 4
    return max(1, round(um / head.mpp / head.out_stride))


def reach(head: ForeignHead) -> int:
    """The neighbourhood of a peak in px."""
    return radius_of(head) * head.out_stride


def adapt(outputs: Outputs, head: ForeignHead) -> FoundPoints:
    """Checked heat maps."""
    for name in ("box_um", "radius_um"):
        value = head.number(name, 0)
        if value < 0 or (name == "box_um" and value == 0):
            raise ConfigError(
                f"decoder points: option {name} is {value:g}; box_um, the side of a box, must be "
                "stated and above 0, and radius_um not below 0"
            )
    heat = map_of(outputs, "heat", decoder="points", channels=(head.classes,))
    return FoundPoints({"heat": heat}, head)


POINTS = Decoder(
    name="points",
    task="detection",
    outputs=("heat",),
    options={"box_um": None, "radius_um": 0.0, "least_score": LEAST_SCORE},
    reach=reach,
    adapt=adapt,
)
