"""Windows in, quantised predictions out: no zarr, no dask, no files.

Every window has the package's one shape and every batch its one size (the last is padded), because
kernels may depend on shapes; so the same window gives the same numbers in any work unit.
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
from quadrat.core.lattice import CoreIndex
from quadrat.core.predictions import Prediction
from quadrat.models.task import Infers, ModelSpec, Output
from quadrat.slides.source import PixelSource


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
    """uint8 (batch, window, window, 3); white fills the places beyond the last cell."""
    side = spec.lattice.window
    batch = np.full((spec.batch, side, side, 3), 255, np.uint8)
    with spent_on("read"):
        for index, cell in enumerate(cells):
            batch[index] = source.read(spec.lattice.window_box(cell))
    return batch


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
) -> Iterator[dict[CoreIndex, Prediction]]:
    """Predictions of each group of cores, in order. No batch has cores of two groups. The next
    batch is read while the network works, also that of the next group.

    Raises:
        QuadratError: the network answered with NaN or infinity.
    """
    size = spec.batch
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
        for index, (number, batch) in enumerate(batches):
            while given < number:
                yield found[given]
                given += 1
            assert ahead is not None
            windows = ahead.result()
            if index + 1 < len(batches):
                ahead = reader.submit(read_windows, source, batches[index + 1][1], spec)
            with spent_on("network"):
                output = model(normalise(torch.from_numpy(windows).to(device), spec))[: len(batch)]
                finite = is_finite(output)
            if not finite:
                raise QuadratError(
                    f"the network gave NaN or infinity near core {batch[0]}; its weights are not "
                    "usable"
                )
            found[number].update(zip(batch, task.decode(output, batch, spec), strict=True))
        yield from found[given:]


def is_finite(output: Output) -> bool:
    """Whether no value of a network's answer is NaN or infinite."""
    tensors = [output] if isinstance(output, Tensor) else output.tensors()
    return all(bool(torch.isfinite(t).all()) for t in tensors)
