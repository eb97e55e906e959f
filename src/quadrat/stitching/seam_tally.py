"""What the seam report counts, block by block: objects and duplicates in strips along seams,
straight edges on seams.

A *seam* is a side that two analysed cores have in common. Sides of the slide or of the analysed
area are not seams. Along each seam lies a *near* strip, and directly behind it on both sides a
*flank*. Both meet the same tissue, so a gland or the edge of the tissue changes both alike, and
only the seam makes them differ. Everything is summed per block (the half seams that meet at a
corner), so that intervals can be computed by resampling blocks. Parts of a slide add up in any
order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quadrat.core.kernel import kernel
from quadrat.core.objects import ObjectTable, Polygons

FLANK = 4
"""The flank ends at this many times the reach of the near strip."""
MOST_BLOCKS = 4096
HALVES = 2
CONTROLS = np.array([0.25, 0.375, 0.5, 0.625, 0.75])
"""Where control lines run, as shares of a core. Straight edges there have nothing to do
with seams."""
TOLERANCE_PX = 0.75
"""An edge this close to a line lies on it: outlines through pixel centres are off by half a
pixel."""
LEVEL_PX = 0.05
"""Two ends this close in one coordinate make an axis-aligned edge (coordinates may be rounded to
two decimals)."""
COLUMNS = (
    *("near", "flank", "near_area", "flank_area", "near_pairs", "flank_pairs"),
    *("on_seams", "straight_on_seams", "on_controls", "straight_on_controls"),
)
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Tally = F64
"""(len(COLUMNS), blocks) float64. All but areas are integers, so sums are exact in any order."""


@dataclass(frozen=True, slots=True)
class SeamLattice:
    """The cores of a slide."""

    pitch: float
    """Side of a core in px."""
    origin: tuple[float, float]
    """(row, col) px of the corner of core (0, 0)."""
    analysed: npt.NDArray[np.bool_]
    """bool (rows, columns): which cores were analysed."""
    extent: tuple[float, float, float, float]
    """(row0, col0, row1, col1) px: there is nothing outside (the slide)."""

    def seams(self) -> npt.NDArray[np.bool_]:
        """(2, rows, columns): whether a core shares its upper side (0) or left side (1) with an
        analysed core."""
        shared = np.zeros((2, *self.analysed.shape), bool)
        shared[0, 1:] = self.analysed[1:] & self.analysed[:-1]
        shared[1, :, 1:] = self.analysed[:, 1:] & self.analysed[:, :-1]
        return shared

    def blocks(self) -> I64:
        """(2, rows, columns, 2): block of the two halves of the upper side (0) and left side (1) of
        each core.

        A block holds the four half seams that meet at a corner of cores. Their flanks share
        objects, so they belong together. If there would be more than MOST_BLOCKS, a block is a
        square of such corners.
        """
        rows, cols = self.analysed.shape
        side = 1
        while -(-(rows + 1) // side) * -(-(cols + 1) // side) > MOST_BLOCKS:
            side *= 2
        corner = (
            np.arange(rows + 1)[:, None] // side * -(-(cols + 1) // side)
            + np.arange(cols + 1) // side
        )
        upper = np.stack([corner[:-1, :-1], corner[:-1, 1:]], axis=-1)
        left = np.stack([corner[:-1, :-1], corner[1:, :-1]], axis=-1)
        return np.stack([upper, left])


@dataclass(frozen=True, slots=True)
class SeamScale:
    """Lengths in px."""

    near: float
    """Reach of the near strip on either side."""
    straight: float
    """An edge this long, or half as long as the object's side along it, is straight."""
    pair: F64
    """(classes,) centroids of one class closer than this are duplicates."""

    @staticmethod
    def of(table: ObjectTable, lattice: SeamLattice) -> SeamScale:
        """From the median diameter (of a circle of the area of an object): ``near`` is one,
        ``straight`` and ``pair`` are half of it.

        The near strip is a whole number of px and at most an eighth of a core, so that its flanks
        do not meet.
        """
        diameter = 2 * np.sqrt(table.area_px / np.pi)
        median = float(np.median(diameter)) if len(diameter) else 0.0
        classes = int(table.class_id.max(initial=0)) + 1
        pair = np.array(
            [
                np.median(d) / 2 if len(d := diameter[table.class_id == k]) else 0.0
                for k in range(classes)
            ]
        )
        near = max(1.0, min(float(np.ceil(median)), float(lattice.pitch // (2 * FLANK))))
        return SeamScale(near=near, straight=median / 2, pair=pair)


def empty_tally(blocks: I64) -> Tally:
    """A tally of nothing."""
    return np.zeros((len(COLUMNS), int(blocks.max(initial=-1)) + 1))


def tally_areas(lattice: SeamLattice, scale: SeamScale, blocks: I64) -> Tally:
    """Columns near_area and flank_area: px of the strips, cut at the slide, without the part near a
    crossing seam line."""
    out, near, pitch = empty_tally(blocks), scale.near, lattice.pitch
    seams = lattice.seams()
    for axis in (0, 1):
        cells = np.argwhere(seams[axis])
        line = lattice.origin[axis] + cells[:, axis] * pitch
        low, high = lattice.extent[axis], lattice.extent[axis + 2]
        across_near = _inside(line - near, line + near, low, high)
        across_flank = _inside(line - FLANK * near, line + FLANK * near, low, high) - across_near
        for half in range(HALVES):
            first = lattice.origin[1 - axis] + cells[:, 1 - axis] * pitch
            start = first + (near if half == 0 else pitch * half / HALVES)
            stop = first + (pitch - near if half == HALVES - 1 else pitch * (half + 1) / HALVES)
            along = _inside(start, stop, lattice.extent[1 - axis], lattice.extent[3 - axis])
            block = blocks[axis, cells[:, 0], cells[:, 1], half]
            np.add.at(out[COLUMNS.index("near_area")], block, across_near * along)
            np.add.at(out[COLUMNS.index("flank_area")], block, across_flank * along)
    return out


def _inside(start: Floats, stop: Floats, low: float, high: float) -> F64:
    """Length of the part of [start, stop) within [low, high)."""
    return np.asarray(np.maximum(0.0, np.minimum(stop, high) - np.maximum(start, low)))


def tally_points(
    points: F64, lattice: SeamLattice, scale: SeamScale, blocks: I64, *, pairs: bool
) -> Tally:
    """Columns near and flank of points (n, 2) (row, column); with ``pairs``, near_pairs and
    flank_pairs."""
    out = empty_tally(blocks)
    names = ("near_pairs", "flank_pairs") if pairs else ("near", "flank")
    seams, pitch = lattice.seams(), lattice.pitch
    rows, cols = lattice.analysed.shape
    place = points - np.array(lattice.origin)
    for axis in (0, 1):
        line = np.floor(place[:, axis] / pitch + 0.5).astype(np.int64)
        core = np.floor(place[:, 1 - axis] / pitch).astype(np.int64)
        away, along = place[:, axis] - line * pitch, place[:, 1 - axis] - core * pitch
        cell = (line, core) if axis == 0 else (core, line)
        # half-open, as boxes are: centroids may lie on halves or sixteenths of a px, and with both
        # ends one of them would count twice
        known = (
            (away >= -FLANK * scale.near)
            & (away < FLANK * scale.near)
            & (along >= scale.near)
            & (along < pitch - scale.near)
        )
        known &= (cell[0] >= 0) & (cell[0] < rows) & (cell[1] >= 0) & (cell[1] < cols)
        known[known] = seams[axis, cell[0][known], cell[1][known]]
        block = blocks[
            axis, cell[0][known], cell[1][known], (along[known] >= pitch / 2).astype(np.int64)
        ]
        is_near = (away[known] >= -scale.near) & (away[known] < scale.near)
        for name, chosen in zip(names, (is_near, ~is_near), strict=True):
            out[COLUMNS.index(name)] += np.bincount(block[chosen], minlength=out.shape[1])
    return out


def duplicate_midpoints(table: ObjectTable, scale: SeamScale) -> F64:
    """(m, 2) (row, column) midpoints of the pairs of one class with centroids closer than
    ``scale.pair``."""
    found = [np.zeros((0, 2))]
    for class_id, reach in enumerate(scale.pair):
        centroid = table.centroid[table.class_id == class_id]
        if len(centroid) > 1 and reach > 0:
            pair = cKDTree(centroid, balanced_tree=False).query_pairs(reach, output_type="ndarray")
            found.append((centroid[pair[:, 0]] + centroid[pair[:, 1]]) / 2)
    return np.concatenate(found)


def tally_edges(
    table: ObjectTable, polygons: Polygons, lattice: SeamLattice, scale: SeamScale, blocks: I64
) -> Tally:
    """Columns on_seams, straight_on_seams, on_controls, straight_on_controls.

    They count the objects (once per axis) that a seam, or a control line inside a core, meets or
    touches, and how many of them have a straight edge on it.
    """
    out = empty_tally(blocks)
    counts = np.zeros((4, out.shape[1]), np.int64)
    _count_edges(
        table.bbox,
        table.centroid,
        polygons.xy,
        polygons.ring_starts,
        polygons.polygon_starts,
        np.array(lattice.origin, np.float64),
        float(lattice.pitch),
        np.concatenate([[0.0], np.floor(CONTROLS * lattice.pitch)]),
        lattice.analysed,
        lattice.seams(),
        blocks,
        scale.straight,
        counts,
    )
    out[COLUMNS.index("on_seams") :] = counts
    return out


@kernel
def _count_edges(  # type: ignore[no-untyped-def]
    bbox,
    centroid,
    xy,
    ring_starts,
    polygon_starts,
    origin,
    pitch,
    shifts,
    analysed,
    seams,
    blocks,
    straight,
    out,
):
    """Fill ``out`` (4, blocks). ``shifts``: px into a core of the seam lines (0) and of the control
    lines."""
    rows, cols = analysed.shape
    for i in range(bbox.shape[0]):
        for axis in range(2):
            across, along = bbox[i, axis + 2] - bbox[i, axis], bbox[i, 3 - axis] - bbox[i, 1 - axis]
            if across <= 0 or along <= 0:
                continue
            least = min(along / 2, straight)
            core = int(np.floor((centroid[i, 1 - axis] - origin[1 - axis]) / pitch))
            share = (centroid[i, 1 - axis] - origin[1 - axis]) / pitch - core
            for s in range(shifts.shape[0]):
                first = int(
                    np.ceil((bbox[i, axis] - TOLERANCE_PX - origin[axis] - shifts[s]) / pitch)
                )
                last = int(
                    np.floor((bbox[i, axis + 2] + TOLERANCE_PX - origin[axis] - shifts[s]) / pitch)
                )
                for line in range(first, last + 1):
                    r, c = (line, core) if axis == 0 else (core, line)
                    if r < 0 or c < 0 or r >= rows or c >= cols:
                        continue
                    if (s == 0 and not seams[axis, r, c]) or not analysed[r, c]:
                        continue
                    at = origin[axis] + line * pitch + shifts[s]
                    block = blocks[axis, r, c, min(int(share * HALVES), HALVES - 1)]
                    where = 0 if s == 0 else 2
                    out[where, block] += 1
                    if (
                        _longest(
                            xy, ring_starts, polygon_starts[i], polygon_starts[i + 1], 1 - axis, at
                        )
                        >= least
                    ):
                        out[where + 1, block] += 1


@kernel
def _longest(xy, ring_starts, first_ring, last_ring, across, at):  # type: ignore[no-untyped-def]
    """Length of the longest unbroken part of a polygon's rings on the line ``xy[:, across]
    == at``."""
    longest = 0.0
    for ring in range(first_ring, last_ring):
        # the last point is the first
        start, points = (ring_starts[ring], ring_starts[ring + 1] - ring_starts[ring] - 1)
        run = 0.0
        # two rounds, for a run that continues over the first point of the ring
        for step in range(2 * points):
            if step >= points and run == 0.0:
                break
            a, b = start + step % points, start + step % points + 1
            on = (
                abs(xy[a, across] - at) <= TOLERANCE_PX
                and abs(xy[b, across] - xy[a, across]) <= LEVEL_PX
            )
            run = run + abs(xy[b, 1 - across] - xy[a, 1 - across]) if on else 0.0
            longest = max(longest, run)
    return longest
