"""``quadrat import``: objects that another tool found, as the results of a slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import shapely

from quadrat import __version__
from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.formats.geojson import probabilities
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.record import Problem, Record, Sheet, rectangle
from quadrat.annotations.scale import scale_problems
from quadrat.annotations.shapes import geometry_of
from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError
from quadrat.core.files import new_folder, sha256_of
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.text import did_you_mean
from quadrat.core.unit import MPP_OF_PX, PX, Mpp, um_or_none
from quadrat.engine.drivers import note_imported
from quadrat.engine.report import summarise
from quadrat.engine.work import results_folder
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter, polygons_of
from quadrat.outputs.results import OBJECTS, REGIONAL, read_results
from quadrat.outputs.summary import (
    SUMMARY,
    AreaFigures,
    MppNote,
    ObjectFigures,
    PackageNote,
    Provenance,
    ReaderNote,
    SlideFigures,
    Summary,
    write_summary,
)
from quadrat.outputs.tables import CountRow, count_rows, write_counts
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.source import believable_mpp
from quadrat.slides.tissue.mask import find_tissue
from quadrat.stitching.features import nearest_distances

GEOJSON = "QuPath GeoJSON"
NO_CLASS = "object"
"""Class of objects without one."""
PALETTE = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (0, 0, 0)),
)
"""Colours of classes, safe for readers without all cones (M. Okabe and K. Ito)."""
SHOWN = 3
"""So many bad objects are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How a file of objects is understood."""

    mpp: Mpp | None = None
    """um per level-0 px, instead of what the slide states; "px": work in pixels."""
    scene: str = ""
    """Which picture of the slide's file."""
    name: str = ""
    """What the results are called; "": as the slide's file."""
    classes: tuple[str, ...] = ()
    """The classes in their order; none: those of the folder's results, or those found, sorted."""
    point_um: float | None = None
    """Side of the square around an object that is a point (px in pixel work)."""
    bad_records: Literal["fail", "skip"] = "fail"
    """What happens to objects that cannot be used."""
    overwrite: bool = False
    """Replace results of the slide."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import."""

    folder: Path
    """The slide's results."""
    summary: Summary
    """What they say of themselves."""
    count: int
    """How many objects there are."""


def import_objects(path: Path, slide_path: Path, out: Path, *, options: ImportOptions) -> Imported:
    """Write the objects of a file as the results of a slide.

    Outlines are kept as they were drawn; areas, perimeters and centroids are those of the
    outlines. Scores are QuPath's detection probabilities, else 1. The analysed tissue is what
    quadrat finds on the slide.

    Raises:
        AnnotationError, SlideError: a file cannot be read.
        ConfigError: objects cannot be used, lie outside, or are of classes that are not asked for;
            or there are results already.
        WriteError: the results cannot be written.
    """
    unit_px = options.mpp == PX
    stated = MPP_OF_PX if unit_px else um_or_none(options.mpp)
    with open_slide(slide_path, mpp=stated, scene=options.scene) as slide:
        name = options.name or slide.name
        ref = SlideRef(
            name=name, path=str(slide_path), mpp=um_or_none(options.mpp), scene=options.scene
        )
        folder = results_folder(out, name)
        if (folder / SUMMARY).exists() and not options.overwrite:
            raise ConfigError(
                f"{folder}: there are results of the slide '{name}'; name another --out, or say "
                "--overwrite"
            )
        mpp = MPP_OF_PX if unit_px else believable_mpp(slide)
        level = slide.levels[0]
        frame = Frame(level.height, level.width, mpp, 1.0, 1.0, PX if unit_px else "um")
        choice = Choice(picture=str(slide_path), called=name, mpp=options.mpp or mpp)
        sheet = read_sheet(path, choice=choice)
        records, regional, notes = chosen(sheet, frame, path, options=options)
        area = _area(slide, frame)
        classes = _classes(records, out, name, options)
        scores = probabilities(path) if sheet.format == GEOJSON else {}
        point = (options.point_um or 0) / mpp
        table, polygons = objects_of(records, classes, point=point, scores=scores)
        summary = _summary(slide, name, frame, path, sheet, classes, area, (*sheet.notes, *notes))
    task = REGIONAL if regional else "instance" if polygons_drawn(records) else "detection"
    with new_folder(folder) as staging:
        rows = _write_tables(staging, table, polygons, replace(summary, task=task))
        figures = SlideFigures(area, ObjectFigures(tuple(rows), 0))
        summary = replace(summary, task=task, figures=figures)
        write_summary(staging, summary)
    note_imported(out, ref.absolute())
    summarise(out)
    return Imported(folder, summary, len(table))


