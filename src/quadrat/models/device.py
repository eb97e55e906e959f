"""Which device computes. torch is imported when one is picked: whoever starts workers needs only
the variable's name, and a worker that starts again after a crash is not to wait for torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quadrat.core.errors import QuadratError

if TYPE_CHECKING:
    import torch

DEVICE = "QUADRAT_DEVICE"
"""Environment variable: the device of a worker, for ``run.device: auto``."""


def pick_device(name: str) -> torch.device:
    """``auto`` and ``cuda`` are the device that the executor gives the job, else the first CUDA
    device; ``auto`` without one is the CPU; any other name is torch's.

    Raises:
        QuadratError: the device cannot be used here.
    """
    import torch

    given = os.environ.get(DEVICE)
    if name == "auto":
        name = given or ("cuda" if torch.cuda.is_available() else "cpu")
    elif name == "cuda" and given != "cpu":  # a worker without a GPU cannot do what was asked for
        name = given or name
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise QuadratError(
            f"run.device '{name}' is not usable here ({error}); use 'auto' or 'cpu'"
        ) from error
    return device
