"""What lies in the folders given to ``quadrat init``: slides that open, annotation files and what
is drawn in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.formats.delimited import read_labels
from quadrat.annotations.formats.label_image import from_array
from quadrat.annotations.formats.mask_image import Colour, colours_in
from quadrat.annotations.formats.pixels import labels_in, read_pixels
from quadrat.annotations.formats.reading import Choice, pictures, read_sheet
from quadrat.annotations.orientation import turn_of, upright_pixels
from quadrat.annotations.record import Sheet
from quadrat.annotations.scale import diameter_px
from quadrat.annotations.types import F64
from quadrat.cli.init.matching import match_pictures
from quadrat.core.errors import AnnotationError, SlideError
from quadrat.core.unit import Mpp
from quadrat.slides.dicom_series import holds_dicom
from quadrat.slides.opening import open_slide
from quadrat.slides.recognise import is_zarr
from quadrat.slides.source import believable_mpp

_PICTURES = ".png .tif .tiff .jpg .jpeg .bmp"
_SLIDES = ".svs .btf .ndpi .mrxs .scn .bif .vms .vmu .svslide .czi .qptiff"
_TEXTS = ".geojson .json .xml .csv .tsv .txt .parquet"
PICTURES = frozenset(_PICTURES.split())
SLIDES = PICTURES | frozenset(_SLIDES.split())
TEXTS = frozenset(_TEXTS.split())
MOST_COLOURS = 50
"""A picture of more colours is no mask of classes."""
SENSELESS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a reader of annotations raises over a value that no format allows."""

Drawn = tuple[str, str, str]
"""What a record is: its kind ("object", "region" or ""), its shape ("point", "outline"), its class
as it is written."""


@dataclass(frozen=True, slots=True)
class SlideFound:
    """A slide that opens."""

    size: tuple[int, int]
    """(height, width) of level 0 in px."""
    mpp: Mpp | None
    """um per level-0 px; None if the file states none that can be used, "px" in pixel work."""
    levels: int = 1
    """How many resolutions the file has; a flat picture has 1."""


@dataclass(frozen=True, slots=True)
class AnnotationFound:
    """What is drawn for one slide."""

    form: str
    """Name of the format; "picture" for a mask or a label image."""
    drawn: Mapping[Drawn, int] = field(default_factory=dict)
    """How many records there are of each sort, every point counted; empty for a picture."""
    order: str = ""
    """Columns of points, "x y class" or "y x class": the order that puts fewer points off the
    slide. "?": both put as many there; "": the file says it, or has no points."""
    one_class: bool = False
    """Whether the format names no classes, so that all records are of one."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Of a picture: how many pixels each value but 0 has; empty for other formats, and for a
    picture of colours."""
    colours: Mapping[Colour, int] = field(default_factory=dict)
    """Of a picture of colours, or of few grey values or palette entries: the pixels of each."""
    boxes: int = 0
    """How many outlines were drawn as boxes, regions not counted."""
    sizes: Mapping[Drawn, F64] = field(default_factory=dict)
    """Diameters in px of what has an outline, by sort; of a label image those of all labels."""


def one_slide(path: Path) -> Path | None:
    """The slide that a path is by itself; None for a folder of slides.

    By itself: a file, an OME-Zarr, a folder of nothing but DICOM instances, the folder of data
    next to a ``.mrxs``.
    """
    if path.is_file():
        return path
    folder = Path(os.path.abspath(path))  # "." has no name
    mrxs = folder.with_name(f"{folder.name}.mrxs")
    if (folder / "Slidedat.ini").is_file() and mrxs.is_file():
        return mrxs
    dicom = holds_dicom(folder) and next(slides_below(folder), None) is None
    return folder if is_zarr(folder) or dicom else None


def slides_below(folder: Path) -> Iterator[Path]:
    """Files and folders that look like slides, sorted; not what a slide itself consists of."""
    yield from _below(folder, SLIDES, set())


def slides_in(folder: Path) -> Iterator[Path]:
    """The same in the folder itself, without the folders in it that are no slides."""
    yield from _below(folder, SLIDES, set(), deep=False)


def annotations_below(folder: Path) -> Iterator[Path]:
    """Files (and OME-Zarr folders) that look like annotations, sorted."""
    yield from _below(folder, TEXTS | PICTURES, set())


def _below(
    folder: Path, suffixes: frozenset[str], seen: set[Path], *, deep: bool = True
) -> Iterator[Path]:
    """``seen``: the folders gone through, each once, however many links lead to it."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_zarr(path) or (suffixes is SLIDES and holds_dicom(path)):
                yield path
            elif deep:
                yield from _below(path, suffixes, seen)
        elif path.suffix.lower() in suffixes or (
            suffixes is not SLIDES and _packed_suffix(path) in TEXTS
        ):
            yield path


def _packed_suffix(path: Path) -> str:
    """The suffix before ``.gz``; "" where there is no ``.gz``."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else ""


def in_utf8(path: Path) -> bool:
    """Whether a path can be written into a manifest, which is UTF-8; the bytes of a name may be of
    another encoding."""
    return os.fsencode(path).decode("utf-8", "replace") == str(path)


