"""What a network says about a shard, quantised and checked (pure; numpy only).

Decisions are taken on these integers, never on floats, so that the same values decide whatever computed them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BOX_UNIT = 16
"""Box coordinates are stored in 1/16 grid px."""
SCORE_MAX = 65535
"""Scores are stored as uint16: 65535 is 1.0."""


def quantise_score(score: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Scores in 0-1 to uint16, rounded half up and clipped."""
    return np.clip(np.floor(score.astype(np.float64) * SCORE_MAX + 0.5), 0, SCORE_MAX).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before merging. box: (n, 4) int32 x0, y0, x1, y1 in 1/16 grid px; score: (n,) uint16; class_id: (n,) uint8;
    cell: (n, 2) int32 (row, column) grid px of the cell that emitted it, the anchor."""

    box: npt.NDArray[np.int32]
    score: npt.NDArray[np.uint16]
    class_id: npt.NDArray[np.uint8]
    cell: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        n = len(self.box)
        want = {"box": ((n, 4), np.int32), "score": ((n,), np.uint16), "class_id": ((n,), np.uint8)}
        want["cell"] = ((n, 2), np.int32)
        for name, (shape, dtype) in want.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"Candidates.{name} is {array.dtype}{array.shape}, want {np.dtype(dtype)}{shape}")
        if n and (self.box[:, 2:] <= self.box[:, :2]).any():
            raise ValueError("Candidates.box has a side of zero or less")

    def __len__(self) -> int:
        return len(self.box)


@dataclass(frozen=True, slots=True)
class TileScores:
    """One row a core. cell: (n, 2) int32 lattice index (row, column); probability: (n, classes) uint16, rows sum to
    65535 within rounding; embedding: (n, d) float16."""

    cell: npt.NDArray[np.int32]
    probability: npt.NDArray[np.uint16]
    embedding: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        n = len(self.cell)
        if self.cell.shape != (n, 2) or self.cell.dtype != np.int32:
            raise ValueError(f"TileScores.cell is {self.cell.dtype}{self.cell.shape}, want int32({n}, 2)")
        if self.probability.ndim != 2 or len(self.probability) != n or self.probability.dtype != np.uint16:
            raise ValueError(
                f"TileScores.probability is {self.probability.dtype}{self.probability.shape}, want uint16({n}, classes)"
            )
        if self.embedding.ndim != 2 or len(self.embedding) != n or self.embedding.dtype != np.float16:
            raise ValueError(f"TileScores.embedding is {self.embedding.dtype}{self.embedding.shape}, want float16({n}, d)")
