"""What is compared and how: a slide's answer, what was expected of it, and the protocol that every
kind's figures follow.

``measure`` takes one slide and keeps only what pools (counts, confusion matrices, scored hits);
``summarise`` pools any slides to flat names. The training loop watches ``main``; ``quadrat
evaluate`` reports all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from quadrat.annotations import Scale, SlideTruth, Truth
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame, ObjectTable
from quadrat.core.predictions import TileScores

Labels = Callable[[Box], npt.NDArray[Any]]
"""The label image of a box of the grid, (h, w): object ids (1 + row of the object table, 0 none),
or class map (class + 1)."""

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one slide, in grid px of ``frame``.

    ``core``: grid px a side of the cores that ``tiles`` index; 0 where not known (then tiles are
    not compared with regions).
    """

    frame: Frame
    objects: ObjectTable | None = None
    labels: Labels | None = None
    tiles: TileScores | None = None
    core: int = 0

    @property
    def scale(self) -> Scale:
        """Level-0 px a grid px (rows, columns), as truth is asked for."""
        return self.frame.scale_row, self.frame.scale_col


@dataclass(frozen=True, slots=True)
class Judging:
    """The settings of a comparison: greatest distance of matched points in um, least IoU of matched
    boxes, share of a tile that must be annotated for it to be judged, and px a side of the blocks
    that are in memory at a time (no figure depends on it)."""

    distance_um: float = 6.0
    iou: float = 0.5
    tile_share: float = 0.5
    block: int = 2048

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


AS_USUAL = Judging()


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each truth (row) was found as each answer (column): int64 (rows, columns), their
    names, what is counted."""

    matrix: npt.NDArray[np.int64]
    truth: tuple[str, ...]
    found: tuple[str, ...]
    counted: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall (n,) of a class as the threshold on the score (n,) falls."""

    name: str
    score: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]


class Metrics(Protocol[M]):
    """The figures of one kind of model. Pure; ``M`` is what one slide leaves, small
    and picklable.
    """

    @property
    def main(self) -> str:
        """The name of the figure that early stopping watches; higher is better, 1 is perfect."""
        ...

    def measure(
        self, answer: Answer, expected: SlideTruth, *, classes: Sequence[str], how: Judging = ...
    ) -> M:
        """One slide.

        Raises:
            AnnotationError: the truth lacks what the kind compares. ValueError: the answer
            lacks it.
        """
        ...

    def additive(self, measured: Sequence[M], *, classes: Sequence[str]) -> dict[str, float]:
        """The figures that come from sums over slides alone, ``main`` among them: cheap enough to
        be bootstrapped."""
        ...

    def summarise(self, measured: Sequence[M], *, classes: Sequence[str]) -> dict[str, float]:
        """All figures of all slides pooled, by flat names (``figure`` or ``figure.<class>``); NaN
        where not defined."""
        ...

    def confusion(self, measured: Sequence[M], *, classes: Sequence[str]) -> Confusion:
        """What was taken for what, all slides together."""
        ...

    def curves(self, measured: Sequence[M], *, classes: Sequence[str]) -> tuple[Curve, ...]:
        """Precision and recall by score of each class that was planted; empty for kinds without
        scored objects."""
        ...


def blocks(box: Box, size: int) -> Iterator[Box]:
    """Boxes of at most ``size`` px a side that partition ``box``, in raster order."""
    for row in range(box.row0, box.row1, size):
        for col in range(box.col0, box.col1, size):
            yield Box(row, col, min(row + size, box.row1), min(col + size, box.col1))


def inside_bounds(
    xy: npt.NDArray[np.float64], bounds: Truth | None, answer: Answer, *, block: int
) -> npt.NDArray[np.bool_]:
    """Which points (n, 2) x, y in grid px lie in the bounds: bool (n,); all of them without bounds.
    A point is judged by the pixel it lies in; outside the slide there are no bounds."""
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


def need(value: M | None, what: str) -> M:
    """The value, or ValueError that says what the answer lacks."""
    if value is None:
        raise ValueError(f"the answer has no {what}, which these metrics compare")
    return value
