"""The way of batches to a device and of answers back, beside the computing where the device can
(CUDA); at once elsewhere. The code that uses it is the same for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

AHEAD = 2
"""Batches that a device may hold before the first answer is fetched: one computes, one waits."""


@dataclass(frozen=True, slots=True)
class Landing:
    """An answer on its way to this process's memory."""

    answer: Any
    """Its tensors, there after :meth:`wait`; what is no tensor is as the task gave it."""
    arrived: Any = None
    """CUDA's event; None: it is there."""

    def wait(self) -> Any:
        """The answer, when it is there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.answer


class Lane:
    """To one device and back.

    On CUDA, batches are read into page-locked memory and copied on a stream of their own, so that
    the next one arrives while this one is computed; answers leave on a third. Kernels are those
    that repeat their bits.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._beside = device.type == "cuda"
        self.ahead = AHEAD if self._beside else 0
        """Answers that may be underway while further batches are begun."""
        if self._beside:
            self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False

    def room(self, *shape: int) -> npt.NDArray[np.uint8]:
        """Memory for a batch, uint8."""
        found: npt.NDArray[np.uint8] = torch.empty(
            shape, dtype=torch.uint8, pin_memory=self._beside
        ).numpy()
        return found

    def up(self, batch: npt.NDArray[np.uint8]) -> Tensor:
        """A batch on the device. What is enqueued next waits for it; the caller does not."""
        here = torch.from_numpy(batch)
        if not self._beside:
            return here.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            there = here.to(self.device, non_blocking=True)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def down(self, answer: Any) -> Landing:
        """Send an answer's tensors back (a tensor, or a tuple of them). What is something else
        stays on the device, and whoever decodes it waits there."""
        tensors = (answer,) if isinstance(answer, Tensor) else answer
        if not isinstance(tensors, tuple):
            return Landing(answer)
        if not self._beside:
            copies = tuple(tensor.cpu() for tensor in tensors)
            return Landing(copies[0] if isinstance(answer, Tensor) else copies)
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            copies = tuple(
                torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                for t in tensors
            )
            for tensor in tensors:
                tensor.record_stream(self._down)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._down)
        return Landing(copies[0] if isinstance(answer, Tensor) else copies, arrived)
