"""The truth of one slide of a manifest: what the pipeline's ``data`` section says is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import shapely

from quadrat.annotations.formats.delimited import label_of
from quadrat.annotations.formats.label_image import from_array
from quadrat.annotations.formats.mask_image import colours_of, mask_of
from quadrat.annotations.formats.pictures import other_picture
from quadrat.annotations.formats.pixels import labels_in, read_pixels
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.orientation import turn_of, upright_pixels
from quadrat.annotations.record import Record, Sheet
from quadrat.annotations.scale import diameter_problem, scale_problems
from quadrat.annotations.selection import Selected, bounding_records, select, select_bounds
from quadrat.annotations.shapes import geometry_of
from quadrat.annotations.types import Kind, SlideTruth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError, ConfigError, SlideError
from quadrat.core.unit import Mpp, um_or_none
from quadrat.slides.opening import open_slide
from quadrat.slides.source import believable_mpp

LISTED = 5
"""How many bad records a message names one by one."""


def load_truth(
    ref: SlideRef,
    data: DataSection,
    classes: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
    mpp: Mpp | None = None,
    tolerance: int = 1,
) -> SlideTruth:
    """Objects, regions, bounds and label of a slide.

    Without ``size`` and ``mpp`` nobody can say what lies outside, or whether coordinates are px of
    another level.

    Args:
        ref: the slide's row of the manifest.
        data: what is learnt.
        classes: the class names of the pipeline.
        size: (height, width) of the slide in level-0 px.
        mpp: um per level-0 px, or "px" where the pipeline works in pixels.
        tolerance: how many px of ``size`` may be missing (those of a grid px, if only the grid is
            known).

    Raises:
        ConfigError: the manifest does not have what ``data.annotations`` needs, or an option is
            missing.
        AnnotationError: the file cannot be read, has no region of the bounding class, has nothing
            of the wanted kind but something else of the classes, or is of another scale. Also if it
            has bad records and ``data.bad_records`` is "refuse": file, places and count are named.
    """
    if data.annotations == "none":
        return SlideTruth(label=_label(ref, classes), complete=ref.annotated == "all")
    label = list(classes).index(ref.label) if ref.label in classes else -1
    if not ref.annotation:
        raise ConfigError(
            f"{ref.path}: the manifest names no annotation, but data.annotations is "
            f"'{data.annotations}'"
        )
    if data.annotations in ("labels", "mask"):
        return _of_pixels(ref, data, classes, label, size, um_or_none(mpp), tolerance)
    if data.annotations == "points" and data.point_diameter_um <= 0:
        raise ConfigError(
            "data.annotations is 'points': state their size with data.point_diameter_um"
        )
    choice = replace(Choice.of(data, classes), picture=ref.path, called=ref.name, mpp=mpp)
    sheet = read_sheet(Path(ref.annotation), choice=choice)
    if sheet.size is not None:
        _check_size(Path(sheet.source), sheet.size, size, tolerance, ref)
    limits = (
        sheet.size
        if sheet.size is not None or size is None
        else (size[0] + tolerance - 1, size[1] + tolerance - 1)
    )
    picked = select(
        sheet, classes, want=data.annotations, size=limits, ignore=data.ignore,
        bounding=ref.annotated, objects_as=data.objects_as,
    )  # fmt: skip
    other = other_picture(sheet.picture, ref.path, called=ref.name)
    notes = [*sheet.notes, *picked.notes, *([other] if other else [])]
    notes += _judge(picked, sheet, ref, data, size=size, mpp=um_or_none(mpp))
    bounds, bad_bounds = select_bounds(sheet, ref.annotated, size=limits)
    if bad_bounds:  # a wrong bound is never skipped, because it decides what counts as background
        raise AnnotationError(
            _message(bad_bounds, ref, remedy="fix the region: it bounds what is learnt")
        )
    drawn = picked.annotations
    notes += _outside_bounds(picked.records, sheet, ref)
    regions = data.annotations == "regions"
    return SlideTruth(
        objects=None if regions else drawn,
        regions=drawn if regions else None,
        bounds=bounds,
        label=label,
        point_diameter_um=data.point_diameter_um if data.annotations == "points" else 0.0,
        complete=ref.annotated == "all",
        skipped=picked.bad,
        notes=tuple(notes),
    )


def mpp_of(ref: SlideRef) -> float | None:
    """um/px of a slide: of its row, else what its file states; None if neither says so, or the file
    cannot be opened."""
    try:
        with open_slide(ref.path, mpp=ref.mpp, scene=ref.scene) as slide:
            return None if slide.mpp is None else believable_mpp(slide)
    except SlideError:
        return ref.mpp


def need_annotated(truth: SlideTruth, ref: SlideRef, *, otherwise: str) -> None:
    """Refuse objects if nobody states where all of them are. ``otherwise``: what cannot be done
    then, for the message.

    Raises:
        AnnotationError: there are objects, and the column ``annotated`` is empty.
    """
    if truth.objects is not None and not ref.annotated:
        raise AnnotationError(
            f"{ref.path}: the manifest does not say where all objects are annotated, so "
            f"{otherwise}: fill its column 'annotated' with 'all', or with the class of the "
            "regions inside which every object is drawn"
        )


def _label(ref: SlideRef, classes: Sequence[str]) -> int:
    """The class of the whole slide: from the column ``label``, or from a CSV of slide labels in the
    column ``annotation``."""
    name = ref.label
    if not name and ref.annotation:
        name = label_of(Path(ref.annotation), ref.path, called=ref.name)
    if name not in classes:
        raise ConfigError(
            f"{ref.path}: its label '{name}' is none of the classes {', '.join(classes)}"
        )
    return list(classes).index(name)


def _of_pixels(
    ref: SlideRef,
    data: DataSection,
    classes: Sequence[str],
    label: int,
    size: tuple[int, int] | None,
    mpp: float | None,
    tolerance: int,
) -> SlideTruth:
    path = Path(ref.annotation)
    if ref.annotated not in ("", "all"):
        raise AnnotationError(
            f"{path}: the manifest says annotated '{ref.annotated}' for {ref.name}, but a label "
            "image or mask holds no region "
            "of that name; write 'all' if all of it is annotated, or leave it empty"
        )
    labels = data.annotations == "labels"
    pixels = read_pixels(path)
    values = (
        labels_in(pixels, path)
        if labels
        else mask_of(
            pixels,
            classes=classes,
            threshold=data.mask_threshold,
            colours=colours_of(data),
            path=path,
        ).numbers
    )
    values, notes = upright_pixels(
        values, turn_of(ref.path), drawn_on=data.drawn_on, where=str(path)
    )
    kind: Kind = "object" if labels else "region"
    image = from_array(values, classes=classes, kind=kind, where=path.name)
    height, width = image.labels.shape
    _check_size(path, (height, width), size, tolerance, ref)
    wrong = diameter_problem(image.diameters(), mpp) if labels else None
    if wrong is not None:
        raise AnnotationError(f"{path}, for {ref.name}: {wrong.code}: {wrong.text}")
    objects, regions = (image, None) if labels else (None, image)
    if not image.labels.any():
        notes = (*notes, "no pixel of its picture is of a class")
    return SlideTruth(
        objects,
        regions,
        label=label,
        complete=ref.annotated == "all",
        notes=notes,
    )


def _check_size(
    path: Path, stated: tuple[int, int], size: tuple[int, int] | None, tolerance: int, ref: SlideRef
) -> None:
    """Refuse a file that is of another picture or another level than the slide."""
    if size is not None and any(abs(a - b) > tolerance for a, b in zip(stated, size, strict=True)):
        raise AnnotationError(
            f"{path}: it is of a picture of {stated[1]} x {stated[0]} px, but the slide {ref.name} "
            f"has {size[1]} x {size[0]}; annotations must be in px of the slide's full resolution, "
            "so export them anew or name the right file"
        )


def _judge(
    picked: Selected,
    sheet: Sheet,
    ref: SlideRef,
    data: DataSection,
    *,
    size: tuple[int, int] | None,
    mpp: float | None,
) -> list[str]:
    """Notes on what may be wrong with the scale.

    Raises:
        AnnotationError: bad records that are not to be skipped, another scale, or nothing of the
            wanted kind but other things of the classes.
    """
    if picked.bad and data.bad_records == "refuse":
        remedy = (
            "fix them, or leave them out knowingly with data.bad_records: skip (quadrat "
            "annotations check lists all)"
        )
        raise AnnotationError(_message(picked.bad, ref, remedy=remedy))
    if picked.nothing:
        raise AnnotationError(f"{ref.annotation}: for {ref.name} it has {picked.nothing}")
    found = scale_problems(
        replace(sheet, records=picked.records), size=None if sheet.size else size, mpp=mpp
    )
    for problem in found:
        if not problem.warning:
            raise AnnotationError(
                f"{ref.annotation}, for {ref.name}: {problem.code}: {problem.text}"
            )
    return [f"{problem.code}? {problem.text}" for problem in found]


def _outside_bounds(records: Sequence[Record], sheet: Sheet, ref: SlideRef) -> list[str]:
    """A note if regions bound what is learnt and no record lies inside."""
    if ref.annotated in ("", "all") or not records:
        return []
    bounds = shapely.union_all(
        shapely.make_valid(
            [geometry_of(r) for r in bounding_records(sheet, ref.annotated) if r.parts]
        )
    )
    if shapely.intersects(
        bounds, [shapely.make_valid(geometry_of(record)) for record in records]
    ).any():
        return []
    return [
        f"all {len(records)} records of the classes lie outside the regions '{ref.annotated}', so "
        "none is learnt"
    ]


def _message(bad: Sequence[str], ref: SlideRef, *, remedy: str) -> str:
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    what = "1 bad record" if len(bad) == 1 else f"{len(bad)} bad records"
    return f"{ref.annotation}: {what} for {ref.name}: {'; '.join(bad[:LISTED])}{more}; {remedy}"
