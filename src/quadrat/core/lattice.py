"""The canonical lattice: cores partition the plane, windows add the halo, shards group cores.

The lattice starts at grid (0, 0) of the slide and depends on the model package alone. So every
window is the same tensor however the work is cut, and each pixel has one owner. Integers only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NewType, TypeVar

from quadrat.core.errors import ConfigError
from quadrat.core.geometry import Box

Cell = tuple[int, int]
"""Index (row, column) of a cell of any regular grid: a chunk of an array, a tile of a slide."""
CoreIndex = NewType("CoreIndex", tuple[int, int])
"""Index (row, column) of a core of the canonical lattice."""
ShardIndex = NewType("ShardIndex", tuple[int, int])
"""Index (row, column) of a shard of the canonical lattice. The type checker refuses a core's."""
Index = TypeVar("Index", bound=Cell)


@dataclass(frozen=True, slots=True)
class Lattice:
    """Core, halo, stride and shard sizes in grid px.

    A window is ``core + 2 * halo`` px a side.
    """

    core: int
    """Side of a core, a whole multiple of ``stride``: every window meets the network in the same
    phase."""
    halo: int
    """What a window sees around its core on each side, a whole multiple of ``stride``."""
    stride: int
    """The network's stride."""
    shard: int
    """Side of a shard, a whole number of cores: the unit of storage with one writer. It is part of
    the package. The work unit, in contrast, is chosen at run time and never seen in results."""

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

    def core_box(self, core: CoreIndex) -> Box:
        row, col = core[0] * self.core, core[1] * self.core
        return Box(row, col, row + self.core, col + self.core)

    def window_box(self, core: CoreIndex) -> Box:
        return self.core_box(core).pad(self.halo)

    def shard_box(self, shard: ShardIndex) -> Box:
        row, col = shard[0] * self.shard, shard[1] * self.shard
        return Box(row, col, row + self.shard, col + self.shard)

    def cores(self, box: Box) -> list[CoreIndex]:
        """The cores that a box touches, in raster order."""
        return [CoreIndex(cell) for cell in box.cells(self.core)]

    def shards(self, box: Box) -> list[ShardIndex]:
        """The shards that a box touches, in raster order."""
        return [ShardIndex(cell) for cell in box.cells(self.shard)]

    def shard_of(self, core: CoreIndex) -> ShardIndex:
        cores = self.shard // self.core
        return ShardIndex((core[0] // cores, core[1] // cores))

    def by_shard(self, cores: Iterable[CoreIndex]) -> dict[ShardIndex, list[CoreIndex]]:
        """Cores grouped by shard; shards and cores in raster order."""
        groups: dict[ShardIndex, list[CoreIndex]] = {}
        for core in sorted(cores):
            groups.setdefault(self.shard_of(core), []).append(core)
        return dict(sorted(groups.items()))


def work_units(shards: Iterable[Index], *, per_unit: int) -> list[tuple[Index, ...]]:
    """Cut shards into work units of ``per_unit`` shards, in raster order; never visible in any
    result."""
    if per_unit < 1:
        raise ConfigError(f"run.shards_per_unit is {per_unit}; it must be at least 1")
    ordered = sorted(shards)
    return [tuple(ordered[i : i + per_unit]) for i in range(0, len(ordered), per_unit)]
