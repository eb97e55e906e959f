"""The pictures of a slide and its summary.json, the last step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.core.files import write_file
from quadrat.core.geometry import Box
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.outlines import concatenate_polygons, take_polygons
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.engine.images import read_overview
from quadrat.engine.steps import open_work_source
from quadrat.engine.tables import FinishJob, Parts, Rgb
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlidePlan, SlideWork, unchanged
from quadrat.models.task import ModelSpec, Stitched, Task
from quadrat.outputs.figures import LegendEntry, compose_map, compose_overlay, save_png
from quadrat.outputs.overlay import blend_classes, density_map, draw_dots, draw_overlay
from quadrat.store.ome_zarr import open_label_image
from quadrat.tasks import get_task

DETAIL_PX = 360
DENSITY_CELL_UM = 50.0


def finish_slide(job: FinishJob) -> dict[str, Any]:
    """Draw the pictures and write summary.json, the last file of a slide's results."""
    task, view, plan = get_task(job.work.task), WorkView(job.work), job.work.load_plan()
    figures: dict[str, Any] = dict(job.provenance["figures"])
    if job.outputs.overlay:
        draw_pictures(job.work, task, task.merge(view), plan, figures)
    provenance = {k: v for k, v in job.provenance.items() if k != "figures"}
    summary = {
        "slide": plan.name,
        "task": task.name,
        "fingerprint": job.fingerprint,
        "frame": {name: getattr(plan.frame, name) for name in Frame.__slots__},
        "reader": {"format": plan.format, "reader": plan.reader},
        "slide_mpp": {"value": plan.slide_mpp, "source": plan.mpp_source},
        "cores": len(plan.cells),
        "thresholds": dict(job.work.spec.thresholds),
    }
    text = json.dumps(summary | figures | provenance, indent=2, sort_keys=True) + "\n"
    write_file(job.work.result / "summary.json", text)
    return {}


def draw_pictures(
    work: SlideWork, task: Task, stitched: Stitched, plan: SlidePlan, figures: Mapping[str, Any]
) -> None:
    """overlay.png, and density.png (objects) or heatmap.png (tiles)."""
    spec, frame = work.spec, plan.frame
    overview, overview_mpp = read_overview(work, frame)
    colors = np.array([c.color for c in spec.classes], np.uint8)
    title = f"{plan.name}   {task.name}"
    if stitched.tiles is not None:
        draw_heatmaps(work, stitched.tiles, plan, overview, overview_mpp, title, figures)
        return
    parts = stitched.objects or ()
    table = ObjectTable.concatenate([part()[0] for part in parts])
    scale = frame.mpp / overview_mpp
    label = task.label_image
    if label is not None and label.reduce == "mode":
        classes = sample_labels(work, label.name, frame, overview.shape[:2], overview_mpp)
        tinted = blend_classes(
            overview, classes, np.concatenate([[[0, 0, 0]], colors]).astype(np.uint8), hidden=(0,)
        )
    else:
        tinted = draw_dots(
            overview,
            table.centroid[:, ::-1] * scale,
            class_id=table.class_id,
            colors=colors,
            radius=1.5,
        )
    box = busiest_box(table, frame, plan, spec)
    near, outlines = gather(parts, box)
    with unchanged(work), open_work_source(work) as source:
        pixels = source.read(box)
    detail = draw_overlay(pixels, polygons=outlines, class_id=near.class_id, colors=colors, zoom=2)
    regions = task.object_type == "annotation"
    entries = [
        _entry(c, row, regions=regions)
        for c, row in zip(spec.classes, figures["counts"], strict=False)
    ]
    page = compose_overlay(
        tinted,
        detail,
        legend=entries,
        overview_mpp=overview_mpp,
        detail_mpp=frame.mpp / 2,
        detail_box=(box.col0 * scale, box.row0 * scale, box.col1 * scale, box.row1 * scale),
        title=title,
        subtitle=f"{len(table):,} {'regions' if regions else 'objects'} on "
        f"{figures['tissue_mm2']:.2f} mm² of tissue",
    )
    save_png(page, work.result / "overlay.png")
    if regions:
        return
    density = density_map(table.centroid, frame, cell_um=DENSITY_CELL_UM)
    page = compose_map(
        overview,
        density,
        mask=_analysed(plan, spec, density.shape),
        low=0.0,
        high=max(1.0, float(np.percentile(density, 99.5))),
        label="objects / mm²",
        cell_um=DENSITY_CELL_UM,
        overview_mpp=overview_mpp,
        title=f"{title} density",
    )
    save_png(page, work.result / "density.png")


def _entry(info: ClassInfo, row: Mapping[str, Any], *, regions: bool) -> LegendEntry:
    """Objects are counted, regions are measured."""
    return LegendEntry(
        info.name, info.color, f"{row['area_mm2']:.3f} mm²" if regions else f"{row['count']:,}"
    )


