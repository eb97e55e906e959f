"""Several processes (ranks) that train one model: each takes its part of every batch, and together
they learn what one process would learn.

Every rank sees the loss of the *whole* batch. Outputs and targets are gathered, and the rank's own
part keeps its gradient. So summed gradients are those of one process, even where a loss does not
split into samples (Dice over a batch, counts of positives). Batch statistics are those of the whole
batch, too (Ioffe and Szegedy 2015; synchronised as in Zhang et al., CVPR 2018).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from quadrat.core.errors import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a rank waits for the others. Only the first one evaluates validation slides, which can
take hours (NCCL's own limit is ten minutes). A rank that died is not waited for: torchrun ends them
all."""


class Ranks(Protocol):
    """The ranks of a training, as one of them sees them."""

    @property
    def first(self) -> bool:
        """Whether this one writes files."""
        ...

    def part(self, batch: int) -> slice:
        """Which samples of a batch are this rank's."""
        ...

    def share(self, model: nn.Module) -> nn.Module:
        """The network with batch statistics over all ranks."""
        ...

    def plain(self, model: nn.Module) -> nn.Module:
        """The network as a single process would hold it."""
        ...

    def gather(self, value: Any) -> Any:
        """A batch from its parts; this rank's part keeps its gradient."""
        ...

    def add_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum over the ranks."""
        ...

    def shared(self, compute: Callable[[], T]) -> T:
        """What the first rank computes, known to all."""
        ...


class Solo:
    """One process: everything is as it is."""

    first = True

    def part(self, batch: int) -> slice:
        return slice(0, batch)

    def share(self, model: nn.Module) -> nn.Module:
        return model

    def plain(self, model: nn.Module) -> nn.Module:
        return model

    def gather(self, value: Any) -> Any:
        return value

    def add_gradients(self, model: nn.Module) -> None:
        return None

    def shared(self, compute: Callable[[], T]) -> T:
        return compute()


SOLO = Solo()


class Group:
    """The ranks of a ``torch.distributed`` group (started by torchrun)."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, batch: int) -> slice:
        if batch % self.size:
            raise ConfigError(
                f"train.batch is {batch}; it must be a multiple of train.processes ({self.size})"
            )
        own = batch // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def share(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            kind: Any = type(module)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.__class__ = over_the_group(kind)
        return model

    def plain(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, GroupBatchNorm):
                module.__class__ = module.alone  # type: ignore[assignment]
        return model

    def gather(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            raise ConfigError(
                "train.processes above 1 is for tasks whose network answers with one tensor; set "
                "it to 1 for instance_masks"
            )
        parts = [
            torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(self.size)
        ]
        dist.all_gather(parts, value.detach().contiguous())
        parts[self.rank] = value
        return torch.cat(parts)

    def add_gradients(self, model: nn.Module) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, whole in zip(
            gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(whole.view_as(gradient))

    def shared(self, compute: Callable[[], T]) -> T:
        box: list[Any] = [compute() if self.first else None]
        dist.broadcast_object_list(box, src=0)
        answer: T = box[0]
        return answer


class GroupBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of the batch of all ranks (all parts have one size)."""

    alone: type[nn.BatchNorm2d] = nn.BatchNorm2d
    """The class that it is in a single process."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.alone.forward(self, x)
        wide = x.float()
        count = wide.numel() // wide.shape[1] * dist.get_world_size()
        mean = _Summed.apply(wide.sum(dim=(0, 2, 3)) / count)
        centred = wide - mean[:, None, None]
        variance = _Summed.apply(centred.square().sum(dim=(0, 2, 3)) / count)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        out = (
            centred * (torch.rsqrt(variance + self.eps) * self.weight)[:, None, None]
            + self.bias[:, None, None]
        )
        out = out.to(x.dtype)
        for name in ("drop", "act"):  # timm's BatchNormAct2d has an activation inside
            if hasattr(self, name):
                out = getattr(self, name)(out)
        whole: Tensor = out
        return whole


@cache
def over_the_group(alone: Any) -> type[GroupBatchNorm]:
    """The class of a batch norm that takes its statistics from the group. Parameters and buffers
    are the same in both classes, so that a module can change its class.

    Raises:
        ConfigError: it is of a kind that nobody has written for groups.
    """
    if alone.__name__ not in ("BatchNorm2d", "BatchNormAct2d"):
        raise ConfigError(
            f"train.processes above 1 cannot share the statistics of {alone.__name__}; set it to 1 "
            "or use another model.encoder"
        )
    kind: type[GroupBatchNorm] = type(f"Group{alone.__name__}", (GroupBatchNorm,), {"alone": alone})
    return kind


class _Summed(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs. (torch deprecated its own, and
    keeps the next private.)"""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


def _total(value: Tensor) -> Tensor:
    whole = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole)
    return whole


@contextmanager
def joined(device: torch.device, *, patience: timedelta = PATIENCE) -> Iterator[Group]:
    """Join the group that torchrun's environment describes (gloo on the CPU, NCCL on GPUs), and
    leave it however the block ends."""
    if device.type == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Group()
    finally:
        dist.destroy_process_group()
