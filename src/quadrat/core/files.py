"""The one way in which quadrat writes a file, or a folder that appears at once.

A file is written under a temporary name in its own folder, reaches the disk (fsync), and gets its
name by one rename, which reaches the disk as well (fsync of the folder). So a reader finds the old
file or the new one, never a part of one, and a file that something else vouches for outlives a
power failure. A process that is killed leaves its temporary files behind; whoever works alone in a
folder removes them with :func:`drop_partials`.

What cannot be written is a :class:`WriteError` with the file, the reason and the remedy. Every
call that changes the disk goes through the ``os`` module, so that tests can let each one fail.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from quadrat.core.errors import WriteError

PARTIAL = ".partial"
"""How the name of a file or folder ends that is being written, or being removed."""
_TEMPORARY = re.compile(r"(?P<name>.+)\.\d+\.[0-9a-f]+\.partial")
_NAME_BYTES = 200
"""A longer name is cut in a temporary one; file systems allow 255 bytes."""
_BUFFER = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_file(path: Path, data: bytes | memoryview | str) -> None:
    """Write a file, whole or not at all; text is UTF-8. Folders above it are made.

    Raises:
        WriteError: it cannot be written. What was there before stays.
    """
    with new_file(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write in any order (it can seek); it appears, whole, when the block ends without
    an exception. Folders above it are made.

    The temporary name is unique: two processes may write the same file at once, and the one that
    ends last wins.

    Raises:
        WriteError: it cannot be written. What was there before stays. (If the very last step fails,
            the fsync of the folder, the new file is there, whole.)
    """
    path = Path(path)
    make_folder(path.parent)
    partial = _temporary(path)
    raw = OutputFile(partial, os.O_EXCL, reported_as=path)
    stream = io.BufferedWriter(raw, _BUFFER)
    try:
        yield stream
        stream.flush()
        raw.sync()
        with _reported(path):
            stream.close()
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(WriteError, OSError):
            stream.close()
        with contextlib.suppress(OSError):  # on a full disk it would take the room of the next one
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def claim_file(path: Path, data: bytes) -> bool:
    """Make a file that must not be there yet; whether it was not. Of several processes on any
    machine that claim one name, exactly one makes the file (O_EXCL). Folders above it are made.

    A reader may see it before its content is in it; a process that is killed here leaves it so.

    Raises:
        WriteError: it cannot be written, and is not there.
    """
    make_folder(path.parent)
    try:
        file = OutputFile(path, os.O_EXCL)
    except WriteError as error:
        if isinstance(error.__cause__, FileExistsError):
            return False
        raise
    try:
        file.write(data)
        file.sync()
        with _reported(path):
            file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    return True


def touch(path: Path) -> None:
    """Give a file that is there the time of now, as its file system counts it.

    Raises:
        WriteError: it cannot.
    """
    with _reported(path):
        os.utime(path)


class OutputFile(io.FileIO):
    """A file that is open for writing, without a buffer. Its errors are :class:`WriteError`."""

    def __init__(self, path: Path, flags: int, *, reported_as: Path | None = None) -> None:
        """``flags``: what is added to O_WRONLY and O_CREAT. ``reported_as``: the file that
        errors name."""
        self._path = reported_as or path
        with _reported(self._path):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
        super().__init__(handle, "wb")

    def write(self, data: Any) -> int:
        """Write all of a buffer."""
        rest = whole = memoryview(data).cast("B")
        with _reported(self._path):
            while rest:
                rest = rest[os.write(self.fileno(), rest) :]
        return len(whole)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        with _reported(self._path):
            os.fsync(self.fileno())


