"""From a network's file and an import card to a model package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import TypeAdapter
from torch import nn

from quadrat.config.import_card import MEASURE, ImportCard
from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.files import new_folder, private_folder, sha256_of, write_file
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.core.text import did_you_mean
from quadrat.core.unit import MPP_OF_PX, PX, Unit, in_um, named
from quadrat.models.card import CARD
from quadrat.models.decoders.decoder import Decoder
from quadrat.models.foreign.export import save_module
from quadrat.models.foreign.files import Loaded, joined, load_file, weighted
from quadrat.models.foreign.formats import ABOUT, SUFFIX, Format, recognise, refuse_code
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.foreign.lattice import lattice_of
from quadrat.models.foreign.loading import FOREIGN, decoder_named, digest_of, put_together
from quadrat.models.foreign.measure import AGREE, Measured, measure, picture, windows_disagree
from quadrat.models.foreign.network import ForeignNetwork, ForeignSection
from quadrat.models.foreign.traits import Traits, traits_of
from quadrat.models.package import SCHEDULE_EXACT, TILING_EXACT, write_card
from quadrat.models.spec import versions
from quadrat.models.task import Builds, ModelSpec

PIPELINE = "pipeline.yaml"
"""The pipeline file that comes with an imported package."""
NETWORK = "network"
"""Name of the network's file without its suffix."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import."""

    folder: Path
    """The package."""
    spec: ModelSpec
    """Its specification."""
    exactness: Mapping[str, Any]
    """What was measured, and what is promised."""
    notes: tuple[str, ...]
    """What a user should know, a line each."""


def import_model(
    path: Path,
    card: ImportCard,
    out: Path,
    *,
    task_named: Callable[[str], Builds],
    trust: bool = False,
    examples: Callable[[ForeignNetwork], list[str]] | None = None,
) -> Imported:
    """Measure the network in a file and write a package of it.

    Args:
        path: of the file.
        card: what its owner says of it.
        out: folder of the package; one that is there is replaced.
        task_named: gives the decoder's task (:func:`quadrat.tasks.get_task`).
        trust: a pickle may be loaded, and with it whatever code it holds.
        examples: holds the network against examples that came with it, and says what it found.

    Raises:
        ConfigError: the card asks for what is not there.
        PackageError: the file cannot be loaded, could run code, or does not answer as its card
            says.
        WriteError: the package cannot be written.
    """
    if out.exists() and not (out / CARD).is_file():
        raise ConfigError(f"--out {out} is there, and is no model package; name another folder")
    kind = recognise(path)
    refuse_code(path, kind, trust=trust)
    whole = joined(path) if kind == "onnx" else None
    if whole is not None:
        with private_folder(out.parent / f".{out.name}.joined") as folder:
            write_file(folder / path.name, whole)
            found = import_model(
                folder / path.name, card, out, task_named=task_named, examples=examples
            )
        note = f"{path.name}: its weights lay in further files, and are in the package's file now"
        return replace(found, notes=(note, *found.notes))
    if kind == "pickle":
        return from_module(_unpickled(path, card), card, out, task_named=task_named)
    decoder = decoder_named(card.decoder)
    card = replace(card, activation=card.activation or decoder.activation)
    spec = _spec(card, decoder, task_named(decoder.task))
    loaded = load_file(
        path,
        kind,
        architecture=card.architecture,
        options=card.architecture_options,
        classes=len(card.classes),
    )
    notes = [f"{path.name}: {ABOUT[kind]}"]
    raw = _network(loaded, card, decoder, spec)
    traits = traits_of(loaded)
    measured = _measured(raw, card, traits)
    reach = _reach(measured, raw, decoder)
    lattice = lattice_of(card, measured, fixed=raw.fixed.height, reach=reach)
    spec = replace(spec, lattice=lattice)
    section = _section(card, kind, path, lattice, measured, reach)
    network = put_together(loaded, section, spec)
    exact = _exactness(network, spec, measured, decoder, traits, reach)
    section = replace(section, exact=exact["promise"] == TILING_EXACT)
    _check_answer(network, spec)
    if examples is not None:
        notes += examples(network)
    values = TypeAdapter(ForeignSection).dump_python(section, mode="json")
    about = {
        FOREIGN: values,
        "exactness": exact,
        "license": card.license,
        "source": card.source,
        "citation": card.citation,
        "name": card.name or path.stem,
        "description": card.description,
        "versions": versions(),
    }
    with new_folder(out) as staging:
        write_file(staging / section.file, path.read_bytes())
        write_file(staging / PIPELINE, _pipeline(card, spec, name=out.name))
        write_card(staging, spec, about=about, weights_sha256=digest_of(values))
    return Imported(out, spec, exact, tuple(notes))


