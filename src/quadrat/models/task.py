"""What one kind of model brings, so that one training loop, one inference and one stitcher run it.

A task is one file with a ``TASK``. The protocol :class:`Task` is put together from small ones, each
named by who calls it: models (:class:`Builds`), training (:class:`Trains`), inference
(:class:`Infers`), the engine (:class:`Merges`), evaluation (:class:`Evaluates`). What only some
tasks have is an object, or None where the task does without: work per shard (:class:`Parts`), a
label image (:class:`LabelImage`), thresholds to choose (:class:`ThresholdGrid`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from quadrat.core.lattice import CoreIndex, Lattice, ShardIndex
from quadrat.core.numerics import Inference
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.predictions import Array, Arrays, Prediction, TileScores
from quadrat.core.unit import Unit

if TYPE_CHECKING:  # a specification is read without torch
    from torch import Tensor, nn

    from quadrat.metrics.protocol import Metrics
    from quadrat.store.predictions import PredictionStore, Storage

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of RGB in 0-1."""
Output = Any
"""What a network answers to a batch: a tensor, batch first, or a structure of such tensors that
offers what the training loop and the inference need of one: cutting along the batch, ``float()``,
and ``tensors()``, which yields them all."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model but its weights: frozen into the package at training and never
    changed at inference."""

    task: str
    """The task's name in the pipeline file (see :func:`quadrat.tasks.get_task`)."""
    classes: tuple[ClassInfo, ...]
    """A class id is an index into them."""
    mpp: float
    """um per grid px."""
    lattice: Lattice
    """How a slide is cut into windows, in grid px."""
    widths: tuple[int, ...]
    """Channels of each level of the network."""
    thresholds: Mapping[str, float]
    """The task's decisions (see each task's ``default_thresholds``)."""
    mean: tuple[float, float, float] = (0.75, 0.6, 0.72)
    """Of RGB in 0-1, for normalising."""
    std: tuple[float, float, float] = (0.2, 0.22, 0.18)
    """Standard deviation of RGB in 0-1, for normalising."""
    inference: Inference = "fp32"
    """Precision of the forward pass: "bf16" where the device computes in it, else fp32."""
    encoder: str = "small"
    """A name of :mod:`quadrat.models.encoders`."""
    dropout: float = 0.0
    """In training, before the head of a classifier."""
    unit: Unit = "um"
    """Of lengths: where it is "px", grid px are level-0 px, and there are no um."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)


@dataclass(frozen=True, slots=True)
class TruthWindow:
    """What is annotated in one window, in grid px relative to it."""

    labels: npt.NDArray[np.int32]
    """(h, w) 0 = none, else 1..k."""
    label_class: npt.NDArray[np.uint8]
    """(k,) class of each label."""
    regions: npt.NDArray[np.uint8]
    """(h, w) 0 = none, else class + 1."""
    boxes: npt.NDArray[np.float64]
    """(n, 4) row0, col0, row1, col1; may reach outside."""
    box_class: npt.NDArray[np.uint8]
    """(n,)"""
    label: int
    """Class of the whole window, or -1."""
    known: npt.NDArray[np.bool_]
    """(h, w) where what is not annotated is background; elsewhere nothing is learnt."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A training crop's truth."""

    shape: tuple[int, int]
    """(height, width) in px, of the image too."""
    maps: Arrays = field(default_factory=dict)
    """Arrays (h, w, ...) that flip and crop with the image."""
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """(n, 4) row0, col0, row1, col1 in px of the crop; they move with the image."""
    box_class: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """(n,) class of each box."""
    label: int = -1
    """Class of the whole window, or -1."""


ObjectParts = Sequence[Callable[[], tuple[ObjectTable, Polygons]]]
"""A slide's objects in canonical order, part by part. Each part is a function: the outlines of a
slide are never all in memory, yet can be gone through twice."""


@dataclass(frozen=True, slots=True)
class Stitched:
    """A slide's merged answer: objects, or one row of scores per tile."""

    objects: ObjectParts | None = None
    """Objects or regions; None if the task scores tiles."""
    object_type: Literal["detection", "annotation"] = "detection"
    """What QuPath makes of the objects: "detection" is counted, "annotation" is an area."""
    tiles: TileScores | None = None
    """The row of each analysed core; None if the task finds objects or regions."""


Store_co = TypeVar("Store_co", bound="PredictionStore", covariant=True)


