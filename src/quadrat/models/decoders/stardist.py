"""StarDist (Schmidt et al. 2018): the probability of an object, and its distance to the object's
border along ``n`` rays, in each cell.

Cells whose probability nothing exceeds within ``radius`` cells become polygons, which are filled in
integers and meet in one suppression over the whole slide. A polygon is a function of its cell's
values alone and may reach beyond the window.

It differs from StarDist in three things: only local maxima take part, where StarDist begins with
every cell above its threshold (a cell next to a better one has nearly the same polygon); overlap is
intersection over union of pixels, where StarDist divides by the smaller polygon's area; and the
probability of an object is not summed over cells that agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.predictions import BOX_UNIT, SCORE_MAX, Array, MaskCandidates
from quadrat.models.decoders.decoder import Decoder, Outputs
from quadrat.models.decoders.maps import (
    activated,
    as_scores,
    class_logits,
    map_of,
    peaks,
    share,
    whole,
)
from quadrat.models.foreign.head import ForeignHead, Option
from quadrat.models.found import Found, masks_of, owned
from quadrat.stitching.polygons import fill

OPTIONS: dict[str, Option | None] = {"radius": 1.0, "ray_px": 1.0, "least_score": 0.2}
MOST = 20_000
"""Polygons per core; no tissue has so many, and memory is not for more."""
LEAST_RAYS = 3


@dataclass(frozen=True, slots=True)
class FoundStars(Found):
    """Maps under the names ``probability`` (b, 1, h, w), in 0-1, ``rays`` (b, n, h, w) and
    ``classes`` (b, classes, h, w), logits."""

    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> MaskCandidates:
        window, step = lattice.window_box(cell), self.head.out_stride
        at, score = self._cells(index)
        pixel = at * step + np.array([window.row0, window.col0])
        own = owned(pixel, cell, lattice)
        at, score, pixel = at[own], score[own], pixel[own]
        if len(at) > MOST:
            raise PackageError(
                f"core {tuple(cell)} has {len(at)} local maxima of the probability, more than "
                f"{MOST}: raise the decoder's option least_score or radius"
            )
        rays = self._at("rays", index, at) * self.head.number("ray_px", 1)
        if rays.max(initial=0) > lattice.window:
            raise PackageError(
                f"core {tuple(cell)} has a ray of {rays.max():.0f} px, longer than the window of "
                f"{lattice.window} px: set the decoder's option ray_px to the px per unit of its "
                "distances, or choose a larger window"
            )
        inside, bounds = fill(vertices(rays, pixel))
        class_id = self._at("classes", index, at).argmax(axis=1)
        return masks_of(inside, bounds, score / SCORE_MAX, class_id, pixel, window=None)

    def _cells(self, index: int) -> tuple[Array, Array]:
        """(n, 2) cells of the local maxima of a window, and (n,) their scores."""
        scores = as_scores(self.raw["probability"][index])[0]
        least = share(self.head, "least_score", float(OPTIONS["least_score"] or 0), decoder=NAME)
        found = peaks(scores[None], radius_of(self.head))[0]
        at = torch.nonzero(found & (scores >= max(1, round(least * SCORE_MAX))))
        return at.cpu().numpy(), scores[at[:, 0], at[:, 1]].cpu().numpy()

    def _at(self, name: str, index: int, at: Array) -> Array:
        """The values (n, channels) of a map at cells (n, 2), float64."""
        values = self.raw[name][index]
        where = torch.from_numpy(at).to(values.device)
        picked: Array = values[:, where[:, 0], where[:, 1]].T.double().cpu().numpy()
        return picked


def vertices(rays: Array, pixel: Array) -> Array:
    """Corners (n, k, 2) int64 x, y in 1/16 grid px, of rays (n, k) in px from the centres of pixels
    (n, 2) row, column. Ray 0 points along the row, and the next ones turn towards later rows."""
    angle = 2 * np.pi * np.arange(rays.shape[1]) / rays.shape[1]
    turned = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    away = np.floor(np.maximum(rays, 0)[:, :, None] * turned * BOX_UNIT + 0.5).astype(np.int64)
    centre = pixel[:, None, ::-1].astype(np.int64) * BOX_UNIT + BOX_UNIT // 2
    corners: Array = centre + away
    return corners


def radius_of(head: ForeignHead) -> int:
    """The neighbourhood of a local maximum in cells."""
    return whole(head, "radius", float(OPTIONS["radius"] or 0), least=1, decoder=NAME)


def reach(head: ForeignHead) -> int:
    """The neighbourhood of a local maximum in px."""
    return radius_of(head) * head.out_stride


def adapt(outputs: Outputs, head: ForeignHead) -> FoundStars:
    """Checked maps."""
    if head.number("ray_px", 1) <= 0:
        raise ConfigError(
            f"decoder stardist: option ray_px is {head.number('ray_px', 1):g}; it must be above 0"
        )
    probability = map_of(outputs, "probability", decoder=NAME, channels=(1,))
    rays = map_of(outputs, "rays", decoder=NAME)
    if rays.shape[1] < LEAST_RAYS:
        raise PackageError(
            f"decoder stardist: output 'rays' has {rays.shape[1]} channels; a polygon needs "
            f"{LEAST_RAYS} rays or more"
        )
    raw = {
        "probability": activated(
            probability.double(), head, what="decoder stardist: output 'probability'"
        ),
        "rays": rays,
        "classes": class_logits(outputs, head, decoder=NAME, like=probability),
    }
    return FoundStars(raw, head)


NAME = "stardist"
STARDIST = Decoder(
    name=NAME,
    task="instance_masks",
    outputs=("probability", "rays"),
    optional=("type",),
    activation="probabilities",
    options=OPTIONS,
    thresholds={"by_mask": 1.0, "iou": 0.25},
    reach=reach,
    adapt=adapt,
)
