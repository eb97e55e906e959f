"""One block of a slide, made without the others: its nuclei, its label pixels, its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from quadrat.phantom.field import Plan
from quadrat.phantom.nuclei import extent_px, nuclei_in
from quadrat.phantom.outlines import keep_visible, paint
from quadrat.phantom.render import (
    NODE_PX,
    Palette,
    add_debris,
    add_dust,
    densities,
    expose,
    node_fields,
)

#: Side of a block, level-0 px: a multiple of every tile side and of every pyramid step.
BLOCK_PX: Final = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The nuclei of a block and its surroundings."""

    table: NDArray[np.void]
    """NUCLEUS records in order of key."""
    labels: NDArray[np.int32]
    """(h, w) of the block: index + 1 into the table, 0 elsewhere."""
    rings: NDArray[np.int32]
    """Outlines, see `keep_visible`."""
    starts: NDArray[np.int64]
    """Where each outline begins in ``rings``, see `keep_visible`."""
    owned: NDArray[np.int64]
    """(n,) table indices of the kept nuclei that are centred in the block."""
    wide_labels: NDArray[np.int32]
    """Labels with a margin around the block, for rendering."""
    wide_depth: NDArray[np.float32]
    """Depth in the nucleus, with the same margin."""
    x0: int
    """Left edge of the wide arrays, level-0 px."""
    y0: int
    """Top edge of the wide arrays, level-0 px."""


def make_layout(plan: Plan, row: int, col: int) -> Layout:
    """The layout of block (row, col): a pure function of the plan and the place."""
    width, height = int(plan.width), int(plan.height)
    x0, y0 = col * BLOCK_PX, row * BLOCK_PX
    x1, y1 = min(x0 + BLOCK_PX, width), min(y0 + BLOCK_PX, height)
    extent = extent_px(plan)
    margin = -(-2 * extent // NODE_PX) * NODE_PX
    left, top = max(0, x0 - margin), max(0, y0 - margin)
    shape = (min(height, y1 + margin) - top, min(width, x1 + margin) - left)
    table = nuclei_in(
        plan, x0 - margin - extent, y0 - margin - extent, x1 + margin + extent, y1 + margin + extent
    )
    labels, depth = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    paint(table, left, top, labels, depth, extent)
    rings, starts = keep_visible(table, left, top, labels, extent)
    inside = (table["x"] >= x0) & (table["x"] < x1) & (table["y"] >= y0) & (table["y"] < y1)
    return Layout(
        table=table,
        labels=labels[y0 - top : y1 - top, x0 - left : x1 - left],
        rings=rings,
        starts=starts,
        owned=np.flatnonzero(inside & (np.diff(starts) > 0)),
        wide_labels=labels,
        wide_depth=depth,
        x0=left,
        y0=top,
    )


def make_picture(
    plan: Plan, look: Palette, layout: Layout, row: int, col: int
) -> NDArray[np.uint8]:
    """Render block (row, col) from its layout: (h, w, 3) uint8 RGB."""
    h, w = layout.labels.shape
    x0, y0 = col * BLOCK_PX - NODE_PX, row * BLOCK_PX - NODE_PX
    shape = (h + 2 * NODE_PX, w + 2 * NODE_PX)
    nodes = node_fields(plan, x0, y0, -(-shape[0] // NODE_PX) + 1, -(-shape[1] // NODE_PX) + 1)
    labels = _cut(layout.wide_labels, layout, x0, y0, shape)
    depth = _cut(layout.wide_depth, layout, x0, y0, shape)
    amounts = densities(plan, look, nodes, layout.table, labels, depth, x0, y0)
    add_debris(plan, amounts, labels, x0, y0)
    add_dust(plan, amounts, x0, y0)
    return expose(plan, look, amounts, nodes, x0, y0)[
        NODE_PX - 1 : NODE_PX - 1 + h, NODE_PX - 1 : NODE_PX - 1 + w
    ]


def _cut(
    source: NDArray[Any], layout: Layout, x0: int, y0: int, shape: tuple[int, int]
) -> NDArray[Any]:
    """The window of `shape` at (x0, y0) of a wide array; its edge is repeated outside the
    slide."""
    rows = np.clip(np.arange(y0, y0 + shape[0]) - layout.y0, 0, source.shape[0] - 1)
    cols = np.clip(np.arange(x0, x0 + shape[1]) - layout.x0, 0, source.shape[1] - 1)
    return source[np.ix_(rows, cols)]
