"""A disk that fails, or a process that is killed, at a chosen call of the operating system."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

WRITING = ("open", "write", "fsync", "mkdir", "replace", "rename")
REMOVING = ("unlink", "rmdir")
NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FAULTY = OSError(errno.EIO, os.strerror(errno.EIO))
SKIPPED = ("core/files.py", "helpers/faults.py", "contextlib.py", "shutil.py", "pathlib.py")


class Killed(BaseException):
    """Stands for a process that is killed: it does nothing more to the disk."""


@dataclass(frozen=True)
class Call:
    """One call that changes the disk: what, of which file, for which line of quadrat."""

    name: str
    path: str
    target: str
    site: str


@dataclass
class Disk:
    """The calls that changed files below ``folder``, in their order. The one with the number
    ``at``, or the first that ``fails`` says so of, fails with ``error``. A write that fails has
    written half. After ``Killed`` all calls fail."""

    folder: Path
    at: int | None = None
    fails: Callable[[Call], bool] | None = None
    error: BaseException | None = None
    names: tuple[str, ...] = WRITING
    calls: list[Call] = field(default_factory=list)
    failed: Call | None = None

    def seen(self, call: Call) -> bool:
        """Note a call; whether it is to fail."""
        if self.failed is not None and isinstance(self.error, Killed):
            return True
        self.calls.append(call)
        if self.failed is None and (
            len(self.calls) - 1 == self.at or (self.fails is not None and self.fails(call))
        ):
            self.failed = call
        return self.failed is call


@contextlib.contextmanager
def disk(folder: Path, **options) -> Iterator[Disk]:
    """Watch the calls that change files below a folder, and let one of them fail."""
    watched = Disk(Path(os.path.realpath(folder)), **options)
    real = {name: getattr(os, name) for name in (*WRITING, *REMOVING)}

    def stand_in(name):
        def call(*words, **named):
            path, target = _paths(name, words, named)
            changes = _changes(name, words)
            counted = name in watched.names and changes and _below(path, watched.folder)
            dead = watched.failed is not None and isinstance(watched.error, Killed) and changes
            if dead or (counted and watched.seen(Call(name, path, target, _site()))):
                if name == "write" and not dead:
                    real["write"](words[0], memoryview(words[1])[: len(words[1]) // 2])
                raise watched.error
            return real[name](*words, **named)

        return call

    try:
        for name in real:
            setattr(os, name, stand_in(name))
        yield watched
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _changes(name, words):
    """Whether a call changes the disk: not to open for reading, nor to make what is there."""
    if name == "open":
        return bool(words[1] & os.O_CREAT)
    return name != "mkdir" or not os.path.isdir(words[0])


def _paths(name, words, named):
    """The file that a call changes and, of a rename, the new name; absolute."""
    if name in ("write", "fsync"):
        return os.readlink(f"/proc/self/fd/{words[0]}"), ""
    folder = "/proc/self/fd/{}".format(named["dir_fd"]) if named.get("dir_fd") is not None else "."
    paths = words[:2] if name in ("replace", "rename") else words[:1]
    whole = [os.path.join(os.path.realpath(folder), os.fspath(path)) for path in paths]
    return (*whole, "")[:2]


def _below(path, folder):
    return Path(os.path.normpath(path)).is_relative_to(folder)


def _site():
    """The nearest line that is not of core/files.py or of what it calls."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.endswith(SKIPPED):
        frame = frame.f_back
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno}"
