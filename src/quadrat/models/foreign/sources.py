"""What a user names as a model: a file with a card, or a folder in which others describe theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadrat.config.import_card import ImportCard, import_card, read_keys
from quadrat.core.errors import ConfigError, PackageError
from quadrat.models.foreign.bioimageio import described
from quadrat.models.foreign.description import Described, Keys, named_classes
from quadrat.models.foreign.network import ForeignNetwork

DESCRIPTIONS = ("config.json", "rdf.yaml", "bioimageio.yaml", "metadata.json")
"""Names of the files in which others describe a model."""
HOVER = {
    "np": "nucleus_prediction",
    "hv": "horizontal_vertical",
    "type": "type_prediction",
}
"""What MONAI's HoVer-Net calls its outputs."""


@dataclass(frozen=True, slots=True)
class Source:
    """A network's file and all that is said of it."""

    network: Path
    """The file."""
    card: ImportCard
    """What is said of it."""
    notes: tuple[str, ...] = ()
    """What was made of the description, a line each."""
    examples: Callable[[ForeignNetwork], list[str]] | None = None
    """Holds the network against examples that came with it."""


def source_of(path: Path, card: Path | None) -> Source:
    """What a user named. The keys of ``card`` come before those of a description.

    Raises:
        ConfigError: there is no card, or it is wrong or incomplete.
        PackageError: a description that cannot be used.
    """
    described = _described(path)
    if described is None:
        if card is None:
            raise ConfigError(
                f"{path} needs an import card (--card); print one to begin with by 'quadrat models "
                "import --example hovernet'"
            )
        return Source(path, import_card(read_keys(card), where=str(card)))
    keys = described.keys | (read_keys(card) if card is not None else {})
    missing = [key for key in ("decoder", "classes", "mpp", "license") if key not in keys]
    if missing:
        raise ConfigError(
            f"{path} does not say its {', '.join(missing)}; state them in a card (--card)"
        )
    where = str(path) if card is None else f"{path} with {card}"
    whole = import_card(keys, where=where)
    return Source(described.network, whole, described.notes, described.examples)


def _described(path: Path) -> Described | None:
    """A model that describes itself; None: it is a plain file.

    Raises:
        PackageError: a folder without a description.
    """
    if not path.is_dir() and path.name not in DESCRIPTIONS:
        return None
    folder = path if path.is_dir() else path.parent
    places = [folder / name for name in DESCRIPTIONS] + [folder / "configs" / "metadata.json"]
    found = path if path.is_file() else next((one for one in places if one.is_file()), None)
    if found is None:
        raise PackageError(
            f"{path} has no description of a model ({', '.join(DESCRIPTIONS)}); name the network's "
            "file itself"
        )
    if found.name == "metadata.json":
        return _monai(found)
    if found.name == "config.json":
        return _wsinfer(found)
    return described(found)


def read_json(path: Path) -> Keys:
    """A description in JSON.

    Raises:
        PackageError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackageError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path} must hold keys and values, not {type(found).__name__}")
    return found


def _wsinfer(path: Path) -> Described:
    """A classifier of the WSInfer zoo (configuration 1.0). Its patches are made smaller by one of
    its transforms; here they are read at the scale at which they have that size."""
    config = read_json(path)
    if config.get("spec_version") != "1.0":
        raise PackageError(
            f"{path} has spec_version {config.get('spec_version')!r}; WSInfer configurations of "
            "version 1.0 are read"
        )
    network = path.parent / "torchscript_model.pt"
    try:
        side, spacing = int(config["patch_size_pixels"]), float(config["spacing_um_px"])
        names = [str(name) for name in config["class_names"]]
        size, section = side, {}
        for step in config["transform"]:
            given = step.get("arguments", {})
            if step["name"] == "Resize":
                size = given["size"] if isinstance(given["size"], int) else given["size"][0]
            elif step["name"] == "Normalize":
                section = {"mean": list(given["mean"]), "std": list(given["std"])}
            elif step["name"] != "ToTensor":
                raise PackageError(f"{path} has the transform {step['name']}, which is not known")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PackageError(
            f"{path} is incomplete or wrong ({type(error).__name__}: {error})"
        ) from error
    mpp = spacing * side / size
    notes = [
        f"{path.name}: WSInfer, patches of {side} px at {spacing:g} um/px are read as {size} px at "
        f"{mpp:g} um/px (not read first and then resized)"
    ] * (size != side)
    keys: Keys = {
        "decoder": "classes",
        "classes": named_classes(names),
        "mpp": mpp,
        "window": size,
        "input": section,
        "name": str(config.get("name", path.parent.name)),
        "description": str(config.get("architecture", "")),
    }
    return Described(network, keys, tuple(notes))


def _monai(path: Path) -> Described:
    """A MONAI bundle with its TorchScript."""
    about = read_json(path)
    root = path.parent.parent if path.parent.name == "configs" else path.parent
    network = next(
        (one for one in (root / "models" / "model.ts", root / "model.ts") if one.is_file()), None
    )
    if network is None:
        raise PackageError(
            f"{root} has no models/model.ts; export the bundle as TorchScript (monai.bundle "
            "ckpt_export)"
        )
    try:
        (image,) = about["network_data_format"]["inputs"].values()
        outputs = about["network_data_format"]["outputs"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PackageError(f"{path} does not describe one input and its outputs") from error
    keys: Keys = {
        "name": str(about.get("name", root.name)),
        "description": " ".join(str(about.get("task", "")).split()),
        "source": f"MONAI bundle {about.get('name', root.name)} {about.get('version', '')}".strip(),
        "input": _monai_input(image),
    }
    shape = image.get("spatial_shape") or []
    if len(shape) == 2 and all(isinstance(n, int) for n in shape) and shape[0] == shape[1]:
        keys["window"] = shape[0]
    if set(HOVER.values()) <= set(outputs):
        keys |= {"decoder": "hovernet", "outputs": HOVER, "activation": "logits"}
        keys |= _monai_classes(outputs[HOVER["type"]], background=True)
    return Described(network, keys)


def _monai_input(image: Mapping[str, Any]) -> Keys:
    top = max((v for v in image.get("value_range") or [] if isinstance(v, int | float)), default=1)
    return {"range": "0-255" if top > 1 else "0-1"}


def _monai_classes(output: Mapping[str, Any], *, background: bool) -> Keys:
    channels = output.get("channel_def") or {}
    names = [str(channels[key]) for key in sorted(channels, key=int)][1 if background else 0 :]
    return {"classes": named_classes(names)} if names else {}
