"""The Task protocol: what one kind of model must bring so that the one loop, the one inference and
the one stitcher run it.

A task is one file in ``quadrat/tasks`` whose module has a ``TASK``; :func:`get_task` finds it by
name, so a fifth task is one new file and one YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell, Lattice
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.predictions import (
    Array,
    Arrays,
    Candidates,
    MaskCandidates,
    Prediction,
    TileScores,
)
from quadrat.metrics.protocol import Metrics

Storage = Literal["maps", "candidates", "masks", "tiles"]
Output = Any
"""What a network answers to a batch: a tensor, batch first, or a structure of such tensors that
offers what the training loop and the inference need of one: cutting along the batch, ``float()``,
and ``tensors()``, which yields them all."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model but its weights: frozen into the package at training and never
    changed at inference.

    ``mpp`` um/px; ``encoder`` a name of :mod:`quadrat.models.encoders`; ``widths`` channels a
    level; ``thresholds`` the task's decisions (see each task's ``THRESHOLDS``); ``mean`` and
    ``std`` normalise RGB in 0-1; ``dropout`` (in training) before the head of a classifier.
    """

    task: str
    classes: tuple[ClassInfo, ...]
    mpp: float
    lattice: Lattice
    widths: tuple[int, ...]
    thresholds: Mapping[str, float]
    mean: tuple[float, float, float] = (0.75, 0.6, 0.72)
    std: tuple[float, float, float] = (0.2, 0.22, 0.18)
    batch: int = 4
    encoder: str = "small"
    dropout: float = 0.0

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)


@dataclass(frozen=True, slots=True)
class TruthWindow:
    """What is annotated in one window, in grid px relative to it.

    labels: int32 (h, w), 0 = none, else 1..k. label_class: uint8 (k,). regions: uint8 (h, w), 0 =
    none, else class + 1. boxes: float64 (n, 4) row0, col0, row1, col1, may reach outside; box_class
    uint8 (n,). label: class of the whole window or -1. known: bool (h, w), where what is not
    annotated is background; elsewhere nothing is learnt.
    """

    labels: npt.NDArray[np.int32]
    label_class: npt.NDArray[np.uint8]
    regions: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]
    box_class: npt.NDArray[np.uint8]
    label: int
    known: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Crop:
    """A training crop's truth: maps that flip and crop with the image, boxes that move with it, and
    a label."""

    shape: tuple[int, int]
    maps: Arrays = field(default_factory=dict)
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    box_class: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    label: int = -1


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A label image that the task paints: name under ``labels/``, dtype, and how its pyramid is
    reduced."""

    name: str
    dtype: Literal["uint8", "uint32"]
    reduce: Literal["mode", "nearest"]


@dataclass(frozen=True, slots=True)
class Stitched:
    """A slide's merged answer: objects in canonical order, part by part, and/or one row of scores a
    tile.

    Each part is a function, so that a slide's outlines are never all in memory, yet can be gone
    through twice.
    """

    objects: Sequence[Callable[[], tuple[ObjectTable, Polygons]]] | None = None
    tiles: TileScores | None = None


class SlideView(Protocol):
    """What stitching sees of one slide: predictions, and the parts that earlier work units made.
    All reads are pure."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def shards(self) -> Sequence[Cell]:
        """Shards that hold predictions, in raster order."""
        ...

    def maps(self, box: Box) -> npt.NDArray[np.uint8]:
        """Quantised maps (channels, h, w) of a box inside the slide; 0 where no core
        was analysed.
        """
        ...

    def permits(self, rows: Array, cols: Array) -> npt.NDArray[np.bool_]:
        """Whether the user's regions allow results at grid px (rows, cols: integers that
        broadcast); bool of their shape."""
        ...

    def candidates(self, shard: Cell) -> Candidates: ...
    def masks(self, shard: Cell, *, pixels: bool = True) -> MaskCandidates:
        """Candidates with masks; without ``pixels`` the masks themselves are not read."""
        ...

    def selection(self) -> Mapping[str, Array]:
        """What :meth:`SelectingTask.select` returned for the slide; arrays are read when they are
        asked for."""
        ...

    def tiles(self, shard: Cell) -> TileScores: ...
    def part(self, shard: Cell) -> Mapping[str, Array]:
        """What ``stitch_shard`` returned for the shard; arrays are read when they are asked for."""
        ...


class Task(Protocol):
    """One kind of model. Methods are pure functions of their arguments."""

    @property
    def name(self) -> str: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def label_image(self) -> LabelImage | None: ...
    @property
    def object_type(self) -> Literal["detection", "annotation"]:
        """What QuPath shall make of the objects."""
        ...

    @property
    def metrics(self) -> Metrics[Any]:
        """The figures by which the task's results are judged, in training and by ``quadrat
        evaluate``."""
        ...

    @property
    def default_thresholds(self) -> Mapping[str, float]: ...
    @property
    def candidate_thresholds(self) -> Mapping[str, float]:
        """Thresholds so low that every candidate is a result, for average precision; empty where
        results have no such."""
        ...

    @property
    def learns_from_partial(self) -> bool:
        """Whether what nobody annotated can be left out of the loss; if not, slides must be
        annotated completely."""
        ...

    def channels(self, spec: ModelSpec) -> int:
        """Channels of the stored maps (0 where the task stores none)."""
        ...

    def build(self, spec: ModelSpec) -> nn.Module:
        """A network with random weights; has ``stride`` and ``out_stride``."""
        ...

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        """The dear part of the targets, once a window (crops and flips of it are taken later)."""
        ...

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        """Target arrays of one augmented crop."""
        ...

    def loss(
        self, output: Output, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        """Terms of the loss of a batch; ``loss`` is what is minimised."""
        ...

    def decode(self, output: Output, cells: Sequence[Cell], spec: ModelSpec) -> list[Prediction]:
        """A batch of windows to one quantised prediction a core."""
        ...

    def stitch_shard(self, view: SlideView, shard: Cell) -> Arrays | None:
        """The work unit of stitching: what one shard owns; None where the task needs
        no such step.
        """
        ...

    def merge(self, view: SlideView) -> Stitched:
        """The slide's answer from all parts (or predictions)."""
        ...

    def paint(self, view: SlideView, shard: Cell, first_id: Mapping[Cell, int]) -> Array:
        """The label image of one shard (clipped to the slide); ``first_id``: the id of each shard's
        first object."""
        ...

    def calibrations(self, spec: ModelSpec) -> list[Mapping[str, float]]:
        """Settings of the thresholds to try on validation slides, the preferred first."""
        ...


class SelectingTask(Task, Protocol):
    """A task whose shards can be stitched only after a decision over the whole slide (storage
    "masks")."""

    def select(self, view: SlideView) -> Arrays:
        """The decision, taken from all predictions in one work unit; has an array ``class_id`` of a
        row an object."""
        ...


@dataclass(frozen=True, slots=True)
class ThresholdGrid:
    """Values to try for each threshold, for :meth:`Task.calibrations`."""

    values: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def settings(self, base: Mapping[str, float]) -> list[Mapping[str, float]]:
        """All combinations laid over ``base``."""
        out: list[Mapping[str, float]] = [dict(base)]
        for name, values in self.values.items():
            out = [{**setting, name: value} for setting in out for value in values]
        return out
