"""From a pipeline file to a model's specification, and the specification as JSON."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from quadrat.config.pipeline import ModelSection, Pipeline
from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.lattice import Lattice
from quadrat.core.numerics import Inference
from quadrat.core.objects import ClassInfo
from quadrat.core.records import to_json
from quadrat.core.unit import MPP_OF_PX, PX, in_um, named, renamed
from quadrat.models.task import Builds, ModelSpec, Normalisation

STAINED: Normalisation = (0.75, 0.6, 0.72), (0.2, 0.22, 0.18)
"""Mean and standard deviation of RGB of H&E tissue."""
IN_PX = (
    "model.mpp is px: lengths are in px, areas in px^2 and Mpx; what slides and manifest state of "
    "a scale is not used"
)
"""What a command that works in pixels says."""
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
        mpp=model.grid_mpp,
        lattice=Lattice(core=model.core, halo=model.halo, stride=model.stride, shard=model.shard),
        widths=model.widths,
        thresholds=dict(task.default_thresholds) | pipeline.thresholds,
        mean=mean,
        std=std,
        inference=model.inference or "fp32",
        encoder=model.encoder,
        dropout=model.dropout,
        unit=model.unit,
    )


def need_stated(pipeline: Pipeline, task: Builds) -> None:
    """Refuse to train in pixels with thresholds that are the task's defaults in um.

    Raises:
        ConfigError: one is not stated, or could not be told from one in um in the package's card.
    """
    unit = pipeline.model.unit
    unclear = [name for name in task.default_thresholds if in_um(name, unit) != name]
    if unclear:
        raise ConfigError(
            f"the task {task.name} has a threshold {unclear[0]}, whose name ends like that of one "
            "in um where model.mpp is px; call it otherwise to train the task in pixels"
        )
    missing = [
        name
        for name in task.default_thresholds
        if named(name, unit) != name and name not in pipeline.thresholds
    ]
    if missing:
        name = missing[0]
        what = "square pixels" if name.endswith("2") else "pixels"
        raise ConfigError(
            f"{pipeline.name}: thresholds.{name} is not stated; where model.mpp is px its default "
            f"of {task.default_thresholds[name]:g} in um says nothing, so state it in {what}"
        )


def need_unit(pipeline: Pipeline, spec: ModelSpec, package: Path) -> None:
    """Refuse a package that works in another unit than the pipeline.

    Raises:
        PackageError: it does.
    """
    if spec.unit != pipeline.model.unit:
        theirs, wanted = (
            "in pixels (model.mpp px)" if unit == PX else "in um"
            for unit in (spec.unit, pipeline.model.unit)
        )
        raise PackageError(
            f"{package} works {theirs}, the pipeline {pipeline.name} {wanted}: its figures would "
            "be given another unit; set model.mpp as the package has it, or train anew"
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
    from quadrat.models.encoders import encoder_normalisation  # here: it needs torch

    return encoder_normalisation(model.encoder) or STAINED


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    from torch.backends.cpu import get_cpu_capability  # here: a card is read without torch

    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return found | {
        "python": platform.python_version(),
        "cpu": get_cpu_capability(),
    }


def spec_to_dict(spec: ModelSpec) -> dict[str, Any]:
    """The specification as JSON holds it."""
    return to_json(spec) | {"thresholds": renamed(spec.thresholds, spec.unit)}


def spec_from_dict(values: Mapping[str, Any]) -> ModelSpec:
    """The inverse of :func:`spec_to_dict`."""
    unit = values.get("unit", "um")
    return ModelSpec(
        task=values["task"],
        classes=tuple(ClassInfo(c["name"], tuple(c["color"])) for c in values["classes"]),
        mpp=MPP_OF_PX if unit == PX else float(values["mpp"]),
        lattice=Lattice(**values["lattice"]),
        widths=tuple(values["widths"]),
        thresholds={in_um(name, unit): value for name, value in values["thresholds"].items()},
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        inference=_inference(values.get("inference", "fp32")),  # left out before it was there
        encoder=values["encoder"],
        dropout=float(values.get("dropout", 0.0)),  # cards of before it was there
        unit=unit,
    )


def _inference(value: object) -> Inference:
    if value not in get_args(Inference):
        raise ValueError(f"inference is {value!r}; it must be {' or '.join(get_args(Inference))}")
    return cast(Inference, value)
