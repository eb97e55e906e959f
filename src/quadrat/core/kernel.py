"""The one way in which quadrat compiles a function: numba, with a cache on disk where there is a
folder for it.

numba keeps what it compiled next to the source, or in the user's home folder; NUMBA_CACHE_DIR names
another place. In a read-only container there may be none of them. A cache saves time only, so it is
never the reason why something cannot be computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core import caching

P = ParamSpec("P")
T = TypeVar("T")
FunctionCache: Any = caching.FunctionCache
config: Any = numba.config


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """The function compiled, without the GIL while it runs. It keeps its types for the type
    checker."""
    compiled: Any = numba.njit(nogil=True)(function)
    with contextlib.suppress(RuntimeError):
        compiled._cache = _cache_of(function)
    return cast(Callable[P, T], compiled)


def is_kept() -> bool:
    """Whether a later process finds what this one compiles."""
    try:
        _cache_of(is_kept)
    except RuntimeError:
        return False
    return True


def _cache_of(function: Callable[..., Any]) -> Any:
    """Raises RuntimeError where there is no folder for it that can be written."""
    if not config.CACHE_DIR:
        Path.home()  # raises if nobody knows it: numba would make a folder called "~"
    return _Cache(function)


class _Cache(FunctionCache):  # type: ignore[misc]  # without types in numba
    """numba's cache for one function; files that are damaged, or that no room is left for, do not
    count."""

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception:  # a damaged pickle raises whatever it likes
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        with contextlib.suppress(OSError):  # no room, or another user's folder by now
            super().save_overload(*args)
