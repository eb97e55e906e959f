"""What every source of truth offers to training and evaluation, and the truth of one slide."""

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
    """A source of truth for crops, whatever its format. ``box`` is in grid px; ``scale`` is level-0
    px per grid px."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that every class_id indexes."""

    def present(self) -> frozenset[int]:
        """The class_id of everything that is there."""

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """Labels (h, w), 0 none, ids 1..k each present; class_id (k,)."""

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """Class index + 1 of every pixel, 0 none; (h, w)."""

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Full extents (k, 4) x0, y0, x1, y1 in grid px of the objects whose extent meets the box;
        class_id (k,)."""

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """Centroids or drawn points (k, 2) x, y in grid px that lie in the box; class_id (k,)."""


@dataclass(frozen=True, slots=True)
class SlideTruth:
    """What people have said of one slide: counted objects, tissue regions, the class of the whole
    slide (``label``; -1: none).

    ``bounds``: regions inside which everything is annotated; what lies outside is neither learnt
    nor judged. ``complete``: without bounds, whether all that is not annotated is background; if
    not, only annotated pixels are known. ``point_diameter_um``: above 0, objects were drawn as
    points: they are learnt as boxes of this size and matched by distance. ``skipped``: a line for
    every bad record that was left out; ``notes``: what else was taken otherwise than it stands in
    the file (a derived class as its base class, ignored classes).
    """

    objects: Truth | None = None
    regions: Truth | None = None
    bounds: Truth | None = None
    label: int = -1
    point_diameter_um: float = 0.0
    complete: bool = True
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def told(self, name: str) -> tuple[str, ...]:
        """What was skipped and noted of the slide of this name."""
        return tuple(f"{name}: {note}" for note in (*self.skipped, *self.notes))
