"""Colours of classes: those of the model, or, where a colour-blind reader could confuse two of
them, those of a palette that he can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from skimage.color import rgb2lab

from quadrat.outputs.palette import SAFE, Rgb

NEAR = 15.0
"""Colours that are nearer than this in CIELAB are easily confused in small marks."""
_DICHROMATS = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
     (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
     (-0.011820, 0.042940, 0.968881)),
)  # fmt: skip
"""How linear RGB looks without the cones for long and for middle wavelengths (G. Machado, M.
Oliveira and L. Fernandes, IEEE TVCG 2009, severity 1)."""


def safe_colours(n: int) -> tuple[Rgb, ...]:
    """Colours of ``n`` classes from the safe palette; beyond eight they repeat."""
    return tuple(SAFE[i % len(SAFE)] for i in range(n))


def confusable(colours: Sequence[Rgb]) -> bool:
    """Whether two of the colours look alike, to a reader with or without all cones."""
    if len(colours) < 2:
        return False
    rgb = np.array(colours, np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [linear, *(np.clip(linear @ np.array(m).T, 0, 1) for m in _DICHROMATS)]
    return any(_nearest(_encoded(one)) < NEAR for one in seen)


def _encoded(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    encoded: npt.NDArray[np.float64] = np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded


def _nearest(rgb: npt.NDArray[np.float64]) -> float:
    lab = rgb2lab(rgb[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return float(apart[np.triu_indices(len(lab), 1)].min())
