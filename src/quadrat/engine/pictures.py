"""The last step of a slide: its pictures, and then its summary.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quadrat.config.pipeline import OutputsSection
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.outlines import concatenate_polygons, take_polygons
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.core.unit import PX, Unit, large_area
from quadrat.engine.area import lost_pixels
from quadrat.engine.images import read_overview
from quadrat.engine.journal import Done
from quadrat.engine.opened import opened
from quadrat.engine.state import RunSettings, SlideState, Step
from quadrat.engine.tables import MERGE
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlidePlan, SlideWork
from quadrat.models.task import LabelImage, ModelSpec, ObjectParts, Stitched
from quadrat.outputs.figures import LegendEntry, compose_map, compose_overlay, save_png
from quadrat.outputs.overlay import blend_classes, density_map, draw_dots, draw_overlay
from quadrat.outputs.summary import (
    AreaFigures,
    MppNote,
    ObjectFigures,
    Provenance,
    ReaderNote,
    SlideFigures,
    Summary,
    write_summary,
)
from quadrat.outputs.tables import CountRow
from quadrat.outputs.tissue import write_tissue
from quadrat.slides.tissue.mask import LOST
from quadrat.store.ome_zarr import open_label_image
from quadrat.tasks import get_task

DETAIL_PX = 360
DENSITY_CELL_UM = 50.0
"""Side of a cell of density.png: um, or px in pixel work."""
Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FinishJob:
    """A slide with all its tables and images."""

    work: SlideWork
    """The slide and its folder; pictures and summary go to ``work.result``."""
    outputs: OutputsSection
    """Section of the pipeline; its ``overlay`` decides whether pictures are drawn."""
    fingerprint: str
    """For summary.json: the slide's fingerprint of the results, in full."""
    figures: SlideFigures
    """What merging found."""
    provenance: Provenance
    """For summary.json: the package, versions and settings behind the result."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The slide at low power, to draw on."""

    rgb: Rgb
    """(h, w, 3) uint8."""
    mpp: float
    """um per px of it."""
    title: str
    """Heading of the pictures: the names of the slide and the task."""
    unit: Unit = "um"
    """Of lengths."""

    @property
    def shape(self) -> tuple[int, int]:
        """Its height and width."""
        return self.rgb.shape[0], self.rgb.shape[1]


def finish_slide(job: FinishJob) -> Done:
    """Draw the pictures and write summary.json, the last file of a slide's results."""
    task, view, plan = get_task(job.work.task), WorkView(job.work), job.work.load_plan()
    if job.outputs.overlay:
        rgb, mpp = read_overview(job.work, plan.frame)
        canvas = Canvas(rgb, mpp, f"{plan.name}   {task.name}", plan.frame.unit)
        stitched, tissue_mm2 = task.merge(view), job.figures.area.tissue_mm2
        if stitched.tiles is not None:
            draw_tiles(job.work, stitched.tiles, plan, canvas, tissue_mm2)
        else:
            draw_objects(job, stitched, task.label_image, plan, canvas)
    draw_tissue(job.work, job.figures.area)
    summary = Summary(
        slide=plan.name,
        task=task.name,
        fingerprint=job.fingerprint,
        frame=plan.frame,
        reader=ReaderNote(plan.format, plan.reader),
        slide_mpp=MppNote(plan.slide_mpp, plan.mpp_source),
        cores=len(plan.cells),
        thresholds=dict(job.work.spec.thresholds),
        figures=job.figures,
        provenance=job.provenance,
        notes=plan.notes,
    )
    write_summary(job.work.result, summary)
    return Done()


def draw_tissue(work: SlideWork, area: AreaFigures) -> None:
    """tissue.png: the mask without what lay in damaged tiles, as ``area`` counts it."""
    tissue, frame = work.load_tissue(), work.load_plan().frame
    lost = frame.scale.from_l0(np.array(area.damaged_tiles_l0, np.float64).reshape(-1, 4))
    boxes = [Box(y0, x0, y1, x1) for x0, y0, x1, y1 in np.rint(lost).astype(int).tolist()]
    gone = lost_pixels(tissue, boxes, frame)
    codes = np.where(gone, tissue.codes | np.uint8(LOST), tissue.codes)
    write_tissue(work.result, codes, tissue.frame)


