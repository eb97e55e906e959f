"""A slide seen at the model's mpp: pixels by box in grid px, whatever level and resampling that
takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box, ReadPlan, check_mpp, plan_read
from quadrat.core.objects import Frame
from quadrat.core.unit import MPP_OF_PX, PX, Unit
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Closing, Rgb, Slide, on_canvas, white
from quadrat.slides.resample import block_mean, separable, taps

UM_TIMES_OBJECTIVE = 10.0
"""um/px times magnification: 0.5 at 20x, 0.25 at 40x. Scanners differ by a factor of about two."""
CONTRADICTION = 4.0
"""An mpp that is off by more contradicts the objective: a wrong unit is off by 10 or 2.54."""
PIECE_PX = 2048
"""Level pixels per side that are in memory at once while a larger region is reduced (12 MiB)."""


class PixelSource(Protocol):
    """Pixels by box in grid px. A slide and a TileStore look alike."""

    @property
    def frame(self) -> Frame:
        """Where the grid lies on the slide."""
        ...

    def read(self, box: Box) -> Rgb:
        """uint8 (h, w, 3) of ``box`` in grid px, white outside the slide. The same whether read
        whole or in parts."""
        ...


class SlideSource(Closing):
    """A slide read by one plan. It pickles together with its slide.

    ``damaged`` says what happens at a tile that cannot be decoded: "fail" raises; with "mark" the
    tile is white and is listed in ``damage``.
    """

    __slots__ = ("_lost", "damaged", "frame", "plan", "slide")

    def __init__(
        self,
        slide: Slide,
        plan: ReadPlan,
        *,
        damaged: Literal["fail", "mark"] = "fail",
        unit: Unit = "um",
    ) -> None:
        self.slide = slide
        self.plan = plan
        self.damaged: Literal["fail", "mark"] = damaged
        self.frame = Frame(
            height=plan.height,
            width=plan.width,
            mpp=plan.mpp,
            scale_row=plan.scale_row,
            scale_col=plan.scale_col,
            unit=unit,
        )
        self._lost: set[Box] = set()

    @property
    def damage(self) -> list[Box]:
        """Boxes in grid px, sorted, of the damaged tiles met so far.

        Each box is the whole tile, scaled outwards and cut at the edge of the slide. So the list
        does not depend on how the slide was read.
        """
        found = {self._in_grid(box).intersect(self.frame.box) for box in set(self._lost)}
        return sorted(box for box in found if not box.empty)

    def read(self, box: Box) -> Rgb:
        """uint8 (h, w, 3) of ``box`` in grid px, white outside the slide. Bit-identical whether
        read whole or in parts.

        Raises:
            DamagedTileError: a tile cannot be decoded, and ``damaged`` is "fail".
            SlideError: the slide cannot be read.
        """
        return on_canvas(box, self.frame.box, self._read_inside)

    def _read_inside(self, box: Box) -> Rgb:
        rows, cols = (
            max(1, int(PIECE_PX / ratio)) for ratio in (self.plan.ratio_row, self.plan.ratio_col)
        )
        if box.height <= rows and box.width <= cols:
            return self._read_piece(box)
        out = np.empty((*box.shape, 3), np.uint8)
        for row in range(box.row0, box.row1, rows):
            for col in range(box.col0, box.col1, cols):
                piece = Box(row, col, row + rows, col + cols).intersect(box)
                out[piece.slices_in(box)] = self._read_piece(piece)
        return out

    def close(self) -> None:
        """Close the slide."""
        self.slide.close()

    def _read_piece(self, box: Box) -> Rgb:
        """A box inside the slide that is small enough to be in memory at the resolution of the
        level."""
        plan = self.plan
        if not plan.resampled:
            rows, cols = int(plan.ratio_row), int(plan.ratio_col)
            wanted = Box(box.row0 * rows, box.col0 * cols, box.row1 * rows, box.col1 * cols)
            return block_mean(self._read_level(wanted), rows, cols)
        level = self.slide.levels[plan.level]
        down = taps(box.row0, box.row1, ratio=plan.ratio_row, size=level.height)
        across = taps(box.col0, box.col1, ratio=plan.ratio_col, size=level.width)
        return separable(
            self._read_level(Box(down.first, across.first, down.stop, across.stop)), down, across
        )

    def _read_level(self, box: Box) -> Rgb:
        """Pixels of a box in px of the level. Damaged tiles are white if they are to be marked."""
        level = self.plan.level
        try:
            return self.slide.read(level, box)
        except DamagedTileError:
            if self.damaged == "fail":
                raise
        out = white(box.shape)
        todo = [box]
        while todo:
            part = todo.pop()
            try:
                out[part.slices_in(box)] = self.slide.read(level, part)
            except DamagedTileError as lost:
                hole = Box(*lost.box).intersect(part)
                if hole.empty:  # else this loop would never end
                    raise
                self._lost.add(Box(*lost.box))
                todo.extend(_around(part, hole))
        return out

    def _in_grid(self, box: Box) -> Box:
        """The grid px that a box of the level contributes to. Enlarging uses one level px more on
        each side."""
        plan = self.plan
        reach = 1 if min(plan.ratio_row, plan.ratio_col) < 1 else 0
        return box.pad(reach).scale_out(1 / plan.ratio_row, 1 / plan.ratio_col)


def _around(box: Box, hole: Box) -> list[Box]:
    """What is left of a box without a hole in it: at most four boxes, none of them empty."""
    parts = (
        Box(box.row0, box.col0, hole.row0, box.col1),
        Box(hole.row0, box.col0, hole.row1, hole.col0),
        Box(hole.row0, hole.col1, hole.row1, box.col1),
        Box(hole.row1, box.col0, box.row1, box.col1),
    )
    return [part for part in parts if not part.empty]


def open_source(
    path: str | Path,
    *,
    mpp: float,
    slide_mpp: float | None = None,
    scene: str = "",
    allow_upsampling: bool = False,
    damaged: Literal["fail", "mark"] = "fail",
    unit: Unit = "um",
) -> SlideSource:
    """Open a slide to be read at ``mpp`` um/px; ``slide_mpp`` stands in for the level-0 mpp that
    the file states, ``scene`` names one of several pictures. With the unit "px" the scale of the
    file or the user has no say: px of the grid are px of level 0.

    Raises:
        SlideError: unreadable, no believable mpp, or finer than the slide is (see ``open_slide``,
            ``check_mpp``, ``plan_read``).
    """
    slide = open_slide(path, mpp=MPP_OF_PX if unit == PX else slide_mpp, scene=scene)
    try:
        return source_of(
            slide, mpp=mpp, allow_upsampling=allow_upsampling, damaged=damaged, unit=unit
        )
    except BaseException:
        slide.close()
        raise


def believable_mpp(slide: Slide) -> float:
    """The mpp of an open slide, rows and columns as one.

    Raises:
        SlideError: see ``check_mpp``; or the file states an objective that contradicts the mpp that
            it states. (With an mpp from the user, the objective does not count.)
    """
    name, objective = slide.path or slide.name, slide.info.objective
    mpp = check_mpp(slide.mpp, slide=name)
    if not slide.info.mpp_source or not objective:
        return mpp
    usual = UM_TIMES_OBJECTIVE / objective
    if not usual / CONTRADICTION <= mpp <= usual * CONTRADICTION:
        raise SlideError(
            f"{name}: the file states {mpp:g} um/px and a {objective:g}x objective, which usually "
            f"gives {usual:g}: one of them is wrong; give the true mpp with --mpp VALUE or the "
            "manifest's column 'mpp'"
        )
    return mpp


def source_of(
    slide: Slide,
    *,
    mpp: float,
    allow_upsampling: bool = False,
    damaged: Literal["fail", "mark"] = "fail",
    unit: Unit = "um",
) -> SlideSource:
    """An open slide read at ``mpp`` um/px.

    Raises:
        SlideError: no believable mpp, or finer than the slide is.
    """
    stated = believable_mpp(slide)
    plan = plan_read(
        slide.levels,
        slide_mpp=stated,
        mpp=mpp,
        slide=slide.path or slide.name,
        allow_upsampling=allow_upsampling,
    )
    return SlideSource(slide, plan, damaged=damaged, unit=unit)
