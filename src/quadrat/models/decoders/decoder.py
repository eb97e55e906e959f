"""What a decoder is: how the outputs of a foreign network become what one of quadrat's tasks
expects of its own network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quadrat.models.foreign.head import Activation, ForeignHead, Option
from quadrat.models.found import Batch
from quadrat.models.task import Output

Outputs = Mapping[str, Batch]
"""The network's outputs by the names in :attr:`Decoder.outputs`; maps are (b, channels, h, w)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One convention of outputs. All of it is pure."""

    name: str
    """In the import card."""
    task: str
    """The task that takes the answer to slide level."""
    outputs: tuple[str, ...]
    """The outputs that it needs, in order."""
    optional: tuple[str, ...] = ()
    """Outputs that it takes where the network has them, after the others."""
    activation: Activation = "logits"
    """What scores usually are in this convention, for a card that does not say."""
    options: Mapping[str, Option | None] = field(default_factory=dict)
    """Its options with their defaults; None: it must be stated."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Defaults of the task's thresholds that fit this convention better than the task's own."""
    local: bool = True
    """Whether an object depends on the network's outputs near it alone. If not, the answer is
    schedule-exact, whatever the network is."""
    reach: Callable[[ForeignHead], int]
    """Input px that the decoder's own filters add to the network's receptive radius."""
    adapt: Callable[[Outputs, ForeignHead], Output]
    """What the task's ``decode`` takes: maps at the outputs' resolution, or
    :class:`quadrat.models.found.Found`.

    Raises:
        PackageError: an output is missing, or has another shape or type than the convention.
        ConfigError: an option has a wrong value.
    """


def nothing(head: ForeignHead) -> int:
    """The reach of a decoder that looks at one place at a time."""
    return 0
