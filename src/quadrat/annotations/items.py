"""The slides that ``quadrat annotations`` looks at: those of a manifest, or those of single
files."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from quadrat.annotations.formats.delimited import draws, label_of
from quadrat.annotations.formats.pictures import without_suffix
from quadrat.annotations.formats.reading import Choice, pictures, read_sheet
from quadrat.annotations.record import Sheet
from quadrat.annotations.selection import only_class
from quadrat.config.manifest import SlideRef, read_manifest, with_mpp
from quadrat.config.pipeline import Pipeline
from quadrat.config.splits import case_of
from quadrat.core.errors import AnnotationError, ConfigError, QuadratError, SlideError
from quadrat.core.text import UTF16, mark_of
from quadrat.core.unit import PX, Mpp, um_or_none
from quadrat.slides.opening import open_slide
from quadrat.slides.source import believable_mpp

_HEAD = 1 << 12


@dataclass(frozen=True, slots=True)
class Item:
    """One slide and its annotation file."""

    slide: str
    """Name of the slide."""
    path: Path | None
    """The annotation file; None if only the label of the slide is known."""
    choice: Choice
    """How its records are found in the file."""
    ref: SlideRef | None = None
    """Its row of the manifest, if there is one."""
    labels: bool = False
    """The file is a table of slide labels."""

    @property
    def case(self) -> str:
        """The case. A slide without one is a case of its own; a file without a manifest has
        none."""
        return "" if self.ref is None else case_of(self.ref)

    @property
    def split(self) -> str:
        """The split. An empty one in a manifest means train."""
        return "" if self.ref is None else self.ref.split or "train"

    @property
    def picture(self) -> str:
        """The file name of the picture."""
        return (
            Path(self.ref.path).name if self.ref is not None else self.choice.picture or self.slide
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read of an item."""

    item: Item
    """The item."""
    sheet: Sheet | None
    """Its records, or None."""
    size: tuple[int, int] | None
    """(height, width) of the slide in px, if known."""
    mpp: Mpp | None
    """um/px of the slide, if known; "px" in pixel work."""
    label: str = ""
    """Class of the whole slide; "" for none."""
    unreadable: tuple[str, ...] = ()
    """What could not be read, and why."""


def items_of(inputs: Sequence[Path], *, pipeline: Pipeline | None) -> list[Item]:
    """The slides of the one manifest in ``inputs``, or the slides that the files themselves name.

    A file that cannot be read is an item as well: loading it will say why.

    Raises:
        ConfigError: a manifest that is wrong, or is not the only input.
    """
    choice = Choice()
    if pipeline is not None:
        choice = Choice.of(pipeline.data, [c.name for c in pipeline.classes])
    labels = pipeline is not None and pipeline.data.annotations == "none"
    manifest = next((path for path in inputs if is_manifest(path)), None)
    if manifest is not None and len(inputs) > 1:
        raise ConfigError(
            f"{manifest}: its columns are those of a manifest (or of slide labels), which is given "
            "alone, one at a time"
        )
    if manifest is not None:
        refs = with_mpp(read_manifest(manifest), None if pipeline is None else pipeline.data.mpp)
        return [_of_row(ref, choice, labels=labels) for ref in refs]
    items = []
    for path in inputs:
        try:
            names = pictures(path)
        except AnnotationError:
            names = [""]
        items += [
            Item(without_suffix(name) or _stem(path), path, replace(choice, picture=name))
            for name in names
        ]
    return items


def _stem(path: Path) -> str:
    """The name of a file without its suffix, and without that of gzip."""
    return Path(path.name.removesuffix(".gz")).stem


def _of_row(ref: SlideRef, choice: Choice, *, labels: bool) -> Item:
    path = Path(ref.annotation) if ref.annotation else None
    return Item(ref.name, path, replace(choice, picture=ref.path, called=ref.name), ref, labels)


def is_manifest(path: Path) -> bool:
    """Whether a file is a table with a column called slide or annotation (or nearly so) that draws
    nothing.

    If something else is wrong with it, ``read_manifest`` reports that better than a reader of
    annotations.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    first = next(
        iter(
            head.decode(
                "utf-16" if head.startswith(UTF16) else "utf-8-sig", errors="replace"
            ).splitlines()
        ),
        "",
    )
    columns = [
        cell.strip().lower()
        for cell in next(csv.reader([first], delimiter=mark_of(first) or ","), [])
    ]
    words = [column for column in columns if re.fullmatch(r"[\w ]+", column)]
    return any(
        get_close_matches(word, ("slide", "annotation"), cutoff=0.75) for word in words
    ) and not draws(columns)


def load(item: Item, *, mpp: Mpp | None) -> Loaded:
    """Read the file of an item and, if a manifest names it, size and mpp of its slide. ``mpp``
    stands in for what the slide states, where the manifest states none; "px": whatever they state.

    Nothing is raised for what cannot be read: it is reported in ``unreadable``.
    """
    of_slide, of_file = list[str](), list[str]()
    sheet, size = None, None
    label = item.ref.label if item.ref is not None else ""
    if item.ref is not None:
        stated = um_or_none(mpp) if item.ref.mpp is None else item.ref.mpp
        try:
            with open_slide(item.ref.path, mpp=stated, scene=item.ref.scene) as slide:
                size = (slide.levels[0].height, slide.levels[0].width)
                if slide.mpp is not None and mpp != PX:
                    mpp = believable_mpp(slide)
        except SlideError as error:
            of_slide.append(f"the slide: {error}")
    if item.path is not None:
        try:
            if item.labels:
                label = label or label_of(item.path, item.choice.picture, called=item.slide)
            else:
                sheet = read_sheet(item.path, choice=replace(item.choice, mpp=mpp))
        except QuadratError as error:
            of_file.append(str(error))
    if item.ref is None and sheet is not None:
        size = sheet.size
    return Loaded(item, sheet, size, mpp, label, (*of_file, *of_slide))


def named(sheet: Sheet, classes: Sequence[str]) -> Sheet:
    """The sheet with the only class of the pipeline on records of a format without classes."""
    records = tuple(
        replace(record, name=only_class(record, sheet, classes)) for record in sheet.records
    )
    return replace(sheet, records=records)
