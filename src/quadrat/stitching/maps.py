"""Dense maps: quantise them, crop a window to its core, decide classes on integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def quantise(values: Tensor) -> Tensor:
    """Values in 0-1, any shape, to uint8, rounded half up, on their device."""
    scaled = torch.floor(values.detach().to(torch.float32).clamp(0, 1) * 255 + 0.5)
    return scaled.to(torch.uint8)


def crop_core(maps: Tensor, *, halo: int) -> Tensor:
    """(..., window, window) to (..., core, core), contiguous."""
    return (maps[..., halo:-halo, halo:-halo] if halo else maps).contiguous()


def argmax_classes(maps: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(classes, h, w) quantised scores to the index of the class with the highest score; the lowest
    index of equals."""
    winner: npt.NDArray[np.uint8] = np.argmax(maps, axis=0).astype(np.uint8)
    return winner
