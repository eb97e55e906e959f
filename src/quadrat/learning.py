"""From a manifest to a model package: load the truth, train, choose thresholds on validation slides, save."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from quadrat.annotations import Truth
from quadrat.annotations.geojson import load_annotations
from quadrat.annotations.label_image import load_label_image
from quadrat.annotations.points import Layout, load_points
from quadrat.config import DataSection, Pipeline
from quadrat.datasets import TrainingSlide, WindowSet, boxes_of
from quadrat.errors import ConfigError
from quadrat.grid import Cell, Lattice
from quadrat.manifest import SlideRef
from quadrat.metrics.detection import match_boxes
from quadrat.results import ClassInfo, ObjectTable
from quadrat.slides.source import PixelSource
from quadrat.task import ModelSpec, SelectingTask, Task
from quadrat.workplace import WorkView

VERSIONS = ("torch", "numpy", "scikit-image", "numba", "openslide-python", "zarr")


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training leaves besides the weights: the specification with its thresholds, and text for the card."""

    spec: ModelSpec
    about: Mapping[str, Any]


def spec_of(pipeline: Pipeline, task: Task) -> ModelSpec:
    """The specification a pipeline file asks for.

    Raises:
        ConfigError: a threshold the task does not know, or a lattice that does not fit.
    """
    for name in pipeline.thresholds:
        if name not in task.default_thresholds:
            known = ", ".join(task.default_thresholds) or "none"
            raise ConfigError(f"thresholds.{name} is unknown to the task {task.name} (known: {known})")
    model = pipeline.model
    return ModelSpec(
        task=pipeline.task,
        classes=tuple(ClassInfo(c.name, cast(tuple[int, int, int], c.color)) for c in pipeline.classes),
        mpp=model.mpp,
        lattice=Lattice(core=model.core, halo=model.halo, stride=model.stride, shard=model.shard),
        widths=model.widths,
        thresholds=dict(task.default_thresholds) | pipeline.thresholds,
        mean=cast(tuple[float, float, float], model.mean),
        std=cast(tuple[float, float, float], model.std),
        batch=model.batch,
        encoder=model.encoder,
    )


def load_truth(ref: SlideRef, data: DataSection, classes: Sequence[str]) -> tuple[Truth | None, Truth | None]:
    """(objects, regions) of a slide as the pipeline's ``data`` section says."""
    if data.annotations == "none":
        return None, None
    if not ref.annotation:
        raise ConfigError(f"{ref.path}: the manifest names no annotation, but data.annotations is '{data.annotations}'")
    path = Path(ref.annotation)
    if data.annotations == "objects":
        return load_annotations(path, classes=classes, kind="object"), None
    if data.annotations == "regions":
        return None, load_annotations(path, classes=classes, kind="region")
    if data.annotations == "labels":
        return load_label_image(path, classes=classes, kind="object"), None
    if data.annotations == "mask":
        return None, load_label_image(path, classes=classes, kind="region", threshold=data.mask_threshold)
    if data.point_diameter_um <= 0:
        raise ConfigError("data.annotations is 'points': state their size with data.point_diameter_um")
    layout = cast(Layout, data.point_layout)
    return load_points(path, classes=classes, layout=layout, first_class=data.point_first_class), None


def training_slide(ref: SlideRef, pipeline: Pipeline, source: PixelSource, cells: Sequence[Cell]) -> TrainingSlide:
    """A slide of the manifest, its pixels and its truth.

    Raises:
        ConfigError: the slide's label is not a class of the pipeline.
    """
    names = [c.name for c in pipeline.classes]
    objects, regions = load_truth(ref, pipeline.data, names)
    label = -1
    if pipeline.data.annotations == "none":
        if ref.label not in names:
            raise ConfigError(f"{ref.path}: its label '{ref.label}' is none of the classes {', '.join(names)}")
        label = names.index(ref.label)
    diameter = pipeline.data.point_diameter_um if pipeline.data.annotations == "points" else 0.0
    return TrainingSlide(ref.name, source, cells, objects, regions, label, point_diameter_um=diameter)


def window_set(slides: Sequence[TrainingSlide], task: Task, spec: ModelSpec, pipeline: Pipeline) -> WindowSet:
    """The training samples; a patch is never larger than the window unless it is the whole of it."""
    return WindowSet(slides, task, spec, patch=pipeline.train.patch, cache_mb=pipeline.train.cache_mb)


def count_quality(found: ObjectTable, truth: TrainingSlide) -> tuple[float, float, int, int]:
    """(F1 of boxes at IoU 0.5 with classes, share of the count that is wrong, planted, found) on a validation slide."""
    frame = truth.source.frame
    boxes, class_id = boxes_of(truth, frame.box)
    row0, col0, row1, col1 = found.bbox.T
    matches = match_boxes(
        boxes,
        np.stack([col0, row0, col1, row1], axis=1),
        found.score,
        truth_class=class_id,
        found_class=found.class_id.astype(np.int64),
    )
    planted, n = len(boxes), len(found)
    f1 = 2 * len(matches.truth) / max(1, planted + n)
    return f1, abs(n - planted) / max(1, planted), planted, n


def calibrate(
    task: Task, spec: ModelSpec, fixed: Mapping[str, float], views: Sequence[tuple[WorkView, TrainingSlide]]
) -> tuple[ModelSpec, list[dict[str, Any]]]:
    """Try the task's settings on validation slides that are already inferred; keep the best F1 minus count error.

    ``fixed``: thresholds the pipeline file sets; they are not moved.
    """
    tried: list[dict[str, Any]] = []
    seen: set[str] = set()
    for setting in task.calibrations(spec):
        thresholds = dict(setting) | dict(fixed)
        if str(thresholds) in seen:
            continue
        seen.add(str(thresholds))
        trial = replace(spec, thresholds=thresholds)
        figures = [count_quality(_stitch(task, trial, view), slide) for view, slide in views]
        f1, error = float(np.mean([f[0] for f in figures])), float(np.mean([f[1] for f in figures]))
        tried.append({"thresholds": thresholds, "f1": f1, "count_error": error, "quality": f1 - error})
    best = max(tried, key=lambda t: t["quality"])  # the first of equals: settings come preferred first
    return replace(spec, thresholds=best["thresholds"]), tried


def _stitch(task: Task, spec: ModelSpec, view: WorkView) -> ObjectTable:
    """The slide's objects under other thresholds, in memory, nothing written."""
    trial = TrialView(view, spec)
    if task.storage == "masks":
        trial.chosen = cast(SelectingTask, task).select(trial)
    for shard in view.shards:
        part = task.stitch_shard(trial, shard)
        if part is not None:
            trial.parts[shard] = part
    stitched = task.merge(trial)
    return ObjectTable.concatenate([part()[0] for part in stitched.objects or ()])


class TrialView(WorkView):
    """A view with another specification and its parts in memory."""

    def __init__(self, view: WorkView, spec: ModelSpec) -> None:
        self.work, self.store = view.work, view.store
        self._spec = spec
        self.parts: dict[Cell, Any] = {}
        self.chosen: Mapping[str, Any] = {}

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def selection(self) -> Mapping[str, Any]:
        return self.chosen

    def part(self, shard: Cell) -> Mapping[str, Any]:
        part: Mapping[str, Any] = self.parts[shard]
        return part


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return found | {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
