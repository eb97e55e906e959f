"""From a pipeline file to a model's specification, and the specification as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any, cast

import torch

from quadrat.config.pipeline import ModelSection, Pipeline
from quadrat.core.errors import ConfigError
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.models.encoders import Normalisation, encoder_normalisation
from quadrat.models.task import Builds, ModelSpec

STAINED: Normalisation = (0.75, 0.6, 0.72), (0.2, 0.22, 0.18)
"""Mean and standard deviation of RGB of H&E tissue."""
VERSIONS = ("torch", "numpy", "scikit-image", "numba", "openslide-python", "zarr")
"""Libraries that numbers depend on."""


def spec_of(pipeline: Pipeline, task: Builds) -> ModelSpec:
    """The specification that a pipeline file asks for.

    Raises:
        ConfigError: a threshold that the task does not know, or a lattice that does not fit.
    """
    for name in pipeline.thresholds:
        if name not in task.default_thresholds:
            known = ", ".join(task.default_thresholds) or "none"
            raise ConfigError(
                f"thresholds.{name} is unknown to the task {task.name} (known: {known})"
            )
    model = pipeline.model
    mean, std = normalisation(model)
    return ModelSpec(
        task=pipeline.task,
        classes=tuple(
            ClassInfo(c.name, cast(tuple[int, int, int], c.color)) for c in pipeline.classes
        ),
        mpp=model.mpp,
        lattice=Lattice(core=model.core, halo=model.halo, stride=model.stride, shard=model.shard),
        widths=model.widths,
        thresholds=dict(task.default_thresholds) | pipeline.thresholds,
        mean=mean,
        std=std,
        batch=model.batch,
        encoder=model.encoder,
        dropout=model.dropout,
    )


def normalisation(model: ModelSection) -> Normalisation:
    """Mean and standard deviation of RGB by which pixels are normalised.

    Raises:
        ConfigError: one of them is stated without the other, or not as three values.
    """
    if model.mean or model.std:
        if len(model.mean) != 3 or len(model.std) != 3:
            raise ConfigError(
                f"model.mean is {list(model.mean)} and model.std {list(model.std)}; state both, "
                "three values each"
            )
        return (model.mean[0], model.mean[1], model.mean[2]), (
            model.std[0],
            model.std[1],
            model.std[2],
        )
    if not model.encoder_weights:
        return STAINED
    return encoder_normalisation(model.encoder) or STAINED


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return found | {
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def spec_to_dict(spec: ModelSpec) -> dict[str, Any]:
    """The specification as JSON holds it."""
    return dataclasses.asdict(spec) | {"thresholds": dict(spec.thresholds)}


def spec_from_dict(values: Mapping[str, Any]) -> ModelSpec:
    """The inverse of :func:`spec_to_dict`."""
    return ModelSpec(
        task=values["task"],
        classes=tuple(ClassInfo(c["name"], tuple(c["color"])) for c in values["classes"]),
        mpp=float(values["mpp"]),
        lattice=Lattice(**values["lattice"]),
        widths=tuple(values["widths"]),
        thresholds=dict(values["thresholds"]),
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        batch=int(values["batch"]),
        encoder=values["encoder"],
        dropout=float(values.get("dropout", 0.0)),  # cards of before it was there
    )
