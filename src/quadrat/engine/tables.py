"""The step that writes a slide's tables from the merged answer: objects, counts, tiles, classes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from quadrat.config.pipeline import OutputsSection
from quadrat.core.geometry import Box
from quadrat.core.objects import FLAG_CAPPED, Frame, ObjectTable
from quadrat.core.predictions import TileScores
from quadrat.engine.area import analysed_area
from quadrat.engine.state import RunSettings, SlideState, Step
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlidePlan, SlideWork
from quadrat.models.task import ObjectParts, Stitched
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import ObjectFigures, ScoreFigures, SlideFigures
from quadrat.outputs.tables import count_rows, write_classes, write_counts, write_tiles
from quadrat.stitching.features import nearest_distances
from quadrat.stitching.seams import slide_seams
from quadrat.tasks import get_task


@dataclass(frozen=True, slots=True)
class MergeJob:
    """A slide with all its shards stitched."""

    work: SlideWork
    """The slide and its folder; tables go to ``work.result``."""
    outputs: OutputsSection
    """Section of the pipeline; its ``geojson`` decides whether objects.geojson is written."""
    lost: tuple[Box, ...] = ()
    """Damaged tiles (grid px) that were met while reading."""


def merge_slide(job: MergeJob) -> SlideFigures:
    """Write the slide's tables; returns the figures of its summary."""
    task, view, plan = get_task(job.work.task), WorkView(job.work), job.work.load_plan()
    area = analysed_area(job.work, plan, job.lost)
    stitched = task.merge(view)
    if task.label_image is not None:
        view.keep_first_ids()
    answer: ObjectFigures | ScoreFigures
    if stitched.tiles is not None:
        answer = write_scores(job.work, stitched.tiles, plan.frame)
    else:
        answer = write_objects(job, stitched, plan, area.analysed_mm2)
    return SlideFigures(area.figures(plan.frame), answer)


def write_objects(
    job: MergeJob, stitched: Stitched, plan: SlidePlan, area_mm2: float
) -> ObjectFigures:
    """Stream the objects into GeoParquet and GeoJSON; the counts come from this very table."""
    parts, classes, frame = stitched.objects or (), list(job.work.spec.classes), plan.frame
    table = counted_columns(parts)
    nearest = nearest_distances(table.centroid * frame.mpp, table.class_id, len(classes))
    name, folder = job.work.ref.name, job.work.result
    with ExitStack() as stack:
        writers: list[ObjectWriter | GeoJSONWriter] = [
            stack.enter_context(
                ObjectWriter(folder / "objects.parquet", frame=frame, classes=classes, slide=name)
            )
        ]
        if job.outputs.geojson:
            geojson = GeoJSONWriter(
                folder / "objects.geojson",
                frame=frame,
                classes=classes,
                slide=name,
                object_type=stitched.object_type,
            )
            writers.append(stack.enter_context(geojson))
        start = 0
        for part in parts:
            rows, polygons = part()
            near = nearest[start : start + len(rows)]
            for writer in writers:
                writer.append(rows, polygons, near, first_id=start + 1)
            start += len(rows)
    counts = count_rows(table, nearest, classes=classes, frame=frame, tissue_mm2=area_mm2)
    write_counts(folder / "counts.csv", counts, unit=frame.unit)
    lattice, cells = job.work.spec.lattice, plan.cells
    seams = slide_seams(table, parts, lattice=lattice, frame=frame, cells=cells)
    return ObjectFigures(tuple(counts), int((table.flags & FLAG_CAPPED > 0).sum()), seams)


def counted_columns(parts: ObjectParts) -> ObjectTable:
    """All objects with what counts and distances need (centroid, class, area, flags), 26 bytes per
    object that stay in memory for a whole slide; the other columns are zeros without memory."""
    found = [part()[0] for part in parts] or [ObjectTable.empty()]
    columns = {
        name: np.concatenate([getattr(table, name) for table in found])
        for name in ("centroid", "class_id", "area_px", "flags")
    }
    n = len(columns["class_id"])
    zeros = {
        name: np.broadcast_to(np.zeros(1, dtype), (n, *(side or 0 for side in row)))
        for name, (row, dtype) in ObjectTable.COLUMNS.items()
    }
    return ObjectTable(**zeros | columns)


def write_scores(work: SlideWork, tiles: TileScores, frame: Frame) -> ScoreFigures:
    """tiles.csv and classes.csv: the slide's probabilities are the mean over the rows, its vote
    their majority."""
    classes = list(work.spec.classes)
    write_tiles(
        work.result / "tiles.csv", tiles, classes=classes, frame=frame, core=work.spec.lattice.core
    )
    whole = max(1, int(tiles.probability.sum(dtype=np.int64)))
    mean = tiles.probability.sum(axis=0, dtype=np.int64) / whole
    write_classes(work.result / "classes.csv", classes, mean)
    votes = np.bincount(np.argmax(tiles.probability, axis=1), minlength=len(classes))
    return ScoreFigures(
        top_class=classes[int(np.argmax(mean))].name,
        probability={c.name: round(float(p), 6) for c, p in zip(classes, mean, strict=True)},
        tile_votes={c.name: int(v) for c, v in zip(classes, votes, strict=True)},
    )


def _merge_job(state: SlideState, run: RunSettings) -> MergeJob:
    return MergeJob(state.work, run.pipeline.outputs, state.lost)


MERGE = Step("merge", "result", merge_slide, _merge_job)