def draw_objects(
    job: FinishJob, stitched: Stitched, label: LabelImage | None, plan: SlidePlan, canvas: Canvas
) -> None:
    """overlay.png, and for counted objects density.png."""
    work, spec, frame = job.work, job.work.spec, plan.frame
    parts, regions = stitched.objects or (), stitched.object_type == "annotation"
    table = ObjectTable.concatenate([part()[0] for part in parts])
    colors = np.array([c.color for c in spec.classes], np.uint8)
    scale = frame.mpp / canvas.mpp
    if label is not None and label.reduce == "mode":
        classes = sample_labels(work, label.name, frame, canvas)
        palette = np.concatenate([[[0, 0, 0]], colors]).astype(np.uint8)
        tinted = blend_classes(canvas.rgb, classes, palette, hidden=(0,))
    else:
        dots = table.centroid[:, ::-1] * scale
        tinted = draw_dots(canvas.rgb, dots, class_id=table.class_id, colors=colors, radius=1.5)
    box = busiest_box(table, frame, plan, spec)
    near, outlines = gather(parts, box)
    with opened(work, reading=True) as at_hand:
        pixels = at_hand.source.read(box)
    detail = draw_overlay(pixels, polygons=outlines, class_id=near.class_id, colors=colors, zoom=2)
    found, area = job.figures.answer, job.figures.area.tissue_mm2
    assert isinstance(found, ObjectFigures)
    entries = [
        LegendEntry(c.name, c.color, _amount(row, frame.unit, regions=regions))
        for c, row in zip(spec.classes, found.counts, strict=False)
    ]
    page = compose_overlay(
        tinted,
        detail,
        legend=entries,
        overview_mpp=canvas.mpp,
        detail_mpp=frame.mpp / 2,
        detail_box=(box.col0 * scale, box.row0 * scale, box.col1 * scale, box.row1 * scale),
        title=canvas.title,
        subtitle=f"{len(table):,} {'regions' if regions else 'objects'} on "
        f"{_analysed_area(area, frame.unit)}",
        unit=frame.unit,
    )
    save_png(page, work.result / "overlay.png")
    if not regions:
        draw_density(work, table, plan, canvas)


def _amount(row: CountRow, unit: Unit, *, regions: bool) -> str:
    """Objects are counted, regions are measured."""
    return f"{row.area_mm2:.3f} {large_area(unit)}" if regions else f"{row.count:,}"


def _analysed_area(area_mm2: float, unit: Unit) -> str:
    """How much was analysed; in pixel work that need not be tissue."""
    return f"{area_mm2:.2f} {large_area(unit)}" + (" analysed" if unit == PX else " of tissue")


def draw_density(work: SlideWork, table: ObjectTable, plan: SlidePlan, canvas: Canvas) -> None:
    """density.png: objects per mm²."""
    density = density_map(table.centroid, plan.frame, cell_um=DENSITY_CELL_UM)
    page = compose_map(
        canvas.rgb,
        density,
        mask=_analysed(plan, work.spec, density.shape),
        low=0.0,
        high=max(1.0, float(np.percentile(density, 99.5))),
        label=f"objects / {large_area(canvas.unit)}",
        cell_um=DENSITY_CELL_UM,
        overview_mpp=canvas.mpp,
        title=f"{canvas.title} density",
        unit=canvas.unit,
    )
    save_png(page, work.result / "density.png")


