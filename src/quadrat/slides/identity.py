"""Whether a slide is still the same slide: a hash of its size and of both ends of its files."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from quadrat.core.errors import SlideError
from quadrat.core.files import sha256_of
from quadrat.slides.dicom_series import is_dicom

END_BYTES = 2**20


def slide_identity(path: str) -> str:
    """Hash of the total size, and of the first and last MiB, of all files of a slide. The time of
    change does not count, because copying to a staging folder changes it.

    Raises:
        SlideError: the file does not exist or cannot be read.
    """
    place = Path(path)
    try:
        if not place.exists():
            raise SlideError(f"there is no slide {path}")
        stats = [(str(file), file.stat()) for file in slide_files(place)]
        return _identity(tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats))
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}") from error


def slide_bytes(path: str) -> int:
    """Size of all files of a slide together; 0 if they cannot be looked at."""
    try:
        return sum(file.stat().st_size for file in slide_files(Path(path)))
    except OSError:
        return 0


def regions_digest(path: str) -> str:
    """sha256 of the user's regions file; "" if there is none.

    Raises:
        SlideError: it cannot be read.
    """
    try:
        return sha256_of(Path(path)) if path else ""
    except OSError as error:
        raise SlideError(f"{path}: the regions cannot be read ({error.strerror})") from error


def slide_files(path: Path) -> list[Path]:
    """The files that a slide may consist of, sorted.

    A folder: all files in it. MIRAX: the file and the folder of the same name. DICOM: all instances
    in the same folder. VMS: the index and the pictures that begin with its name.
    """
    kind, folder_of = path.suffix.lower(), path.with_suffix("")
    if path.is_dir():
        found: Iterable[Path] = path.rglob("*")
    elif kind == ".mrxs" and folder_of.is_dir():
        found = [path, *folder_of.rglob("*")]
    elif kind in (".vms", ".vmu"):
        found = [path, *path.parent.glob(f"{glob.escape(path.stem)}*")]
    else:
        found = [path, *(filter(is_dicom, path.parent.iterdir()) if is_dicom(path) else ())]
    return sorted({p for p in found if p.is_file()} | (set() if path.is_dir() else {path}))


@lru_cache(maxsize=64)
def _identity(files: tuple[tuple[str, int, int, int], ...]) -> str:
    """The hash over files given as (path, size, mtime, inode). It is kept only as long as all of
    these stay the same."""
    digest = hashlib.sha256(str(sum(size for _, size, _, _ in files)).encode())
    for name, size, _, _ in files:
        with open(name, "rb") as stream:
            digest.update(stream.read(END_BYTES))
            stream.seek(max(0, size - END_BYTES))
            digest.update(stream.read(END_BYTES))
    return digest.hexdigest()