def open_append(path: Path, *, length: int | None = None) -> OutputFile:
    """A file that only grows, such as a log: every write is at its end, and at once.

    ``length``: what of it is whole, in bytes; the rest is cut off.

    Raises:
        WriteError: here and from its methods.
    """
    make_folder(path.parent)
    is_new = not path.exists()
    file = OutputFile(path, os.O_APPEND)
    with _reported(path):
        if length is not None:
            os.ftruncate(file.fileno(), length)
    if is_new:
        _sync_folder(path.parent)
    return file


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are missing.

    Raises:
        WriteError: it cannot be made.
    """
    with _reported(path):
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


@contextlib.contextmanager
def private_folder(path: Path) -> Iterator[Path]:
    """A folder for secrets that goes when the block ends: only this user can look into it. What
    was there is removed first.

    Raises:
        WriteError: it cannot be made.
    """
    remove(path)
    make_folder(path.parent)
    with _reported(path):
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write files into (with this module); it takes its place, whole, when
    the block ends without an exception, and replaces what was there (see :func:`place_folder`).

    Left-over temporary folders of the same target are removed first: the caller sees to it that
    no other process writes it.

    Raises:
        WriteError: it cannot be written. What was there before stays.
    """
    path = Path(path)
    make_folder(path.parent)
    drop_partials(path.parent, of=path.name)
    staging = _temporary(path)
    try:
        make_folder(staging)
        yield staging
        place_folder(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def copy_file(source: Path, path: Path) -> None:
    """Copy what a file holds, in a :func:`new_folder` that sees to the rest.

    Raises:
        WriteError: it cannot be written, or read.
    """
    make_folder(path.parent)
    with _reported(path):
        shutil.copyfile(source, path)


def place_folder(source: Path, path: Path) -> None:
    """Give a finished folder its place by rename, replacing what was there.

    An old folder goes aside first. A process that is killed between the two renames leaves it as
    the twin ``.NAME.old``, where :func:`recover_folder` finds it: the old folder or the new one is
    always there. ``source`` must be written with this module and lie on the same file system.

    Raises:
        WriteError: all is as it was before.
    """
    make_folder(path.parent)
    twin, moved = _twin(path), list[tuple[Path, Path]]()
    drop_partials(path.parent, of=twin.name)
    try:
        with _reported(path):
            for last in (False, False, True):
                if path.exists():
                    remove(twin)
                    moved = [_move(path, twin)]
                try:
                    moved.append(_move(source, path))
                    break
                except OSError as error:  # a reader has just recovered the old folder
                    if last or error.errno not in _NOT_EMPTY:
                        raise
        for folder in {path.parent, source.parent}:
            _sync_folder(folder)
    except WriteError:
        if len(moved) < 2 or twin.exists():  # else the new one is all that there is
            for before, after in reversed(moved):
                with contextlib.suppress(OSError):  # then the twin is found
                    os.rename(after, before)
        raise
    remove(twin)


def recover_folder(path: Path, *, tidy: bool = False) -> None:
    """Call before a folder of :func:`place_folder` is looked for: if a process was killed while it
    replaced the folder, the old one takes its place again.

    ``tidy``: if that process had come so far that only the old one was still to be removed, it is
    removed now. For those who own the folder: who only reads it may not have the right.

    Raises:
        WriteError: it cannot.
    """
    twin = _twin(path)
    if twin.exists() and not path.exists():
        with _reported(path), contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.rename(twin, path)
    elif tidy:
        remove(twin)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there. A folder goes by one rename first, so that it is
    whole or gone.

    Raises:
        WriteError: it cannot be removed.
    """
    with _reported(path, "removed"), contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            aside = _temporary(path)
            os.rename(path, aside)
            _sync_folder(path.parent)
            path = aside
        _delete(path)


def partials(folder: Path, *, deep: bool = True) -> list[Path]:
    """What processes that were killed left half written or half removed in a folder; sorted.
    ``deep``: in the folders below as well. Only names that this module gives count: a user's file
    may end in ``.partial`` too."""
    found = folder.rglob(f"*{PARTIAL}") if deep else folder.glob(f"*{PARTIAL}")
    return sorted(path for path in found if _TEMPORARY.fullmatch(path.name))


def drop_partials(folder: Path, *, deep: bool = True, of: str = "") -> None:
    """Remove :func:`partials`; only while no other process writes there. ``of``: only those of the
    file or folder of this name, in ``folder`` itself.

    Raises:
        WriteError: one cannot be removed.
    """
    for path in partials(folder, deep=deep and not of):
        named = _TEMPORARY.fullmatch(path.name)
        if of and (named is None or named["name"] != _cut(of)):
            continue
        with _reported(path, "removed"), contextlib.suppress(FileNotFoundError):
            _delete(path)  # it may have lain in a folder that is gone


def sha256_of(*paths: Path) -> str:
    """Hex sha256 of a file; of several: of their bytes one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BUFFER):
                digest.update(block)
    return digest.hexdigest()


def free_bytes(path: str | Path) -> int:
    """Room that a user has on the disk where ``path`` is or would be."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def check_free_space(path: str | Path, needed_bytes: int, *, what: str) -> None:
    """Refuse to begin what would fill the disk; ``path`` need not exist yet.

    Raises:
        WriteError: less is free than needed, with both figures.
    """
    free = free_bytes(path)
    if free < needed_bytes:
        raise WriteError(
            f"{path}: {what} needs about {needed_bytes / 1e9:.2f} GB but {free / 1e9:.2f} GB are "
            "free; "
            "make room or choose another output folder"
        )


@contextlib.contextmanager
def _reported(path: Path, done: str = "written") -> Iterator[None]:
    """The one place where an error of the system becomes quadrat's."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            remedy = "make room and run the same command again"
        elif error.errno in _NO_RIGHT:
            remedy = "get the right to write there, or choose another folder, and run again"
        else:
            remedy = "check the disk, or choose another folder, and run the same command again"
        reason = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be {done} ({reason}); {remedy}") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_cut(path.name)}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")


def _cut(name: str) -> str:
    return name.encode(errors="surrogateescape")[:_NAME_BYTES].decode(errors="ignore")


def _twin(path: Path) -> Path:
    """Where an old folder lies while a new one takes its place. The name is hidden, since a slide
    may be called ``NAME.old``."""
    return path.with_name(f".{path.name}.old")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _move(before: Path, after: Path) -> tuple[Path, Path]:
    os.rename(before, after)
    return before, after


def _sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    with _reported(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # fsync(2): this file system has none for folders
                raise
        finally:
            os.close(handle)
