"""Boxes, levels and read plans: the only place where mpp, pyramid levels and level-0 pixels meet.

There are two frames. *Grid px* are at the mpp of the model (stores, predictions, stitching).
*Level-0 px* are those of the slide file (annotations, GeoJSON). Arrays are (row, column), and boxes
are half-open. Pixel (r, c) covers [r, r+1) x [c, c+1), so coordinates are corner-based, and one
factor per axis converts them: ``x_l0 = x_grid * scale``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.limits import MPP_MAX, MPP_MIN

F64 = npt.NDArray[np.float64]

REUSE_TOLERANCE = 0.05
"""An integer reduction of a level this close to the wanted mpp is used as it is (no resampling)."""
ANISOTROPY_LIMIT = 0.01


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open rectangle [row0, row1) x [col0, col1) in integer pixels. It may lie partly
    outside the slide."""

    row0: int
    """First row."""
    col0: int
    """First column."""
    row1: int
    """One past the last row."""
    col1: int
    """One past the last column."""

    def __post_init__(self) -> None:
        if self.row1 < self.row0 or self.col1 < self.col0:
            raise ValueError(
                f"box {self.row0, self.col0, self.row1, self.col1} has a negative side"
            )

    @property
    def height(self) -> int:
        return self.row1 - self.row0

    @property
    def width(self) -> int:
        return self.col1 - self.col0

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def empty(self) -> bool:
        return self.area == 0

    def pad(self, margin: int) -> Box:
        return Box(self.row0 - margin, self.col0 - margin, self.row1 + margin, self.col1 + margin)

    def shift(self, rows: int, cols: int) -> Box:
        return Box(self.row0 + rows, self.col0 + cols, self.row1 + rows, self.col1 + cols)

    def intersect(self, other: Box) -> Box:
        """The common part; an empty box (zero area) if there is none."""
        row0, col0 = max(self.row0, other.row0), max(self.col0, other.col0)
        return Box(
            row0, col0, max(row0, min(self.row1, other.row1)), max(col0, min(self.col1, other.col1))
        )

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.row0, other.row0),
            min(self.col0, other.col0),
            max(self.row1, other.row1),
            max(self.col1, other.col1),
        )

    def scale_out(self, row: float, col: float) -> Box:
        """The smallest integer box that holds this one after its rows and columns are multiplied by
        positive factors.

        A product within 1e-6 px of an integer counts as that integer, so that a factor and its
        inverse cancel.
        """
        slack = 1e-6
        return Box(
            math.floor(self.row0 * row + slack),
            math.floor(self.col0 * col + slack),
            math.ceil(self.row1 * row - slack),
            math.ceil(self.col1 * col - slack),
        )

    def contains(self, other: Box) -> bool:
        return (
            self.row0 <= other.row0
            and self.col0 <= other.col0
            and self.row1 >= other.row1
            and self.col1 >= other.col1
        )

    def slices_in(self, frame: Box) -> tuple[slice, slice]:
        """Slices that select this box from an array that covers ``frame``. This box must lie inside
        it."""
        if not frame.contains(self):
            raise ValueError(f"box {self} does not lie inside {frame}")
        return (
            slice(self.row0 - frame.row0, self.row1 - frame.row0),
            slice(self.col0 - frame.col0, self.col1 - frame.col0),
        )

    def cells(self, size: int) -> list[tuple[int, int]]:
        """(row, column), in raster order, of the cells that it touches; cells are ``size`` px wide
        and begin at (0, 0)."""
        if self.empty:
            return []
        rows = range(self.row0 // size, -(-self.row1 // size))
        cols = range(self.col0 // size, -(-self.col1 // size))
        return [(r, c) for r in rows for c in cols]


@dataclass(frozen=True, slots=True)
class Level:
    """One pyramid level."""

    height: int
    """Rows in px of the level."""
    width: int
    """Columns in px of the level."""
    down_row: float
    """Level-0 px per px of the level, along rows (>= 1)."""
    down_col: float
    """The same along columns."""

    @property
    def box(self) -> Box:
        return Box(0, 0, self.height, self.width)


def pyramid_levels(sizes: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their (height, width) in px, largest first.

    Writers halve and round: a width of 4443 becomes 2221, and the quotient is 2.0005. But pixel (r,
    c) of the level still covers exactly 2 x 2 pixels. So if a whole factor explains both sides, it
    is used (a power of two before any other). Otherwise the two quotients are used, one per axis.
    """
    height, width = sizes[0]
    return tuple(Level(h, w, *_downsample((height, h), (width, w))) for h, w in sizes)


def _downsample(rows: tuple[int, int], cols: tuple[int, int]) -> tuple[float, float]:
    """The factors (row, column) between the full and the reduced size of each axis."""
    quotients = rows[0] / rows[1], cols[0] / cols[1]
    middle = math.sqrt(quotients[0] * quotients[1])

    def explains(factor: int) -> bool:
        return factor >= 1 and all(
            abs(full / factor - reduced) < 1 for full, reduced in (rows, cols)
        )

    for factor in (2 ** max(0, round(math.log2(middle))), round(middle)):
        if explains(factor):
            return float(factor), float(factor)
    return quotients


@dataclass(frozen=True, slots=True)
class Scale:
    """How many level-0 px make one px of another frame, by axis: the only converter between both.

    Coordinates are corner-based in both frames, so a factor per axis is enough.

    Raises:
        ValueError: a factor is not a positive finite number.
    """

    row: float
    """Factor along rows (y)."""
    col: float
    """Factor along columns (x)."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(factor) and factor > 0 for factor in (self.row, self.col)):
            raise ValueError(f"{self} must be two positive finite numbers, level-0 px per px")

    def to_l0(self, xy: F64) -> F64:
        """Pairs x, y (n, 2), or x0, y0, x1, y1 (n, 4), from px of the frame to level-0 px."""
        scaled: F64 = xy * np.array([self.col, self.row] * (xy.shape[1] // 2))
        return scaled

    def from_l0(self, xy_l0: F64) -> F64:
        """Pairs x, y (n, 2), or x0, y0, x1, y1 (n, 4), from level-0 px to px of the frame."""
        scaled: F64 = xy_l0 / np.array([self.col, self.row] * (xy_l0.shape[1] // 2))
        return scaled

    def box_l0(self, box: Box) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of a box of the frame in level-0 px."""
        return (
            box.col0 * self.col, box.row0 * self.row, box.col1 * self.col, box.row1 * self.row
        )  # fmt: skip

    def centres_l0(self, box: Box) -> tuple[F64, F64]:
        """Where the centres of the pixels of a box lie, in level-0 px: rows (h,), columns (w,)."""
        rows, cols = (
            np.arange(first, end, dtype=np.float64) + 0.5
            for first, end in ((box.row0, box.row1), (box.col0, box.col1))
        )
        return rows * self.row, cols * self.col

    def per(self, other: Scale) -> Scale:
        """How many px of another frame make one px of this one."""
        return Scale(self.row / other.row, self.col / other.col)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How one slide is read at one mpp. It is made once, so every region is cut from the same
    virtual image."""

    level: int
    """Index of the level that is read."""
    ratio_row: float
    """Level px per grid px along rows: 1 as stored, an integer the mean of so many, other values
    above 1 area resampling, below 1 bilinear enlargement."""
    ratio_col: float
    """The same along columns."""
    scale_row: float
    """Level-0 px per grid px along rows."""
    scale_col: float
    """The same along columns."""
    mpp: float
    """The real um per grid px. Only this one is used for figures in um."""
    height: int
    """Rows of the whole slide in grid px."""
    width: int
    """Columns of the whole slide in grid px."""

    @property
    def box(self) -> Box:
        """The whole slide in grid px."""
        return Box(0, 0, self.height, self.width)

    @property
    def resampled(self) -> bool:
        return not (self.ratio_row.is_integer() and self.ratio_col.is_integer())


def check_mpp(mpp: tuple[float, float] | None, *, slide: str) -> float:
    """One mpp (um/px) from the (row, column) pair of a slide. What must not be guessed is refused.

    Raises:
        SlideError: missing, outside 0.05-40 um/px, or rows and columns more than 1 % apart.
    """
    if mpp is None:
        raise SlideError(
            f"{slide}: the file states no mpp (micrometres a pixel); give it with --mpp VALUE or "
            "the manifest's column 'mpp'"
        )
    for value in mpp:
        if not math.isfinite(value) or not MPP_MIN <= value <= MPP_MAX:
            raise SlideError(
                f"{slide}: mpp {value:g} um/px is outside {MPP_MIN}-{MPP_MAX}; give the true one "
                "with --mpp VALUE "
                "or the manifest's column 'mpp'"
            )
    row, col = mpp
    if abs(row - col) > ANISOTROPY_LIMIT * max(row, col):
        raise SlideError(
            f"{slide}: mpp differs between rows ({row:g}) and columns ({col:g}) by more than 1 %; "
            "give one with --mpp VALUE "
            "or the manifest's column 'mpp'"
        )
    return (row + col) / 2


def plan_read(
    levels: Sequence[Level],
    *,
    slide_mpp: float,
    mpp: float,
    slide: str,
    allow_upsampling: bool = False,
) -> ReadPlan:
    """Choose the level and the resampling for reading a slide at ``mpp`` um/px.

    If an integer reduction of a level lies within 5 % of ``mpp``, it is used as it is, and the mpp
    of the plan is that real one. Otherwise the coarsest level that is finer than ``mpp`` is
    area-resampled to exactly ``mpp``.

    Raises:
        SlideError: ``mpp`` is finer than level 0 by more than 5 %, and upsampling was not allowed.
        ConfigError: ``mpp`` is not plausible.
    """
    if not math.isfinite(mpp) or not MPP_MIN <= mpp <= MPP_MAX:
        raise ConfigError(f"mpp {mpp:g} um/px is outside {MPP_MIN}-{MPP_MAX}")
    if mpp < slide_mpp * (1 - REUSE_TOLERANCE) and not allow_upsampling:
        raise SlideError(
            f"{slide}: the model wants {mpp:g} um/px but the slide has only {slide_mpp:g}; detail "
            "cannot be invented - "
            "use a model of coarser mpp, or allow it with --set slide.allow_upsampling=true"
        )
    best: tuple[int, float, int] | None = (
        None  # least reduction first: the level nearest to what is wanted
    )
    for index, level in enumerate(levels):
        level_mpp = slide_mpp * level.down_row
        reduction = max(1, round(mpp / level_mpp))
        error = abs(level_mpp * reduction / mpp - 1)
        if error <= REUSE_TOLERANCE and (best is None or (reduction, error) < best[:2]):
            best = (reduction, error, index)
    if best is not None:
        reduction, _, index = best
        level = levels[index]
        return ReadPlan(
            level=index,
            ratio_row=float(reduction),
            ratio_col=float(reduction),
            scale_row=level.down_row * reduction,
            scale_col=level.down_col * reduction,
            mpp=slide_mpp * level.down_row * reduction,
            height=max(1, level.height // reduction),
            width=max(1, level.width // reduction),
        )
    finer = [i for i, level in enumerate(levels) if slide_mpp * level.down_row <= mpp]
    index = max(finer, key=lambda i: levels[i].down_row) if finer else 0
    level = levels[index]
    scale = mpp / slide_mpp
    return ReadPlan(
        level=index,
        ratio_row=scale / level.down_row,
        ratio_col=scale / level.down_col,
        scale_row=scale,
        scale_col=scale,
        mpp=mpp,
        height=max(1, math.floor(level.height * level.down_row / scale)),
        width=max(1, math.floor(level.width * level.down_col / scale)),
    )
