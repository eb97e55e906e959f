"""What a foreign network found, where its answer is objects and not maps: the form in which the
tasks ``detection`` and ``instance_masks`` take it.

Nothing is decided for good here. Each object lies with the one core that holds its anchor, and
which of overlapping objects stay is decided once for the whole slide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.objects import FLAG_CAPPED
from quadrat.core.predictions import Array, Candidates, MaskCandidates, Prediction, quantise_score
from quadrat.models.foreign.head import ForeignHead
from quadrat.stitching.masks import pack

Batch = Tensor | Sequence[Tensor]
"""One output of a network for a batch: a tensor, batch first, or one tensor per window."""
NEAR_PX = 4
"""An object that comes so close to its window's border is taken to be cut by it."""


@dataclass(frozen=True, slots=True)
class Found(ABC):
    """The objects of a batch of windows. It can be cut along the batch and cast like a tensor; a
    window's objects are worked out when its core is known."""

    raw: Mapping[str, Batch]
    """The network's outputs, by the names that the decoder gives them."""
    head: ForeignHead
    """What the card says of them."""

    def __len__(self) -> int:
        return len(next(iter(self.raw.values())))

    def __getitem__(self, index: slice) -> Self:
        return replace(self, raw={name: batch[index] for name, batch in self.raw.items()})

    def float(self) -> Self:
        """All floating-point tensors as float32."""
        return replace(self, raw={name: _float(batch) for name, batch in self.raw.items()})

    def tensors(self) -> Iterator[Tensor]:
        """Everything that the network answered."""
        for batch in self.raw.values():
            yield from [batch] if isinstance(batch, Tensor) else batch

    def of_cores(self, cells: Sequence[CoreIndex], lattice: Lattice) -> list[Prediction]:
        """The candidates of each core, in order."""
        return [self.candidates(index, cell, lattice) for index, cell in enumerate(cells)]

    @abstractmethod
    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> Candidates:
        """What core ``cell`` owns of the objects in window ``index`` of the batch, in an order that
        their values decide."""


def _float(batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return batch.float() if batch.is_floating_point() else batch
    return [tensor.float() if tensor.is_floating_point() else tensor for tensor in batch]


def owned(pixel: Array, cell: CoreIndex, lattice: Lattice) -> npt.NDArray[np.bool_]:
    """Which of the pixels (n, 2) row, column in grid px lie in a core; bool (n,)."""
    core = lattice.core_box(cell)
    row, col = pixel.T
    inside: npt.NDArray[np.bool_] = (
        (row >= core.row0) & (row < core.row1) & (col >= core.col0) & (col < core.col1)
    )
    return inside


def boxes_of(box: Array, score: Array, class_id: Array, pixel: Array) -> Candidates:
    """Candidates in the order of their pixel, score, class and box.

    box (n, 4) x0, y0, x1, y1 in 1/16 grid px, score (n,) in 0-1, class_id (n,), pixel (n, 2) row,
    column in grid px.
    """
    found = Candidates(
        box=box.astype(np.int32),
        score=quantise_score(np.asarray(score, np.float64)),
        class_id=class_id.astype(np.uint8),
        cell=pixel.astype(np.int32),
    )
    return found.take(_order(found))


def masks_of(
    inside: Array,
    bounds: Array,
    score: Array,
    class_id: Array,
    pixel: Array,
    *,
    window: tuple[int, int, int, int] | None,
) -> MaskCandidates:
    """Candidates with masks in the order of :func:`boxes_of`; one without a pixel is left out.

    inside (m,) uint8 and bounds (n, 4) row0, col0, row1, col1 in grid px as in
    :func:`quadrat.stitching.masks.pack`. An object near the border of ``window`` (row0, col0, row1,
    col1) is flagged as cut by it; None: windows do not cut.
    """
    some = np.flatnonzero((bounds[:, 2:] > bounds[:, :2]).all(axis=1))
    box, area, starts, bits = pack(inside, bounds[some])
    flags = np.zeros(len(some), np.uint8)
    if window is not None:
        low, high = np.array(window[:2]) + NEAR_PX, np.array(window[2:]) - NEAR_PX
        flags[((bounds[some, :2] < low) | (bounds[some, 2:] > high)).any(axis=1)] = FLAG_CAPPED
    found = MaskCandidates(
        box=box,
        score=quantise_score(np.asarray(score, np.float64)[some]),
        class_id=class_id[some].astype(np.uint8),
        cell=pixel[some].astype(np.int32),
        area=area,
        flags=flags,
        starts=starts,
        bits=bits,
    )
    order = _order(found)
    return found.take(order[found.area[order] > 0])


def _order(found: Candidates) -> npt.NDArray[np.int64]:
    row, col = found.cell.T
    order: npt.NDArray[np.int64] = np.lexsort(
        (*found.box.T[::-1], found.class_id, -found.score.astype(np.int64), col, row)
    )
    return order
