"""One holder per named thing (a slide of a run, a training), on any file system, on any host.

A lease is a file ``NAME.lease.N`` in a folder. Whoever wants the thing

1. looks at every file of that name. A live one: the thing is held, nothing was changed;
2. makes the file of the next number, which of several takers exactly one can (O_EXCL);
3. looks again. A file that it has not found dead before, or that shows life now: it steps back;
4. removes the dead files, and makes sure that its own is still there.

So no two can pass step 4: the later of two takers meets the file of the earlier one. A holder
renews the time of its file every few seconds. Another one finds it dead when its process is known
to be gone (:mod:`quadrat.engine.holder`), or when a dozen looks in a row, each a beat after the one
before, show the very same file: looks are counted, so that neither clocks that differ, nor a reader
that was stopped meanwhile, can make a live holder look dead. A file without content, or with half
of it, is a lease that has just begun, or whose taker was killed then: it waits like the others.

A holder that was stopped for longer than that (SIGSTOP, a laptop that slept) may have been
overtaken; its file is gone then, and :meth:`Lease.held` says so. It must be asked before anything
is committed. Files are opened for every look, because it is then that an NFS client asks the
server. No flock, no links, and no renames, which some file systems lack or do not share.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from quadrat.core.errors import QuadratError, StoreError
from quadrat.core.files import claim_file, remove, touch
from quadrat.core.records import from_json, to_json
from quadrat.engine.holder import Fate, Holder, fate, this_process

BEAT_S = 5.0
"""A holder renews its leases this often."""
SILENCE_S = 60.0
"""After this time without a sign a holder counts as dead."""
_FILE = re.compile(r"(?P<stem>.+)\.lease\.(?P<number>\d+)")
_NAME_BYTES = 180
"""A longer name is cut in the name of its file; file systems allow 255 bytes."""
_READ_BYTES = 1 << 14
_LIFE: tuple[Fate, ...] = ("dead", "unknown", "alive")
_GONE = (errno.ENOENT, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else has, or had, a lease."""

    holder: Holder | None
    """Who; None: its file does not say it (yet)."""
    fate: Fate
    """Whether the holder lives: "alive" (its process does, or it has just given a sign),
    "dead", or "unknown"."""
    again_in_s: float
    """When it may be had if the holder gives no further sign; 0: now."""
    sign_s: float = field(default=0.0, compare=False)
    """When the holder gave its last sign, in seconds since 1970 by the clock of the file system; 0:
    not known."""

    def __str__(self) -> str:
        """The holder, as messages name it."""
        return str(self.holder or "a process that has just begun")


@dataclass(frozen=True, slots=True)
class _Look:
    """What the file of a lease shows; two looks are equal if nothing happened in between."""

    modified_ns: int
    content: bytes

    @property
    def holder(self) -> Holder | None:
        try:
            holder = from_json(Holder, json.loads(self.content))
        except ValueError:
            return None
        return holder if holder.pid > 0 else None


@dataclass(slots=True)
class _Watch:
    """A file of another holder, while it is not known whether that one lives."""

    look: _Look
    silent: int = 0
    """Looks in a row that showed nothing new."""
    moved: bool = False
    """Whether one has."""

    def again(self, path: Path) -> None:
        if _look(path) == self.look:
            self.silent += 1
        else:
            self.moved = True