def _analysed(plan: SlidePlan, spec: ModelSpec, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Density cells with their centre in an analysed core."""
    core, cell_px = spec.lattice.core, DENSITY_CELL_UM / plan.frame.mpp
    cores = np.zeros((-(-plan.frame.height // core), -(-plan.frame.width // core)), bool)
    rows, cols = np.array(plan.cells).T
    cores[rows, cols] = True
    at = [
        np.minimum((np.arange(n) + 0.5) * cell_px // core, m - 1).astype(int)
        for n, m in zip(shape, cores.shape, strict=True)
    ]
    return cores[np.ix_(*at)]


def draw_tiles(
    work: SlideWork, tiles: TileScores, plan: SlidePlan, canvas: Canvas, tissue_mm2: float
) -> None:
    """heatmap.png (probability of the slide's class) and overlay.png (the class of each tile), from
    the rows themselves."""
    spec, core = work.spec, work.spec.lattice.core
    shape = math.ceil(plan.frame.height / core), math.ceil(plan.frame.width / core)
    best = np.argmax(tiles.probability, axis=1)
    top = int(np.argmax(tiles.probability.sum(axis=0, dtype=np.int64)))
    values = np.full(shape, np.nan, np.float32)
    classes = np.zeros(shape, np.uint8)
    rows, cols = tiles.cell.T
    values[rows, cols] = tiles.probability[:, top] / SCORE_MAX
    classes[rows, cols] = best + 1
    page = compose_map(
        canvas.rgb,
        values,
        mask=~np.isnan(values),
        low=0.0,
        high=1.0,
        label=f"probability of {spec.classes[top].name}",
        cell_um=core * plan.frame.mpp,
        overview_mpp=canvas.mpp,
        title=f"{canvas.title} heatmap",
        unit=canvas.unit,
    )
    save_png(page, work.result / "heatmap.png")
    side = core * plan.frame.mpp / canvas.mpp
    at = [
        np.minimum((np.arange(n) / side).astype(int), m - 1)
        for n, m in zip(canvas.shape, shape, strict=True)
    ]
    colors = np.array([(0, 0, 0), *(c.color for c in spec.classes)], np.uint8)
    tinted = blend_classes(canvas.rgb, classes[np.ix_(*at)], colors, hidden=(0,))
    share = np.bincount(best, minlength=len(spec.classes))
    box = middle_box(tiles, canvas, tile_px=side)
    page = compose_overlay(
        tinted,
        tinted[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])],
        legend=[
            LegendEntry(c.name, c.color, f"{n:,} tiles")
            for c, n in zip(spec.classes, share, strict=True)
        ],
        overview_mpp=canvas.mpp,
        detail_mpp=canvas.mpp,
        detail_box=box,
        title=canvas.title,
        subtitle=f"{len(rows):,} tiles on {_analysed_area(tissue_mm2, canvas.unit)}; slide: "
        f"{spec.classes[top].name}",
        unit=canvas.unit,
    )
    save_png(page, work.result / "overlay.png")


def middle_box(
    tiles: TileScores, canvas: Canvas, *, tile_px: float
) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 on the canvas of a square around the middle one of the tiles."""
    height, width = canvas.shape
    side = min(height, width) // 3
    x = y = 0.0
    if len(tiles):
        row, col = tiles.cell[len(tiles) // 2]
        x = float(np.clip(col * tile_px - side / 2, 0, width - side))
        y = float(np.clip(row * tile_px - side / 2, 0, height - side))
    return x, y, x + side, y + side


def sample_labels(
    work: SlideWork, name: str, frame: Frame, canvas: Canvas
) -> npt.NDArray[np.uint8]:
    """The label image at the pixel centres of the canvas, read in bands of shards (bounded
    memory)."""
    array, (height, width) = open_label_image(work.image, name), canvas.shape
    ratio = canvas.mpp / frame.mpp
    rows = np.minimum((np.arange(height) + 0.5) * ratio, frame.height - 1).astype(np.int64)
    cols = np.minimum((np.arange(width) + 0.5) * ratio, frame.width - 1).astype(np.int64)
    out = np.zeros((height, width), np.uint8)
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
        # of a mask that reaches beyond the slide the middle may lie outside
        last = frame.height // side, frame.width // side
        cells = np.clip((table.centroid // side).astype(np.int64), 0, last)
        width = frame.width // side + 1
        at = int(np.argmax(np.bincount(cells[:, 0] * width + cells[:, 1])))
        row, col = at // width * side, at % width * side
    else:
        core = spec.lattice.core_box(plan.cells[len(plan.cells) // 2])
        row, col = core.row0, core.col0
    row = max(0, min(row, frame.height - side))
    col = max(0, min(col, frame.width - side))
    return Box(row, col, min(row + side, frame.height), min(col + side, frame.width))


def gather(parts: ObjectParts, box: Box) -> tuple[ObjectTable, Polygons]:
    """Objects with a bounding box that meets ``box``, their outlines relative to its corner."""
    tables, outlines = [], []
    for part in parts:
        table, polygons = part()
        row0, col0, row1, col1 = table.bbox.T
        meets = (row0 < box.row1) & (row1 > box.row0) & (col0 < box.col1) & (col1 > box.col0)
        tables.append(table.take(meets))
        outlines.append(take_polygons(polygons, np.flatnonzero(meets)))
    merged = concatenate_polygons(outlines)
    moved = replace(merged, xy=merged.xy - np.array([box.col0, box.row0]))
    return ObjectTable.concatenate(tables), moved


def _finish_job(state: SlideState, run: RunSettings) -> FinishJob:
    assert run.provenance is not None
    return FinishJob(
        work=state.work,
        outputs=run.pipeline.outputs,
        fingerprint=state.prints.result,
        figures=state.receipt(MERGE),
        provenance=run.provenance,
    )


FINISH = Step("finish", "result", finish_slide, _finish_job)
