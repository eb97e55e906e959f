"""Evaluating a network on validation slides in memory, and choosing the thresholds that serve them
best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Literal

import numpy as np

from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box
from quadrat.core.lattice import ShardIndex
from quadrat.core.objects import ObjectTable
from quadrat.core.predictions import Array
from quadrat.engine.view import WorkView
from quadrat.metrics.protocol import DEFAULT_SETTINGS, Answer, point_distance
from quadrat.models.task import LabelImage, ModelSpec, Stitched, Task

Aim = Literal["f1", "count"]
"""What thresholds are chosen for: the task's main figure, or the counts."""
InferredSlides = Sequence[tuple[WorkView, SlideTruth]]
"""Slides that are inferred already, with their truth."""


class TrialView(WorkView):
    """A view with another specification and its parts in memory: stitched when it is made, nothing
    written."""

    def __init__(self, view: WorkView, task: Task, spec: ModelSpec) -> None:
        self.work, self.predictions = view.work, view.predictions
        self._task, self._spec = task, spec
        self.chosen: Mapping[str, Array] = {}
        self.parts: dict[ShardIndex, Mapping[str, Array]] = {}
        if task.parts is not None:
            if task.parts.select is not None:
                self.chosen = task.parts.select(self)
            self.parts = {shard: task.parts.stitch(self, shard) for shard in view.shards}

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def selection(self) -> Mapping[str, Array]:
        return self.chosen

    def part(self, shard: ShardIndex) -> Mapping[str, Array]:
        return self.parts[shard]

    @cached_property
    def first_id(self) -> dict[ShardIndex, int]:
        return dict(zip(self.shards, self._count_ids().tolist(), strict=True))

    def answer(self) -> Answer:
        """The slide's answer under this view's thresholds."""
        stitched: Stitched = self._task.merge(self)
        image = self._task.label_image
        return Answer(
            frame=self.frame,
            objects=None
            if stitched.objects is None
            else ObjectTable.concatenate([part()[0] for part in stitched.objects]),
            labels=None if image is None else partial(self._labels, image),
            tiles=stitched.tiles,
            core=self._spec.lattice.core,
        )

    def _labels(self, image: LabelImage, box: Box) -> Array:
        """The label image of a box, put together from the shards that it meets; 0 where nothing was
        analysed."""
        out, lattice = np.zeros(box.shape, image.dtype), self._spec.lattice
        analysed = set(self.shards)
        for shard in lattice.shards(box.intersect(self.frame.box)):
            if shard in analysed:
                whole = lattice.shard_box(shard).intersect(self.frame.box)
                part = whole.intersect(box)
                out[part.slices_in(box)] = self._painted(image, shard)[part.slices_in(whole)]
        return out

    @cached_property
    def _painted(self) -> Callable[[LabelImage, ShardIndex], Array]:
        return lru_cache(maxsize=4)(lambda image, shard: image.paint(self, shard, self.first_id))


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of the thresholds, and what came out."""

    thresholds: Mapping[str, float]
    """The setting."""
    figures: Mapping[str, float]
    """The task's figures, over all slides together."""
    count_error: float
    """Mean over slides of the share of the count that is wrong; 0 for tasks that count nothing."""


Measure = Callable[[Task, ModelSpec, InferredSlides], Trial]


def figures_of(task: Task, spec: ModelSpec, slides: InferredSlides) -> Trial:
    """The task's figures on slides under the specification's thresholds."""
    measured, errors = [], []
    for view, expected in slides:
        answer = TrialView(view, task, spec).answer()
        distance = point_distance(spec.unit, expected.point_diameter_um)
        settings = replace(DEFAULT_SETTINGS, distance_um=distance)
        measured.append(
            task.metrics.measure(answer, expected, classes=spec.class_names, settings=settings)
        )
        errors.append(count_error(measured[-1]))
    figures = task.metrics.additive(measured, classes=spec.class_names)
    return Trial(dict(spec.thresholds), figures, float(np.mean(errors)) if errors else 0.0)


def count_error(measured: Any) -> float:
    """|found - planted| over planted (at least 1) of one measured slide."""
    planted, found = getattr(measured, "planted", None), getattr(measured, "found", None)
    if planted is None or found is None:
        return 0.0
    return abs(float(np.sum(found)) - float(np.sum(planted))) / max(1.0, float(np.sum(planted)))


def calibrate(
    task: Task,
    spec: ModelSpec,
    fixed: Mapping[str, float],
    slides: InferredSlides,
    *,
    aim: Aim,
    measure: Measure = figures_of,
) -> tuple[ModelSpec, list[Trial]]:
    """Try the task's settings on validation slides that are already inferred; keep the best by
    ``aim``.

    Args:
        task: of the network.
        spec: its specification; returned with the best thresholds.
        fixed: thresholds that the pipeline file sets; they are not changed.
        slides: the validation slides.
        aim: "f1": the highest main figure of the task, of equals the least count error; "count":
            the other way round.
        measure: gives the figures of a setting.
    """
    tried: dict[str, Trial] = {}
    assert task.threshold_grid is not None
    for setting in task.threshold_grid.settings(spec.thresholds):
        thresholds = dict(setting) | dict(fixed)
        if str(thresholds) not in tried:
            tried[str(thresholds)] = measure(task, replace(spec, thresholds=thresholds), slides)
    main = task.metrics.main

    def rank(trial: Trial) -> tuple[float, float]:
        figure = trial.figures[main] if np.isfinite(trial.figures[main]) else -np.inf
        return (figure, -trial.count_error) if aim == "f1" else (-trial.count_error, figure)

    best = max(tried.values(), key=rank)  # the first of equals: settings come preferred first
    return replace(spec, thresholds=best.thresholds), list(tried.values())