class Lease:
    """A thing that this process holds until it gives it back or is overtaken. A process that is
    forked from it does not hold it."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self.over = False
        """Whether it was given back, or found to be overtaken."""

    def held(self) -> bool:
        """Whether this process still holds it. To be asked before every commit, because a process
        that was stopped for a while may have been overtaken. One small file is read.

        Raises:
            StoreError: it cannot be read, so that nothing is known.
        """
        if os.getpid() != self.holder.pid:
            return False
        if not self.over:
            look = _look(self.path)
            self.over = look is None or look.holder != self.holder
        return not self.over

    def renew(self) -> None:
        """Give a sign of life, if it is still held."""
        if self.held():
            touch(self.path)

    def release(self) -> None:
        """Give it back.

        Raises:
            WriteError: its file cannot be removed; it goes stale by itself.
        """
        if self.held():
            self.over = True
            remove(self.path)


class Leases:
    """The leases in a folder that this process takes, and a thread that renews them. A context:
    what is still held at its end is given back. Several threads may use it."""

    def __init__(
        self,
        folder: Path,
        *,
        beat_s: float = BEAT_S,
        silence_s: float = SILENCE_S,
        here: Callable[[str], Holder] = this_process,
    ) -> None:
        """``beat_s``, ``silence_s``: the same for all who use the folder. ``here``: signs a
        name."""
        self._folder = Path(folder)
        self._beat_s = beat_s
        self._beats = math.ceil(silence_s / beat_s)
        self._here = here
        self._leases: list[Lease] = []
        self._watches: dict[Path, _Watch] = {}
        self._end = threading.Event()
        self._taking = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="quadrat-leases", daemon=True)
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return
        self._end.set()
        failures = list[QuadratError]()
        for lease in self._leases:
            try:
                lease.release()
            except QuadratError as failure:
                failures.append(failure)
        self._thread.join()
        if failures:
            raise failures[0]

    def take(self, name: str) -> Lease | Held:
        """The lease of a name, or who has it. It does not wait: ask again later.

        A lease that was taken from a dead holder says nothing about what that one had come to: look
        at it now, not before.

        Raises:
            WriteError: the lease cannot be written, or the file of a dead holder not removed.
            StoreError: a lease cannot be read.
        """
        if os.getpid() != self._pid or not self._thread.is_alive():
            raise RuntimeError("leases are taken by the process that opened them, while it does")
        here = self._here(name)
        with self._taking:
            dead: dict[Path, _Look] = {}
            numbers = [0]
            for number, path in self._files(name):
                numbers.append(number)
                look, verdict = self._judge(path, here)
                if look is not None:
                    if verdict.fate != "dead":
                        return verdict
                    dead[path] = look
            return self._claim(name, max(numbers) + 1, here, dead)

    def holders(self) -> dict[str, Held]:
        """Who holds what in this folder."""
        stems: dict[str, list[Path]] = {}
        for stem, _, path in self._all_files():
            stems.setdefault(stem, []).append(path)
        found = [(stem, self._liveliest(paths)) for stem, paths in stems.items()]
        return {held.holder.name if held.holder else stem: held for stem, held in found if held}

    def holder(self, name: str) -> Held | None:
        """Who holds a name; None if nobody does."""
        return self._liveliest([path for _, path in self._files(name)])

    def _liveliest(self, paths: Sequence[Path]) -> Held | None:
        """Of the files of one name, what is known of the holder that is most likely alive."""
        here = self._here("")
        found = [held for look, held in (self._judge(p, here) for p in paths) if look is not None]
        return max(found, key=lambda held: _LIFE.index(held.fate), default=None)

    def _claim(self, name: str, number: int, here: Holder, dead: dict[Path, _Look]) -> Lease | Held:
        """Steps 2 to 4."""
        mine = self._folder / f"{_stem(name)}.lease.{number}"
        if not claim_file(mine, json.dumps(to_json(here)).encode()):
            return self._judge(mine, here)[1]
        lease = Lease(mine, here)
        try:
            for _, path in self._files(name):
                if path != mine and (look := _look(path)) is not None and look != dead.get(path):
                    lease.release()
                    return self._judge(path, here)[1]
            for path in dead:
                remove(path)
                self._watches.pop(path, None)
            lease.renew()
        except BaseException:
            with suppress(QuadratError):
                lease.release()
            raise
        if not lease.held():  # this process was stopped in between
            return Held(None, "unknown", 0.0)
        self._leases.append(lease)
        return lease

    def _judge(self, path: Path, here: Holder) -> tuple[_Look | None, Held]:
        """What a file shows (None: it is gone), and what is known of its holder."""
        look, watch = _look(path), self._watches.get(path)
        if look is None:
            self._watches.pop(path, None)
            return None, Held(None, "dead", 0.0)
        holder = look.holder
        known: Fate = "unknown" if holder is None else fate(holder, here)
        silent = 0
        sign_s = look.modified_ns / 1e9
        if known == "dead":
            return look, Held(holder, "dead", 0.0, sign_s)
        if watch is not None and not watch.moved and watch.look == look:
            silent = watch.silent
        else:
            known = known if watch is None else "alive"
            self._watches[path] = _Watch(look)
        if silent >= self._beats:
            return look, Held(holder, "dead", 0.0, sign_s)
        return look, Held(holder, known, (self._beats - silent) * self._beat_s, sign_s)

    def _live(self) -> None:
        """The thread: signs of life of the own leases, and looks for those of others."""
        while not self._end.wait(self._beat_s):
            for lease in list(self._leases):
                with suppress(QuadratError):  # the next beat may be seen; `held` says if it was not
                    lease.renew()
                if lease.over:
                    self._leases.remove(lease)
            for path, watch in list(self._watches.items()):
                if not watch.moved:  # then nobody needs to look until somebody asks again
                    with suppress(QuadratError):
                        watch.again(path)

    def _files(self, name: str) -> list[tuple[int, Path]]:
        stem = _stem(name)
        return [(number, path) for found, number, path in self._all_files() if found == stem]

    def _all_files(self) -> list[tuple[str, int, Path]]:
        """(stem, number, path) of all leases in the folder, by number."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._folder, error) from error
        found = [(named, self._folder / name) for name in names if (named := _FILE.fullmatch(name))]
        files = [(named["stem"], int(named["number"]), path) for named, path in found]
        return sorted(files, key=lambda file: file[1])


