"""What every source of truth offers to training and evaluation, and all that is known about one
slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from quadrat.core.geometry import Box, Scale

Kind = Literal["object", "region"]
"""An object is counted (QuPath detection or cell); a region is an area of tissue (QuPath
annotation)."""
F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Truth(Protocol):
    """A source of truth for crops, in any format. ``box`` is in grid px; ``scale`` is level-0 px
    per grid px."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that every class_id is an index into."""

    def present(self) -> frozenset[int]:
        """All class_id that occur."""

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """Labels (h, w) with 0 for none and ids 1..k, each present; and class_id (k,)."""

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """Class index + 1 of every pixel, 0 for none; (h, w)."""

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Full extents (k, 4) x0, y0, x1, y1 in grid px of the objects with an extent that meets
        the box; class_id (k,)."""

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Centroids or drawn points (k, 2) x, y in grid px that lie in the box; class_id (k,)."""


@dataclass(frozen=True, slots=True)
class SlideTruth:
    """What people have stated about one slide."""

    objects: Truth | None = None
    """Counted objects, or None."""
    regions: Truth | None = None
    """Tissue regions, or None."""
    bounds: Truth | None = None
    """Regions inside which everything is annotated. What lies outside is neither learnt nor
    judged."""
    label: int = -1
    """Class of the whole slide; -1 for none."""
    point_diameter_um: float = 0.0
    """Above 0: objects were drawn as points. They are learnt as boxes of this size and matched by
    distance."""
    complete: bool = True
    """Without bounds: whether everything that is not annotated is background. If not, only
    annotated pixels are known."""
    skipped: tuple[str, ...] = ()
    """A line for every bad record that was left out."""
    notes: tuple[str, ...] = ()
    """What was taken differently from the file (a derived class as its base class, ignored
    classes)."""

    def told(self, name: str) -> tuple[str, ...]:
        """What was skipped and noted, each with the name of the slide."""
        return tuple(f"{name}: {note}" for note in (*self.skipped, *self.notes))
