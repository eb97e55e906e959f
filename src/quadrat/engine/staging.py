"""Copies of slides on the disk of the machine that reads them (``run.stage_gb``), where the file
system that they lie on is far away.

All workers of a machine share one folder with a bound: a slide is copied once, used for as long as
one of them has it open, and makes room for another one when nobody has. Locks are of the machine
(flock) and end with their process, so a killed worker leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quadrat.core.allocation import temporary_folder
from quadrat.core.errors import WriteError
from quadrat.core.files import (
    OutputFile,
    copy_file,
    drop_partials,
    free_bytes,
    make_folder,
    new_folder,
    open_append,
    remove,
)
from quadrat.slides.identity import slide_bytes, slide_files, slide_identity

LOCK = ".lock"
SPARE_BYTES = 1 << 30
"""What a copy leaves free on the disk."""


@dataclass(slots=True)
class Copy:
    """A copy that is in use until it is released."""

    path: str
    """The slide's file, or its folder, in the copy."""
    lock: OutputFile
    """Held as long as it is in use."""

    def release(self) -> None:
        """It may make room for others."""
        self.lock.close()


@dataclass(frozen=True, slots=True)
class Stage:
    """The copies of one machine."""

    folder: Path
    """Where they lie, each under its identity."""
    limit: int
    """Bytes that they may have together."""

    def copy(self, path: str, identity: str) -> Copy | str:
        """A copy of a slide with this identity, made if there is none; or why it cannot be had, and
        the slide is to be read where it lies."""
        try:
            return self._copy(Path(path), identity)
        except (OSError, WriteError) as error:
            return f"it cannot be copied ({error})"

    def _copy(self, path: Path, identity: str) -> Copy | str:
        make_folder(self.folder)
        place = self.folder / identity
        lock = open_append(place.with_suffix(LOCK))
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if not place.is_dir():
                fcntl.flock(lock, fcntl.LOCK_UN)
                with self._alone():
                    if not place.is_dir() and (reason := self._make(path, identity, place)):
                        lock.close()
                        return reason
                    fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(place)
        except BaseException:
            lock.close()
            raise
        return Copy(str(place / path.name), lock)

    def clear(self) -> None:
        """Remove all copies that nobody uses."""
        if self.folder.is_dir():
            with self._alone():
                for place in self._copies():
                    self._drop(place)

    def _make(self, path: Path, identity: str, place: Path) -> str:
        """Copy a slide; why not, if there is no room for it. Only one process of the machine does
        so at a time: a network file system is not read faster by several."""
        size = slide_bytes(str(path))
        if not self._make_room(size):
            return (
                f"its {size / 1e9:.1f} GB do not fit: {self.folder} may hold "
                f"{self.limit / 1e9:g} GB (run.stage_gb) with {free_bytes(self.folder) / 1e9:.1f} "
                "GB free on the disk, and the copies in it are in use"
            )
        with new_folder(place) as part:
            for file in slide_files(path):
                copy_file(file, part / file.relative_to(path.parent))
            if slide_identity(str(part / path.name)) != identity:
                raise OSError("the file was changed meanwhile")
        return ""

    def _make_room(self, size: int) -> bool:
        """Remove copies that nobody uses, the one first that was not asked for the longest, until
        there is room for so many bytes more."""
        if size > self.limit:
            return False
        copies = self._copies()
        sizes = {place: _bytes_in(place) for place in copies}
        for place in copies:
            if self._fits(sum(sizes.values()) + size, size):
                break
            if self._drop(place):
                del sizes[place]
        return self._fits(sum(sizes.values()) + size, size)

    def _fits(self, together: int, size: int) -> bool:
        return together <= self.limit and size + SPARE_BYTES <= free_bytes(self.folder)

    def _copies(self) -> list[Path]:
        """All copies, the one first that was not asked for the longest. What a killed process left
        half copied goes."""
        drop_partials(self.folder, deep=False)
        found = [place for place in self.folder.iterdir() if place.is_dir()]
        return sorted(found, key=lambda place: place.stat().st_mtime)

    def _drop(self, place: Path) -> bool:
        """Remove a copy; False: somebody uses it."""
        with open_append(place.with_suffix(LOCK)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            remove(place)
            return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process of the machine makes or removes copies."""
        with open_append(self.folder / f"all{LOCK}") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


_here: Stage | None = None
_say: Callable[[str, str], None] | None = None


def use_stage(gigabytes: float, say: Callable[[str, str], None] | None = None) -> None:
    """Let this process read copies of slides, up to so much of them on this machine; 0: none.
    ``say`` gets (path, reason) of a slide that cannot be copied."""
    global _here, _say
    folder = temporary_folder().path / f"quadrat-staged-{os.getuid()}"
    _here = Stage(folder, int(gigabytes * 1e9)) if gigabytes else None
    _say = say


def clear_stage() -> None:
    """Remove the copies that this process used, if nobody else uses them."""
    if _here is not None:
        _here.clear()


def staged(path: str, identity: str) -> Copy | None:
    """A copy of a slide for this process; None: it reads the slide where it lies."""
    if _here is None:
        return None
    found = _here.copy(path, identity)
    if isinstance(found, Copy):
        return found
    if _say is not None:
        _say(path, found)
    return None


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
