"""What a training leaves on disk so that it can go on: ``checkpoint.json`` with its weights, the
best weights, two logs.

There are no pickles: tensors are safetensors, logs are CSV, the rest is JSON. ``checkpoint.json``
is replaced last, so that all that it names is whole: weights by their sha256, and how much of the
log of losses, which only grows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from quadrat.core.errors import ConfigError, StoreError
from quadrat.core.files import check_free_space, drop_partials, remove, sha256_of, write_file
from quadrat.training.log import Extent, Log

ROOM_FACTOR = 8
"""Room that is needed, in sizes of the network's weights: old and new checkpoint (weights and two
moments each), best weights."""
TOLD = 5
"""Differences between two trainings that a message names."""
Key = Mapping[str, Any]
"""Everything that decides the weights of a training: JSON values by the names that a user knows."""


@dataclass(slots=True)
class State:
    """Where a training stands."""

    step: int = 0
    """Steps taken."""
    ended: bool = False
    """Whether no step is left."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The losses of each step, with "step"."""
    validations: list[dict[str, float]] = field(default_factory=list)
    """The figures of each validation, with "step": how many had been taken."""
    best: float = -np.inf
    """The best value of the main figure."""
    best_step: int | None = None
    """Steps that the best weights have seen."""
    without_better: int = 0
    """Validations since there was a better figure."""
    seconds_before: float = 0.0
    """What the training took before it was interrupted."""

    def record(self, terms: Mapping[str, float]) -> None:
        """The losses of one more step."""
        self.history.append({"step": self.step} | dict(terms))
        self.step += 1

    def validated(self, figures: Mapping[str, float], *, main: str) -> bool:
        """Note figures; whether these weights are the best so far (of equals the later are; NaN
        never is)."""
        self.validations.append({"step": self.step} | dict(figures))
        value = figures[main]
        better = value >= self.best
        self.without_better = 0 if value > self.best else self.without_better + 1
        if better:
            self.best, self.best_step = value, self.step
        return better

    def smooth(self) -> float:
        """Mean loss of the last twenty steps."""
        return float(np.mean([h["loss"] for h in self.history[-20:]]))

    def last(self, count: int) -> dict[str, float]:
        """Mean of each loss over the last ``count`` steps."""
        rows = self.history[-count:]
        return (
            {k: float(np.mean([r[k] for r in rows])) for k in rows[-1] if k != "step"}
            if rows
            else {}
        )


IN_JSON = tuple(name for name in State.__dataclass_fields__ if name != "history")
"""What of a state stands in ``checkpoint.json``."""


def room_needed(model: nn.Module) -> int:
    """Bytes that the checkpoints of a network may take."""
    tensors: list[Tensor] = list(model.state_dict().values())
    return ROOM_FACTOR * sum(t.numel() * t.element_size() for t in tensors)


