"""Clumps, seeds and their flood on uint8 maps. Time and memory depend on the foreground, not on the
block.

Clumps and seeds are 4-connected components of horizontal runs (two rows at a time, union-find).
Only clumps with several seeds are flooded. The flood is the priority flood of Meyer (1991), as in
``skimage.segmentation.watershed``. Its queue is 256 first-in-first-out lists, one per grey value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel

Labels = npt.NDArray[np.int32]
Maps = npt.NDArray[np.uint8]
TOP, BOTTOM, LEFT, RIGHT = 1, 2, 4, 8
"""Sides of a block, as bits."""


@dataclass(frozen=True, slots=True)
class Components:
    """4-connected components as runs in raster order, in px of the block."""

    row: Labels
    """(m,) int32: row of each run."""
    col0: Labels
    """(m,) int32: first column of each run."""
    col1: Labels
    """(m,) int32: one past the last column of each run."""
    label: Labels
    """(m,) int32: component of each run, 1..n, numbered by their first pixels in raster order."""
    first: Labels
    """(n,) int32: the first run of each component."""
    sides: npt.NDArray[np.uint8]
    """(n,) uint8: which sides of the block the component touches, as bits."""

    def __len__(self) -> int:
        return len(self.first)

    def first_pixels(self) -> npt.NDArray[np.int64]:
        """(n, 2) (row, col) of the first pixel of each component in raster order, px of the
        block."""
        return np.stack([self.row[self.first], self.col0[self.first]], axis=1).astype(np.int64)


def components_of(channel: Maps, level: int) -> Components:
    """Components of the pixels of a (h, w) uint8 channel that are at least ``level``."""
    row, col0, col1 = _runs(np.ascontiguousarray(channel), level)
    return _components(row, col0, col1, channel.shape)


def components_inside(channel: Maps, level: int, clumps: Components) -> tuple[Components, Labels]:
    """As ``components_of``, but only inside clumps. Also the clump (from 1) of each component."""
    own = np.ascontiguousarray(channel)
    count = _runs_inside(
        own, level, clumps.row, clumps.col0, clumps.col1, clumps.label, np.empty((0, 4), np.int32)
    )
    runs = np.empty((count, 4), np.int32)
    _runs_inside(own, level, clumps.row, clumps.col0, clumps.col1, clumps.label, runs)
    row, col0, col1, clump = (np.ascontiguousarray(runs[:, i]) for i in range(4))
    found = _components(row, col0, col1, channel.shape)
    return found, clump[found.first]


def _components(row: Labels, col0: Labels, col1: Labels, shape: tuple[int, ...]) -> Components:
    label, n = _join(row, col0, col1)
    first = np.empty(n, np.int32)
    sides = np.zeros(n, np.uint8)
    _describe(row, col0, col1, label, shape[0], shape[1], first, sides)
    return Components(row=row, col0=col0, col1=col1, label=label, first=first, sides=sides)


def flood(
    distance: Maps,
    clumps: Components,
    seeds: Components,
    clump_of: Labels,
    wanted: npt.NDArray[np.bool_],
) -> Labels:
    """Divide clumps among their seeds.

    Args:
        distance: (h, w) uint8, greatest inside an object; the flood goes from high to low.
        clumps: the foreground. A clump without a seed is one object.
        seeds: components inside the clumps.
        clump_of: (s,) the clump of each seed, from 1.
        wanted: (clumps,) bool; the other clumps stay 0.

    Returns:
        int32 (h + 2, w + 2) with a border of zeros: i for seed i (from 1), s + k for clump k if it
            has no seed.
    """
    labels = np.zeros((distance.shape[0] + 2, distance.shape[1] + 2), np.int32)
    own = np.bincount(clump_of - 1, minlength=len(clumps))
    only = np.zeros(len(clumps), np.int32)
    only[clump_of - 1] = np.arange(1, len(seeds) + 1)
    value = np.where(
        own == 1, only, np.where(own == 0, len(seeds) + np.arange(1, len(clumps) + 1), _OPEN)
    ).astype(np.int32)
    value[~wanted] = 0
    waiting = _fill(labels, clumps.row, clumps.col0, clumps.col1, value[clumps.label - 1])
    several = (value == _OPEN)[clump_of - 1]
    mine = several[seeds.label - 1]
    runs = seeds.row[mine], seeds.col0[mine], seeds.col1[mine]
    _fill(labels, *runs, seeds.label[mine])
    if waiting:
        _flood(np.ascontiguousarray(distance), labels, *runs, waiting)
    return labels


_OPEN = -1
"""A pixel that the flood has not reached."""


@kernel
def _runs(channel, level):  # type: ignore[no-untyped-def]
    height, width = channel.shape
    count = 0
    for r in range(height):
        line = channel[r]
        count += line[0] >= level
        for c in range(1, width):
            count += (line[c] >= level) & (line[c - 1] < level)
    row, col0, col1 = (
        np.empty(count, np.int32),
        np.empty(count, np.int32),
        np.empty(count, np.int32),
    )
    at = 0
    for r in range(height):
        line = channel[r]
        c = 0
        while c < width:
            if line[c] < level:
                c += 1
                continue
            start = c
            while c < width and line[c] >= level:
                c += 1
            row[at], col0[at], col1[at] = r, start, c
            at += 1
    return row, col0, col1


@kernel
def _runs_inside(channel, level, row, col0, col1, label, out):  # type: ignore[no-untyped-def]
    """Write (row, col0, col1, label) of the runs at or above ``level`` until ``out`` is full.
    Returns how many there are."""
    count = 0
    for i in range(len(row)):
        line = channel[row[i]]
        c, stop = col0[i], col1[i]
        while c < stop:
            if line[c] < level:
                c += 1
                continue
            start = c
            while c < stop and line[c] >= level:
                c += 1
            if count < len(out):
                out[count, 0], out[count, 1], out[count, 2], out[count, 3] = (
                    row[i],
                    start,
                    c,
                    label[i],
                )
            count += 1
    return count


@kernel
def _join(row, col0, col1):  # type: ignore[no-untyped-def]
    """Label runs (in raster order) by their component, 1..n by first run. Also returns n."""
    m = len(row)
    parent = np.arange(m)
    above = 0
    for i in range(m):
        while above < i and (
            row[above] < row[i] - 1 or (row[above] == row[i] - 1 and col1[above] <= col0[i])
        ):
            above += 1
        j = above
        while j < i and row[j] == row[i] - 1 and col0[j] < col1[i]:
            a, b = i, j
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
            j += 1
    label = np.empty(m, np.int32)
    n = 0
    for i in range(m):  # a root is the least of its set, so it comes before the others
        root = parent[i]
        while parent[root] != root:
            root = parent[root]
        if root == i:
            n += 1
            label[i] = n
        else:
            label[i] = label[root]
    return label, n


@kernel
def _describe(row, col0, col1, label, height, width, first, sides):  # type: ignore[no-untyped-def]
    seen = 0
    for i in range(len(row)):
        k = label[i] - 1
        if k == seen:
            first[k] = i
            seen += 1
        if row[i] == 0:
            sides[k] |= TOP
        if row[i] == height - 1:
            sides[k] |= BOTTOM
        if col0[i] == 0:
            sides[k] |= LEFT
        if col1[i] == width:
            sides[k] |= RIGHT


@kernel
def _fill(labels, row, col0, col1, value):  # type: ignore[no-untyped-def]
    """Write the value of each run into the padded array. Returns how many pixels stay open."""
    waiting = 0
    for i in range(len(row)):
        if value[i] == 0:
            continue
        if value[i] == _OPEN:
            waiting += col1[i] - col0[i]
        for c in range(col0[i] + 1, col1[i] + 1):
            labels[row[i] + 1, c] = value[i]
    return waiting


@kernel
def _flood(distance, labels, row, col0, col1, waiting):  # type: ignore[no-untyped-def]
    """Seeds act first, in raster order. Then pixels act from the highest to the lowest, equal ones
    in order of arrival."""
    head, tail = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    rows, cols, follower = (
        np.empty(waiting, np.int32),
        np.empty(waiting, np.int32),
        np.empty(waiting, np.int32),
    )
    entries = 0
    level = 255
    run, c = 0, 0
    if len(row):
        c = col0[0]
    while True:
        if run < len(row):
            r, here = row[run] + 1, c + 1
            c += 1
            if c == col1[run]:
                run += 1
                if run < len(row):
                    c = col0[run]
        else:
            while level >= 0 and head[level] < 0:
                level -= 1
            if level < 0:
                return
            entry = head[level]
            head[level] = follower[entry]
            r, here = rows[entry], cols[entry]
        own = labels[r, here]
        for side in range(4):
            y = r - 1 if side == 0 else r + 1 if side == 3 else r
            x = here - 1 if side == 1 else here + 1 if side == 2 else here
            if labels[y, x] != _OPEN:
                continue
            labels[y, x] = own
            # a basin is filled before its brim is passed
            value = min(int(distance[y - 1, x - 1]), level)
            rows[entries], cols[entries], follower[entries] = y, x, -1
            if head[value] < 0:
                head[value] = entries
            else:
                follower[tail[value]] = entries
            tail[value] = entries
            entries += 1
