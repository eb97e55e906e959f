"""Things of a slide as small binary tiles, to be drawn by a browser at any zoom.

A tile of level ``k`` is a square of 512 x 512 px of 2**k level-0 px. A thing that is at least
OUTLINE_PX long there is an outline; of smaller ones, each cell of 4 x 4 px has at most one mark a
class, the thing with the highest score (the first of equals), and how many it stands for. So a tile
is small however many things lie in it, nothing that a score hides can be missed, and the same file
always gives the same tile.

Layout (little-endian): uint32 marks, polygons, rings, vertices; int16 x, y of marks, uint8 class,
score and weight of marks; uint8 class, score of polygons; uint32 rings of each polygon, vertices of
each ring; int16 x, y of vertices. Each column begins at a multiple of 4. Places are 1/32 px of the
tile, scores 1/255, weights 16 log2 of the number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.pages.things import Geometries, Indices, Places, Things, decoded

TILE = 512
CELL = 4
"""Side of a cell of marks in px."""
STEP = 32
"""Places a px."""
OUTLINE_PX = 8
"""A thing that is shown at least as long as this is an outline."""
MOST_OUTLINES = 3000
"""In a tile; of more, the longest are outlines."""
LEVELS = (-4, 20)
"""The least and the greatest level that may be asked for."""
EXACT_BELOW = 0.25
"""px of the model's grid that a px of a tile covers, below which outlines are the exact ones."""
_PAD = 6
"""px around a tile, so that what lies on its edge is drawn whole from both sides."""


def vector_tile(things: Things, level: int, col: int, row: int, *, grid_l0: float) -> bytes:
    """A tile as bytes.

    Args:
        things: of the slide.
        level: 2**level is the side of a px in level-0 px.
        col: how many tiles lie to the left of it.
        row: how many lie above.
        grid_l0: side of a px of the model's grid, in level-0 px.
    """
    scale = 2.0**level
    corner = np.array([col * TILE * scale, row * TILE * scale])
    places = things.places
    long = np.flatnonzero(meets(places, corner, scale) & (places.side >= OUTLINE_PX * scale))
    if len(long) > MOST_OUTLINES:
        order = np.argsort(-places.side[long], kind="stable")
        long = np.sort(long[order[:MOST_OUTLINES]])
    small = places.side < OUTLINE_PX * scale
    if len(long) == MOST_OUTLINES:
        small |= ~np.isin(np.arange(len(places)), long)
    marks, weights = thinned(places, small, corner, scale)
    polygons = drawable(
        decoded(things.outlines(long)), corner, scale, tolerance=_tolerance(scale, grid_l0)
    )
    return packed(places, marks, weights, long, polygons, corner, scale)


def meets(places: Places, corner: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.bool_]:
    """(n,) whether the box of a thing meets the tile."""
    low, high = corner - _PAD * scale, corner + (TILE + _PAD) * scale
    x0, y0, x1, y1 = places.box.T
    met: npt.NDArray[np.bool_] = (x1 > low[0]) & (x0 < high[0]) & (y1 > low[1]) & (y0 < high[1])
    return met


def thinned(
    places: Places,
    candidates: npt.NDArray[np.bool_],
    corner: npt.NDArray[np.float64],
    scale: float,
) -> tuple[Indices, npt.NDArray[np.int64]]:
    """Of the candidates with a centre in the tile or just outside, the one with the highest score
    in each cell and class, and how many it stands for; sorted by class, then by cell."""
    column = np.floor((places.x - corner[0]) / (CELL * scale)).astype(np.int64)
    line = np.floor((places.y - corner[1]) / (CELL * scale)).astype(np.int64)
    cells = TILE // CELL
    inside = candidates & (column >= -1) & (column <= cells) & (line >= -1) & (line <= cells)
    index = np.flatnonzero(inside)
    if not len(index):
        return index, np.zeros(0, np.int64)
    side = cells + 2
    key = (places.class_id[index].astype(np.int64) * side + line[index] + 1) * side
    key += column[index] + 1
    # the highest score, and of equals the first: one integer that says both
    rank = (scores_255(places.score[index]).astype(np.int64) << 32) + (2**32 - 1 - index)
    best = np.zeros(int(key.max()) + 1, np.int64)
    np.maximum.at(best, key, rank)
    count = np.bincount(key)
    taken = np.flatnonzero(count)
    return (2**32 - 1 - (best[taken] & (2**32 - 1))).astype(np.intp), count[taken]


