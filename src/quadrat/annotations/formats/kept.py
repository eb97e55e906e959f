"""A cache of the last parsed files, because one annotation file serves many slides."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from quadrat.core.errors import AnnotationError

_FILES = 4
T = TypeVar("T")


def kept(parse: Callable[[Path], T]) -> Callable[[Path], T]:
    """A parser that reads a file again only if it has changed. Its results are shared: do not
    change them.

    Raises:
        AnnotationError: the file does not exist; and everything that ``parse`` raises.
    """

    @lru_cache(maxsize=_FILES)
    def parse_as_it_is(path: Path, stamp: tuple[int, int, int]) -> T:
        return parse(path)

    @wraps(parse)
    def parsed(path: Path) -> T:
        try:
            stat = path.stat()
        except OSError as error:
            raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error
        return parse_as_it_is(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))

    return parsed
