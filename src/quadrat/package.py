"""The model package: a folder with ``weights.safetensors`` and ``card.json``. No pickles, nothing executed when loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from quadrat.errors import ConfigError, PackageError
from quadrat.grid import Lattice
from quadrat.models.probe import receptive_radius
from quadrat.results import ClassInfo
from quadrat.task import ModelSpec, get_task

WEIGHTS, CARD = "weights.safetensors", "card.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Package:
    """A loaded package: the network (eval mode, CPU), its frozen specification, and the whole card."""

    model: nn.Module
    spec: ModelSpec
    card: Mapping[str, Any]


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
    )


def exactness(model: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    """Measured stride, receptive radius and what follows: ``tiling-exact`` if the halo covers the radius."""
    stride, out_stride = int(model.stride), int(model.out_stride)  # type: ignore[arg-type]
    if spec.lattice.stride % stride:
        raise ConfigError(f"model.stride {spec.lattice.stride} is not a multiple of the network's stride {stride}")
    radius = receptive_radius(model, stride=stride, out_stride=out_stride)
    exact = radius is not None and radius <= spec.lattice.halo
    return {
        "stride": stride,
        "receptive_radius_px": radius,
        "promise": "tiling-exact" if exact else "schedule-exact",
        "window_over_core": round((spec.lattice.window / spec.lattice.core) ** 2, 3),
    }


def save_package(folder: Path, model: nn.Module, spec: ModelSpec, *, about: Mapping[str, Any]) -> None:
    """Write the package complete or not at all. ``about``: metrics, training data, licence, versions (JSON values)."""
    staging = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, staging / WEIGHTS)
    write_card(staging, spec, about=dict(about) | {"exactness": exactness(model, spec)})
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(staging, folder)


def write_card(folder: Path, spec: ModelSpec, *, about: Mapping[str, Any]) -> None:
    """Write ``card.json`` beside finished weights."""
    card = {
        "schema": SCHEMA,
        "spec": spec_to_dict(spec),
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "intended_use": "research use only, not for diagnosis",
    } | dict(about)
    temporary = folder / (CARD + ".partial")
    temporary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, folder / CARD)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a package.

    Raises:
        PackageError: no folder, no card, a card that is not JSON, or one of another schema.
    """
    path = folder / CARD
    if not path.is_file():
        raise PackageError(f"{folder} is not a model package (it has no {CARD}); train one with 'quadrat train PIPELINE'")
    try:
        card: Any = json.loads(path.read_text())
    except ValueError as error:
        raise PackageError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(card, dict):
        raise PackageError(f"{path} must hold keys and values, not {type(card).__name__}")
    if card.get("schema") != SCHEMA:
        raise PackageError(f"{path} has schema {card.get('schema')}; this version of quadrat reads {SCHEMA}")
    checked: dict[str, Any] = card
    return checked


def load_package(folder: Path, *, task: str | None = None) -> Package:
    """Load and check a package.

    Raises:
        PackageError: files missing, weights whose sha256 differs from the card's, or a package of another task.
    """
    card = read_card(folder)
    try:
        spec, stated = spec_from_dict(card["spec"]), str(card["weights_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{folder / CARD} is incomplete or wrong ({type(error).__name__}: {error})") from error
    if task is not None and spec.task != task:
        raise PackageError(f"{folder} holds a model for {spec.task}, but the pipeline's task is {task}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise PackageError(f"{folder} has no {WEIGHTS}")
    found = sha256_of(weights)
    if found != stated:
        raise PackageError(
            f"{weights} has sha256 {found[:12]}..., the card says {stated[:12]}...: "
            "the file was changed or damaged; copy the package again"
        )
    model = get_task(spec.task).build(spec)
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise PackageError(f"{weights} does not fit the network that its card describes ({error})") from error
    return Package(model=model.eval(), spec=spec, card=card)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
