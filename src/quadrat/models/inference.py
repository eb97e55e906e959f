"""Windows in, quantised predictions out: no zarr, no dask, no files.

Kernels may depend on shapes: a matrix product of one row sums otherwise than one of four. So every
window has the package's one shape, and a batch one size: on a CPU that is a single window, which
costs nothing there; elsewhere the last batch is padded. The same window gives the same numbers in
any work unit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from quadrat.core.clock import spent_on
from quadrat.core.errors import QuadratError
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.numerics import BF16, computes_bf16
from quadrat.core.predictions import Prediction
from quadrat.models.lane import Landing, Lane
from quadrat.models.task import Infers, ModelSpec, Output
from quadrat.slides.source import PixelSource

PASS_PX = 1 << 22
"""About how many px a GPU infers together: it is busy then, and small ones have the memory."""
PASS_WINDOWS = 64
"""The most windows that it infers together."""


def batch_of(device: str, lattice: Lattice, asked: int | None = None) -> int:
    """Windows of one forward pass on a type of device, by the size of windows alone, so that it is
    the same on all machines. ``asked``: ``run.batch``."""
    if device == "cpu":
        return 1
    return asked or max(1, min(PASS_WINDOWS, PASS_PX // lattice.window**2))


def pass_size(model: nn.Module, device: torch.device, spec: ModelSpec) -> int:
    """Windows of one forward pass of a network: what its file takes at once, if it is an imported
    one that fixes it, or what :func:`batch_of` says."""
    fixed: int | None = getattr(model, "batch", None)
    return fixed or batch_of(device.type, spec.lattice)


def normalise(rgb: Tensor, spec: ModelSpec) -> Tensor:
    """uint8 (b, h, w, 3) to float32 (b, 3, h, w), channels last in memory, by the package's
    constants."""
    mean = torch.tensor(spec.mean, device=rgb.device)
    std = torch.tensor(spec.std, device=rgb.device)
    scaled = (rgb.to(torch.float32) / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2)  # a view: memory stays channels last


def read_windows(
    source: PixelSource,
    cells: Sequence[CoreIndex],
    spec: ModelSpec,
    *,
    into: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """uint8 (cells, window, window, 3). ``into``: a batch to fill; white fills the places beyond
    the last cell."""
    side = spec.lattice.window
    batch = np.empty((len(cells), side, side, 3), np.uint8) if into is None else into
    with spent_on("read"):
        for index, cell in enumerate(cells):
            batch[index] = source.read(spec.lattice.window_box(cell))
        batch[len(cells) :] = 255
    return batch


def forward(model: nn.Module, windows: Tensor, spec: ModelSpec) -> Output:
    """The network's answer to uint8 windows (b, h, w, 3), as float32, computed where they are, in
    the precision that the specification asks for if the device has it."""
    device = windows.device
    in_bf16 = spec.inference == BF16 and computes_bf16(str(device))
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
        return model(normalise(windows, spec)).float()


def predict_cells(
    model: nn.Module,
    task: Infers,
    spec: ModelSpec,
    source: PixelSource,
    cells: Sequence[CoreIndex],
    *,
    device: torch.device,
) -> Iterator[tuple[CoreIndex, Prediction]]:
    """Predictions of the given cores, in order (see :func:`predict_groups`)."""
    for found in predict_groups(model, task, spec, source, [cells], device=device):
        yield from found.items()


def predict_groups(
    model: nn.Module,
    task: Infers,
    spec: ModelSpec,
    source: PixelSource,
    groups: Sequence[Sequence[CoreIndex]],
    *,
    device: torch.device,
    batch: int | None = None,
    readers: int = 1,
) -> Iterator[dict[CoreIndex, Prediction]]:
    """Predictions of each group of cores, in order. No batch has cores of two groups.

    While the network works on a batch, ``readers`` threads read the next ones, also those of the
    next groups; and a GPU has the next batch before the answer to this one is decoded. ``batch``:
    windows of a forward pass, in place of what :func:`pass_size` says.

    Raises:
        QuadratError: the network answered with NaN or infinity.
    """
    size = batch or pass_size(model, device, spec)
    side = spec.lattice.window
    lane = Lane(device)
    found: list[dict[CoreIndex, Prediction]] = [{} for _ in groups]
    todo = iter(
        [
            (number, cells[i : i + size])
            for number, cells in enumerate(groups)
            for i in range(0, len(cells), size)
        ]
    )
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def settle(flight: _Flight) -> None:
        with spent_on("network"):
            finite, answer = bool(flight.finite.wait()), flight.answer.wait()
        if not finite:
            raise QuadratError(
                f"the network gave NaN or infinity near core {flight.cells[0]}; its weights are "
                "not usable"
            )
        predictions = task.decode(answer, flight.cells, spec)
        found[flight.group].update(zip(flight.cells, predictions, strict=True))

    with ThreadPoolExecutor(readers) as pool, torch.inference_mode():
        reading: deque[tuple[int, Sequence[CoreIndex], Future[npt.NDArray[np.uint8]]]] = deque()
        flying: deque[_Flight] = deque()
        given = 0
        while True:
            for number, cells in islice(todo, 1 + readers - len(reading)):
                room = lane.room(size, side, side, 3)
                ahead = pool.submit(read_windows, source, cells, spec, into=room)
                reading.append((number, cells, ahead))
            if not reading:
                break
            number, cells, ahead = reading.popleft()
            windows = ahead.result()
            with spent_on("network"):
                output = forward(model, lane.up(windows), spec)[: len(cells)]
                answer = lane.down(task.answer(output, spec))
                flying.append(_Flight(number, cells, answer, lane.down(is_finite(output))))
            while len(flying) > lane.ahead:
                settle(flying.popleft())
            while given < (flying[0].group if flying else number):
                yield found[given]
                given += 1
        while flying:
            settle(flying.popleft())
        yield from found[given:]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch that the device works on."""

    group: int
    cells: Sequence[CoreIndex]
    answer: Landing
    finite: Landing


def is_finite(output: Output) -> Tensor:
    """Whether no value of a network's answer is NaN or infinite: one bool, on its device."""
    tensors = [output] if isinstance(output, Tensor) else list(output.tensors())
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