def drawable(
    polygons: Geometries, corner: npt.NDArray[np.float64], scale: float, *, tolerance: float
) -> Geometries:
    """Outlines without what cannot be seen in the tile: corners below ``tolerance``, and what lies
    outside. Some may be empty, or of several parts."""
    if not len(polygons):
        return polygons
    seen = shapely.simplify(polygons, tolerance, preserve_topology=False) if tolerance else polygons
    seen, lost = seen.copy(), shapely.is_empty(seen)
    seen[lost] = shapely.envelope(polygons[lost])
    low, high = corner - _PAD * scale, corner + (TILE + _PAD) * scale
    x0, y0, x1, y1 = shapely.bounds(seen).T
    over = (x0 < low[0]) | (y0 < low[1]) | (x1 > high[0]) | (y1 > high[1])
    seen[over] = shapely.clip_by_rect(seen[over], *low, *high)
    return seen


def packed(
    places: Places,
    marks: Indices,
    weights: npt.NDArray[np.int64],
    long: Indices,
    polygons: Geometries,
    corner: npt.NDArray[np.float64],
    scale: float,
) -> bytes:
    """The bytes of a tile."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    flat = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, owner = parts[flat], owner[flat]
    rings, of_part = shapely.get_rings(parts, return_index=True)
    xy = shapely.get_coordinates(rings)
    vertices = shapely.get_num_coordinates(rings).astype(np.uint32)
    at_marks = _placed(np.stack([places.x[marks], places.y[marks]], axis=1), corner, scale)
    at_vertices = _placed(xy, corner, scale)
    log = np.minimum(np.round(16 * np.log2(np.maximum(weights, 1))), 255).astype(np.uint8)
    thing = long[owner]
    columns = (
        np.array([len(marks), len(parts), len(rings), len(xy)], np.uint32),
        np.ascontiguousarray(at_marks[:, 0]),
        np.ascontiguousarray(at_marks[:, 1]),
        places.class_id[marks],
        scores_255(places.score[marks]),
        log,
        places.class_id[thing],
        scores_255(places.score[thing]),
        np.bincount(of_part, minlength=len(parts)).astype(np.uint32),
        vertices,
        np.ascontiguousarray(at_vertices[:, 0]),
        np.ascontiguousarray(at_vertices[:, 1]),
    )
    return b"".join(_aligned(one) for one in columns)


def heat(
    places: Places,
    size_l0: tuple[float, float],
    cell_l0: float,
    *,
    shown: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float32]:
    """Things in square cells of ``cell_l0`` level-0 px from the slide's corner, float32 (rows,
    columns); what is not ``shown`` (n,) does not count."""
    width, height = (max(1, int(np.ceil(side / cell_l0))) for side in size_l0)
    column = np.clip((places.x[shown] / cell_l0).astype(np.int64), 0, width - 1)
    line = np.clip((places.y[shown] / cell_l0).astype(np.int64), 0, height - 1)
    counts = np.bincount(line * width + column, minlength=width * height)
    return counts.reshape(height, width).astype(np.float32)


def scores_255(score: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Scores in steps of 1/255."""
    return np.clip(np.round(score * 255), 0, 255).astype(np.uint8)


def _tolerance(scale: float, grid_l0: float) -> float:
    """How far a drawn outline may lie from the exact one, in level-0 px: stairs of the grid are
    smoothed for the eye, until they are large on the screen."""
    if scale < EXACT_BELOW * grid_l0:
        return 0.0
    return max(0.35 * scale, 0.6 * grid_l0)


def _placed(
    xy: npt.NDArray[np.floating], corner: npt.NDArray[np.float64], scale: float
) -> npt.NDArray[np.int16]:
    at = np.round((xy.reshape(-1, 2) - corner) * (STEP / scale))
    return np.clip(at, -32768, 32767).astype(np.int16)


def _aligned(column: npt.NDArray[np.integer]) -> bytes:
    data = column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()
    return data + bytes(-len(data) % 4)