def readable(path: Path) -> str:
    """A path as text that can be printed, bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def look_at_slide(path: Path) -> SlideFound:
    """Open a slide and read what it says of itself.

    Raises:
        SlideError: it cannot be opened.
    """
    with open_slide(path) as slide:
        try:
            mpp: float | None = believable_mpp(slide)
        except SlideError:
            mpp = (
                None  # missing or absurd: the manifest's column stays empty, and the report says so
            )
        return SlideFound(slide.levels[0].box.shape, mpp, len(slide.levels))


@contextmanager
def _sense(path: Path) -> Iterator[None]:
    """Turn what a reader raises over senseless content into an AnnotationError of this file."""
    try:
        yield
    except SENSELESS as error:
        raise AnnotationError(
            f"{path}: its content makes no sense ({type(error).__name__}: {error})"
        ) from error


def pictures_of(path: Path) -> list[str]:
    """The slides that an annotation file names as those it serves; [""] where it serves one.

    Raises:
        AnnotationError: it cannot be read.
    """
    with _sense(path):
        return pictures(path)


def look_at_annotation(path: Path, slide: Path, found: SlideFound) -> AnnotationFound:
    """Read what an annotation file holds for a slide.

    Raises:
        AnnotationError: it cannot be read, or holds nothing of this slide.
    """
    with _sense(path):
        return _look(path, slide, found)


def _look(path: Path, slide: Path, found: SlideFound) -> AnnotationFound:
    if path.suffix.lower() in PICTURES or path.is_dir():
        return _look_at_picture(path, slide, found)
    choice = Choice(picture=str(slide), mpp=found.mpp)
    sheet = read_sheet(path, choice=choice)
    order = _order(sheet, read_sheet(path, choice=replace(choice, layout="y x class")), found.size)
    drawn: Counter[Drawn] = Counter()
    sizes: dict[Drawn, list[float]] = {}
    for record in sheet.records:
        shape = "point" if len(record.points) else "outline"
        sort = record.kind or "", shape, record.name
        drawn[sort] += max(1, len(record.points))
        if record.parts and not record.fault and not record.crowd:
            sizes.setdefault(sort, []).append(diameter_px(record))
    boxes = sum(record.box and record.kind != "region" for record in sheet.records)
    return AnnotationFound(
        sheet.format,
        drawn,
        order,
        sheet.one_class,
        boxes=boxes,
        sizes={sort: np.array(own) for sort, own in sizes.items()},
    )


def _look_at_picture(path: Path, slide: Path, found: SlideFound) -> AnnotationFound:
    pixels = read_pixels(path)
    coloured = pixels.values.ndim == 3
    plane = pixels.values[..., 0] if coloured else labels_in(pixels, path)
    plane, _ = upright_pixels(plane, turn_of(str(slide)), drawn_on="auto", where=str(path))
    if plane.shape != found.size:
        (height, width), (rows, cols) = plane.shape, found.size
        raise AnnotationError(
            f"{path}: {width} x {height} px, but the slide {slide.name} has {cols} x {rows}"
        )
    if coloured:
        colours = colours_in(pixels, path)
        if len(colours) > MOST_COLOURS:
            raise AnnotationError(
                f"{path}: a picture of {len(colours)} colours, which is no mask; export it without "
                "soft edges, or as numbers of classes"
            )
        return AnnotationFound("picture", colours=colours)
    image = from_array(plane, classes=("object",), where=path.name)
    counts = np.bincount(image.labels.ravel(), minlength=len(image.ids) + 1)[1:]
    few = plane.dtype == np.uint8 and len(image.ids) < MOST_COLOURS
    return AnnotationFound(
        "picture",
        values={int(v): int(n) for v, n in zip(image.ids, counts, strict=True)},
        colours=colours_in(pixels, path) if few else {},
        sizes={("object", "outline", ""): image.diameters()},
    )


def _order(sheet: Sheet, swapped: Sheet, size: tuple[int, int]) -> str:
    """Which of two readings of a file puts fewer points outside a slide of (height, width)
    ``size``."""
    one, other = _points(sheet), _points(swapped)
    if np.array_equal(one, other):
        return ""
    outside, outside_swapped = (
        int(((xy < 0) | (xy >= [size[1], size[0]])).any(axis=1).sum()) for xy in (one, other)
    )
    if outside == outside_swapped:
        return "?"
    return "x y class" if outside < outside_swapped else "y x class"


def _points(sheet: Sheet) -> npt.NDArray[np.float64]:
    return np.concatenate([np.zeros((0, 2)), *(record.points for record in sheet.records)])


def labels_of(table: Path, slides: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Labels of the slides that a CSV (slide, label) names, and its names of no slide; both empty
    if it is no such table."""
    try:
        labels = read_labels(table)
    except AnnotationError:
        return {}, []
    named = match_pictures(list(labels), [str(slide) for slide in slides])
    sure = {Path(slide): names[0] for slide, names in named.items() if len(names) == 1}
    return {slide: labels[name] for slide, name in sure.items()}, [
        name for name in labels if name not in set(sure.values())
    ]