@contextmanager
def held(
    path: Path,
    *,
    busy: str,
    otherwise: str,
    say: Callable[[str], None] = lambda text: None,
    beat_s: float = BEAT_S,
    silence_s: float = SILENCE_S,
) -> Iterator[Lease]:
    """One process at a time in the block. Where it is not known whether a holder lives, it waits
    for a sign, a minute at most, and says so.

    ``path``: folder and name of the lease. ``busy``: what is going on; ``otherwise``: what to do in
    place of waiting.

    Raises:
        StoreError: another one holds it. WriteError: the lease cannot be written.
    """
    said = False
    with Leases(path.parent, beat_s=beat_s, silence_s=silence_s) as leases:
        while isinstance(got := leases.take(path.name), Held):
            if got.fate == "alive":
                raise StoreError(f"{busy} ({got}); wait for it, or {otherwise}")
            if got.fate == "unknown" and not said:
                say(f"{busy} ({got}), or it was killed: waiting for a sign of it, {silence_s:g} s")
                said = True
            time.sleep(min(got.again_in_s, beat_s))
        yield got


def _look(path: Path) -> _Look | None:
    """The file as it is now, whatever was known of it; None: it is gone."""
    try:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:  # of another user: its time is to be seen all the same
            return _Look(os.stat(path).st_mtime_ns, b"")
        try:
            content = os.read(handle, _READ_BYTES)
            return _Look(os.fstat(handle).st_mtime_ns, content)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise _unreadable(path, error) from error


def _stem(name: str) -> str:
    """How the file of a name begins."""
    raw = name.encode(errors="surrogateescape")
    if len(raw) <= _NAME_BYTES:
        return name
    return f"{raw[:_NAME_BYTES].decode(errors='ignore')}.{hashlib.sha256(raw).hexdigest()[:16]}"


def _unreadable(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(
        f"{path}: cannot be read ({reason}); check the disk, or get the right to read there, and "
        "run the same command again"
    )
