"""What a network says about a shard, quantised and checked (pure; numpy only).

Decisions are taken on these integers, never on floats, so that the same values decide whatever
computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BOX_UNIT = 16
"""Box coordinates are stored in 1/16 grid px."""
SCORE_MAX = 65535
"""Scores are stored as uint16: 65535 is 1.0."""


def quantise_score(score: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Scores in 0-1 to uint16, rounded half up and clipped."""
    return np.clip(np.floor(score.astype(np.float64) * SCORE_MAX + 0.5), 0, SCORE_MAX).astype(
        np.uint16
    )


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before merging. box: (n, 4) int32 x0, y0, x1, y1 in 1/16 grid px; score: (n,) uint16;
    class_id: (n,) uint8; cell: (n, 2) int32 (row, column) grid px of the cell that emitted it, the
    anchor."""

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
                raise ValueError(
                    f"Candidates.{name} is {array.dtype}{array.shape}, want "
                    f"{np.dtype(dtype)}{shape}"
                )
        if n and (self.box[:, 2:] <= self.box[:, :2]).any():
            raise ValueError("Candidates.box has a side of zero or less")

    def __len__(self) -> int:
        return len(self.box)


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """Boxes with masks, before merging. box, score, class_id, cell: as :class:`Candidates`.

    area: (n,) int32, pixels of the mask. flags: (n,) uint8, FLAG_* bits of the object it would
    become. starts: (n + 1,) int64 offsets into bits: (m,) uint8, each mask packed row by row (most
    significant bit first) over the whole grid px that its box meets (:func:`mask_boxes`). A view
    without pixels has ``starts`` all 0.
    """

    box: npt.NDArray[np.int32]
    score: npt.NDArray[np.uint16]
    class_id: npt.NDArray[np.uint8]
    cell: npt.NDArray[np.int32]
    area: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        want = {"area": ((n,), np.int32), "flags": ((n,), np.uint8), "starts": ((n + 1,), np.int64)}
        for name, (shape, dtype) in want.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"MaskCandidates.{name} is {array.dtype}{array.shape}, want "
                    f"{np.dtype(dtype)}{shape}"
                )
        if (
            self.bits.ndim != 1
            or self.bits.dtype != np.uint8
            or self.starts[0]
            or self.starts[-1] != len(self.bits)
        ):
            raise ValueError(
                f"MaskCandidates.bits is {self.bits.dtype}{self.bits.shape}, want "
                f"uint8({self.starts[-1]},)"
            )
        if len(self.bits) and not np.array_equal(np.diff(self.starts), mask_bytes(self.box)):
            raise ValueError(
                "MaskCandidates.starts does not leave each mask the bytes that its box needs"
            )

    def __len__(self) -> int:
        return len(self.box)

    @property
    def boxes(self) -> Candidates:
        """What suppression decides on."""
        return Candidates(box=self.box, score=self.score, class_id=self.class_id, cell=self.cell)

    def take(self, index: npt.NDArray[np.integer]) -> MaskCandidates:
        """The candidates of an index array (k,), in its order."""
        sizes = self.starts[index + 1] - self.starts[index]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        where = np.arange(starts[-1]) + np.repeat(self.starts[index] - starts[:-1], sizes)
        columns = {
            n: getattr(self, n)[index]
            for n in ("box", "score", "class_id", "cell", "area", "flags")
        }
        return MaskCandidates(**columns, starts=starts, bits=self.bits[where])

    @staticmethod
    def concatenate(parts: Sequence[MaskCandidates]) -> MaskCandidates:
        """All candidates of one or more parts, in order."""
        names = ("box", "score", "class_id", "cell", "area", "flags", "bits")
        columns = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(p.starts) for p in parts)])
        return MaskCandidates(**columns, starts=np.cumsum(sizes))


def mask_boxes(box: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """(n, 4) row0, col0, row1, col1: the whole grid px that boxes (n, 4) x0, y0, x1, y1 in 1/16 px
    meet."""
    low, high = (
        box[:, [1, 0]].astype(np.int64) // BOX_UNIT,
        -(-box[:, [3, 2]].astype(np.int64) // BOX_UNIT),
    )
    return np.concatenate([low, high], axis=1)


def mask_bytes(box: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """(n,) bytes of the packed masks of boxes (n, 4)."""
    row0, col0, row1, col1 = mask_boxes(box).T
    pixels: npt.NDArray[np.int64] = (row1 - row0) * (col1 - col0)
    return (pixels + 7) // 8


@dataclass(frozen=True, slots=True)
class TileScores:
    """One row a core. cell: (n, 2) int32 lattice index (row, column); probability: (n, classes)
    uint16, rows sum to 65535 within rounding; embedding: (n, d) float16."""

    cell: npt.NDArray[np.int32]
    probability: npt.NDArray[np.uint16]
    embedding: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        n = len(self.cell)
        if self.cell.shape != (n, 2) or self.cell.dtype != np.int32:
            raise ValueError(
                f"TileScores.cell is {self.cell.dtype}{self.cell.shape}, want int32({n}, 2)"
            )
        if (
            self.probability.ndim != 2
            or len(self.probability) != n
            or self.probability.dtype != np.uint16
        ):
            raise ValueError(
                f"TileScores.probability is {self.probability.dtype}{self.probability.shape}, want "
                f"uint16({n}, classes)"
            )
        if (
            self.embedding.ndim != 2
            or len(self.embedding) != n
            or self.embedding.dtype != np.float16
        ):
            raise ValueError(
                f"TileScores.embedding is {self.embedding.dtype}{self.embedding.shape}, want "
                f"float16({n}, d)"
            )


Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Prediction = Array | Candidates | MaskCandidates | TileScores
"""One core's quantised prediction: uint8 maps (channels, core, core), candidates (with masks), or
one row of tile scores."""
