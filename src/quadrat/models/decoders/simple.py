"""Decoders that only rename values: scores of tiles, classes of pixels, and the maps of quadrat's
own instance models."""

from __future__ import annotations

import torch
from torch import Tensor

from quadrat.core.errors import PackageError
from quadrat.models.decoders.decoder import Decoder, Outputs, nothing
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


def adapt_classes(outputs: Outputs, head: ForeignHead) -> Tensor:
    """Scores (b, k), and perhaps an embedding (b, d), to (b, k + d). One score for two classes is
    that of the second, by sigmoid.

    Raises:
        PackageError: another number of scores than of classes.
    """
    scores = _tensor(outputs, "scores", "classes")
    scores = scores.flatten(1) if scores.ndim == 4 and scores.shape[2:] == (1, 1) else scores
    if scores.ndim != 2 or scores.shape[1] not in ({1, 2} if head.classes == 2 else {head.classes}):
        raise PackageError(
            f"the network answers a tile with scores of the shape {tuple(scores.shape[1:])}; the "
            f"card names {head.classes} classes"
        )
    if scores.shape[1] < head.classes:
        logits = two_classes(scores, head)
    else:
        logits = log_shares(scores) if head.activation == "probabilities" else scores.float()
    if "embedding" not in outputs:
        return logits
    embedding = _tensor(outputs, "embedding", "classes")
    return torch.cat([logits, embedding.flatten(1).float()], dim=1)


def adapt_argmax(outputs: Outputs, head: ForeignHead) -> Tensor:
    """Maps (b, c, h, w) to logits of background and each class. With one map per class, pixels are
    never background; one map of one class is that class by sigmoid. ``background``: the channel of
    the background (0).

    Raises:
        PackageError: another number of maps.
    """
    maps, k = _maps(outputs, "argmax"), head.classes
    if maps.shape[1] == 1 and k == 1:
        return two_classes(maps, head)
    logits = log_shares(maps) if head.activation == "probabilities" else maps.float()
    if maps.shape[1] == k:
        never = torch.full_like(logits[:, :1], NEVER)
        return torch.cat([never, logits], dim=1)
    if maps.shape[1] != k + 1:
        raise PackageError(
            f"the network gives {maps.shape[1]} maps; for the {k} classes of the card it must give "
            f"{k + 1} with background, or {k} without"
        )
    background = int(head.number("background", 0)) % (k + 1)
    order = [background, *(i for i in range(k + 1) if i != background)]
    return logits if background == 0 else logits[:, order]


def adapt_distance(outputs: Outputs, head: ForeignHead) -> Tensor:
    """Maps (b, 2 + classes, h, w): foreground, inner distance, classes. Without maps of classes,
    all objects are of the one class.

    Raises:
        PackageError: another number of maps.
    """
    maps, k = _maps(outputs, "distance"), head.classes
    if maps.shape[1] != 2 + k and (maps.shape[1], k) != (2, 1):
        raise PackageError(
            f"the network gives {maps.shape[1]} maps; for the {k} classes of the card it must give "
            f"{2 + k}: foreground, inner distance, and one for each class"
        )
    if head.activation == "probabilities":
        maps = torch.cat([log_odds(maps[:, :2]), log_shares(maps[:, 2:])], dim=1)
    missing = 2 + k - maps.shape[1]
    return torch.cat([maps.float(), torch.zeros_like(maps[:, :missing]).float()], dim=1)


def _tensor(outputs: Outputs, name: str, decoder: str) -> Tensor:
    value = outputs.get(name)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise PackageError(
            f"decoder {decoder}: the output '{name}' must be one tensor of real numbers, and it is "
            f"{given}"
        )
    return value


def _maps(outputs: Outputs, decoder: str) -> Tensor:
    maps = _tensor(outputs, "maps", decoder)
    if maps.ndim != 4:
        raise PackageError(
            f"decoder {decoder}: the output 'maps' must be (batch, channels, rows, columns), and "
            f"it is of the shape {tuple(maps.shape)}"
        )
    return maps


CLASSES = Decoder(
    name="classes",
    task="classification",
    outputs=("scores",),
    optional=("embedding",),
    reach=nothing,
    adapt=adapt_classes,
    local=False,
)
ARGMAX = Decoder(
    name="argmax",
    task="semantic",
    outputs=("maps",),
    options={"background": 0},
    reach=nothing,
    adapt=adapt_argmax,
)
DISTANCE = Decoder(
    name="distance", task="instance", outputs=("maps",), reach=nothing, adapt=adapt_distance
)
