"""A small cache of decoded blocks that all threads reading one slide share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from quadrat.slides.protocol import Rgb

CACHE_BYTES = 32 << 20
"""Three rows of 512 px tiles across a shard of 4,096 px. Twice as much costs more in fresh memory
pages than it saves in decoding (measured: a third of the CPU of a cold aligned scan)."""


class BlockCache:
    """Decoded blocks by key, at most ``limit_bytes`` of them. The least recently used ones are
    dropped first."""

    __slots__ = ("_blocks", "_bytes", "_limit", "_lock")

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._blocks: OrderedDict[tuple[int, ...], Rgb] = OrderedDict()
        self._bytes = 0
        self._limit = limit_bytes
        self._lock = Lock()

    def get(self, key: tuple[int, ...], decode: Callable[[], Rgb]) -> Rgb:
        """The block of this key. It is decoded, outside the lock, if it is not in the cache. Do not
        write to it."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
                return block
        block = decode()
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._bytes += block.nbytes
            while self._bytes > self._limit and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes
        return block

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0
