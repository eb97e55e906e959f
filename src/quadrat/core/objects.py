"""What the result of a slide is made of: checked columns and outlines (pure; numpy only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from quadrat.core.columns import Columns
from quadrat.core.geometry import F64, Box, Scale
from quadrat.core.unit import PX, Mpp, Unit

FLAG_CAPPED = 1
"""Larger than what is decoded at once (the cap, or a mask model's window): counted once, but its
shape is not certain."""
FLAG_OCCLUDED = 2
"""Later objects cover all of its pixels in the label image."""


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """A class of objects or regions."""

    name: str
    """Its name."""
    color: tuple[int, int, int]
    """Red, green, blue (0-255)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the grid of a slide lies."""

    height: int
    """Rows in grid px."""
    width: int
    """Columns in grid px."""
    mpp: float
    """The real um per grid px."""
    scale_row: float
    """Level-0 px per grid px along rows."""
    scale_col: float
    """Level-0 px per grid px along columns."""
    unit: Unit = "um"
    """Of lengths: where it is "px", ``mpp`` is px per grid px and there are no um."""

    @property
    def box(self) -> Box:
        return Box(0, 0, self.height, self.width)

    @property
    def scale(self) -> Scale:
        """Converts between grid px and level-0 px."""
        return Scale(self.scale_row, self.scale_col)

    @property
    def size_l0(self) -> tuple[float, float]:
        """Width and height in level-0 px."""
        return self.width * self.scale_col, self.height * self.scale_row

    @property
    def mpp_l0(self) -> float:
        """um per level-0 px, along rows."""
        return self.mpp / self.scale_row

    @property
    def stated_mpp(self) -> Mpp:
        """um per level-0 px, or "px" where there are no um."""
        return "px" if self.unit == PX else self.mpp_l0

    def centres_in(self, other: Frame) -> tuple[F64, F64]:
        """Where the centres of all pixels lie, in px of another frame: rows (h,), columns (w,)."""
        rows, cols = self.scale.centres_l0(self.box)
        return rows / other.scale_row, cols / other.scale_col


@dataclass(frozen=True, slots=True)
class ObjectTable(Columns):
    """Objects of one part or slide, in canonical order: shard in raster order, then anchor row,
    then anchor column.

    Coordinates are grid px, corner-based.
    """

    anchor: npt.NDArray[np.int64]
    """(n, 2) row, column of the pixel that decides which core owns the object."""
    class_id: npt.NDArray[np.uint8]
    """(n,) index into the package's classes."""
    score: npt.NDArray[np.float32]
    """(n,) 0-1."""
    bbox: npt.NDArray[np.float64]
    """(n, 4) row0, col0, row1, col1."""
    centroid: npt.NDArray[np.float64]
    """(n, 2) row, column."""
    area_px: npt.NDArray[np.float64]
    """(n,) grid px squared."""
    perimeter_px: npt.NDArray[np.float64]
    """(n,) grid px."""
    flags: npt.NDArray[np.uint8]
    """(n,) FLAG_* bits."""

    COLUMNS: ClassVar = {
        "anchor": ((2,), np.int64),
        "class_id": ((), np.uint8),
        "score": ((), np.float32),
        "bbox": ((4,), np.float64),
        "centroid": ((2,), np.float64),
        "area_px": ((), np.float64),
        "perimeter_px": ((), np.float64),
        "flags": ((), np.uint8),
    }


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons as ragged arrays (the layout of ``shapely.from_ragged_array``), in grid px,
    corner-based."""

    xy: npt.NDArray[np.float64]
    """(m, 2) float64 vertices; rings are closed (first = last)."""
    ring_starts: npt.NDArray[np.int64]
    """(r + 1,) int64 offsets into ``xy``."""
    polygon_starts: npt.NDArray[np.int64]
    """(n + 1,) int64 offsets into rings. The first ring of a polygon is its shell, the others are
    its holes."""

    def __post_init__(self) -> None:
        if self.xy.ndim != 2 or self.xy.shape[1] != 2:
            raise ValueError(f"Polygons.xy has shape {self.xy.shape}, want (m, 2)")
        if (
            self.ring_starts[-1] != len(self.xy)
            or self.polygon_starts[-1] != len(self.ring_starts) - 1
        ):
            raise ValueError("Polygons offsets do not end at the number of vertices and rings")

    def __len__(self) -> int:
        return len(self.polygon_starts) - 1

    @staticmethod
    def boxes(bbox: npt.NDArray[np.float64]) -> Polygons:
        """Rectangles from (n, 4) row0, col0, row1, col1."""
        row0, col0, row1, col1 = bbox.T
        xs = np.stack([col0, col1, col1, col0, col0], axis=1)
        ys = np.stack([row0, row0, row1, row1, row0], axis=1)
        n = len(bbox)
        xy = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float64)
        return Polygons(xy=xy, ring_starts=np.arange(n + 1) * 5, polygon_starts=np.arange(n + 1))
