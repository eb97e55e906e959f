"""Files that appear complete or not at all, and a zarr store that writes and reads only such files.

zarr's own LocalStore does not fsync, and reads an empty or cut-off file as if nothing were missing.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write beside, fsync, rename: a crash leaves the old file or the new one, never a torn one.

    A process killed in between leaves a ``*.partial`` file, which ``drop_partials`` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own, because the same task may run twice at once (a worker given up for lost
    # that is not)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partials(folder: Path) -> list[Path]:
    """Files that a killed process left half written, anywhere in a folder; sorted."""
    return sorted(path for path in folder.rglob(f"*{PARTIAL}") if path.is_file())


def drop_partials(folder: Path) -> None:
    """Remove what killed processes left half written; only while no other process writes there."""
    for path in partials(folder):
        path.unlink(missing_ok=True)


class DurableStore(LocalStore):
    """A folder that zarr writes whole files to, with fsync, and in which a file that is too short
    is an error.

    Reads without zarr's thread hop a read.
    """

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
        write_durably(self.root / key, value.to_bytes())

    async def set(self, key: str, value: Buffer) -> None:
        self.set_sync(key, value)


def _span(request: ByteRequest | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last, of a file of ``size`` bytes."""
    match request:
        case RangeByteRequest(start=start, end=end):
            return start, end
        case OffsetByteRequest(offset=offset):
            return offset, size
        case SuffixByteRequest(suffix=suffix):
            return size - suffix, size
    return 0, size
