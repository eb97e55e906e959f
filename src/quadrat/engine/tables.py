"""The last two work units of a slide: the tables from the merged answer, and the pictures with the
summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.config.pipeline import OutputsSection
from quadrat.core.geometry import Box
from quadrat.core.objects import FLAG_CAPPED, Frame, ObjectTable, Polygons
from quadrat.core.predictions import TileScores
from quadrat.engine.area import analysed_area
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.models.task import Task
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.tables import CountRow, count_rows, write_classes, write_counts, write_tiles
from quadrat.stitching.features import nearest_distances
from quadrat.stitching.seams import slide_seams
from quadrat.tasks import get_task

Rgb = npt.NDArray[np.uint8]
Parts = Sequence[Callable[[], tuple[ObjectTable, Polygons]]]


@dataclass(frozen=True, slots=True)
class FinishJob:
    """A slide whose shards are all stitched. ``provenance`` goes into summary.json as it is.
    ``lost``: boxes (grid px) of damaged tiles that were met while reading."""

    work: SlideWork
    outputs: OutputsSection
    fingerprint: str
    provenance: Mapping[str, Any]
    lost: tuple[Box, ...] = ()


def merge_slide(job: FinishJob) -> dict[str, Any]:
    """Write the slide's tables: objects, counts, tiles, classes. Returns the figures of the
    summary."""
    task, view, plan = get_task(job.work.task), WorkView(job.work), job.work.load_plan()
    area = analysed_area(job.work, plan, job.lost)
    stitched = task.merge(view)
    if task.label_image is not None:
        view.keep_first_ids()
    figures: dict[str, Any] = area.to_json(plan)
    if stitched.objects is not None:
        rows, capped, seams = write_objects(job, task, stitched.objects, area.analysed_mm2)
        figures |= {
            "counts": [asdict(row) for row in rows],
            "capped_objects": capped,
            "seams": seams,
        }
    if stitched.tiles is not None:
        figures |= write_scores(job.work, stitched.tiles, plan.frame)
    return figures


def write_objects(
    job: FinishJob, task: Task, parts: Parts, area_mm2: float
) -> tuple[list[CountRow], int, dict[str, Any]]:
    """Stream the objects into GeoParquet and GeoJSON; the counts come from this very table. Also:
    how many are capped, and the seam report."""
    spec, plan, folder = job.work.spec, job.work.load_plan(), job.work.result
    frame = plan.frame
    table = ObjectTable.concatenate([counted_columns(part()[0]) for part in parts])
    nearest = nearest_distances(table.centroid * frame.mpp, table.class_id, len(spec.classes))
    classes, name = list(spec.classes), job.work.ref.name
    with ExitStack() as stack:
        writers: list[ObjectWriter | GeoJSONWriter] = [
            stack.enter_context(
                ObjectWriter(folder / "objects.parquet", frame=frame, classes=classes, slide=name)
            )
        ]
        if job.outputs.geojson:
            path = folder / "objects.geojson"
            writers.append(
                stack.enter_context(
                    GeoJSONWriter(
                        path, frame=frame, classes=classes, slide=name, object_type=task.object_type
                    )
                )
            )
        start = 0
        for part in parts:
            rows, polygons = part()
            for writer in writers:
                writer.append(
                    rows, polygons, nearest[start : start + len(rows)], first_id=start + 1
                )
            start += len(rows)
    counts = count_rows(table, nearest, classes=classes, frame=frame, tissue_mm2=area_mm2)
    write_counts(folder / "counts.csv", counts)
    seams = slide_seams(table, parts, lattice=spec.lattice, frame=frame, cells=plan.cells)
    return counts, int((table.flags & FLAG_CAPPED > 0).sum()), seams


def counted_columns(table: ObjectTable) -> ObjectTable:
    """The table with what counts and distances need (centroid, class, area, flags), 26 bytes an
    object that stay in memory for a whole slide; the other columns are zeros without memory."""
    n, zero = len(table), np.zeros(1)
    return replace(
        table,
        anchor=np.broadcast_to(zero.astype(np.int64), (n, 2)),
        score=np.broadcast_to(zero.astype(np.float32), n),
        bbox=np.broadcast_to(zero, (n, 4)),
        perimeter_px=np.broadcast_to(zero, n),
    )


def write_scores(work: SlideWork, tiles: TileScores, frame: Frame) -> dict[str, Any]:
    """tiles.csv and classes.csv: the slide's probabilities are the mean over the rows, its vote
    their majority."""
    classes = list(work.spec.classes)
    write_tiles(
        work.result / "tiles.csv", tiles, classes=classes, frame=frame, core=work.spec.lattice.core
    )
    mean = tiles.probability.sum(axis=0, dtype=np.int64) / max(
        1, int(tiles.probability.sum(dtype=np.int64))
    )
    write_classes(work.result / "classes.csv", classes, mean)
    votes = np.bincount(np.argmax(tiles.probability, axis=1), minlength=len(classes))
    return {
        "class": classes[int(np.argmax(mean))].name,
        "probability": {c.name: round(float(p), 6) for c, p in zip(classes, mean, strict=True)},
        "tile_votes": {c.name: int(v) for c, v in zip(classes, votes, strict=True)},
    }


def read_summary_json(folder: Path) -> dict[str, Any] | None:
    """summary.json of a finished slide, or None where there is none."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
