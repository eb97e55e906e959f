"""One training loop for every task; it never asks which task it runs. AdamW, warm-up and cosine,
early stopping, exact resume.

What is validated, and how, is a function that the caller hands in; the loop knows the name of one
figure that should rise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quadrat.config.pipeline import TrainSection
from quadrat.core.errors import QuadratError
from quadrat.core.predictions import Arrays
from quadrat.models.inference import normalise
from quadrat.models.task import ModelSpec, Output, Task
from quadrat.training.checkpoint import Checkpoints, Key
from quadrat.training.distributed import SOLO, Ranks
from quadrat.training.samples import WindowSet

LOG_EVERY = 10
UNDECISIVE = (
    "checkpoint_every_s",
    "cache_mb",
    "tensorboard",
    "processes",
    "source",
    "calibrate",
    "init",
    "patience",
)
"""Settings of ``train`` that change no weights (``init`` does by what it names, which the caller's
key holds), and ``patience``, which only says when to end: of a running training it holds from the
next validation on."""
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, smoothed loss)."""
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Validation:
    """How a network is judged while it learns: ``measure`` gives figures, ``main`` names the one
    that should rise."""

    measure: Callable[[nn.Module], Figures]
    main: str


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training: the network (eval mode), the last losses (mean of the last tenth), and
    the seconds it took.

    ``step``: how many steps the kept weights have seen; ``validations``: a row of figures each time
    (with "step").
    """

    model: nn.Module
    losses: Figures
    seconds: float
    step: int
    history: tuple[Figures, ...]
    validations: tuple[Figures, ...]


def learning_rate(step: int, cfg: TrainSection) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / cfg.warmup
    share = (step - cfg.warmup) / max(1, cfg.steps - cfg.warmup)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * share))


def validation_every(cfg: TrainSection) -> int:
    """Steps between validations; 0: none."""
    return max(1, cfg.steps // 10) if cfg.validate_every is None else cfg.validate_every


def key_of(spec: ModelSpec, cfg: TrainSection) -> Key:
    """What decides the weights beside the data, by the names of the pipeline file."""
    elsewhere = (
        "task",
        "classes",
        "lattice",
        "thresholds",
        "batch",
    )  # or, as the batch of inference, of no weight
    model = {
        f"model.{name}": value for name, value in asdict(spec).items() if name not in elsewhere
    }
    model |= {f"model.{name}": value for name, value in asdict(spec.lattice).items()}
    thresholds = {f"thresholds.{name}": value for name, value in spec.thresholds.items()}
    settings = {
        f"train.{name}": value for name, value in asdict(cfg).items() if name not in UNDECISIVE
    }
    settings |= {
        f"train.augment.{name}": value for name, value in settings.pop("train.augment").items()
    }
    settings["train.validate_every"] = validation_every(cfg)
    return {"task": spec.task, "classes": list(spec.class_names)} | model | thresholds | settings


def step_seed(seed: int, step: int) -> int:
    """The seed of torch's generator in one step: what chance decides in a loss (which regions are
    looked at) must be the same in a resumed training."""
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
    validation: Validation | None = None,
    prepare: Callable[[nn.Module], object] | None = None,
    ranks: Ranks = SOLO,
    key: Key | None = None,
) -> Trained:
    """Train from random weights (or from what ``prepare`` loads), or go on from the checkpoint in
    ``folder``.

    With ``validation`` the kept weights are those of the best figure (the later of equals), and
    after ``cfg.patience`` validations without a better one the training ends. ``ranks``: the
    processes that share each batch. ``key``: what else decides the weights (the data, what
    ``prepare`` loads).

    Raises:
        QuadratError: the loss became NaN or infinite. StoreError: a damaged checkpoint, or no
        room for one. ConfigError: the
            checkpoint is of a training with another key or other settings.
    """
    torch.manual_seed(cfg.seed)
    model = task.build(spec)
    if prepare is not None:
        prepare(model)
    model = ranks.share(model.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        parameter_groups(model, cfg), lr=cfg.lr, weight_decay=cfg.weight_decay
    )
    whole = {**key_of(spec, cfg), **(key or {})}
    saved = Checkpoints(
        folder, model, optimizer, key=whole, writes=ranks.first, tensorboard=cfg.tensorboard
    )
    state = saved.resume()
    state.ended &= state.step == cfg.steps or (
        bool(cfg.patience) and state.without_better >= cfg.patience
    )
    every = validation_every(cfg) if validation is not None else 0
    started = written = time.perf_counter()
    with ThreadPoolExecutor(1) as loader:

        def load(step: int) -> tuple[Any, Arrays]:
            return data.batch(
                step, size=cfg.batch, seed=cfg.seed, augment=cfg.augment, part=ranks.part(cfg.batch)
            )

        ahead = None if state.ended else loader.submit(load, state.step)
        while not state.ended:
            assert ahead is not None
            step = state.step
            rgb, targets = ahead.result()
            if step + 1 < cfg.steps:
                ahead = loader.submit(load, step + 1)
            torch.manual_seed(step_seed(cfg.seed, step))
            terms = train_step(
                task,
                spec,
                model,
                optimizer,
                rgb,
                targets,
                rate=learning_rate(step, cfg),
                cfg=cfg,
                ranks=ranks,
            )
            if not math.isfinite(terms["loss"]):
                raise QuadratError(
                    f"the loss became {terms['loss']} at step {step}, with windows of "
                    f"{', '.join(data.names(step, size=cfg.batch, seed=cfg.seed))}; "
                    f"lower train.lr ({cfg.lr:g}), use train.precision=fp32, or look at these "
                    "slides"
                )
            state.record(terms)
            state.ended = state.step == cfg.steps
            if every and validation is not None and (state.step % every == 0 or state.ended):
                figures = ranks.shared(lambda: dict(validation.measure(model.eval())))
                if state.validated(figures, main=validation.main):
                    saved.keep_best(state.step)
                state.ended |= bool(cfg.patience) and state.without_better >= cfg.patience
                written = -math.inf
            if progress is not None and (step % LOG_EVERY == 0 or state.ended):
                progress(state.step, cfg.steps, state.smooth())
            if state.ended or time.perf_counter() - written > cfg.checkpoint_every_s:
                saved.write(state, seconds=time.perf_counter() - started)
                written = time.perf_counter()
    if state.best_step is not None:
        ranks.shared(lambda: None)  # the first process may still be writing them
        saved.load_best(state.best_step)
    return Trained(
        model=ranks.plain(model).eval(),
        losses=state.last(max(1, state.step // 10)),
        seconds=state.seconds_before + time.perf_counter() - started,
        step=state.step if state.best_step is None else state.best_step,
        history=tuple(state.history),
        validations=tuple(state.validations),
    )


def parameter_groups(model: nn.Module, cfg: TrainSection) -> list[dict[str, Any]]:
    """The encoder's parameters learn at ``train.encoder_lr`` times the rate of the others; at 0
    they are frozen, which also saves their gradients' time."""
    encoder = getattr(model, "encoder", None)
    own = {id(p) for p in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    if isinstance(encoder, nn.Module) and cfg.encoder_lr == 0:
        encoder.requires_grad_(False)
    encoders, others = (
        [p for p in model.parameters() if p.requires_grad and (id(p) in own) is mine]
        for mine in (True, False)
    )
    return [
        {"params": p, "scale": scale}
        for p, scale in ((encoders, cfg.encoder_lr), (others, 1.0))
        if p
    ]


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
    ranks: Ranks = SOLO,
) -> dict[str, float]:
    """Forward, backward, update; the loss terms as floats. Every rank's loss is that of the whole
    batch."""
    device = next(model.parameters()).device
    set_training(model, freeze_norm=cfg.freeze_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    image = normalise(torch.from_numpy(rgb).to(device), spec)
    wanted = {
        name: ranks.gather(torch.from_numpy(np.ascontiguousarray(a)).to(device))
        for name, a in targets.items()
    }
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cfg.precision == "bf16"):
        output: Output = model(image)
    terms: dict[str, Tensor] = task.loss(ranks.gather(output.float()), wanted, spec)
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    ranks.add_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def set_training(model: nn.Module, *, freeze_norm: bool) -> None:
    """Training mode; with ``freeze_norm`` the encoder's batch statistics stay those
    it came with.
    """
    model.train()
    encoder = getattr(model, "encoder", None)
    if freeze_norm and isinstance(encoder, nn.Module):
        for module in encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
