"""Receipts of finished work, one JSON line each, one writer, one file a slide: the only bookkeeping
of progress.

A file's presence proves nothing (a missing zarr shard reads as fill); a receipt does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self


class Journal:
    """Append-only; each receipt is on disk (fsync) before :meth:`add` returns. A torn last line is
    ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.receipts: dict[str, Any] = {}
        self._file: BinaryIO | None = None
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
        """Record that the work called ``key`` is finished; ``receipt`` is anything JSON holds."""
        if self._file is None:  # not before there is something to write: a batch has many journals
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._whole)
        self._file.write(
            json.dumps({"key": key, "receipt": receipt}, sort_keys=True).encode() + b"\n"
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        self.receipts[key] = receipt

    def close(self) -> None:
        """Give the file handle back; adding opens it again."""
        if self._file is not None:
            self._whole = self._file.tell()
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
