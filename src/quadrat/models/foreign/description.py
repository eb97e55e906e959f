"""A model as its own description says it is, whoever's format that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadrat.models.foreign.network import ForeignNetwork

Keys = dict[str, Any]
"""Keys and values of an import card."""
COLOURS = (
    (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14), (148, 103, 189), (140, 86, 75),
    (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
"""Of classes for which nobody chose one."""


@dataclass(frozen=True, slots=True)
class Described:
    """A model as its own description says it is."""

    network: Path
    """The file."""
    keys: Keys
    """Those of an import card that the description answers for."""
    notes: tuple[str, ...] = ()
    """What was made of it."""
    examples: Callable[[ForeignNetwork], list[str]] | None = None
    """Holds the network against its test tensors."""


def named_classes(names: list[str]) -> list[Keys]:
    """Classes of a card with colours of their own."""
    return [
        {"name": name, "color": list(COLOURS[i % len(COLOURS)])} for i, name in enumerate(names)
    ]
