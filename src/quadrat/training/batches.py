"""The batches of a training: which sample comes when, and how they are loaded.

Every sample has a number: step x batch + its place in the batch. It is a pure function of that
number and the seed, so a training that goes on sees what it would have seen without a break, and
several processes can share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from quadrat.config.pipeline import TrainSection
from quadrat.core.predictions import Arrays
from quadrat.training.samples import Rgb, WindowSet

Batch = tuple[Tensor, dict[str, Tensor]]
"""Pixels uint8 (b, patch, patch, 3), and the targets, batch first."""


def rounds(windows: int, *, seed: int) -> Callable[[int], int]:
    """Sample number -> window, in rounds: every round holds each window once, in an order of its
    own. The order of a round is made once and kept while it lasts."""

    @lru_cache(maxsize=2)  # a batch may lie in two rounds
    def order(turn: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([seed, turn]).permutation(windows)

    def window(number: int) -> int:
        turn, place = divmod(number, windows)
        return int(order(turn)[place])

    return window


def balanced(shares: npt.NDArray[np.float64], *, seed: int, batch: int) -> Callable[[int], int]:
    """Sample number -> window, drawn with these probabilities (windows,)."""
    upto = np.cumsum(shares)
    upto /= upto[-1]

    def window(number: int) -> int:
        step, place = divmod(number, batch)
        drawn = np.random.default_rng([seed, step, place, 2]).random()
        return int(upto.searchsorted(drawn, side="right"))

    return window


class Samples(Dataset[tuple[Rgb, Arrays]]):
    """All samples of a training, by their numbers."""

    def __init__(self, windows: WindowSet, cfg: TrainSection) -> None:
        """``cfg``: steps, batch, seed, augment and balance are used."""
        self.windows, self.cfg = windows, cfg
        self.window_of = (
            balanced(windows.shares(), seed=cfg.seed, batch=cfg.batch)
            if cfg.balance
            else rounds(len(windows), seed=cfg.seed)
        )

    def __len__(self) -> int:
        return self.cfg.steps * self.cfg.batch

    def __getitem__(self, number: int) -> tuple[Rgb, Arrays]:
        step, place = divmod(number, self.cfg.batch)
        rng = np.random.default_rng([self.cfg.seed, step, place, 1])
        return self.windows.sample(self.window_of(number), rng, augment=self.cfg.augment)

    def slides(self, step: int) -> list[str]:
        """The slides of the batch of one step, each once."""
        return list(dict.fromkeys(self.windows.slide_of(self.window_of(n)) for n in self.at(step)))

    def at(self, step: int) -> range:
        """The numbers of the batch of one step."""
        return range(step * self.cfg.batch, (step + 1) * self.cfg.batch)


def batches(samples: Samples, *, first: int, part: slice = slice(None)) -> Generator[Batch]:
    """The batches from step ``first`` on, or a ``part`` of each. One is loaded while the one before
    is used.

    The loader has no worker processes: each would hold a cache of its own, and open slides cannot
    be shared.
    """
    steps = range(first, samples.cfg.steps)
    loader = DataLoader(
        samples,
        batch_sampler=(list(samples.at(step)[part]) for step in steps),
        collate_fn=collated,
        generator=torch.Generator(),  # its own, so that it draws nothing from the training's
    )
    with ThreadPoolExecutor(1) as thread:
        coming = iter(loader)
        ahead = thread.submit(next, coming, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, coming, None)
            yield batch


def collated(samples: Sequence[tuple[Rgb, Arrays]]) -> Batch:
    """Samples as one batch."""
    targets = {name: np.stack([own[name] for _, own in samples]) for name in samples[0][1]}
    return torch.from_numpy(np.stack([rgb for rgb, _ in samples])), {
        name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in targets.items()
    }
