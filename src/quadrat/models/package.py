"""The model package: a folder with ``weights.safetensors`` and ``card.json``, or, if it was
imported (:mod:`quadrat.models.foreign`), with the file of a network in place of the weights. No
pickles, nothing executed when loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.files import new_folder, sha256_of, write_file
from quadrat.models.card import CARD, SCHEMA, read_card
from quadrat.models.probe import least_radius, probe
from quadrat.models.spec import spec_from_dict, spec_to_dict
from quadrat.models.task import ModelSpec

WEIGHTS = "weights.safetensors"
TILING_EXACT, SCHEDULE_EXACT = "tiling-exact", "schedule-exact"
HEADS = ("head.", "regions.box_predictor.", "regions.mask_predictor.")
"""How the names of those weights begin that belong to a network's classes."""
AGAIN = "copy the package again, or train it again"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was loaded and checked."""

    model: nn.Module
    """The network with its weights, in eval mode on the CPU."""
    spec: ModelSpec
    """As frozen at training; a run may lay other thresholds over it."""
    card: Mapping[str, Any]
    """All of ``card.json``, the specification included."""


def exactness(model: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    """What was measured of a network, and what follows for its lattice (JSON values, see
    docs/artifacts.md).

    ``tiling-exact`` needs a measured stride that divides the lattice's and a halo that covers the
    receptive radius.

    Raises:
        ConfigError: the lattice is not in multiples of the network's stride, stated or measured.
    """
    stride, out_stride = strides_of(model)
    lattice = spec.lattice
    check_stride(model, spec)
    reach = probe(model, stride=stride, out_stride=out_stride)
    if reach.stride is not None and lattice.stride % reach.stride:
        raise ConfigError(
            f"model.stride {lattice.stride} is not a multiple of the network's measured stride "
            f"{reach.stride} "
            f"(it states {stride}); set model.stride={reach.stride} and core and halo to multiples "
            "of it"
        )
    exact = reach.radius is not None and reach.stride is not None and reach.radius <= lattice.halo
    return {
        "stride": stride,
        "measured_stride": reach.stride,
        "receptive_radius_px": reach.radius,
        "structural_radius_px": reach.structural,
        "impulse_radius_px": reach.impulse,
        "halo_px": lattice.halo,
        "promise": TILING_EXACT if exact else SCHEDULE_EXACT,
        "window_over_core": round((lattice.window / lattice.core) ** 2, 3),
    }


def check_stride(model: nn.Module, spec: ModelSpec, *, patch: int = 0) -> None:
    """Refuse (ConfigError) a lattice, or training patches of so many px, out of step with the
    stride that a network states."""
    stride, _ = strides_of(model)
    if spec.lattice.stride % stride:
        raise ConfigError(
            f"model.stride {spec.lattice.stride} is not a multiple of the network's stride {stride}"
        )
    if patch % stride:
        raise ConfigError(
            f"train.patch is {patch}; it must be a multiple of the network's stride {stride}"
        )


def strides_of(model: nn.Module) -> tuple[int, int]:
    """(stride, out_stride) that a network states, in input px."""
    return int(model.stride), int(model.out_stride)  # type: ignore[arg-type]


def check_exactness(folder: Path, model: nn.Module, spec: ModelSpec, stated: object) -> None:
    """Refuse a card if its own figures, its lattice or its network contradict its promise.

    A promise of ``tiling-exact`` is held against the network itself by a quick lower bound of its
    radius, so that an edited figure is found out. ``schedule-exact`` promises nothing that a
    lattice could break but its phase.

    Raises:
        PackageError: with the value, the limit and the remedy.
    """
    where = folder / CARD
    if not isinstance(stated, dict) or stated.get("promise") not in (TILING_EXACT, SCHEDULE_EXACT):
        raise PackageError(
            f"{where} does not say what was measured of the network (exactness); {AGAIN}"
        )
    stride, out_stride = strides_of(model)
    lattice = spec.lattice
    for name, value in (("stride", stated.get("stride")), ("network's stride", stride)):
        if not _is_whole(value, least=1) or lattice.stride % value:
            raise PackageError(
                f"{where}: the lattice is in multiples of {lattice.stride} px, not of the {name} "
                f"{value}; {AGAIN}"
            )
    if stated["promise"] == SCHEDULE_EXACT:
        return
    radius, measured = (
        stated.get("receptive_radius_px"),
        stated.get("measured_stride", stated.get("stride")),
    )
    if not _is_whole(measured, least=1) or lattice.stride % measured:
        raise PackageError(f"{where} promises {TILING_EXACT}, but its measured stride {measured} "
                           "does not divide the lattice's "
                           f"{lattice.stride}; {AGAIN}")  # fmt: skip
    if not _is_whole(radius, least=0) or radius > lattice.halo:
        raise PackageError(f"{where} promises {TILING_EXACT}, but its receptive radius {radius} px "
                           "is more than the halo "
                           f"{lattice.halo} px; {AGAIN}")  # fmt: skip
    found = least_radius(model, stride=stride, out_stride=out_stride, stated=radius)
    if found is None or found > radius:
        reaches = "farther than that" if found is None else f"{found} px"
        raise PackageError(
            f"{where} states a receptive radius of {radius} px, but the network reaches {reaches}: "
            "the card was edited, "
            f"or made for another network; {AGAIN}"
        )


def _is_whole(value: object, *, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def save_package(
    folder: Path,
    model: nn.Module,
    spec: ModelSpec,
    *,
    about: Mapping[str, Any],
    measured: Mapping[str, Any] | None = None,
    precision: str = "float32",
    extra: Callable[[Path], None] | None = None,
) -> None:
    """Write the package complete or not at all. ``about``: metrics, training data, licence,
    versions (JSON values). ``extra``: writes further files of the package into the folder that it
    is given.

    ``measured``: what :func:`exactness` gave for this network and lattice, where the caller has it
    already (it may have added the seam mismatch); it is measured here otherwise. ``precision``:
    "float16" stores half the bytes; the network should have been rounded by :func:`rounded` before
    anything was measured of it.

    Raises:
        WriteError: a file of it cannot be written. The package that was there before stays.
    """
    exact = dict(exactness(model, spec) if measured is None else measured)
    stored = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if precision == "float16":
        stored = {k: v.half() if v.is_floating_point() else v for k, v in stored.items()}
    with new_folder(folder) as staging:
        write_file(staging / WEIGHTS, save(stored))
        write_card(staging, spec, about=dict(about) | {"exactness": exact})
        if extra is not None:
            extra(staging)


def rounded(model: nn.Module, precision: str) -> nn.Module:
    """The network with the weights that a package of this precision will hold (in place; arithmetic
    stays float32).

    Raises:
        PackageError: a weight or statistic is too large for float16.
    """
    if precision == "float16":
        model.half().float()
        for name, value in model.state_dict().items():
            if not bool(value.isfinite().all()):
                raise PackageError(
                    f"{name} holds values beyond float16's 65,504; use model.precision=float32"
                )
    return model


def begin_from(
    model: nn.Module, spec: ModelSpec, folder: Path, build: Callable[[ModelSpec], nn.Module]
) -> list[str]:
    """Copy a package's weights into a network of the same build (see :func:`load_package`); what a
    user should know of the differences.

    The head stays as it is where the classes are others. Another mpp or normalisation is allowed:
    the network learns it.

    Raises:
        PackageError: the package's network is another one.
    """
    loaded = load_package(folder, build)
    theirs = loaded.spec
    if theirs.unit != spec.unit:
        raise PackageError(
            f"{folder} works in {theirs.unit}, the pipeline in {spec.unit} (model.mpp): what it "
            "has learnt is of another scale; begin from a package of the same unit"
        )
    for name in ("task", "encoder", "widths"):
        if getattr(theirs, name) != getattr(spec, name):
            raise PackageError(
                f"{folder} has model.{name} {getattr(theirs, name)}, the pipeline "
                f"{getattr(spec, name)}; "
                "to go on from it they must be the same"
            )
    weights = loaded.model.state_dict()
    same_classes = theirs.class_names == spec.class_names
    left = [name for name in weights if name.startswith(HEADS) and not same_classes]
    own = model.state_dict()
    model.load_state_dict(
        {name: own[name] if name in left else value for name, value in weights.items()}
    )
    return _notes_on_begin(folder, theirs, spec)


def _notes_on_begin(folder: Path, theirs: ModelSpec, spec: ModelSpec) -> list[str]:
    """A line for each difference between a package to begin with and what is to be learnt that may
    surprise."""
    notes = [
        f"{folder} was trained at model.{name} {getattr(theirs, name)}, this one is at "
        f"{getattr(spec, name)}: its weights have "
        "to be learnt over in part"
        for name in ("mpp", "mean", "std")
        if getattr(theirs, name) != getattr(spec, name)
    ]
    if theirs.class_names != spec.class_names:
        notes.append(
            f"{folder} knows the classes {', '.join(theirs.class_names)}, this one is to learn "
            f"{', '.join(spec.class_names)}: "
            "the head is begun anew"
        )
    return notes


def write_card(
    folder: Path, spec: ModelSpec, *, about: Mapping[str, Any], weights_sha256: str = ""
) -> None:
    """Write ``card.json`` next to finished weights; NaN and infinite figures become null.
    ``weights_sha256``: what stands for an imported network in place of the weights."""
    card = {
        "schema": SCHEMA,
        "spec": spec_to_dict(spec),
        "weights_sha256": weights_sha256 or sha256_of(folder / WEIGHTS),
        "intended_use": "research use only, not for diagnosis",
    } | dict(about)
    text = json.dumps(_finite(card), indent=2, sort_keys=True, allow_nan=False)
    write_file(folder / CARD, text + "\n")


def _finite(value: Any) -> Any:
    """JSON values with null for the numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_package(
    folder: Path, build: Callable[[ModelSpec], nn.Module], *, task: str | None = None
) -> Package:
    """Load and check a package. ``build`` makes its network (:func:`quadrat.tasks.build_network`),
    unless it was imported.

    Raises:
        PackageError: files missing, weights whose sha256 differs from the card's, a package of
        another task, or a promise
            of exactness that the network or the lattice does not keep.
    """
    card = read_card(folder)
    try:
        spec, stated = spec_from_dict(card["spec"]), str(card["weights_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(
            f"{folder / CARD} is incomplete or wrong ({type(error).__name__}: {error})"
        ) from error
    if task is not None and spec.task != task:
        raise PackageError(
            f"{folder} holds a model for {spec.task}, but the pipeline's task is {task}"
        )
    if "foreign" in card:
        from quadrat.models.foreign.loading import load_foreign  # here: few packages need it

        return Package(model=load_foreign(folder, card, spec), spec=spec, card=card)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise PackageError(f"{folder} has no {WEIGHTS}")
    found = sha256_of(weights)
    if found != stated:
        raise PackageError(
            f"{weights} has sha256 {found[:12]}..., the card says {stated[:12]}...: "
            "the file was changed or damaged; copy the package again"
        )
    model = build(spec)
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise PackageError(
            f"{weights} does not fit the network that its card describes ({error})"
        ) from error
    check_exactness(folder, model, spec, card.get("exactness"))
    return Package(model=model.eval(), spec=spec, card=card)
