"""The canonical lattice: cores partition the plane, windows add the halo, shards group cores (all
pure integers).

The lattice starts at grid (0, 0) of the slide and depends on the model package alone, so every
window is the same tensor however the work is cut (design: one owner for each pixel).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quadrat.core.errors import ConfigError
from quadrat.core.geometry import Box

Cell = tuple[int, int]
"""Index (row, column) of a core or a shard."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Core, halo, stride and shard sizes in grid px.

    A window is ``core + 2 * halo`` px a side. ``stride`` is the network's; core and halo are whole
    multiples of it, so that every window meets the network in the same phase. ``shard`` is a whole
    number of cores: the unit of storage with one writer. It is part of the package, unlike the work
    unit, which is chosen at run time and never seen in results.
    """

    core: int
    halo: int
    stride: int
    shard: int

    def __post_init__(self) -> None:
        for name in ("core", "stride", "shard"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"lattice.{name} is {getattr(self, name)}; it must be at least 1 px"
                )
        if self.halo < 0:
            raise ConfigError(f"lattice.halo is {self.halo}; it must not be negative")
        for name in ("core", "halo"):
            if getattr(self, name) % self.stride:
                raise ConfigError(
                    f"lattice.{name} {getattr(self, name)} is not a multiple of the network's "
                    f"stride {self.stride}"
                )
        if self.shard % self.core:
            raise ConfigError(f"lattice.shard {self.shard} is not a multiple of core {self.core}")

    @property
    def window(self) -> int:
        return self.core + 2 * self.halo

    def core_box(self, cell: Cell) -> Box:
        row, col = cell[0] * self.core, cell[1] * self.core
        return Box(row, col, row + self.core, col + self.core)

    def window_box(self, cell: Cell) -> Box:
        return self.core_box(cell).pad(self.halo)

    def shard_box(self, shard: Cell) -> Box:
        row, col = shard[0] * self.shard, shard[1] * self.shard
        return Box(row, col, row + self.shard, col + self.shard)

    def shard_of(self, cell: Cell) -> Cell:
        cores = self.shard // self.core
        return cell[0] // cores, cell[1] // cores

    def by_shard(self, cells: Iterable[Cell]) -> dict[Cell, list[Cell]]:
        """Cells grouped by shard; shards and cells in raster order."""
        groups: dict[Cell, list[Cell]] = {}
        for cell in sorted(cells):
            groups.setdefault(self.shard_of(cell), []).append(cell)
        return dict(sorted(groups.items()))


def work_units(shards: Iterable[Cell], *, per_unit: int) -> list[tuple[Cell, ...]]:
    """Cut shards into work units of ``per_unit`` shards, in raster order; never visible in any
    result."""
    if per_unit < 1:
        raise ConfigError(f"run.shards_per_unit is {per_unit}; it must be at least 1")
    ordered = sorted(shards)
    return [tuple(ordered[i : i + per_unit]) for i in range(0, len(ordered), per_unit)]
