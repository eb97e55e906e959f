"""State dicts from files into networks. Every tensor must have its place, nothing of a file is
executed, and nothing is loaded in part."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from quadrat.core.errors import ConfigError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
COUNTER = "num_batches_tracked"
"""BatchNorm's count of training steps, which some files do not have and nothing here reads."""
SHOWN = 3
"""Names of tensors that a message lists."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded."""

    source: str
    """As it was given."""
    tensors: int
    """How many tensors were copied."""
    left: tuple[str, ...]
    """Tensors of the file for which the network has no place: the classifier's, and those of the
    layers after the last feature."""


def read_state(source: str) -> dict[str, Tensor]:
    """The tensors of a local file by name, on the CPU.

    Raises:
        ConfigError: no such file, another kind of file, a damaged one, or one that holds
            anything but tensors by name.
    """
    path = Path(source).expanduser()
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"weights '{source}': give 'hub' or a file ending in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise ConfigError(f"there is no weights file {path}")
    again = "save one with safetensors, or with torch.save(model.state_dict(), path)"
    try:
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:  # torch's own message advises to load it anyway
        raise ConfigError(
            f"{path} is no file of tensors alone, and Python objects are never loaded; {again}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"{path} is no readable state dict ({type(error).__name__}: {reason}); {again}"
        ) from error
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(value, Tensor) for value in found.values())
    ):
        holds = (
            f"keys {', '.join(map(str, list(found)[:SHOWN]))}"
            if isinstance(found, Mapping)
            else f"a {type(found).__name__}"
        )
        raise ConfigError(
            f"{path} holds {holds}, not tensors by name; save the network's state_dict() itself"
        )
    return dict(found)


def load_state(
    body: nn.Module,
    state: Mapping[str, Tensor],
    *,
    network: str,
    source: str,
    beyond: frozenset[str],
) -> Loaded:
    """Copy a state dict into a network; only keys of ``beyond`` may be left over.

    Raises:
        ConfigError: tensors that are missing, have another shape, or belong to nothing; the first
            of them are named.
    """
    own = body.state_dict()
    taken = {key: value for key, value in state.items() if key in own}
    left = [key for key in state if key not in own and key in beyond]
    unknown = [
        key for key in state if key not in own and key not in beyond and not key.endswith(COUNTER)
    ]
    missing = [key for key in own if key not in taken and not key.endswith(COUNTER)]
    shapes = [
        f"{key} is {tuple(value.shape)} where {tuple(own[key].shape)} is needed"
        for key, value in taken.items()
        if value.shape != own[key].shape
    ]
    wrong = [
        f"{what} {_some(keys)}"
        for what, keys in (("lacks", missing), ("has unknown", unknown), ("shapes:", shapes))
        if keys
    ]
    if wrong:
        raise ConfigError(
            f"weights '{source}' do not fit {network}: {'; '.join(wrong)}; are they another "
            "network's?"
        )
    body.load_state_dict(taken, strict=False)
    return Loaded(source=source, tensors=len(taken), left=tuple(sorted(left)))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


LITE_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of EfficientNet-Lite0."""
LITE_NAMES = {
    "": {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
         "_fc": "classifier"},
    "first": {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
              "_bn2": "bn2"},
    "later": {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
              "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"},
}  # fmt: skip
"""Layers as efficientnet_lite_pytorch names them -> as timm does: outside the blocks, in the first
block (which expands nothing), and in the later ones."""


def names_of_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of EfficientNet-Lite0 under timm's names; tensors are not copied.

    Files of efficientnet_lite_pytorch number the blocks through, timm numbers them in each stage. A
    name that neither of them has stays as it is.
    """
    places = [f"blocks.{s}.{b}." for s, blocks in enumerate(LITE_STAGES) for b in range(blocks)]
    out = {}
    for name, tensor in state.items():
        block = re.match(r"_blocks\.(\d+)\.", name)
        number = -1 if block is None else int(block[1])
        layer, dot, kind = name[block.end() if block else 0 :].partition(".")
        layers = LITE_NAMES["" if number < 0 else "first" if number == 0 else "later"]
        if layer in layers and number < len(places):
            name = (places[number] if number >= 0 else "") + layers[layer] + dot + kind
        out[name] = tensor
    return out
