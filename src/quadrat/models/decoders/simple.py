"""Decoders that only rename values: scores of tiles, classes of pixels, and the maps of quadrat's own
instance models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from quadrat.core.errors import QuadratError
from quadrat.models.decoders.decoder import Decoder
from quadrat.models.foreign.head import ForeignHead

LEAST = 1e-7
"""Probabilities are taken to lie this far from 0 and 1, so that their logits are finite."""
NEVER = -1e4
"""Logit of a class that a network does not know."""


def log_odds(probability: Tensor) -> Tensor:
    """The logits whose sigmoid is ``probability``."""
    return torch.logit(probability.float(), eps=LEAST)


def log_shares(probability: Tensor) -> Tensor:
    """The logits whose softmax is ``probability``, where that sums to 1."""
    return probability.float().clamp(min=LEAST).log()


def two_classes(score: Tensor, head: ForeignHead) -> Tensor:
    """Logits (b, 2, ...) of "not" and "is" from one score (b, 1, ...), by sigmoid."""
    logit = log_odds(score) if head.activation == "probabilities" else score.float()
    return torch.cat([torch.zeros_like(logit), logit], dim=1)


def adapt_classes(outputs: Mapping[str, Tensor], head: ForeignHead) -> Tensor:
    """Scores (b, k), and perhaps an embedding (b, d), to (b, k + d). One score for two classes is
    that of the second, by sigmoid.

    Raises:
        QuadratError: another number of scores than of classes.
    """
    scores = outputs["scores"]
    scores = scores.flatten(1) if scores.ndim == 4 and scores.shape[2:] == (1, 1) else scores
    if scores.ndim != 2 or scores.shape[1] not in ({1, 2} if head.classes == 2 else {head.classes}):
        raise QuadratError(
            f"the network answers a tile with scores of the shape {tuple(scores.shape[1:])}; the "
            f"card names {head.classes} classes"
        )
    if scores.shape[1] < head.classes:
        logits = two_classes(scores, head)
    else:
        logits = log_shares(scores) if head.activation == "probabilities" else scores.float()
    embedding = outputs.get("embedding")
    return logits if embedding is None else torch.cat([logits, embedding.flatten(1).float()], dim=1)


def adapt_argmax(outputs: Mapping[str, Tensor], head: ForeignHead) -> Tensor:
    """Maps (b, c, h, w) to logits of background and each class. With one map per class, pixels are
    never background; one map of one class is that class by sigmoid. ``background``: the channel of
    the background (0).

    Raises:
        QuadratError: another number of maps.
    """
    maps, k = outputs["maps"], head.classes
    _need_maps(maps, "the classes of pixels")
    if maps.shape[1] == 1 and k == 1:
        return two_classes(maps, head)
    logits = log_shares(maps) if head.activation == "probabilities" else maps.float()
    if maps.shape[1] == k:
        never = torch.full_like(logits[:, :1], NEVER)
        return torch.cat([never, logits], dim=1)
    if maps.shape[1] != k + 1:
        raise QuadratError(
            f"the network gives {maps.shape[1]} maps; for the {k} classes of the card it must give "
            f"{k + 1} with background, or {k} without"
        )
    background = int(head.number("background", 0)) % (k + 1)
    order = [background, *(i for i in range(k + 1) if i != background)]
    return logits if background == 0 else logits[:, order]


def adapt_distance(outputs: Mapping[str, Tensor], head: ForeignHead) -> Tensor:
    """Maps (b, 2 + classes, h, w): foreground, inner distance, classes. Without maps of classes, all
    objects are of the one class.

    Raises:
        QuadratError: another number of maps.
    """
    maps, k = outputs["maps"], head.classes
    _need_maps(maps, "foreground, inner distance and classes")
    if maps.shape[1] != 2 + k and (maps.shape[1], k) != (2, 1):
        raise QuadratError(
            f"the network gives {maps.shape[1]} maps; for the {k} classes of the card it must give "
            f"{2 + k}: foreground, inner distance, and one for each class"
        )
    if head.activation == "probabilities":
        maps = torch.cat([log_odds(maps[:, :2]), log_shares(maps[:, 2:])], dim=1)
    missing = 2 + k - maps.shape[1]
    return torch.cat([maps.float(), torch.zeros_like(maps[:, :missing]).float()], dim=1)


def _need_maps(value: Tensor, what: str) -> None:
    if value.ndim != 4 or not value.is_floating_point():
        raise QuadratError(
            f"{what} must be maps of real numbers, (batch, channels, rows, columns); the network "
            f"gives {value.dtype} of the shape {tuple(value.shape)}"
        )


CLASSES = Decoder(
    name="classes",
    task="classification",
    outputs=("scores", "embedding"),
    optional=("embedding",),
    adapt=adapt_classes,
    local=False,
)
ARGMAX = Decoder(
    name="argmax",
    task="semantic",
    outputs=("maps",),
    adapt=adapt_argmax,
    options=("background",),
)
DISTANCE = Decoder(name="distance", task="instance", outputs=("maps",), adapt=adapt_distance)
