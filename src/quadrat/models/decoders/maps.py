"""Maps as decoders need them: checked, turned into probabilities, and filtered.

Filters are sums and comparisons of shifted maps in a fixed order. So a value depends on its
neighbourhood alone, to the bit, and not on where it lies in the window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.predictions import SCORE_MAX
from quadrat.models.decoders.decoder import Outputs
from quadrat.models.foreign.head import ForeignHead

BYTE = 255
LARGEST_LOGIT = 12.0
"""Its sigmoid is 1 (and of its negative 0) after rounding to a byte."""
SLACK = 1e-3
"""Probabilities may lie so far outside of 0-1; farther out they are none."""


def map_of(
    outputs: Outputs, name: str, *, decoder: str, channels: Sequence[int] | None = None
) -> Tensor:
    """The output ``name``, checked to be floating-point maps (b, c, h, w) with one of so many
    channels.

    Raises:
        PackageError: it is not there, or is something else.
    """
    given = outputs.get(name)
    if given is None:
        raise PackageError(
            f"decoder {decoder} needs an output '{name}', and the network gives "
            f"{', '.join(outputs) or 'none'}: name its outputs in the card"
        )
    wanted = "any number of" if channels is None else " or ".join(str(c) for c in channels)
    fits = (
        isinstance(given, Tensor)
        and given.ndim == 4
        and given.is_floating_point()
        and (channels is None or given.shape[1] in channels)
    )
    if not fits:
        raise PackageError(
            f"decoder {decoder}: output '{name}' is {described(given)}, and it must be floating "
            f"point (batch, channels, height, width) with {wanted} channels"
        )
    assert isinstance(given, Tensor)
    first = next(b for b in outputs.values() if isinstance(b, Tensor))
    if given.shape[-2:] != first.shape[-2:] or len(given) != len(first):
        raise PackageError(
            f"decoder {decoder}: output '{name}' is {described(given)}, another batch, height or "
            f"width than {described(first)} of another output"
        )
    return given.float()


def described(given: object) -> str:
    """Type and shape of an output, for a message."""
    if isinstance(given, Tensor):
        return f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
    if isinstance(given, Sequence):
        return f"a list of {len(given)}"
    return type(given).__name__


def activated(values: Tensor, head: ForeignHead, *, what: str) -> Tensor:
    """One-channel scores as probabilities: sigmoid of logits, or as they are.

    Raises:
        PackageError: they are called probabilities and are none.
    """
    if head.activation == "logits":
        return torch.sigmoid(values)
    return _within(values, what)


def softmaxed(values: Tensor, head: ForeignHead, *, what: str) -> Tensor:
    """Scores of classes that exclude each other as probabilities over dim 1."""
    if head.activation == "logits":
        return torch.softmax(values, dim=1)
    return _within(values, what)


def _within(values: Tensor, what: str) -> Tensor:
    if values.numel() and bool(((values < -SLACK) | (values > 1 + SLACK)).any()):
        raise PackageError(
            f"{what} has values from {float(values.min()):.3g} to {float(values.max()):.3g}, and "
            "the card says probabilities: write 'activation: logits'"
        )
    return values.clamp(0, 1)


def class_logits(outputs: Outputs, head: ForeignHead, *, decoder: str, like: Tensor) -> Tensor:
    """Logits of the classes (b, classes, h, w) from the optional output ``type`` (background
    first, which is left out); 0 where there is one class.

    Raises:
        PackageError: there are several classes and no such output, or it has other channels.
    """
    if "type" not in outputs:
        if head.classes > 1:
            raise PackageError(
                f"decoder {decoder}: the card has {head.classes} classes, and the network no "
                "output 'type' that tells them apart: name it, or state one class"
            )
        return torch.zeros_like(like[:, :1])
    given = map_of(outputs, "type", decoder=decoder, channels=(1 + head.classes,))[:, 1:]
    if head.activation == "logits":
        return given
    return torch.log(_within(given, f"decoder {decoder}: output 'type'").clamp(min=1e-6))


def as_logits(probability: Tensor) -> Tensor:
    """Logits from which a task gets the very byte back that the probability rounds to. NaN stays
    NaN."""
    byte = torch.floor(probability.clamp(0, 1) * BYTE + 0.5) / BYTE
    return torch.logit(byte.double()).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).float()


def as_scores(probability: Tensor) -> Tensor:
    """Probabilities as whole numbers 0-65535, in int32: what decisions between them are taken
    on."""
    scaled = torch.floor(probability.double().clamp(0, 1) * SCORE_MAX + 0.5)
    return torch.nan_to_num(scaled).to(torch.int32)


def weighted(values: Tensor, weights: Sequence[float], *, dim: int) -> Tensor:
    """Sum of shifted copies along one dimension, an odd number of weights, the middle one for the
    place itself; beyond the border the outermost value goes on."""
    reach = len(weights) // 2
    pad = (reach, reach, 0, 0) if dim % values.ndim == values.ndim - 1 else (0, 0, reach, reach)
    padded = functional.pad(values, pad, mode="replicate")
    size = values.shape[dim]
    total = torch.zeros_like(values)
    for index, weight in enumerate(weights):
        if weight:
            total = total + padded.narrow(dim, index, size) * weight
    return total


def highest(values: Tensor, radius: int) -> Tensor:
    """The greatest value within ``radius`` rows and columns, floating point (b, c, h, w)."""
    return functional.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius)


def peaks(scores: Tensor, radius: int) -> Tensor:
    """bool (b, h, w): where int32 scores (b, h, w) are not exceeded within ``radius`` rows and
    columns. Of equal ones the first in raster order is the peak."""
    padded = functional.pad(scores[:, None].float(), (radius,) * 4, value=-1.0)
    rows, cols = scores.shape[-2:]
    across = functional.max_pool2d(padded, (1, 2 * radius + 1), stride=1)
    above = functional.max_pool2d(across[:, :, : rows + radius - 1], (radius, 1), stride=1)
    below = functional.max_pool2d(across[:, :, radius + 1 :], (radius, 1), stride=1)
    own = padded[:, :, radius:-radius]
    left = functional.max_pool2d(own[..., : cols + radius - 1], (1, radius), stride=1)
    right = functional.max_pool2d(own[..., radius + 1 :], (1, radius), stride=1)
    here = scores[:, None]
    peak: Tensor = (here > above) & (here > left) & (here >= below) & (here >= right)
    return peak[:, 0]


def whole(head: ForeignHead, name: str, default: float, *, least: int, decoder: str) -> int:
    """An option that is a whole number.

    Raises:
        ConfigError: it is none, or less than ``least``.
    """
    value = head.number(name, default)
    if value != int(value) or value < least:
        raise ConfigError(
            f"decoder {decoder}: option {name} is {value:g}; it must be a whole number of at least "
            f"{least}"
        )
    return int(value)


def share(head: ForeignHead, name: str, default: float, *, decoder: str) -> float:
    """An option between 0 and 1.

    Raises:
        ConfigError: it lies outside.
    """
    value = head.number(name, default)
    if not 0 <= value <= 1:
        raise ConfigError(
            f"decoder {decoder}: option {name} is {value:g}; it must lie between 0 and 1"
        )
    return value
