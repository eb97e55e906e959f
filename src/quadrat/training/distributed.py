"""Several processes that train one model: each takes its part of every batch, and what comes out is
what one would learn.

Every rank sees the loss of the *whole* batch: outputs and targets are gathered, its own part with
the gradient attached, so that summed gradients are those of one process even where a loss does not
split into samples (Dice over a batch, counts of positives). Batch statistics are those of the whole
batch, too (Ioffe and Szegedy 2015; synchronised as in Zhang et al., CVPR 2018).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from quadrat.core.errors import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for the others. Only the first one judges validation slides, which can
take hours (NCCL's own limit is ten minutes); a process that is gone is not waited for: torchrun
ends them all."""


class Ranks(Protocol):
    """The processes of a training, as one of them sees them."""

    @property
    def first(self) -> bool:
        """Whether this one writes files."""
        ...

    def part(self, batch: int) -> slice:
        """The samples of a batch that are this process's."""
        ...

    def share(self, model: nn.Module) -> nn.Module:
        """The network with batch statistics over all processes."""
        ...

    def plain(self, model: nn.Module) -> nn.Module:
        """The network as a single process would hold it."""
        ...

    def gather(self, value: Any) -> Any:
        """A batch from its parts; this process's part keeps its gradient."""
        ...

    def add_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum over the processes."""
        ...

    def shared(self, compute: Callable[[], T]) -> T:
        """What the first process computes, known to all."""
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
    """The processes of a ``torch.distributed`` group (started by torchrun)."""

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
        return _exchanged(model, nn.BatchNorm2d, GroupBatchNorm)

    def plain(self, model: nn.Module) -> nn.Module:
        return _exchanged(model, GroupBatchNorm, nn.BatchNorm2d)

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
    """BatchNorm2d whose batch is that of all processes (all parts of one size)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
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
        whole: Tensor = out.to(x.dtype)
        return whole


class _Summed(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs. (torch deprecated its own, and
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


def _exchanged(model: nn.Module, old: type[nn.BatchNorm2d], new: type[nn.BatchNorm2d]) -> nn.Module:
    """The model, its norms of exactly the class ``old`` being ``new``: parameters and buffers are
    the same objects."""
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
    return model


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the group that torchrun's environment describes (gloo on the CPU, NCCL on GPUs)."""
    if device.type == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Group()
    finally:
        dist.destroy_process_group()
