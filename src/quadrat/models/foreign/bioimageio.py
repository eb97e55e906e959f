"""Reading model descriptions of bioimage.io (0.4 and 0.5) with TorchScript or ONNX weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from quadrat.core.errors import PackageError
from quadrat.models.foreign.description import Described, Keys, named_classes
from quadrat.models.foreign.network import ForeignNetwork

WEIGHTS = {"torchscript": ".pt", "onnx": ".onnx"}
"""Kinds of weights that are read, the preferred one first."""
IN_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}
"""um in the units of an axis."""
AGREES = 1e-3
"""Share of an example's range by which the answer to it may differ."""
LAST = {"sigmoid": torch.sigmoid, "softmax": lambda x: torch.softmax(x, dim=1)}
"""Steps after the network that a decoder takes itself."""


def described(path: Path) -> Described:
    """A model as its description says it is. Anything under ``config: quadrat`` is taken as keys of
    an import card.

    Raises:
        PackageError: it has no weights that are read, or is of another kind.
    """
    about = _read(path)
    version = str(about.get("format_version", ""))
    if about.get("type") != "model" or not version.startswith(("0.4.", "0.5.")):
        raise PackageError(
            f"{path} is type {about.get('type')!r}, format_version {version!r}; models of 0.4 and "
            "0.5 are read"
        )
    try:
        network = _weights(path, about["weights"])
        inputs, outputs = about["inputs"], about["outputs"]
        if len(inputs) != 1:
            raise PackageError(f"{path} has {len(inputs)} inputs; a network must have one")
        keys, notes = _input(inputs[0], path)
        keys |= _after(outputs)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise PackageError(
            f"{path} is incomplete or wrong ({type(error).__name__}: {error})"
        ) from error
    keys |= {"name": str(about.get("name", "")), "description": _line(about.get("description"))}
    licence = about.get("license")
    licence = licence.get("source") if isinstance(licence, dict) else licence
    keys |= {"license": str(licence)} if licence else {}
    keys |= {"source": str(about["id"])} if about.get("id") else {}
    cited = "; ".join(_line(one.get("text")) for one in about.get("cite") or [])
    keys |= {"citation": cited} if cited else {}
    own = (about.get("config") or {}).get("quadrat") or {}
    if isinstance(own.get("classes"), list) and all(isinstance(c, str) for c in own["classes"]):
        own = own | {"classes": named_classes(own["classes"])}
    tests = _tests(path, about)

    def examples(network: ForeignNetwork) -> list[str]:
        return _hold(network, tests, outputs)

    return Described(network, keys | own, tuple(notes), examples if tests else None)


def _read(path: Path) -> Keys:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PackageError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path} must hold keys and values, not {type(found).__name__}")
    return found


def _weights(path: Path, weights: Mapping[str, Any]) -> Path:
    """The file of the weights, of the digest that the description states."""
    kind = next((kind for kind in WEIGHTS if kind in weights), None)
    if kind is None:
        raise PackageError(
            f"{path} has the weights {', '.join(weights)}; {' or '.join(WEIGHTS)} is needed"
        )
    entry = weights[kind]
    return _file(path, entry["source"], entry.get("sha256"))


def _file(path: Path, source: object, sha256: str | None) -> Path:
    """A file that a description names, in its own folder."""
    name = Path(str(source))
    if "://" in str(source):
        name = Path(name.name)  # a package for download has it beside the description
    found = (path.parent / name).resolve()
    if path.parent.resolve() not in found.parents or not found.is_file():
        raise PackageError(f"{path} names {source}, which is not in its folder")
    if sha256 and hashlib.sha256(found.read_bytes()).hexdigest() != sha256:
        raise PackageError(f"{found} has another sha256 than {path.name} says; download it again")
    return found


def _input(given: Mapping[str, Any], path: Path) -> tuple[Keys, list[str]]:
    """What a card says of the input: layout, values, window, scale."""
    axes = _axes(given)
    names = "".join(axis["id"] for axis in axes)
    if names not in ("bcyx", "byxc"):
        raise PackageError(
            f"{path} has an input with the axes {names}; it must be a batch of RGB pictures (bcyx "
            "or byxc)"
        )
    sizes = {axis["id"]: axis.get("size") for axis in axes}
    if sizes["c"] not in (3, None):
        raise PackageError(f"{path} takes {sizes['c']} channels; it must take red, green and blue")
    keys: Keys = {"input": {"layout": "NCHW" if names == "bcyx" else "NHWC"}}
    if isinstance(sizes["y"], int) and sizes["y"] == sizes["x"]:
        keys["window"] = sizes["y"]
    row = next(axis for axis in axes if axis["id"] == "y")
    if row.get("unit") in IN_UM and row.get("scale"):
        keys["mpp"] = float(row["scale"]) * IN_UM[row["unit"]]
    section, notes = _values(given, path)
    keys["input"] |= section
    return keys, notes


