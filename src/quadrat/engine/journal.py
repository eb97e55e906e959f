"""Receipts of finished work, one JSON line each, one writer, one file a slide: the only bookkeeping
of progress.

A file's presence proves nothing (a missing zarr shard reads as fill); a receipt does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from quadrat.core.errors import WriteError
from quadrat.core.files import OutputFile, open_append, write_file


def write_journal(path: Path, receipts: Mapping[str, Any]) -> Journal:
    """A journal of exactly these receipts, in place of the one that is there."""
    write_file(path, b"".join(_line(key, receipt) for key, receipt in receipts.items()))
    return Journal(path)


def _line(key: str, receipt: Any) -> bytes:
    return json.dumps({"key": key, "receipt": receipt}, sort_keys=True).encode() + b"\n"


class Journal:
    """Append-only; each receipt is on disk (fsync) before :meth:`add` returns. A torn last line is
    ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.receipts: dict[str, Any] = {}
        self._file: OutputFile | None = None
        self._whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                record: Any = json.loads(line) if line.endswith(b"\n") else None
                self.receipts[record["key"]] = record["receipt"]
            except (ValueError, TypeError, KeyError):
                break
            self._whole += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self.receipts

    def add(self, key: str, receipt: Any) -> None:
        """Record that the work called ``key`` is finished; ``receipt`` is anything JSON holds.

        Raises:
            WriteError: it cannot be recorded. The next one is written over what is there of it.
        """
        if self._file is None:  # not before there is something to write: a batch has many journals
            self._file = open_append(self.path, length=self._whole)
        line = _line(key, receipt)
        try:
            self._file.write(line)
            self._file.sync()
        except WriteError:
            self.close()
            raise
        self._whole += len(line)
        self.receipts[key] = receipt

    def close(self) -> None:
        """Give the file handle back; adding opens it again."""
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
