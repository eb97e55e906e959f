"""Which shards can be stitched while others are still being predicted: those whose neighbours are.

An object owned by a shard rarely reaches beyond the eight shards around it; the few that do wait
for the stage behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from quadrat.core.lattice import Cell


class StitchQueue:
    """Shards of one slide that wait for predictions, and those that wait no more, in the order in
    which they became ready."""

    def __init__(
        self, planned: Iterable[Cell], *, predicted: Iterable[Cell], stitched: Iterable[Cell]
    ) -> None:
        every, there = set(planned), set(predicted)
        self._waits_for = {s: (_around(s) & every) - there for s in sorted(every - set(stitched))}
        self._ready = deque(s for s, missing in self._waits_for.items() if not missing)

    def predicted(self, shards: Iterable[Cell]) -> None:
        """The predictions of some shards are there."""
        for shard in shards:
            for near in sorted(_around(shard)):
                missing = self._waits_for.get(near, set())
                if shard in missing:
                    missing.remove(shard)
                    if not missing:
                        self._ready.append(near)

    def take(self, most: int) -> tuple[Cell, ...]:
        """Up to ``most`` ready shards, each handed out once; none if there are none."""
        return tuple(self._ready.popleft() for _ in range(min(most, len(self._ready))))


def _around(shard: Cell) -> set[Cell]:
    """A shard and its eight neighbours."""
    return {(shard[0] + i, shard[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