def _axes(given: Mapping[str, Any]) -> list[Keys]:
    """Axes as 0.5 has them: id b, c, y, x, with a size that is a number where it is fixed."""
    axes = given["axes"]
    if isinstance(axes, str):  # 0.4
        shape = given.get("shape")
        sizes = shape if isinstance(shape, list) else [None] * len(axes)
        return [{"id": name, "size": size} for name, size in zip(axes, sizes, strict=True)]
    short = {"batch": "b", "channel": "c"}
    out = []
    for axis in axes:
        size = axis.get("size")
        if axis["type"] == "channel":
            size = len(axis.get("channel_names") or []) or size
        out.append({**axis, "id": short.get(axis["type"], str(axis.get("id"))), "size": size})
    return out


def _values(given: Mapping[str, Any], path: Path) -> tuple[Keys, list[str]]:
    """What preprocessing makes of bytes: one affine map, then perhaps a step that each window is
    normalised by."""
    data = given.get("data") or {}
    entry = data if isinstance(data, dict) else {}
    limits = entry.get("range") or given.get("data_range") or []
    small = bool(limits) and all(isinstance(v, int | float) for v in limits) and limits[1] <= 1
    gain, offset = np.ones(3), np.zeros(3)
    section: Keys = {"range": "0-1" if small else "0-255"}
    for step in given.get("preprocessing") or []:
        name, kwargs = step.get("id", step.get("name")), step.get("kwargs") or {}
        fixed = name == "fixed_zero_mean_unit_variance" or kwargs.get("mode") == "fixed"
        if name == "scale_linear":
            g, o = _three(kwargs.get("gain", 1.0)), _three(kwargs.get("offset", 0.0))
        elif name.endswith("zero_mean_unit_variance") and fixed:
            std = _three(kwargs["std"])
            g, o = 1 / std, -_three(kwargs["mean"]) / std
        elif name == "zero_mean_unit_variance":
            section["by_window"] = "mean_std"
            continue
        elif name == "scale_range":
            section["by_window"] = "percentiles"
            low = kwargs.get("min_percentile", 0.0)
            section["percentiles"] = [float(low), float(kwargs.get("max_percentile", 100.0))]
            continue
        elif name == "ensure_dtype":
            continue
        else:
            raise PackageError(f"{path} has the preprocessing {name}, which is not known")
        gain, offset = gain * g, offset * g + o
    section |= {"mean": list(-offset / gain), "std": list(1 / gain)}
    return section, []


def _three(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(value, np.float64).ravel()
    return np.broadcast_to(values, 3)


def _after(outputs: list[Mapping[str, Any]]) -> Keys:
    """What is said of scores by what comes after the network."""
    names = [
        step.get("id", step.get("name"))
        for output in outputs
        for step in output.get("postprocessing") or []
    ]
    return {"activation": "logits"} if any(name in LAST for name in names) else {}


def _tests(path: Path, about: Keys) -> list[tuple[Path, list[Path]]]:
    """Test input and outputs."""
    if "test_inputs" in about:
        given, wanted = about["test_inputs"], about["test_outputs"]
        return [(_file(path, given[0], None), [_file(path, one, None) for one in wanted])]
    entry = about["inputs"][0].get("test_tensor")
    if not entry:
        return []
    wanted = [one["test_tensor"] for one in about["outputs"] if one.get("test_tensor")]
    return [
        (
            _file(path, entry["source"], entry.get("sha256")),
            [_file(path, one["source"], one.get("sha256")) for one in wanted],
        )
    ]


def _hold(
    network: ForeignNetwork, tests: list[tuple[Path, list[Path]]], outputs: list[Mapping[str, Any]]
) -> list[str]:
    """Compare the network's answer with the examples; what was found.

    Raises:
        PackageError: they differ.
    """
    notes = []
    for given, wanted in tests:
        image = torch.from_numpy(np.load(given, allow_pickle=False)).float()
        if network.input.layout == "NHWC":
            image = image.permute(0, 3, 1, 2)
        with torch.inference_mode():
            raw = network.loaded(network.normalised(image))
        answers = (
            [raw]
            if isinstance(raw, Tensor)
            else list(raw.values() if isinstance(raw, Mapping) else raw)
        )
        for answer, place, about in zip(answers, wanted, outputs, strict=False):
            _compare(answer, torch.from_numpy(np.load(place, allow_pickle=False)), about, place)
        notes.append(f"{given.name}: answered as {', '.join(one.name for one in wanted)}")
    return notes


def _compare(answer: Tensor, wanted: Tensor, about: Mapping[str, Any], place: Path) -> None:
    for step in about.get("postprocessing") or []:
        name = step.get("id", step.get("name"))
        if name in LAST:
            answer = LAST[name](answer)
        elif name != "ensure_dtype":
            return  # what it would be after that is not worked out here
    if answer.shape != wanted.shape:
        raise PackageError(
            f"{place}: the network answers its test input with the shape {tuple(answer.shape)}, "
            f"and the example is {tuple(wanted.shape)}"
        )
    wanted = wanted.to(answer.dtype)
    spread = float(wanted.max() - wanted.min()) or 1.0
    gap = float((answer - wanted).abs().max()) / spread
    if gap > AGREES:
        raise PackageError(
            f"{place}: the network's answer to its test input differs from the example by "
            f"{gap:.2g} of its range; weights or preprocessing are not what the description says"
        )


def _line(text: object) -> str:
    return " ".join(str(text or "").split())
