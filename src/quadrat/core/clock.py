"""Where the time of a process goes: seconds by what they went into, added up over all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_spent: dict[str, float] = {}
_lock = threading.Lock()


@contextmanager
def spent_on(what: str) -> Iterator[None]:
    """Add the time inside to that of ``what`` ("read", "network", "stitch", "write")."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        with _lock:
            _spent[what] = _spent.get(what, 0.0) + seconds


def spent_so_far() -> Mapping[str, float]:
    """Seconds since the process began, by what they went into."""
    with _lock:
        return dict(_spent)


def spent_since(before: Mapping[str, float]) -> Mapping[str, float]:
    """What was added since :func:`spent_so_far` gave ``before``, in seconds."""
    gained = {what: s - before.get(what, 0.0) for what, s in spent_so_far().items()}
    return {what: round(seconds, 6) for what, seconds in gained.items() if seconds > 0}
