"""Connected components across shards: each shard is labelled alone, then joined with its neighbours
(4-connected)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quadrat.core.kernel import kernel
from quadrat.core.lattice import Cell

Strips = dict[str, npt.NDArray[np.int64]]
"""Border pixels of a shard: ``top``, ``bottom``, ``left``, ``right``. Each is (length, 2) of
(component, class), 0 for none."""


def face_pairs(strips: dict[Cell, Strips], first: dict[Cell, int]) -> npt.NDArray[np.int64]:
    """Pairs (m, 2) of components that touch across a side of a shard. ``first``: global number of
    component 1 of each shard."""
    pairs = [np.zeros((0, 2), np.int64)]
    for (row, col), mine in strips.items():
        for other, (a_side, b_side) in {
            (row, col + 1): ("right", "left"),
            (row + 1, col): ("bottom", "top"),
        }.items():
            if other not in strips:
                continue
            a, b = mine[a_side], strips[other][b_side]
            touch = (a[:, 0] > 0) & (b[:, 0] > 0) & (a[:, 1] == b[:, 1])
            found = np.stack(
                [a[touch, 0] - 1 + first[(row, col)], b[touch, 0] - 1 + first[other]], axis=1
            )
            pairs.append(np.unique(found, axis=0))
    return np.concatenate(pairs)


@kernel
def union_find(n, pairs):  # type: ignore[no-untyped-def]
    """For each of 0..n-1, the least member of its set after joining ``pairs`` (m, 2): int64 (n,).
    The order of pairs does not matter."""
    parent = np.arange(n)
    for i in range(pairs.shape[0]):
        a, b = pairs[i, 0], pairs[i, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for i in range(n):
        root = i
        while parent[root] != root:
            root = parent[root]
        parent[i] = root
    return parent