def polygons_drawn(records: Sequence[Record]) -> bool:
    """Whether objects were outlined, and not only boxed or pointed at."""
    return any(record.parts and not record.box for record in records)


def chosen(
    sheet: Sheet, frame: Frame, path: Path, *, options: ImportOptions
) -> tuple[list[Record], bool, list[str]]:
    """The records that become objects, whether they are regions, and what is to be said of them.

    Raises:
        ConfigError: some cannot be used and are not to be left out, or there are none.
    """
    size = frame.height, frame.width
    records = [record for record in sheet.records if record.kind != "region"]
    regional = not records and bool(sheet.records)
    notes = []
    if regional:
        records = list(sheet.records)
        notes.append(f"no objects in {path.name}: its {len(records)} regions were imported")
    elif len(records) < len(sheet.records):
        notes.append(f"{len(sheet.records) - len(records)} regions of {path.name} are left out")
    if not records:
        raise ConfigError(f"{path}: there is no object in it")
    for problem in scale_problems(sheet, size=size, mpp=None if frame.unit == PX else frame.mpp_l0):
        if not problem.warning:
            raise ConfigError(f"{path}: {problem.text}")
        notes.append(problem.text)
    good, bad = [], []
    for record, problems in zip(records, geometry_problems(records, size=size), strict=True):
        wrong = next((p for p in (*problems, *_unfit(record, options)) if not p.warning), None)
        if wrong is None:
            good.append(record)
        else:
            bad.append(f"{record.place}: {wrong.text}")
    if bad:
        shown = "; ".join(bad[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
        if options.bad_records == "fail":
            raise ConfigError(
                f"{path}: {len(bad)} of {len(records)} objects cannot be used ({shown}); mend "
                "them, or leave them out with --bad-records skip"
            )
        notes.append(f"{len(bad)} of {len(records)} objects of {path.name} left out ({shown})")
    return good, regional, notes


def _unfit(record: Record, options: ImportOptions) -> list[Problem]:
    """What of a record is no object of a result."""
    if len(record.parts) > 1:
        return [Problem("no geometry", f"{len(record.parts)} parts, but an object has one outline")]
    if len(record.points) and options.point_um is None:
        return [Problem("no geometry", "a point; give points a size with --point-um")]
    return []


def objects_of(
    records: Sequence[Record],
    classes: Sequence[ClassInfo],
    *,
    point: float,
    scores: Mapping[str, float],
) -> tuple[ObjectTable, Polygons]:
    """Records as objects in canonical order: by the pixel of the centroid, row by row.

    ``point``: side in px of the square around a point; each point is an object. ``scores``: by
    place of the record; 1 for others.
    """
    index = {info.name: k for k, info in enumerate(classes)}
    shapes, class_id, score = list[shapely.Geometry](), list[int](), list[float]()
    for record in records:
        own = [geometry_of(record)] if record.parts else []
        for x, y in record.points.tolist():
            half = point / 2
            ((ring,),) = rectangle(x - half, y - half, x + half, y + half)
            own.append(shapely.Polygon(ring))
        shapes += own
        class_id += [index[record.name or NO_CLASS]] * len(own)
        score += [scores.get(record.place, 1.0)] * len(own)
    drawn = np.array(shapes, object)
    bounds = shapely.bounds(drawn).reshape(-1, 4)
    middle = shapely.centroid(drawn)
    centroid = np.stack([shapely.get_y(middle), shapely.get_x(middle)], axis=1).reshape(-1, 2)
    anchor = np.floor(centroid).astype(np.int64)
    ids = np.array(class_id, np.uint8)
    keys = (ids, *bounds.T[::-1], centroid[:, 1], centroid[:, 0], anchor[:, 1], anchor[:, 0])
    order = np.lexsort(keys)
    table = ObjectTable(
        anchor=anchor,
        class_id=ids,
        score=np.array(score, np.float32),
        bbox=bounds[:, [1, 0, 3, 2]],
        centroid=centroid,
        area_px=shapely.area(drawn).astype(np.float64),
        perimeter_px=shapely.length(drawn).astype(np.float64),
        flags=np.zeros(len(ids), np.uint8),
    )
    return table.take(order), polygons_of(drawn[order])


def _classes(
    records: Sequence[Record], out: Path, name: str, options: ImportOptions
) -> tuple[ClassInfo, ...]:
    """The classes of the results.

    Raises:
        ConfigError: objects have others, or the folder's results have.
    """
    found = sorted({record.name or NO_CLASS for record in records})
    before: tuple[ClassInfo, ...] = ()
    if any((out / "results").glob(f"*/{SUMMARY}")):
        others = [one for one in read_results(out).values() if one.name != name]
        before = others[0].classes if others else ()
    names = options.classes or tuple(c.name for c in before) or tuple(found)
    for one in found:
        if one not in names:
            raise ConfigError(
                f"the class '{one}' is none of {', '.join(names)}{did_you_mean(one, names)}; name "
                "all classes with --classes, and give each set of classes an --out of its own"
            )
    if before and names != tuple(c.name for c in before):
        raise ConfigError(
            f"{out} holds results with the classes {', '.join(c.name for c in before)}, not "
            f"{', '.join(names)}; give each set of classes an --out of its own"
        )
    if len(names) > 256:
        raise ConfigError(f"there are {len(names)} classes; a result has at most 256")
    colours = {c.name: c.color for c in before}
    return tuple(
        ClassInfo(one, colours.get(one, PALETTE[k % len(PALETTE)])) for k, one in enumerate(names)
    )


def _area(slide: Slide, frame: Frame) -> AreaFigures:
    """The tissue of a slide; in pixel work all of it."""
    if frame.unit == PX:
        return AreaFigures(frame.height * frame.width / 1e6, {}, (), 0.0)
    tissue = find_tissue(slide, slide_mpp=frame.mpp)
    excluded = {part.reason: part.mm2 for part in tissue.excluded}
    return AreaFigures(tissue.area_mm2, excluded, (), tissue.filled_mm2)


def _summary(
    slide: Slide,
    name: str,
    frame: Frame,
    path: Path,
    sheet: Sheet,
    classes: tuple[ClassInfo, ...],
    area: AreaFigures,
    notes: tuple[str, ...],
) -> Summary:
    digest = "" if path.is_dir() else sha256_of(path)
    source = slide.info.mpp_source or "override"
    return Summary(
        slide=name,
        task="",
        fingerprint=digest,
        frame=frame,
        reader=ReaderNote(slide.info.format, slide.info.reader),
        slide_mpp=MppNote(None, "not used: work is in pixels")
        if frame.unit == PX
        else MppNote(frame.mpp, source),
        cores=0,
        thresholds={},
        figures=SlideFigures(area, ObjectFigures((), 0)),
        provenance=Provenance(
            package=PackageNote(""),
            classes=classes,
            pipeline="import",
            versions={"quadrat": __version__},
            threads=0,
            device="",
        ),
        notes=notes,
        made_by=f"{path.name} ({sheet.format}{digest and f', sha256 {digest[:16]}'})",
    )


def _write_tables(
    folder: Path, table: ObjectTable, polygons: Polygons, summary: Summary
) -> list[CountRow]:
    frame, classes = summary.frame, summary.provenance.classes
    nearest = nearest_distances(table.centroid * frame.mpp, table.class_id, len(classes))
    geojson = GeoJSONWriter(
        folder / "objects.geojson",
        frame=frame,
        classes=classes,
        slide=summary.slide,
        object_type="annotation" if summary.task == REGIONAL else "detection",
    )
    objects = ObjectWriter(folder / OBJECTS, frame=frame, classes=classes, slide=summary.slide)
    with ExitStack() as stack:
        for writer in (objects, geojson):
            stack.enter_context(writer)
        for writer in (objects, geojson):
            writer.append(table, polygons, nearest, first_id=1)
    tissue = summary.figures.area.tissue_mm2
    rows = count_rows(table, nearest, classes=classes, frame=frame, tissue_mm2=tissue)
    write_counts(folder / "counts.csv", rows, unit=frame.unit)
    return rows
