"""The steps of a slide in their order: what a task has decides, and what the run is asked for."""

from __future__ import annotations

from quadrat.config.pipeline import Pipeline
from quadrat.engine.images import COPY, IMAGE, LABELS, PAINT, PYRAMID
from quadrat.engine.pictures import FINISH
from quadrat.engine.state import AnyStep
from quadrat.engine.steps import LAYOUT, PLAN, PREDICT, SEAL, SELECT, STITCH, STORE, TILE
from quadrat.engine.tables import MERGE
from quadrat.models.task import Merges


def steps_of(task: Merges, pipeline: Pipeline, *, until: str) -> list[AnyStep]:
    """The steps of a slide in their order, up to the end of ``until`` ("plan" or one of UNTIL)."""
    steps: list[AnyStep] = [PLAN]
    if until == "tile" or (until != "plan" and pipeline.run.source == "stored"):
        steps += [STORE, TILE, SEAL]
    if until in ("plan", "tile"):
        return steps
    steps += [LAYOUT, PREDICT]
    if until == "predict":
        return steps
    if task.parts is not None:
        steps += [STITCH] if task.parts.select is None else [SELECT, STITCH]
    steps += [MERGE]
    if pipeline.outputs.image:
        steps += [IMAGE, COPY]
    if task.label_image is not None:
        steps += [LABELS, PAINT]
    return [*steps, PYRAMID, FINISH]
