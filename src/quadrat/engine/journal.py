"""Receipts of finished work, one JSON line each, one writer, one file per slide: the only
bookkeeping of progress.

A file's presence proves nothing (a missing zarr shard reads as fill); a receipt does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from quadrat.core.errors import WriteError
from quadrat.core.files import OutputFile, open_append, write_file
from quadrat.core.lattice import Cell, ShardIndex
from quadrat.core.records import from_json, to_json
from quadrat.outputs.summary import SlideFigures
from quadrat.store.shard import ShardReceipt

JOURNAL = "journal.jsonl"
"""Its name in a slide's working folder."""
FORMAT = b'{"quadrat journal": 2}\n'
"""The first line. A journal with another one is of another version, and none of it counts."""
Level = Literal["tile", "predict", "result"]
"""Which of a slide's three fingerprints decides whether a receipt still counts."""
UNTIL = ("tile", "predict", "results")
"""Where a run can end."""
KEPT = "kept"
"""The step of a receipt that says: the store of this level is complete, and the user asked to keep
it (``run.keep``)."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a receipt is about."""

    level: Level
    """The fingerprint that decides whether the receipt still counts."""
    fingerprint: str
    """The first characters of the slide's fingerprint of that level."""
    step: str
    """Name of the step; "kept" marks a store that outlives its run."""
    shard: Cell | None = None
    """None: the step has one receipt per slide."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that leaves nothing to say."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A slide with a plan."""

    shards: tuple[ShardIndex, ...]
    """Those with analysed cores."""
    cores: int = 0
    """How many analysed cores there are."""


@dataclass(frozen=True, slots=True)
class StoreLaid:
    """An empty store of pixels."""

    shards: tuple[Cell, ...]
    """The store's own, to be filled."""
    nbytes: int
    """About what it will take on disk."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A complete tile store."""

    shards: int
    """How many the store has."""


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """A stitched shard."""

    cell: ShardIndex
    """(row, column) of the shard in the lattice."""
    objects: int
    """How many it owns."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A decision over the whole slide."""

    objects: int
    """How many stay, on the whole slide."""


Receipt = Done | Planned | StoreLaid | Sealed | ShardReceipt | PartReceipt | Selected | SlideFigures
_KINDS: tuple[type[Receipt], ...] = (
    *(Done, Planned, StoreLaid, Sealed),
    *(ShardReceipt, PartReceipt, Selected, SlideFigures),
)
_KIND = {kind.__name__: kind for kind in _KINDS}


SYNC_S, SYNC_RECEIPTS = 0.2, 64
"""Receipts are forced to the disk together: when the first of them is so old, or there are so
many."""


class Journal:
    """Append-only; the file has each receipt when :meth:`add` returns, and the disk has it (fsync)
    a moment later, or when :meth:`close` returns. A receipt that a failure of the power takes costs
    the same work again, and nothing else. A torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.receipts: dict[Key, Receipt] = {}
        self.foreign = False
        """Whether another version of quadrat wrote it; it must be removed before it is used."""
        self._file: OutputFile | None = None
        self._whole = 0
        self._unsynced = 0
        """Receipts that only the file has so far."""
        self._synced_at = time.monotonic()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and lines[0] != FORMAT:
            self.foreign = lines[0].endswith(b"\n")  # else the first write was torn
            return
        for line in lines:
            if self._whole:
                try:
                    key, receipt = _entry(line)
                except ValueError:
                    break
                self.receipts[key] = receipt
            self._whole += len(line)

    def __contains__(self, key: Key) -> bool:
        return key in self.receipts

    def add(self, key: Key, receipt: Receipt) -> None:
        """Record that work is finished.

        Raises:
            WriteError: it cannot be recorded. The next one is written over what is there of it.
        """
        line = _line(key, receipt)
        if self._whole == 0:
            line = FORMAT + line
        if self._file is None:  # not before there is something to write: a batch has many journals
            self._file = open_append(self.path, length=self._whole)
        try:
            self._file.write(line)
            self._unsynced += 1
            age = time.monotonic() - self._synced_at
            if age > SYNC_S or self._unsynced >= SYNC_RECEIPTS:
                self._sync()
        except WriteError:
            self._drop()
            raise
        self._whole += len(line)
        self.receipts[key] = receipt

    def close(self) -> None:
        """Force the receipts to the disk and give the file handle back; adding opens it again.

        Raises:
            WriteError: the disk does not take them.
        """
        try:
            if self._unsynced:
                self._sync()
        finally:
            self._drop()

    def _sync(self) -> None:
        if self._file is not None:
            self._file.sync()
        self._unsynced, self._synced_at = 0, time.monotonic()

    def _drop(self) -> None:
        self._unsynced = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def write_journal(path: Path, receipts: Mapping[Key, Receipt]) -> Journal:
    """A journal of exactly these receipts, in place of the one that is there."""
    write_file(path, FORMAT + b"".join(_line(key, receipt) for key, receipt in receipts.items()))
    return Journal(path)


def _line(key: Key, receipt: Receipt) -> bytes:
    values = to_json(key) | {"kind": type(receipt).__name__, "receipt": to_json(receipt)}
    return json.dumps(values, sort_keys=True).encode() + b"\n"


def _entry(line: bytes) -> tuple[Key, Receipt]:
    """The inverse of :func:`_line`. Raises ValueError: it is torn, or no receipt."""
    values = json.loads(line) if line.endswith(b"\n") else None
    kind = None
    if isinstance(values, dict):
        kind = _KIND.get(str(values.get("kind")))
    if values is None or kind is None:
        raise ValueError(f"{line[:40]!r} is no receipt")
    return from_json(Key, values), from_json(kind, values.get("receipt"))
