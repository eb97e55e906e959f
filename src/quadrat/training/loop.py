"""One training loop for every task; it never asks which task it runs. AdamW, warm-up and cosine,
early stopping, exact resume.

What is validated, and how, is a function that the caller hands in; the loop knows the name of one
figure that should rise. The clock, and what is to be called as the loop goes, are handed in too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from quadrat.config.pipeline import TrainSection
from quadrat.core.errors import QuadratError
from quadrat.core.records import to_json
from quadrat.models.inference import normalise
from quadrat.models.task import ModelSpec, Output, Task
from quadrat.training.batches import Batch, Samples, batches
from quadrat.training.checkpoint import Checkpoints, Key, State
from quadrat.training.distributed import SOLO, Ranks
from quadrat.training.samples import WindowSet

NOT_DECISIVE = (
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
GRADIENT_NORM = 10.0
"""The largest norm of all gradients together."""
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """What the loop has just done."""

    kind: Literal["step", "best", "checkpoint"]
    """A step; or kept the weights as the best so far; or written a checkpoint to go on from."""
    done: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Mean of the last twenty steps."""


Callback = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Validation:
    """How a network is evaluated while it is trained."""

    measure: Callable[[nn.Module], Figures]
    """Figures of a network in eval mode."""
    main: str
    """The figure that should rise."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    model: nn.Module
    """The network with the weights that are kept, in eval mode."""
    losses: Figures
    """Mean of the last tenth of the steps."""
    seconds: float
    """What it took, interruptions left out."""
    step: int
    """How many steps the kept weights have seen."""
    history: tuple[Figures, ...]
    """The losses of each step, with "step"."""
    validations: tuple[Figures, ...]
    """The figures of each validation, with "step"."""


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
    """What decides the weights besides the data, by the names of the pipeline file."""
    # keyed elsewhere, or of no influence on weights
    elsewhere = ("task", "classes", "lattice", "thresholds", "inference")
    model = {
        f"model.{name}": value for name, value in to_json(spec).items() if name not in elsewhere
    }
    model |= {f"model.{name}": value for name, value in asdict(spec.lattice).items()}
    thresholds = {f"thresholds.{name}": value for name, value in spec.thresholds.items()}
    settings = {
        f"train.{name}": value for name, value in asdict(cfg).items() if name not in NOT_DECISIVE
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
    validation: Validation | None = None,
    prepare: Callable[[nn.Module], object] | None = None,
    ranks: Ranks = SOLO,
    key: Key | None = None,
    callback: Callback | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Train from random weights, or go on from the checkpoint in ``folder``.

    With ``validation``, the kept weights are those of the best figure (the later of equals), and
    after ``cfg.patience`` validations without a better one the training ends.

    Args:
        task: of the network.
        spec: what the network is.
        data: the windows to learn from.
        cfg: the settings.
        device: where the network is trained.
        folder: of the checkpoints.
        validation: how the network is evaluated as it is trained.
        prepare: loads first weights into a network.
        ranks: the processes that share each batch.
        key: what else decides the weights: the data, and what ``prepare`` loads.
        callback: called after each step, and after each file that the training can go on from.
        clock: seconds, for the time between checkpoints.

    Raises:
        QuadratError: the loss became NaN or infinite. StoreError: a damaged checkpoint, or no room
            for one. ConfigError: the checkpoint is of a training with another key or other
            settings.
    """
    torch.manual_seed(cfg.seed)
    model = task.build(spec)
    if prepare is not None:
        prepare(model)
    model = ranks.share(model.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        parameter_groups(model, cfg), lr=cfg.lr, weight_decay=cfg.weight_decay
    )
    saved = Checkpoints(
        folder, model, optimizer, key={**key_of(spec, cfg), **(key or {})},
        writes=ranks.first, tensorboard=cfg.tensorboard,
    )  # fmt: skip
    run = _Run(
        task=task, spec=spec, cfg=cfg, model=model, optimizer=optimizer, saved=saved,
        state=saved.resume(), validation=validation, ranks=ranks, callback=callback, clock=clock,
    )  # fmt: skip
    if not run.state.ended:
        run.to_the_end(data)
    return run.trained()


