"""What a network says about a shard, quantised and checked (pure; numpy only).

Decisions are taken on these integers, never on floats, so that the same values decide whatever
computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from quadrat.core.columns import Columns, Index

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
class Candidates(Columns):
    """Boxes before merging."""

    box: npt.NDArray[np.int32]
    """(n, 4) x0, y0, x1, y1 in 1/16 grid px."""
    score: npt.NDArray[np.uint16]
    """(n,)"""
    class_id: npt.NDArray[np.uint8]
    """(n,)"""
    cell: npt.NDArray[np.int32]
    """(n, 2) row, column in grid px of the cell that emitted the box: its anchor."""

    COLUMNS: ClassVar = {
        "box": ((4,), np.int32),
        "score": ((), np.uint16),
        "class_id": ((), np.uint8),
        "cell": ((2,), np.int32),
    }

    def __post_init__(self) -> None:
        Columns.__post_init__(self)
        if len(self) and (self.box[:, 2:] <= self.box[:, :2]).any():
            raise ValueError("Candidates.box has a side of zero or less")


@dataclass(frozen=True, slots=True)
class MaskCandidates(Candidates):
    """Boxes with masks, before merging. A view without pixels has ``starts`` all 0."""

    area: npt.NDArray[np.int32]
    """(n,) pixels of the mask."""
    flags: npt.NDArray[np.uint8]
    """(n,) FLAG_* bits of the object that the candidate would become."""
    starts: npt.NDArray[np.int64]
    """(n + 1,) offsets into ``bits``."""
    bits: npt.NDArray[np.uint8]
    """(m,) each mask packed row by row, the most significant bit first, over the whole grid px that
    its box meets (:func:`mask_boxes`)."""

    COLUMNS: ClassVar = {**Candidates.COLUMNS, "area": ((), np.int32), "flags": ((), np.uint8)}

    def __post_init__(self) -> None:
        Candidates.__post_init__(self)
        starts, bits, n = self.starts, self.bits, len(self)
        if starts.shape != (n + 1,) or starts.dtype != np.int64:
            raise ValueError(
                f"MaskCandidates.starts is {starts.dtype}{starts.shape}, want int64({n + 1},)"
            )
        if bits.ndim != 1 or bits.dtype != np.uint8 or starts[0] or starts[-1] != len(bits):
            raise ValueError(
                f"MaskCandidates.bits is {bits.dtype}{bits.shape}, want uint8({starts[-1]},)"
            )
        if len(bits) and not np.array_equal(np.diff(starts), mask_bytes(self.box)):
            raise ValueError(
                "MaskCandidates.starts does not leave each mask the bytes that its box needs"
            )

    @property
    def boxes(self) -> Candidates:
        """What suppression decides on."""
        return Candidates(**{name: getattr(self, name) for name in Candidates.COLUMNS})

    @classmethod
    def empty(cls) -> MaskCandidates:
        """No candidates."""
        boxes, none = Candidates.empty(), np.zeros(0, np.uint8)
        return cls(
            **{name: getattr(boxes, name) for name in Candidates.COLUMNS},
            area=np.zeros(0, np.int32),
            flags=none,
            starts=np.zeros(1, np.int64),
            bits=none,
        )

    def take(self, index: Index) -> MaskCandidates:
        """The candidates of an index array, a mask or a slice, in its order."""
        chosen = np.arange(len(self))[index]
        sizes = self.starts[chosen + 1] - self.starts[chosen]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        where = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], sizes)
        columns = {name: getattr(self, name)[chosen] for name in self.COLUMNS}
        return MaskCandidates(**columns, starts=starts, bits=self.bits[where])

    @classmethod
    def concatenate(cls, parts: Sequence[MaskCandidates]) -> MaskCandidates:
        """All candidates of the parts in the order given."""
        whole = [cls.empty(), *parts]
        columns = {n: np.concatenate([getattr(p, n) for p in whole]) for n in cls.COLUMNS}
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(p.starts) for p in whole)])
        return cls(**columns, starts=np.cumsum(sizes), bits=np.concatenate([p.bits for p in whole]))


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
class TileScores(Columns):
    """One row per core."""

    cell: npt.NDArray[np.int32]
    """(n, 2) row, column of the core in the lattice."""
    probability: npt.NDArray[np.uint16]
    """(n, classes); a row sums to 65535 within rounding."""
    embedding: npt.NDArray[np.float16]
    """(n, d)"""

    COLUMNS: ClassVar = {
        "cell": ((2,), np.int32),
        "probability": ((None,), np.uint16),
        "embedding": ((None,), np.float16),
    }


Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Prediction = Array | Candidates | MaskCandidates | TileScores
"""One core's quantised prediction: uint8 maps (channels, core, core), candidates (with masks), or
one row of tile scores."""
