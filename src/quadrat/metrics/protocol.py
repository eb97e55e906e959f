"""What is compared and how: the answer of a model, the settings, and the protocol of all metrics.

``measure`` takes one slide and keeps only what can be pooled (counts, confusion matrices, scored
objects). ``summarise`` pools slides and names each figure. The training loop watches ``main``;
``quadrat evaluate`` reports all figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth, Truth
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Frame, ObjectTable
from quadrat.core.predictions import TileScores
from quadrat.core.unit import PX, Unit

Labels = Callable[[Box], npt.NDArray[Any]]
"""The label image of a box of the grid, (h, w): object ids (1 + row of the object table, 0 none),
or a class map (class + 1)."""

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model found on one slide, in grid px of ``frame``."""

    frame: Frame
    """Size, mpp and scale of the slide's grid."""
    objects: ObjectTable | None = None
    """The objects, for tasks that find any."""
    labels: Labels | None = None
    """The label image, for tasks that make one."""
    tiles: TileScores | None = None
    """The class probabilities of each core, for tasks that classify."""
    core: int = 0
    """Side in grid px of the cores in ``tiles``; 0: not known, then tiles have no truth."""

    @property
    def scale(self) -> Scale:
        """Level-0 px per grid px, as the methods of ``Truth`` take it."""
        return self.frame.scale


@dataclass(frozen=True, slots=True)
class MetricSettings:
    """The settings of a comparison.

    Raises:
        ValueError: a value out of range.
    """

    distance_um: float = 6.0
    """Greatest distance of two matched points, um (px in pixel work)."""
    iou: float = 0.5
    """Least IoU of two matched boxes, in (0, 1]."""
    tile_share: float = 0.5
    """A tile has a truth if more than this share of it is annotated, in [0, 1)."""
    block: int = 2048
    """Side in px of the blocks that are read at a time; no figure depends on it."""

    def __post_init__(self) -> None:
        if not (
            self.distance_um > 0
            and 0 < self.iou <= 1
            and 0 <= self.tile_share < 1
            and self.block > 0
        ):
            raise ValueError(
                f"{self}: distance_um and block must be above 0, iou in (0, 1], tile_share in [0, "
                "1)"
            )


DEFAULT_SETTINGS = MetricSettings()


def point_distance(unit: Unit, point_diameter_um: float) -> float:
    """How far apart matched points may be unless somebody says so: 6 um; in pixel work, where the
    data alone say how large things are, half the diameter of a point."""
    in_px = unit == PX and point_diameter_um > 0
    return point_diameter_um / 2 if in_px else DEFAULT_SETTINGS.distance_um


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each truth was found as each answer."""

    matrix: npt.NDArray[np.int64]
    """int64 (rows, columns): truth by row, answer by column."""
    truth: tuple[str, ...]
    """Names of the rows."""
    found: tuple[str, ...]
    """Names of the columns."""
    counted: str
    """What the numbers count: "pixels", "tiles", "objects" ..."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall of a class while the threshold on the score falls."""

    name: str
    """The class."""
    score: npt.NDArray[np.float64]
    """(n,) the threshold at each point, falling."""
    precision: npt.NDArray[np.float64]
    """(n,) in 0-1."""
    recall: npt.NDArray[np.float64]
    """(n,) in 0-1."""


class Metrics(Protocol[M]):
    """The figures of one kind of model. All methods are pure. ``M`` is what ``measure`` keeps of a
    slide: small, and it can be pickled."""

    @property
    def main(self) -> str:
        """Name of the figure that early stopping watches: higher is better, 1 is perfect."""
        ...

    def measure(
        self,
        answer: Answer,
        expected: SlideTruth,
        *,
        classes: Sequence[str],
        settings: MetricSettings = ...,
    ) -> M:
        """Compare one slide with its truth.

        Raises:
            AnnotationError: the truth has nothing that this kind compares.
            ValueError: the answer has nothing that this kind compares.
        """
        ...

    def additive(self, measured: Sequence[M], *, classes: Sequence[str]) -> dict[str, float]:
        """The figures that need only sums over slides, ``main`` among them. They are cheap, so they
        can be bootstrapped."""
        ...

    def sizes(self, measured: Sequence[M], *, classes: Sequence[str]) -> dict[str, float]:
        """How much was compared (pixels, mm2, tiles, objects), summed over slides. These figures
        say nothing about quality, so they have no interval."""
        ...

    def summarise(self, measured: Sequence[M], *, classes: Sequence[str]) -> dict[str, float]:
        """All figures of all slides together, by name (``figure`` or ``figure.<class>``); NaN where
        a figure is not defined."""
        ...

    def confusion(self, measured: Sequence[M], *, classes: Sequence[str]) -> Confusion:
        """How often each truth was found as each answer, all slides together."""
        ...

    def curves(self, measured: Sequence[M], *, classes: Sequence[str]) -> tuple[Curve, ...]:
        """Precision and recall by score, of each annotated class; empty for kinds without
        scores."""
        ...


def blocks(box: Box, size: int) -> Iterator[Box]:
    """Boxes of at most ``size`` px a side that partition ``box``, in raster order."""
    for row in range(box.row0, box.row1, size):
        for col in range(box.col0, box.col1, size):
            yield Box(row, col, min(row + size, box.row1), min(col + size, box.col1))


def inside_bounds(
    xy: npt.NDArray[np.float64], bounds: Truth | None, answer: Answer, *, block: int
) -> npt.NDArray[np.bool_]:
    """Which points lie inside the bounds: bool (n,); all of them if there are no bounds.

    A point is inside if the pixel under it is. No point outside the slide is inside.

    Args:
        xy: (n, 2) x, y in grid px.
        bounds: the regions inside which everything is annotated.
        answer: gives the slide's grid.
        block: side in px of the blocks that are drawn at a time.
    """
    if bounds is None:
        return np.ones(len(xy), np.bool_)
    inside = np.zeros(len(xy), np.bool_)
    pixel = np.floor(xy[:, ::-1]).astype(np.int64)
    for box in blocks(answer.frame.box, block):
        here = np.flatnonzero(
            ((pixel >= (box.row0, box.col0)) & (pixel < (box.row1, box.col1))).all(axis=1)
        )
        if len(here):
            row, col = (pixel[here] - (box.row0, box.col0)).T
            inside[here] = bounds.regions(box, answer.scale)[row, col] > 0
    return inside


def required(value: M | None, what: str) -> M:
    """The value.

    Raises:
        ValueError: there is none; names what the answer is missing.
    """
    if value is None:
        raise ValueError(f"the answer has no {what}, which these metrics compare")
    return value
