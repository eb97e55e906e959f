"""What a decoder has to know of a foreign network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Activation = Literal["logits", "probabilities"]
Option = float | str
"""Value of a decoder's option."""


@dataclass(frozen=True, slots=True)
class ForeignHead:
    """The outputs of a foreign network as its import card describes them."""

    classes: int
    """Number of classes of the model, background left out."""
    activation: Activation = "logits"
    """What scores are: before softmax or sigmoid ("logits"), or after it ("probabilities")."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """The decoder's own options; one that is not there has the decoder's default."""
    mpp: float = 1.0
    """um per px of the network's input, for options in um."""
    halo: int = 0
    """Border of a window in input px that no core of it has; what lies there is not kept."""
    out_stride: int = 1
    """Input px per cell of the maps that a decoder is given: the network's own, not enlarged, and
    padded to the window where the network answers for less. Cells of a map that a decoder returns
    are repeated to input px after it; candidates that it returns are in input px."""

    def number(self, name: str, default: float) -> float:
        """An option that is a number."""
        return float(self.options.get(name, default))