@dataclass(slots=True, kw_only=True)
class _Run:
    """A training while it runs."""

    task: Task
    spec: ModelSpec
    cfg: TrainSection
    model: nn.Module
    optimizer: torch.optim.Optimizer
    saved: Checkpoints
    state: State
    validation: Validation | None
    ranks: Ranks
    callback: Callback | None
    clock: Callable[[], float]
    started: float = 0.0
    written: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.written = self.clock()
        state = self.state
        state.ended &= state.step == self.cfg.steps or self._out_of_patience()

    def to_the_end(self, data: WindowSet) -> None:
        """Take the steps that are left."""
        state, cfg = self.state, self.cfg
        every = 0 if self.validation is None else validation_every(cfg)
        samples = Samples(data, cfg)
        coming = batches(samples, first=state.step, part=self.ranks.part(cfg.batch))
        with closing(coming):
            for batch in coming:
                self._step(batch, samples)
                if every and (state.step % every == 0 or state.ended):
                    self._validate()
                self._tell("step")
                if state.ended or self.clock() - self.written > cfg.checkpoint_every_s:
                    self._write()
                if state.ended:
                    break

    def _step(self, batch: Batch, samples: Samples) -> None:
        state, cfg = self.state, self.cfg
        torch.manual_seed(step_seed(cfg.seed, state.step))
        rate = learning_rate(state.step, cfg)
        terms = train_step(
            self.task, self.spec, self.model, self.optimizer, batch,
            rate=rate, cfg=cfg, ranks=self.ranks,
        )  # fmt: skip
        if not math.isfinite(terms["loss"]):
            raise QuadratError(
                f"the loss became {terms['loss']} at step {state.step}, with windows of "
                f"{', '.join(samples.slides(state.step))}; "
                f"lower train.lr ({cfg.lr:g}), use train.precision=fp32, or look at these slides"
            )
        state.record(terms)
        state.ended = state.step == cfg.steps

    def _validate(self) -> None:
        validation, state = self.validation, self.state
        assert validation is not None
        figures = self.ranks.shared(lambda: dict(validation.measure(self.model.eval())))
        if state.validated(figures, main=validation.main):
            self.saved.keep_best(state.step)
            self._tell("best")
        state.ended |= self._out_of_patience()
        self.written = -math.inf  # a checkpoint is due

    def _out_of_patience(self) -> bool:
        return 0 < self.cfg.patience <= self.state.without_better

    def _write(self) -> None:
        self.saved.write(self.state, seconds=self.clock() - self.started)
        self.written = self.clock()
        self._tell("checkpoint")

    def _tell(self, kind: Literal["step", "best", "checkpoint"]) -> None:
        if self.callback is not None:
            state = self.state
            self.callback(Event(kind, state.step, self.cfg.steps, state.smooth()))

    def trained(self) -> Trained:
        """What came out; the best weights are loaded."""
        state = self.state
        if state.best_step is not None:
            self.ranks.shared(lambda: None)  # the first rank may still be writing them
            self.saved.load_best(state.best_step)
        return Trained(
            model=self.ranks.plain(self.model).eval(),
            losses=state.last(max(1, state.step // 10)),
            seconds=state.seconds_before + self.clock() - self.started,
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
    batch: Batch,
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
    rgb, targets = batch
    image = normalise(rgb.to(device), spec)
    wanted = {name: ranks.gather(target.to(device)) for name, target in targets.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cfg.precision == "bf16"):
        output: Output = model(image)
    terms: dict[str, Tensor] = task.loss(ranks.gather(output.float()), wanted, spec)
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    ranks.add_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def set_training(model: nn.Module, *, freeze_norm: bool) -> None:
    """Training mode; with ``freeze_norm`` the encoder's batch statistics stay as it came with
    them."""
    model.train()
    encoder = getattr(model, "encoder", None)
    if freeze_norm and isinstance(encoder, nn.Module):
        for module in encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
