"""``quadrat import``: objects that another tool found, as the results of a slide."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from quadrat.annotations.formats.geojson import probabilities
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.record import Sheet
from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError
from quadrat.core.files import new_folder, sha256_of
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.text import did_you_mean
from quadrat.core.unit import MPP_OF_PX, PX, Mpp, um_or_none
from quadrat.core.version import __version__
from quadrat.engine.drivers import note_imported
from quadrat.engine.report import summarise
from quadrat.engine.work import results_folder
from quadrat.exchange.drawn import NO_CLASS, Chosen, chosen, objects_of
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.palette import SAFE
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
from quadrat.outputs.tissue import write_tissue
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.source import believable_mpp
from quadrat.slides.tissue.mask import TissueMap, find_tissue, whole_slide
from quadrat.stitching.features import nearest_distances

GEOJSON = "QuPath GeoJSON"


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
    tissue: Literal["auto", "all"] = "auto"
    """What counts as analysed: the tissue that quadrat finds, or the whole slide."""
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
    stated = MPP_OF_PX if options.mpp == PX else um_or_none(options.mpp)
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
        frame = _frame(slide, options)
        choice = Choice(
            picture=str(slide_path),
            called=name,
            classes=options.classes,
            mpp=PX if frame.unit == PX else frame.mpp,
        )
        sheet = read_sheet(path, choice=choice)
        taken = chosen(
            sheet,
            frame,
            points=options.point_um is not None,
            skip_bad=options.bad_records == "skip",
        )
        classes = _classes(taken, out, name, options)
        tissue = _tissue(slide, frame, options)
        summary = _summary(slide, name, frame, sheet, taken, tissue, classes)
    scores = probabilities(path) if sheet.format == GEOJSON else {}
    side = (options.point_um or 0) / frame.mpp
    table, polygons = objects_of(taken.records, classes, point=side, scores=scores)
    with new_folder(folder) as staging:
        rows = _write_tables(staging, table, polygons, summary)
        write_tissue(staging, tissue.codes, tissue.frame)
        figures = replace(summary.figures, answer=ObjectFigures(tuple(rows), 0))
        summary = replace(summary, figures=figures)
        write_summary(staging, summary)
    note_imported(out, ref.absolute())
    summarise(out)
    return Imported(folder, summary, len(table))


def _frame(slide: Slide, options: ImportOptions) -> Frame:
    """Level 0 as the grid of the results."""
    level = slide.levels[0]
    if options.mpp == PX:
        return Frame(level.height, level.width, MPP_OF_PX, 1.0, 1.0, PX)
    return Frame(level.height, level.width, believable_mpp(slide), 1.0, 1.0)


def _classes(taken: Chosen, out: Path, name: str, options: ImportOptions) -> tuple[ClassInfo, ...]:
    """The classes of the results.

    Raises:
        ConfigError: objects have others, or the folder's results have.
    """
    found = sorted({record.name or NO_CLASS for record in taken.records})
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
        ClassInfo(one, colours.get(one, SAFE[k % len(SAFE)])) for k, one in enumerate(names)
    )


def _tissue(slide: Slide, frame: Frame, options: ImportOptions) -> TissueMap:
    """What counts as analysed; in pixel work all of the slide."""
    if frame.unit == PX or options.tissue == "all":
        return whole_slide(frame)
    return find_tissue(slide, slide_mpp=frame.mpp)


def _summary(
    slide: Slide,
    name: str,
    frame: Frame,
    sheet: Sheet,
    taken: Chosen,
    tissue: TissueMap,
    classes: tuple[ClassInfo, ...],
) -> Summary:
    path = Path(sheet.source)
    excluded = {part.reason: part.mm2 for part in tissue.excluded}
    area = AreaFigures(tissue.area_mm2, excluded, (), tissue.filled_mm2)
    digest = "" if path.is_dir() else sha256_of(path)
    source = slide.info.mpp_source or "override"
    return Summary(
        slide=name,
        task=taken.task,
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
        notes=(*sheet.notes, *taken.notes),
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