def from_module(
    module: nn.Module, card: ImportCard, out: Path, *, task_named: Callable[[str], Builds]
) -> Imported:
    """A package of a network that is there as a module of torch: it is exported by
    ``torch.export``, and traced as TorchScript where that cannot be done.

    Raises:
        PackageError: neither can be done; and what :func:`import_model` raises.
    """
    side = card.window if card.window != MEASURE else 256
    with private_folder(out.parent / f".{out.name}.export") as folder:
        path, note = save_module(module, folder, side=side, layout=card.input.layout)
        found = import_model(path, card, out, task_named=task_named)
    return replace(found, notes=(note, *found.notes)) if note else found


def _unpickled(path: Path, card: ImportCard) -> nn.Module:
    """The module of a pickle that is trusted, or the card's architecture with its weights."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise whatever it likes
        raise PackageError(
            f"{path} cannot be unpickled ({type(error).__name__}: {error})"
        ) from error
    if isinstance(found, nn.Module):
        return found.eval()
    weights = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(weights, dict):
        raise PackageError(
            f"{path} holds {type(found).__name__}; it must hold a network or weights"
        )
    classes = len(card.classes)
    options = card.architecture_options
    return weighted(lambda: weights, path, card.architecture, options, classes=classes).eval()


def _spec(card: ImportCard, decoder: Decoder, task: Builds) -> ModelSpec:
    """The specification without its lattice."""
    unit: Unit = "px" if card.mpp == PX else "um"
    known = task.default_thresholds
    for name in card.thresholds:
        if in_um(name, unit) not in known:
            hint = did_you_mean(name, known, otherwise=f" (known: {', '.join(known) or 'none'})")
            raise ConfigError(f"thresholds.{name} is unknown to the task {task.name}{hint}")
    for name in card.options:
        if name not in decoder.options:
            listed = ", ".join(decoder.options) or "none"
            hint = did_you_mean(name, decoder.options, otherwise=f" (known: {listed})")
            raise ConfigError(f"options.{name} is unknown to the decoder {decoder.name}{hint}")
    missing = [k for k, v in decoder.options.items() if v is None and k not in card.options]
    if missing:
        raise ConfigError(f"the decoder {decoder.name} needs options.{missing[0]} in the card")
    stated = {in_um(name, unit): value for name, value in card.thresholds.items()}
    if unit == "px":
        unclear = [n for n in known if named(n, unit) != n and n not in stated]
        if unclear:
            raise ConfigError(
                f"thresholds.{named(unclear[0], unit)} is not stated; where mpp is px its default "
                "in um says nothing, so state it in pixels"
            )
    return ModelSpec(
        task=decoder.task,
        classes=tuple(ClassInfo(c.name, cast(tuple[int, int, int], c.color)) for c in card.classes),
        mpp=MPP_OF_PX if card.mpp == PX else float(card.mpp),
        lattice=Lattice(core=1, halo=0, stride=1, shard=1),
        widths=(),
        thresholds={**known, **decoder.thresholds, **stated},
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        encoder=FOREIGN,
        unit=unit,
    )


def _network(loaded: Loaded, card: ImportCard, decoder: Decoder, spec: ModelSpec) -> ForeignNetwork:
    """The network before anything was measured of it."""
    unknown = [n for n in card.outputs if n not in (*decoder.outputs, *decoder.optional)]
    if unknown:
        listed = ", ".join((*decoder.outputs, *decoder.optional))
        raise ConfigError(
            f"outputs.{unknown[0]} is unknown to the decoder {decoder.name} (it reads {listed})"
        )
    missing = [name for name in decoder.outputs if card.outputs and name not in card.outputs]
    if missing:
        raise ConfigError(f"the decoder {decoder.name} needs outputs.{missing[0]} in the card")
    head = ForeignHead(
        classes=len(card.classes),
        activation=card.activation or "logits",
        options=card.options,
        mpp=spec.mpp,
    )
    network = ForeignNetwork(loaded, decoder, head, input=card.input, outputs=card.outputs)
    fixed = network.fixed
    if fixed.height != fixed.width:
        raise PackageError(
            f"the file takes windows of {fixed.height} x {fixed.width} px; they must be square"
        )
    return network


def _measured(network: ForeignNetwork, card: ImportCard, traits: Traits) -> Measured:
    side = None if card.window == MEASURE else card.window
    cell = None if card.out_stride == MEASURE else card.out_stride
    if network.decoder.name == "classes":
        if side is None and network.fixed.height is None:
            raise ConfigError(
                "window is not stated, and the file takes any; state the side of the tiles that "
                "the network was trained on"
            )
        return Measured(any_size=network.fixed.height is None, out_stride=0)
    found = measure(network, side=side, out_stride=cell, dilation=traits.dilation)
    if not found.any_size and network.fixed.height is None and side is None:
        raise ConfigError(
            "the network answers windows of one size only; state it as the card's window"
        )
    return found


def _reach(measured: Measured, network: ForeignNetwork, decoder: Decoder) -> int | None:
    """The radius that the halo has to cover; None: no halo makes the answer tiling-exact."""
    if not decoder.local or measured.radius is None or measured.stride is None:
        return None
    head = replace(network.head, out_stride=measured.out_stride)
    return measured.radius + decoder.reach(head)


def _section(
    card: ImportCard,
    kind: Format,
    path: Path,
    lattice: Lattice,
    measured: Measured,
    reach: int | None,
) -> ForeignSection:
    return ForeignSection(
        format=kind,
        file=NETWORK + SUFFIX[kind],
        sha256=sha256_of(path),
        decoder=card.decoder,
        stride=lattice.stride,
        out_stride=measured.out_stride,
        radius=reach,
        input=card.input,
        outputs=card.outputs,
        activation=card.activation or "logits",
        options=card.options,
        architecture=card.architecture,
        architecture_options=card.architecture_options,
    )


def _exactness(
    network: ForeignNetwork,
    spec: ModelSpec,
    measured: Measured,
    decoder: Decoder,
    traits: Traits,
    reach: int | None,
) -> dict[str, Any]:
    """What was measured, as :func:`quadrat.models.package.exactness` says it, and why no more is
    promised."""
    lattice, why, differ, card_input = spec.lattice, "", None, network.input
    if measured.out_stride == 0:
        why = "each window is answered as a whole"
    elif not decoder.local:
        why = f"the decoder {decoder.name} reads each window by itself"
    elif measured.radius is None:
        own = () if card_input.by_window == "none" else ("input.by_window of the card",)
        seen = ", ".join((*own, *traits.whole))
        why = "each place depends on the whole window" + (f" ({seen})" if seen else "")
    elif measured.stride is None:
        why = "no shift of the picture only shifts the answer"
    elif reach is None or reach > lattice.halo:
        why = (
            f"it reaches {reach} px, and the halo is {lattice.halo} px of a window of "
            f"{lattice.window} px"
        )
    elif lattice.stride % measured.stride:
        why = f"the window is no multiple of its stride of {measured.stride} px"
    else:
        shift = min(lattice.stride * max(1, lattice.core // lattice.stride // 2), lattice.core)
        shift = max(lattice.stride, shift)
        differ = windows_disagree(network, side=lattice.window, halo=lattice.halo, shift=shift)
        if differ > AGREE:
            why = f"two windows differ by {differ:.2g} of the range where both see enough"
    return {
        "stride": network.stride,
        "measured_stride": measured.stride,
        "receptive_radius_px": reach,
        "structural_radius_px": measured.structural,
        "impulse_radius_px": measured.impulse,
        "decoder_reach_px": None
        if reach is None or measured.radius is None
        else reach - measured.radius,
        "windows_differ": differ,
        "halo_px": lattice.halo,
        "promise": SCHEDULE_EXACT if why else TILING_EXACT,
        "why": why,
        "window_over_core": round((lattice.window / lattice.core) ** 2, 3),
    }


def _check_answer(network: ForeignNetwork, spec: ModelSpec) -> None:
    """Refuse a network that does not answer a window as its decoder needs it."""
    from quadrat.models.inference import is_finite

    side = spec.lattice.window
    image = picture(side, side).float().expand(network.batch or 1, -1, -1, -1)
    with torch.inference_mode():
        output = network(image)
    if not is_finite(output):
        raise PackageError("the network answers a test picture with NaN or infinity")


def _pipeline(card: ImportCard, spec: ModelSpec, *, name: str) -> str:
    """The pipeline file that runs the package. JSON is YAML."""
    lattice = spec.lattice
    values = {
        "name": name,
        "description": card.description,
        "task": spec.task,
        "classes": [{"name": c.name, "color": list(c.color)} for c in card.classes],
        "model": {
            "package": ".",
            "mpp": card.mpp,
            "core": lattice.core,
            "halo": lattice.halo,
            "stride": lattice.stride,
            "shard": lattice.shard,
            "license": card.license,
        },
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([f"# Runs the imported model: quadrat run {name} slide.svs", *lines, ""])