class Checkpoints:
    """The files of one training in its folder. ``key``: what decides the weights; ``writes``: False
    for a process that leaves it to another one.

    Raises:
        WriteError: there is too little room.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        key: Key,
        writes: bool = True,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self._model, self._optimizer, self._key = folder, model, optimizer, key
        self._writes = writes
        if writes:
            drop_partials(folder)
        check_free_space(folder, room_needed(model), what="the checkpoints of a training")
        self._log = Log(folder / "log.csv")
        self._board: Any = _board(folder) if tensorboard and writes else None
        self._logged = (0, 0)
        """Rows of losses and of figures that are in the logs."""
        self._best_sha256: str | None = None

    def resume(self) -> State:
        """The state to go on from, with weights and optimizer loaded; a fresh one if there is none.

        Raises:
            StoreError: the checkpoint is damaged. ConfigError: it is of another training.
        """
        about = check_same_training(self.folder, self._key)
        if about is None:
            return State()
        try:
            values = {name: about[name] for name in IN_JSON}
            history = self._log.read(Extent(**about["log"]))
            if len(history) != about["step"]:
                raise ValueError(f"log.csv has {len(history)} rows after {about['step']} steps")
            _verify(self.folder / _checkpoint(about["step"]), about["sha256"])
            if about["best_step"] is not None:  # better now than at the end
                _verify(self._best(about["best_step"]), about["best_sha256"])
            self._load(about["step"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise _damaged(self.folder, error) from error
        self._best_sha256 = about["best_sha256"]
        values["best"] = -np.inf if values["best"] is None else values["best"]
        state = State(**values, history=history)
        self._logged = (len(state.history), len(state.validations))
        return state

    def _load(self, step: int) -> None:
        device = next(self._model.parameters()).device
        tensors = load_file(self.folder / _checkpoint(step), device=str(device))
        self._model.load_state_dict(
            {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})

    def write(self, state: State, *, seconds: float) -> None:
        """Write weights, moments, state and logs. The log of losses gets its new rows; all else is
        replaced.

        Raises:
            WriteError: they cannot be written. The training then goes on from the checkpoint
                before.
        """
        if not self._writes:
            return
        tensors = {f"model.{k}": v for k, v in self._model.state_dict().items()}
        for index, moment in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moment.items()}
        sha256 = self._save(tensors, _checkpoint(state.step))
        self._log.append(state.history[self._logged[0] :])
        if state.validations:
            write_rows(self.folder / "validation.csv", state.validations)
        about = {name: getattr(state, name) for name in IN_JSON} | {
            "key": self._key,
            "log": asdict(self._log.extent),
            "sha256": sha256,
            "seconds_before": state.seconds_before + seconds,
            "best": state.best if math.isfinite(state.best) else None,
            "best_sha256": self._best_sha256,
        }
        write_file(self.folder / "checkpoint.json", json.dumps(about))
        for old in self.folder.glob("checkpoint.*.safetensors"):
            if old.name != _checkpoint(state.step):
                remove(old)
        for old in self.folder.glob("best.*.safetensors"):
            if old.name != f"best.{state.best_step}.safetensors":
                remove(old)
        self._show(state)

    def keep_best(self, step: int) -> None:
        """Write the weights as they are; they count once ``checkpoint.json`` names them."""
        if self._writes:
            self._best_sha256 = self._save(dict(self._model.state_dict()), self._best(step).name)

    def load_best(self, step: int) -> None:
        """Load the weights of :meth:`keep_best`.

        Raises:
            StoreError: they are damaged.
        """
        path = self._best(step)
        try:
            self._model.load_state_dict(
                load_file(path, device=str(next(self._model.parameters()).device))
            )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise StoreError(
                f"{path} is damaged ({error}); delete {self.folder} to train from the beginning"
            ) from error

    def _best(self, step: int) -> Path:
        return self.folder / f"best.{step}.safetensors"

    def _save(self, tensors: Mapping[str, Tensor], name: str) -> str:
        """Write a file whole or not at all; its sha256."""
        content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        write_file(self.folder / name, content)
        return hashlib.sha256(content).hexdigest()

    def _show(self, state: State) -> None:
        """Note what is in the logs, and give TensorBoard the new rows."""
        losses, figures = self._logged
        self._logged = (len(state.history), len(state.validations))
        if self._board is None:
            return
        for kind, rows in (
            ("train", state.history[losses:]),
            ("validation", state.validations[figures:]),
        ):
            for row in rows:
                for name, value in row.items():
                    if name != "step":
                        self._board.add_scalar(f"{kind}/{name}", value, int(row["step"]))
        self._board.flush()


def read_about(folder: Path) -> dict[str, Any] | None:
    """What ``checkpoint.json`` of a training's folder holds; None where there is none.

    Raises:
        StoreError: it is damaged.
    """
    try:
        about = json.loads((folder / "checkpoint.json").read_text())
        if not isinstance(about, dict):
            raise TypeError(f"keys and values are wanted, not {type(about).__name__}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from error
    return about


def check_same_training(folder: Path, key: Key) -> dict[str, Any] | None:
    """What ``read_about`` gives, if it is of the training with this key: one must not go on from
    the checkpoint of another training, nor write over it.

    Raises:
        ConfigError: it was begun with another key; what differs is named. StoreError: it is
            damaged.
    """
    about = read_about(folder)
    changed = changed_since(about, key, folder)
    if about is not None and changed:
        raise ConfigError(
            f"{folder} holds {about.get('step')} steps of a training that was begun otherwise "
            f"({changed}); "
            "set that back to go on with it, or train anew with --overwrite"
        )
    return about


def changed_since(about: Mapping[str, Any] | None, key: Key, folder: Path) -> str:
    """What differs between the checkpoint of a folder (``read_about``) and a key; "" where nothing
    does, or there is none.

    Raises:
        StoreError: it is damaged.
    """
    if about is None:
        return ""
    try:
        if isinstance(about["key"], str) or "history" in about:
            return "by an older version of quadrat"
        changed = differences(about["key"], key)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from error
    return "; ".join(changed[:TOLD]) + (
        f"; and {len(changed) - TOLD} more" if len(changed) > TOLD else ""
    )


def differences(old: Key, new: Key) -> list[str]:
    """What differs between two keys, as "train.threads 1 -> 2"."""
    new = json.loads(json.dumps(new))  # tuples are lists in what was read
    names = [
        name for name in (*new, *(n for n in old if n not in new)) if old.get(name) != new.get(name)
    ]
    return [f"{name} {_told(old.get(name))} -> {_told(new.get(name))}" for name in names]


def _told(value: Any) -> str:
    return "nothing" if value in (None, "") else str(value)


def _damaged(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        f"the checkpoint {folder / 'checkpoint.json'} is damaged ({type(error).__name__}: "
        f"{error}); "
        f"delete the folder {folder} to train from the beginning"
    )


def _checkpoint(step: int) -> str:
    return f"checkpoint.{step}.safetensors"


def _verify(path: Path, sha256: str) -> None:
    """Check that a file is the one that was written.

    Raises:
        ValueError: it is not.
    """
    if sha256_of(path) != sha256:
        raise ValueError(f"{path.name} is not the file that was written")


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows as CSV; the columns are those of all rows, in the order in which they first appear."""
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
    with io.StringIO(newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
        write_file(path, stream.getvalue())


def _board(folder: Path) -> Any:
    """A TensorBoard writer.

    Raises:
        StoreError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StoreError(
            "train.tensorboard needs TensorBoard: pip install 'quadrat[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
