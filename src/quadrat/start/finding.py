"""What lies in the folders given to ``quadrat init``: slides that open, annotation files and what is drawn in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.delimited import label_of, read_labels
from quadrat.annotations.label_image import load_label_image
from quadrat.annotations.pictures import same_pictures
from quadrat.annotations.reading import Choice, read_sheet
from quadrat.annotations.record import Sheet
from quadrat.errors import AnnotationError, SlideError
from quadrat.geometry import check_mpp
from quadrat.slides import open_slide
from quadrat.slides.recognise import is_zarr

_PICTURES = ".png .tif .tiff .jpg .jpeg .bmp"
_SLIDES = ".svs .btf .ndpi .mrxs .scn .bif .vms .vmu .svslide .czi .qptiff"
_TEXTS = ".geojson .json .xml .csv .tsv .txt"
PICTURES = frozenset(_PICTURES.split())
SLIDES = PICTURES | frozenset(_SLIDES.split())
TEXTS = frozenset(_TEXTS.split())

Drawn = tuple[str, str, str]
"""What a record is: its kind ("object", "region" or ""), its shape ("point", "outline"), its class as it is written."""


@dataclass(frozen=True, slots=True)
class SlideFound:
    """A slide that opens: (height, width) of level 0 in px, um/px where the file states one that can be used, levels."""

    size: tuple[int, int]
    mpp: float | None
    levels: int = 1


@dataclass(frozen=True, slots=True)
class AnnotationFound:
    """What is drawn for one slide. ``form``: the format, or "picture".

    ``drawn``: how many records of each sort. ``order``: of the columns of points: "x y class" or "y x class" where
    only that puts them on the slide, "?" where both do, "" where the file says it. ``one_class``: the format names no classes.
    ``values``: of a picture, how many pixels each value but 0 has.
    """

    form: str
    drawn: Mapping[Drawn, int] = field(default_factory=dict)
    order: str = ""
    one_class: bool = False
    values: Mapping[int, int] = field(default_factory=dict)


def slides_below(folder: Path) -> Iterator[Path]:
    """Files and folders that look like slides, sorted; not what a slide itself consists of."""
    yield from _below(folder, SLIDES)


def annotations_below(folder: Path) -> Iterator[Path]:
    """Files (and OME-Zarr folders) that look like annotations, sorted."""
    yield from _below(folder, TEXTS | PICTURES)


def _below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_zarr(path) or (suffixes is SLIDES and any(path.glob("*.dcm"))):
                yield path
            else:
                yield from _below(path, suffixes)
        elif path.suffix.lower() in suffixes:
            yield path


def look_at_slide(path: Path) -> SlideFound:
    """Open a slide and read what it says of itself.

    Raises:
        SlideError: it cannot be opened.
    """
    with open_slide(path) as slide:
        try:
            mpp = check_mpp(slide.mpp, slide=str(path))
        except SlideError:
            mpp = None  # missing or absurd: the manifest's column stays empty, and the report says so
        return SlideFound(slide.info.size, mpp, len(slide.levels))


def look_at_annotation(path: Path, slide: Path, found: SlideFound) -> AnnotationFound:
    """Read what an annotation file holds for a slide.

    Raises:
        AnnotationError: it cannot be read, or holds nothing of this slide.
    """
    if path.suffix.lower() in PICTURES or path.is_dir():
        image = load_label_image(path)
        labels = image.labels
        if labels.shape != found.size:
            (height, width), (rows, cols) = labels.shape, found.size
            raise AnnotationError(f"{path}: {width} x {height} px, but the slide {slide.name} has {cols} x {rows}")
        counts = np.bincount(labels.ravel(), minlength=len(image.ids) + 1)[1:]
        return AnnotationFound("picture", values={int(v): int(n) for v, n in zip(image.ids, counts, strict=True)})
    sheet = read_sheet(path, choice=Choice(picture=slide.name))
    order = _order(sheet, read_sheet(path, choice=Choice(picture=slide.name, layout="y x class")), found.size)
    drawn: Counter[Drawn] = Counter()
    for record in sheet.records:
        shape = "point" if len(record.points) else "outline"
        drawn[record.kind or "", shape, record.name] += max(1, len(record.points))
    return AnnotationFound(sheet.format, drawn, order, sheet.one_class)


def _order(sheet: Sheet, swapped: Sheet, size: tuple[int, int]) -> str:
    """Which of two readings of a file puts fewer points outside a slide of (height, width) ``size``."""
    one, other = _points(sheet), _points(swapped)
    if np.array_equal(one, other):
        return ""
    outside, outside_swapped = (int(((xy < 0) | (xy >= [size[1], size[0]])).any(axis=1).sum()) for xy in (one, other))
    if outside == outside_swapped:
        return "?"
    return "x y class" if outside < outside_swapped else "y x class"


def _points(sheet: Sheet) -> npt.NDArray[np.float64]:
    return np.concatenate([np.zeros((0, 2)), *(record.points for record in sheet.records)])


def labels_of(table: Path, slides: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Labels of the slides that a CSV (slide, label) names, and its names of no slide; both empty if it is no such table."""
    try:
        names = list(read_labels(table))
    except AnnotationError:
        return {}, []
    labels = {}
    for slide in slides:
        try:
            labels[slide] = label_of(table, slide.name)
        except AnnotationError:
            continue  # not named there: it is listed as a slide without a label
    known = {name for slide in labels for name in same_pictures(names, slide.name)}
    return labels, [name for name in names if name not in known]
