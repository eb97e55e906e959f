"""Windows in, quantised predictions out: no zarr, no dask, no files.

Kernels may depend on shapes: a matrix product of one row sums otherwise than one of four. So every
window has the package's one shape, and a batch one size: on a CPU that is a single window, which
costs nothing there; elsewhere the last batch is padded. The same window gives the same numbers in
any work unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from quadrat.core.clock import spent_on
from quadrat.core.errors import QuadratError
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.numerics import BF16, computes_bf16
from quadrat.core.predictions import Prediction
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


def normalise(rgb: Tensor, spec: ModelSpec) -> Tensor:
    """uint8 (b, h, w, 3) to float32 (b, 3, h, w), channels last in memory, by the package's
    constants."""
    mean = torch.tensor(spec.mean, device=rgb.device)
    std = torch.tensor(spec.std, device=rgb.device)
    scaled = (rgb.to(torch.float32) / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2)  # a view: memory stays channels last


def read_windows(
    source: PixelSource, cells: Sequence[CoreIndex], spec: ModelSpec
) -> npt.NDArray[np.uint8]:
    """uint8 (cells, window, window, 3)."""
    with spent_on("read"):
        return np.stack([source.read(spec.lattice.window_box(cell)) for cell in cells])


def forward(
    model: nn.Module, windows: npt.NDArray[np.uint8], spec: ModelSpec, *, device: torch.device
) -> Output:
    """The network's answer to windows (b, h, w, 3), as float32, computed in the precision that the
    specification asks for where the device has it. The network is on the device."""
    in_bf16 = spec.inference == BF16 and computes_bf16(str(device))
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
        return model(normalise(torch.from_numpy(windows).to(device), spec)).float()


def padded(windows: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The windows, and white ones up to ``size``."""
    white = np.full((size - len(windows), *windows.shape[1:]), 255, np.uint8)
    return np.concatenate([windows, white]) if len(white) else windows


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
) -> Iterator[dict[CoreIndex, Prediction]]:
    """Predictions of each group of cores, in order. No batch has cores of two groups. The next
    batch is read while the network works, also that of the next group. ``batch``: windows of a
    forward pass, in place of what :func:`batch_of` says of the device.

    Raises:
        QuadratError: the network answered with NaN or infinity.
    """
    size = batch or batch_of(device.type, spec.lattice)
    batches = [
        (number, cells[i : i + size])
        for number, cells in enumerate(groups)
        for i in range(0, len(cells), size)
    ]
    found: list[dict[CoreIndex, Prediction]] = [{} for _ in groups]
    given = 0
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with ThreadPoolExecutor(1) as reader, torch.inference_mode():
        ahead = reader.submit(read_windows, source, batches[0][1], spec) if batches else None
        for index, (number, at_once) in enumerate(batches):
            while given < number:
                yield found[given]
                given += 1
            assert ahead is not None
            windows = ahead.result()
            if index + 1 < len(batches):
                ahead = reader.submit(read_windows, source, batches[index + 1][1], spec)
            with spent_on("network"):
                output = forward(model, padded(windows, size), spec, device=device)[: len(at_once)]
                finite = is_finite(output)
            if not finite:
                raise QuadratError(
                    f"the network gave NaN or infinity near core {at_once[0]}; its weights are not "
                    "usable"
                )
            found[number].update(zip(at_once, task.decode(output, at_once, spec), strict=True))
        yield from found[given:]


def is_finite(output: Output) -> bool:
    """Whether no value of a network's answer is NaN or infinite."""
    tensors = [output] if isinstance(output, Tensor) else output.tensors()
    return all(bool(torch.isfinite(t).all()) for t in tensors)
