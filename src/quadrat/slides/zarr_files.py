"""A zarr store that writes and reads whole files only.

The LocalStore of zarr does not fsync, and it reads an empty or truncated file as if nothing were
missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from quadrat.core.files import make_folder, write_file


class DurableStore(LocalStore):
    """A folder in which zarr writes whole files, with fsync. A file that is too short is an error.

    Reads do not go through the event loop of zarr.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        if not read_only:
            make_folder(self.root)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a file, or None if there is none.

        Raises:
            ValueError: the file does not reach that far, or is empty.
        """
        try:
            handle = os.open(self.root / key, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            size = os.fstat(handle).st_size
            start, stop = _span(byte_range, size)
            data = os.pread(handle, stop - start, start) if 0 <= start < stop <= size else b""
        finally:
            os.close(handle)
        if not data or len(data) != stop - start:
            raise ValueError(f"the file ends after {size} bytes")
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a file whole or not at all."""
        self._check_writable()
        write_file(self.root / key, value.to_bytes())

    async def set(self, key: str, value: Buffer) -> None:
        self.set_sync(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not (self.root / key).exists():
            self.set_sync(key, value)


def _span(request: ByteRequest | None, size: int) -> tuple[int, int]:
    """First byte, and one past the last byte, for a file of ``size`` bytes."""
    match request:
        case RangeByteRequest(start=start, end=end):
            return start, end
        case OffsetByteRequest(offset=offset):
            return offset, size
        case SuffixByteRequest(suffix=suffix):
            return size - suffix, size
    return 0, size