class SlideView(Protocol[Store_co]):
    """What stitching sees of one slide. All reads are pure."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def shards(self) -> Sequence[ShardIndex]:
        """Shards that hold predictions, in raster order."""
        ...

    @property
    def predictions(self) -> Store_co:
        """The slide's predictions, as the task's storage reads them."""
        ...

    def allows(self, rows: Array, cols: Array) -> npt.NDArray[np.bool_]:
        """Whether the user's regions allow results at grid px (rows, cols: integers that
        broadcast); bool of their shape."""
        ...

    def selection(self) -> Mapping[str, Array]:
        """What :attr:`Parts.select` returned; each array is read when it is asked for."""
        ...

    def part(self, shard: ShardIndex) -> Mapping[str, Array]:
        """What :attr:`Parts.stitch` returned for the shard; each array is read when it is asked
        for."""
        ...


View = SlideView[Any]
FirstIds = Mapping[ShardIndex, int]
"""The id of each shard's first object."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Stitching shard by shard, before the merge."""

    stitch: Callable[[View, ShardIndex], Arrays]
    """What one shard owns. Has an array ``class_id`` with one row per object."""
    select: Callable[[View], Arrays] | None = None
    """A decision over the whole slide, from all predictions, before any shard is stitched. Has an
    array ``class_id`` with one row per object. None: a shard needs only the predictions around it,
    so it is stitched while others are still being predicted."""


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A label image that is delivered with the results."""

    name: str
    """Under ``labels/`` of the OME-Zarr."""
    dtype: Literal["uint8", "uint32"]
    """uint8 holds class + 1, uint32 the ids of objects; 0 is background."""
    reduce: Literal["mode", "nearest"]
    """How its pyramid is made: classes by "mode", ids by "nearest"."""
    paint: Callable[[View, ShardIndex, FirstIds], Array]
    """The image of one shard, clipped to the slide."""


@dataclass(frozen=True, slots=True)
class ThresholdGrid:
    """What is tried on validation slides."""

    values: Mapping[str, Sequence[float]]
    """By name of the threshold, the values to try, the preferred one first."""

    def settings(self, base: Mapping[str, float]) -> list[Mapping[str, float]]:
        """All combinations laid over ``base``."""
        out: list[Mapping[str, float]] = [dict(base)]
        for name, values in self.values.items():
            out = [{**setting, name: value} for setting in out for value in values]
        return out


class Builds(Protocol):
    """A task as :mod:`quadrat.models` calls it."""

    name: str
    """In messages and results."""
    default_thresholds: Mapping[str, float]
    """All thresholds of the task, each with the value that holds if nobody sets one."""

    def build(self, spec: ModelSpec) -> nn.Module:
        """A network with random weights; has ``stride`` and ``out_stride``."""
        ...


class Trains(Builds, Protocol):
    """A task as training calls it."""

    learns_from_partial: bool
    """Whether the loss can leave out what nobody annotated. If not, slides must be annotated
    completely."""
    has_background: bool = True
    """Whether it can answer "none of the classes". If not, there must be two classes or more."""

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        """The expensive part of the targets, once per window (crops and flips are taken later)."""
        ...

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        """Target arrays of one augmented crop."""
        ...

    def loss(
        self, output: Output, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        """Terms of the loss of a batch; ``loss`` is what is minimised."""
        ...


class Infers(Protocol):
    """A task as inference calls it."""

    def answer(self, output: Output, spec: ModelSpec) -> Any:
        """What of the network's output for a batch is needed to decode it, in few bytes, computed
        on the device and without waiting for it: a tensor, or a tuple of them. Anything else stays
        there."""
        return output

    def decode(self, answer: Any, cells: Sequence[CoreIndex], spec: ModelSpec) -> list[Prediction]:
        """The answer for a batch of windows, in this process's memory, to one quantised prediction
        per core."""
        ...

    def storage(self, spec: ModelSpec) -> Storage[Any]:
        """How the predictions lie on disk."""
        ...


class Merges(Protocol):
    """A task as the engine calls it once predictions are there."""

    parts: Parts | None = None
    """Stitching per shard; None: the merge takes the predictions themselves."""
    label_image: LabelImage | None = None
    """What is painted from the merged answer; None: there is no label image."""

    def merge(self, view: View) -> Stitched:
        """The slide's answer from all parts (or predictions)."""
        ...


class Evaluates(Protocol):
    """A task as validation and evaluation call it."""

    metrics: Metrics[Any]
    """The figures by which results are judged, in training and by ``quadrat evaluate``."""
    threshold_grid: ThresholdGrid | None = None
    """None: there is nothing to choose on validation slides."""
    candidate_thresholds: Mapping[str, float] | None = None
    """Thresholds so low that every candidate is a result, for average precision. None: a result is
    no list of scored candidates."""


@runtime_checkable
class Task(Trains, Infers, Merges, Evaluates, Protocol):
    """One kind of model. Methods are pure functions of their arguments."""
