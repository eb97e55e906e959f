"""One training loop for every task; it never asks which task it runs. AdamW, warm-up and cosine, exact resume."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quadrat.config import TrainSection
from quadrat.datasets import WindowSet
from quadrat.errors import QuadratError
from quadrat.inference import normalise
from quadrat.task import Arrays, ModelSpec, Output, Task

LOG_EVERY = 10
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, smoothed loss)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training: the network (eval mode), the last losses (mean of the last tenth), and the seconds it took."""

    model: nn.Module
    losses: Mapping[str, float]
    seconds: float


def learning_rate(step: int, cfg: TrainSection) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / cfg.warmup
    share = (step - cfg.warmup) / max(1, cfg.steps - cfg.warmup)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * share))


def step_seed(seed: int, step: int) -> int:
    """The seed of torch's generator in one step: what chance decides in a loss (which regions are looked at) must be the
    same in a resumed training."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def train(
    task: Task,
    spec: ModelSpec,
    data: WindowSet,
    cfg: TrainSection,
    *,
    device: torch.device,
    folder: Path,
    progress: Progress | None = None,
) -> Trained:
    """Train from random weights, or go on from the checkpoint in ``folder``.

    Raises:
        QuadratError: the loss became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    model = task.build(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    decisive = replace(cfg, checkpoint_every_s=0.0, cache_mb=0)  # the others change the weights that come out
    run = _Run(folder, model, optimizer, spec_key=f"{spec}{decisive}")
    first = run.resume()
    started, saved = time.perf_counter(), time.perf_counter()
    with ThreadPoolExecutor(1) as loader:

        def load(step: int) -> tuple[Any, Arrays]:
            return data.batch(step, size=cfg.batch, seed=cfg.seed, stain_jitter=cfg.stain_jitter)

        ahead = loader.submit(load, first)
        for step in range(first, cfg.steps):
            rgb, targets = ahead.result()
            if step + 1 < cfg.steps:
                ahead = loader.submit(load, step + 1)
            torch.manual_seed(step_seed(cfg.seed, step))
            terms = train_step(task, spec, model, optimizer, rgb, targets, rate=learning_rate(step, cfg), cfg=cfg)
            if not math.isfinite(terms["loss"]):
                raise QuadratError(
                    f"the loss became {terms['loss']} at step {step}; lower train.lr ({cfg.lr:g}) or use train.precision=fp32"
                )
            run.record(step, terms)
            if progress is not None and (step % LOG_EVERY == 0 or step + 1 == cfg.steps):
                progress(step + 1, cfg.steps, run.smooth())
            if time.perf_counter() - saved > cfg.checkpoint_every_s:
                run.checkpoint(step + 1, time.perf_counter() - started)
                saved = time.perf_counter()
    seconds = run.seconds_before + time.perf_counter() - started
    run.checkpoint(cfg.steps, time.perf_counter() - started)
    return Trained(model=model.eval(), losses=run.last(max(1, cfg.steps // 10)), seconds=seconds)


def train_step(
    task: Task,
    spec: ModelSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rgb: Any,
    targets: Arrays,
    *,
    rate: float,
    cfg: TrainSection,
) -> dict[str, float]:
    """Forward, backward, update; the loss terms as floats."""
    device = next(model.parameters()).device
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    image = normalise(torch.from_numpy(rgb).to(device), spec)
    wanted = {name: torch.from_numpy(np.ascontiguousarray(a)).to(device) for name, a in targets.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cfg.precision == "bf16"):
        output: Output = model(image)
    terms = task.loss(output.float(), wanted, spec)
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


class _Run:
    """Log and checkpoint of one training: ``log.csv``, ``checkpoint.safetensors`` and its ``checkpoint.json``."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, spec_key: str) -> None:
        self.folder, self.model, self.optimizer, self.key = folder, model, optimizer, spec_key
        self.history: list[dict[str, float]] = []
        self.seconds_before = 0.0

    def record(self, step: int, terms: dict[str, float]) -> None:
        self.history.append({"step": step} | terms)

    def smooth(self) -> float:
        return float(np.mean([h["loss"] for h in self.history[-20:]]))

    def last(self, count: int) -> dict[str, float]:
        rows = self.history[-count:]
        return {k: float(np.mean([r[k] for r in rows])) for k in rows[-1] if k != "step"} if rows else {}

    def checkpoint(self, step: int, seconds: float) -> None:
        tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
        about = {"step": step, "key": self.key, "history": self.history, "seconds": self.seconds_before + seconds}
        weights = self.folder / f"checkpoint.{step}.safetensors"
        if weights.exists():
            return  # this very state is on disk already
        staged = weights.with_suffix(".partial")
        save_file(tensors, staged)
        os.replace(staged, weights)
        temporary = self.folder / "checkpoint.json.partial"
        temporary.write_text(json.dumps(about))
        os.replace(temporary, self.folder / "checkpoint.json")
        for old in self.folder.glob("checkpoint.*.safetensors"):
            if old != weights:
                old.unlink()
        with (self.folder / "log.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(self.history[-1]) if self.history else ["step"])
            writer.writeheader()
            writer.writerows(self.history)

    def resume(self) -> int:
        """Load the checkpoint of the same specification if there is one; the step to go on from."""
        path = self.folder / "checkpoint.json"
        if not path.exists():
            return 0
        about = json.loads(path.read_text())
        if about["key"] != self.key:
            return 0  # the pipeline was changed since: the old weights answer another question
        device = next(self.model.parameters()).device
        tensors = load_file(self.folder / f"checkpoint.{about['step']}.safetensors", device=str(device))
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.history, self.seconds_before = about["history"], about["seconds"]
        return int(about["step"])
