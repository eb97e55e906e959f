"""Receipts of finished work, one JSON line each, one writer, one file a slide: the only bookkeeping of progress.

A file's presence proves nothing (a missing zarr shard reads as fill); a receipt does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """Append-only; each receipt is on disk (fsync) before :meth:`add` returns. A torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.receipts: dict[str, Any] = {}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    record: Any = json.loads(line) if line.endswith(b"\n") else None
                    self.receipts[record["key"]] = record["receipt"]
                except (ValueError, TypeError, KeyError):
                    break
                whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __contains__(self, key: str) -> bool:
        return key in self.receipts

    def add(self, key: str, receipt: Any) -> None:
        """Record that the work called ``key`` is finished; ``receipt`` is anything JSON holds."""
        self._file.write(json.dumps({"key": key, "receipt": receipt}, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.receipts[key] = receipt

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
