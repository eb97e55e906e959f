"""Planted nuclei and what an imperfect network would predict of them: exact truth at any size,
rendered shard by shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadrat.core.geometry import Box
from quadrat.core.kernel import kernel

BLOCK_PX, GROUPS = 236, 4
"""A block holds GROUPS x GROUPS groups of one or two nuclei, or one large object."""
SEED_LEVEL = 128
REACH_PX = 110


@dataclass(frozen=True, slots=True)
class Nuclei:
    """(n, 6) float64: centre row and column (px), mean radius (px), elongation, lobes' phase,
    lobes' number."""

    shape: tuple[int, int]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)


def plant(shape: tuple[int, int], *, per_mpx: float, seed: int, large: float = 0.0) -> Nuclei:
    """Nuclei of radius 6.5 to 9 px, half of them in touching pairs; of the objects a share
    ``large`` has radius 40 to 90 px.

    Objects of different groups never touch, so the planted number is the number that is to be
    found.
    """
    rng = np.random.default_rng(seed)
    rows, cols = shape[0] // BLOCK_PX, shape[1] // BLOCK_PX
    corners = np.stack(np.divmod(rng.permutation(rows * cols), cols), axis=1) * float(BLOCK_PX)
    want = per_mpx * shape[0] * shape[1] / 1e6
    big = corners[: round(want * large)]
    radius = rng.uniform(40, 90, len(big))
    room = (BLOCK_PX / 2 - 1.22 * radius - 2)[:, None]
    centre = big + BLOCK_PX / 2 + rng.uniform(-1, 1, (len(big), 2)) * np.maximum(room, 0)
    parts = [_rows(rng, centre, radius)]
    pitch = BLOCK_PX / GROUPS
    inner = np.stack(np.divmod(np.arange(GROUPS**2), GROUPS), axis=1) * pitch
    cells = (corners[len(big) :, None] + inner[None]).reshape(-1, 2)
    cells = cells[rng.permutation(len(cells))[: round((want - len(big)) * 0.75)]]
    pairs, singles = np.split(cells, [len(cells) // 3])
    middle = pairs + pitch / 2 + rng.uniform(-6, 6, pairs.shape)
    left, right = rng.uniform(6.5, 9, (2, len(pairs)))
    parts += [_rows(rng, middle - np.stack([0 * left, left * 0.92], axis=1), left)]
    parts += [_rows(rng, middle + np.stack([0 * left, right * 0.92], axis=1), right)]
    parts += [
        _rows(
            rng,
            singles + pitch / 2 + rng.uniform(-15, 15, singles.shape),
            rng.uniform(6.5, 9, len(singles)),
        )
    ]
    return Nuclei(shape, np.concatenate(parts))


def _rows(
    rng: np.random.Generator, centre: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    n = len(radius)
    lobes = rng.integers(2, 6, n)
    return np.stack(
        [*centre.T, radius, rng.uniform(0.9, 1.1, n), rng.uniform(0, 2 * np.pi, n), lobes], axis=1
    )


def render(nuclei: Nuclei, box: Box) -> NDArray[np.uint8]:
    """uint8 (3, h, w) of a box: foreground, inner distance, class, as the instance task stores
    them.

    Imperfect by design: lobed outlines, soft borders, grain that respects the thresholds.
    """
    maps = np.zeros((3, *box.shape), np.uint8)
    row, col = nuclei.values[:, 0], nuclei.values[:, 1]
    near = (
        (row > box.row0 - REACH_PX)
        & (row < box.row1 + REACH_PX)
        & (col > box.col0 - REACH_PX)
        & (col < box.col1 + REACH_PX)
    )
    _render(nuclei.values[near], box.row0, box.col0, maps)
    return maps


@kernel
def _render(values, row0, col0, maps):  # type: ignore[no-untyped-def]
    height, width = maps.shape[1:]
    for i in range(len(values)):
        y0, x0, radius, long, phase, lobes = values[i]
        reach = 1.25 * radius + 2
        for r in range(max(0, int(y0 - reach) - row0), min(height, int(y0 + reach) + 2 - row0)):
            for c in range(max(0, int(x0 - reach) - col0), min(width, int(x0 + reach) + 2 - col0)):
                y, x = (r + row0 + 0.5 - y0) / long, (c + col0 + 0.5 - x0) * long
                border = radius * (1 + 0.05 * np.sin(lobes * np.arctan2(y, x) + phase))
                rho = np.sqrt(y * y + x * x) / border
                grain = ((r + row0) * 7 + (c + col0) * 13) % 5
                soft = 128 + (1 - rho) * radius * 60
                foreground = (
                    min(255, max(0, int(soft)))
                    if abs(soft - 128) < 8
                    else min(255 - grain, max(0, int(soft)))
                )
                if foreground > maps[0, r, c]:
                    maps[0, r, c] = foreground
                    maps[2, r, c] = 255 - grain
                distance = max(0, int(255 * (1 - rho)))
                if abs(distance - SEED_LEVEL) > 8:
                    distance = min(255, max(0, distance + grain - 2))
                if distance > maps[1, r, c]:
                    maps[1, r, c] = distance