def _analysed(plan: SlidePlan, spec: ModelSpec, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Density cells whose centre lies in an analysed core."""
    core, cell_px = spec.lattice.core, DENSITY_CELL_UM / plan.frame.mpp
    cores = np.zeros((-(-plan.frame.height // core), -(-plan.frame.width // core)), bool)
    rows, cols = np.array(plan.cells).T
    cores[rows, cols] = True
    at = [
        np.minimum((np.arange(n) + 0.5) * cell_px // core, m - 1).astype(int)
        for n, m in zip(shape, cores.shape, strict=True)
    ]
    return cores[np.ix_(*at)]


def draw_heatmaps(
    work: SlideWork,
    tiles: TileScores,
    plan: SlidePlan,
    overview: Rgb,
    overview_mpp: float,
    title: str,
    figures: Mapping[str, Any],
) -> None:
    """heatmap.png (probability of the slide's class) and overlay.png (the class of each tile), from
    the rows themselves."""
    spec, frame, core = work.spec, plan.frame, work.spec.lattice.core
    shape = math.ceil(frame.height / core), math.ceil(frame.width / core)
    best = np.argmax(tiles.probability, axis=1)
    mean = tiles.probability.sum(axis=0, dtype=np.int64)
    top = int(np.argmax(mean))
    values = np.full(shape, np.nan, np.float32)
    classes = np.zeros(shape, np.uint8)
    rows, cols = tiles.cell.T
    values[rows, cols] = tiles.probability[:, top] / SCORE_MAX
    classes[rows, cols] = best + 1
    page = compose_map(
        overview,
        values,
        mask=~np.isnan(values),
        low=0.0,
        high=1.0,
        label=f"probability of {spec.classes[top].name}",
        cell_um=core * frame.mpp,
        overview_mpp=overview_mpp,
        title=f"{title} heatmap",
    )
    save_png(page, work.result / "heatmap.png")
    cell = core * frame.mpp / overview_mpp
    at = [
        np.minimum((np.arange(n) / cell).astype(int), m - 1)
        for n, m in zip(overview.shape[:2], shape, strict=True)
    ]
    colors = np.array([(0, 0, 0), *(c.color for c in spec.classes)], np.uint8)
    tinted = blend_classes(overview, classes[np.ix_(*at)], colors, hidden=(0,))
    share = np.bincount(best, minlength=len(spec.classes))
    entries = [
        LegendEntry(c.name, c.color, f"{n:,} tiles")
        for c, n in zip(spec.classes, share, strict=True)
    ]
    side = min(overview.shape[:2]) // 3
    box = (0.0, 0.0, float(side), float(side))
    if len(rows):
        middle = len(rows) // 2
        x, y = (float(np.clip(v * cell - side / 2, 0, n - side)) for v, n in
                ((cols[middle], overview.shape[1]), (rows[middle], overview.shape[0])))  # fmt: skip
        box = (x, y, x + side, y + side)
    crop = tinted[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])]
    page = compose_overlay(
        tinted,
        crop,
        legend=entries,
        overview_mpp=overview_mpp,
        detail_mpp=overview_mpp,
        detail_box=box,
        title=title,
        subtitle=f"{len(rows):,} tiles on {figures['tissue_mm2']:.2f} mm² of tissue; slide: "
        f"{spec.classes[top].name}",
    )
    save_png(page, work.result / "overlay.png")


def sample_labels(
    work: SlideWork, name: str, frame: Frame, shape: tuple[int, ...], overview_mpp: float
) -> npt.NDArray[np.uint8]:
    """The label image at the pixel centres of the overview, read in bands of shards (bounded
    memory)."""
    array = open_label_image(work.image, name)
    ratio = overview_mpp / frame.mpp
    rows = np.minimum((np.arange(shape[0]) + 0.5) * ratio, frame.height - 1).astype(np.int64)
    cols = np.minimum((np.arange(shape[1]) + 0.5) * ratio, frame.width - 1).astype(np.int64)
    out = np.zeros(shape[:2], np.uint8)
    band = work.spec.lattice.shard
    for row0 in range(0, frame.height, band):
        box = Box(row0, 0, min(row0 + band, frame.height), frame.width)
        mine = (rows >= box.row0) & (rows < box.row1)
        if mine.any():
            out[mine] = array.read(box)[np.ix_(rows[mine] - row0, cols)]
    return out


def busiest_box(table: ObjectTable, frame: Frame, plan: SlidePlan, spec: ModelSpec) -> Box:
    """Where the detail is shown: the square of DETAIL_PX with the most objects, else the middle
    core."""
    side = DETAIL_PX
    if len(table):
        cells = (table.centroid // side).astype(np.int64)
        width = frame.width // side + 1
        at = int(np.argmax(np.bincount(cells[:, 0] * width + cells[:, 1])))
        row, col = at // width * side, at % width * side
    else:
        core = spec.lattice.core_box(plan.cells[len(plan.cells) // 2])
        row, col = core.row0, core.col0
    row = max(0, min(row, frame.height - side))
    col = max(0, min(col, frame.width - side))
    return Box(row, col, min(row + side, frame.height), min(col + side, frame.width))


def gather(parts: Parts, box: Box) -> tuple[ObjectTable, Polygons]:
    """Objects whose bounding box meets ``box``, with outlines relative to its corner."""
    tables, outlines = [], []
    for part in parts:
        table, polygons = part()
        b = table.bbox
        meets = (
            (b[:, 0] < box.row1)
            & (b[:, 2] > box.row0)
            & (b[:, 1] < box.col1)
            & (b[:, 3] > box.col0)
        )
        tables.append(table.take(meets))
        outlines.append(take_polygons(polygons, np.flatnonzero(meets)))
    merged = concatenate_polygons(outlines)
    return ObjectTable.concatenate(tables), replace(
        merged, xy=merged.xy - np.array([box.col0, box.row0])
    )
