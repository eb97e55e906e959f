"""State dicts from files into networks: every tensor is accounted for, nothing is executed, nothing
is loaded in part."""

from __future__ import annotations

import pickle
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
"""BatchNorm's count of training steps, which some files lack and nothing here reads."""
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: ``source`` as given, number of ``tensors``, and ``left``, the keys of head
    and layers beyond the cut."""

    source: str
    tensors: int
    left: tuple[str, ...]


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
        ConfigError: tensors that lack, have another shape, or belong to nothing; the first of
        them are named.
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
