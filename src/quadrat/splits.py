"""Folds and splits by case: whole cases go to one side, balanced by slides, labels and objects; leakage is refused.

Everything is a function of the cases' names, their counts and the seed: the order of the rows has no influence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

SWAPS_UP_TO = 400  # cases: above, only single moves improve the greedy answer (a swap looks at every pair)


def balanced_parts(names: Sequence[str], counts: npt.ArrayLike, shares: Sequence[float], *, seed: int) -> list[int]:
    """Which part each named case goes to, so that every part gets its share of every column of ``counts``.

    ``counts`` is (cases, columns), not negative: slides, slides of each label, objects. Each column weighs the same, however
    rare what it counts. Every part gets a case. The largest cases are placed first, each where it leaves the least squared
    deviation from the shares, then single moves and swaps are made while they lessen it: a local optimum, found the same
    way for the same names, counts and seed, in whatever order they are given.

    Raises:
        ValueError: fewer cases than parts, or two of one name.
    """
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} cases cannot fill {len(shares)} parts")
    if len(set(names)) < len(names):
        raise ValueError("two cases of one name")
    table = np.asarray(counts, np.float64).reshape(len(names), -1)
    total = table.sum(0)
    table = table[:, total > 0] / total[total > 0]
    share = np.asarray(shares, np.float64) / np.sum(shares)
    order = sorted(range(len(names)), key=lambda i: (-round(table[i].sum(), 9), _shuffle_key(names[i], seed)))
    table = table[order]
    parts = _improve(table, _place(table, share), share)
    of_case = np.empty(len(names), np.intp)
    of_case[order] = parts
    return [int(p) for p in of_case]


def _shuffle_key(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _place(table: F64, share: F64) -> npt.NDArray[np.intp]:
    """Greedy: row by row to the part that is left with the least deviation; parts without a row first when rows run out."""
    goal = share[:, None] * np.ones(table.shape[1])
    sums = np.zeros_like(goal)
    filled = np.zeros(len(share), np.intp)
    parts = np.empty(len(table), np.intp)
    for i, row in enumerate(table):
        cost = np.round(((sums + row - goal) ** 2 - (sums - goal) ** 2).sum(1), 12)
        if len(table) - i <= np.count_nonzero(filled == 0):
            cost[filled > 0] = np.inf
        part = int(np.argmin(cost))
        parts[i] = part
        sums[part] += row
        filled[part] += 1
    return parts


def _improve(table: F64, parts: npt.NDArray[np.intp], share: F64) -> npt.NDArray[np.intp]:
    """Make the move, or the swap, that lessens the deviation most, until none does; no part is emptied."""
    k, n = len(share), len(table)
    goal = share[:, None] * np.ones(table.shape[1])
    everything = np.arange(n)
    for _ in range(10 * n):
        rest = np.stack([table[parts == p].sum(0) for p in range(k)]) - goal
        squares = (table**2).sum(1)
        onto = 2 * table @ rest.T + squares[:, None]  # (n, k): what adding the row to a part costs
        leave = squares - 2 * (table * rest[parts]).sum(1)
        move = leave[:, None] + onto
        move[everything, parts] = np.inf
        move[np.bincount(parts, minlength=k)[parts] == 1] = np.inf
        i, p = divmod(int(np.argmin(np.round(move, 12))), k)
        best, change = move[i, p], [(i, p)]
        if n <= SWAPS_UP_TO:
            both = leave[:, None] + onto[:, parts]
            swap = both + both.T - 4 * table @ table.T  # each joins a part that the other has left: -2 x_i x_j a part
            swap[parts[:, None] == parts[None, :]] = np.inf
            i, j = divmod(int(np.argmin(np.round(swap, 12))), n)
            if swap[i, j] < best:
                best, change = swap[i, j], [(i, int(parts[j])), (j, int(parts[i]))]
        if not best < -1e-9:
            break
        for row, part in change:
            parts[row] = part
    return parts
