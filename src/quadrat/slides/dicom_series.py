"""Which files make a DICOM slide: those of one series, whatever they are called and in whatever
folders they lie.

OpenSlide opens a series by one file and looks at all files of the same folder, whatever their
names; it does not look into other folders. So files that lie in several are shown to it in a folder
of links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from quadrat.core.errors import SlideError
from quadrat.slides.dicom import Instance, read_instance

_OTHERS = (
    ".svs .tif .tiff .btf .ndpi .mrxs .scn .bif .vms .vmu .svslide .czi .qptiff .png .jpg .jpeg "
    ".bmp .json .geojson .xml .csv .tsv .txt .parquet .zip .gz .md .html .pdf .py .npy .npz"
)
NO_DICOM = frozenset(_OTHERS.split())
"""What files of other kinds are called; all others are looked into."""
SHOWN = 8
"""So many series are named in a message."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of slide instances."""

    uid: str
    """Its UID."""
    instances: tuple[tuple[Path, Instance], ...]
    """Its files, by path, and what they are."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for file, _ in self.instances)

    @property
    def name(self) -> str:
        """What its header calls it, or else the name of its folder."""
        stated = (instance.name for _, instance in self.instances)
        return next((name for name in stated if name), self.files[0].parent.name)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its largest level in px; (0, 0) if it is a label or overview alone."""
        return max((i.size for _, i in self.instances if not i.associated), default=(0, 0))

    def check_whole(self) -> None:
        """Raises SlideError: one of its files is truncated."""
        for file, instance in self.instances:
            if instance.missing_bytes:
                size = file.stat().st_size
                raise SlideError(
                    f"{file}: truncated: its frames end at byte {size + instance.missing_bytes} or "
                    f"later, the file has {size}"
                )


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content."""
    if path.suffix.lower() in NO_DICOM or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM file lies in a folder itself."""
    return any(is_dicom(file) for file in sorted(folder.iterdir()))


def series_in(folder: Path) -> list[Series]:
    """The series of slides in a folder and those below it, by the path of their first file.

    Raises:
        SlideError: a DICOM file cannot be read or is damaged.
    """
    found: dict[str, list[tuple[Path, Instance]]] = {}
    for file in _files_below(folder):
        instance = read_instance(file)
        if instance is not None and instance.is_slide:
            found.setdefault(instance.series, []).append((file, instance))
    return [Series(uid, tuple(files)) for uid, files in found.items()]


def series_of(path: Path) -> Series:
    """The series of a slide instance: it, and what lies next to it.

    Raises:
        SlideError: a DICOM file cannot be read or is damaged.
    """
    own = read_instance(path)
    uid = "" if own is None else own.series
    found = []
    for file in sorted(path.parent.iterdir()):
        instance = read_instance(file) if is_dicom(file) else None
        if instance is not None and instance.is_slide and instance.series == uid:
            found.append((file, instance))
    return Series(uid, tuple(found))


def choose_series(series: Sequence[Series], *, scene: str, path: Path) -> Series:
    """The series that ``scene`` names (name, number or UID), else the only one with a picture of a
    slide.

    Raises:
        SlideError: there is no such series, or several and none is named.
    """
    if scene:
        numbered = [(number, one) for number, one in enumerate(series)]
        found = [one for _, one in numbered if scene in (one.name, one.uid)] or [
            one for number, one in numbered if scene == str(number)
        ]
        if len(found) != 1:
            raise SlideError(
                f"{path}: {len(found) or 'no'} DICOM series are called '{scene}'; it holds "
                f"{_listed(series)}; give the number of one"
            )
        return found[0]
    slides = [one for one in series if one.size != (0, 0)] or list(series)
    if len(slides) > 1:
        raise SlideError(
            f"{path}: holds {len(slides)} DICOM series: {_listed(series)}; choose one with --scene "
            "(or the manifest's column 'scene'), by name or number, or give its folder"
        )
    return slides[0]


def links_to(files: Sequence[Path], *, slide: Path) -> TemporaryDirectory[str] | None:
    """A folder of links to files that lie in several folders, named in their order; None if they
    lie in one. Whoever opens the slide removes it when the slide is closed.

    Raises:
        SlideError: it cannot be made.
    """
    if len({file.parent for file in files}) < 2:
        return None
    try:
        links = TemporaryDirectory(prefix="quadrat-dicom-")
        for number, file in enumerate(files):
            os.symlink(file.resolve(), Path(links.name) / f"{number:06d}.dcm")
    except OSError as error:
        raise SlideError(
            f"{slide}: its files lie in several folders, and no folder of links to them can be "
            f"made ({error.strerror or error}); put them into one folder"
        ) from error
    return links


def _listed(series: Sequence[Series]) -> str:
    """Series for a message; of many, the first ones."""
    named = [
        f"{number} '{one.name}' ({one.size[1]} x {one.size[0]} px)"
        for number, one in enumerate(series[:SHOWN])
    ]
    more = len(series) - SHOWN
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _files_below(folder: Path) -> Iterator[Path]:
    """DICOM files in a folder and in those below it, sorted; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(place) / name
            if is_dicom(file):
                yield file
