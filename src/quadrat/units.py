"""The work units: what runs on a worker. Each takes one small picklable payload and returns a small receipt.

Every unit writes files that no other unit writes, and may be run twice without harm.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from quadrat.errors import SlideError
from quadrat.geometry import check_mpp, plan_read
from quadrat.grid import Cell
from quadrat.inference import pick_device, predict_cells
from quadrat.outputs.label_image import build_pyramid, create_label_image, open_label_image
from quadrat.package import Package, load_package
from quadrat.prediction_store import PredictionStore, Receipt
from quadrat.slides import open_slide
from quadrat.slides.source import SlideSource
from quadrat.store import TileStore
from quadrat.task import Prediction, SelectingTask, get_task
from quadrat.tiling import fill_shard, plan_tiles
from quadrat.tissue import find_tissue, tissue_cells, whole_slide
from quadrat.workplace import SlidePlan, SlideWork, WorkView, save_part

TILE_CHUNK, TILE_SHARD = 512, 2048


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A unit that concerns some shards of one slide."""

    work: SlideWork
    shards: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Inference of some shards of one slide with the package in ``package``."""

    work: SlideWork
    shards: tuple[Cell, ...]
    package: str
    device: str
    threads: int


def open_work_source(work: SlideWork) -> SlideSource:
    """The slide itself at the model's mpp, by its one read plan."""
    slide = open_slide(work.ref.path, mpp=work.ref.mpp if work.ref.mpp is not None else work.slide.mpp)
    mpp = check_mpp(slide.mpp, slide=work.ref.path)
    plan = plan_read(
        slide.levels,
        slide_mpp=mpp,
        mpp=work.spec.mpp,
        slide=work.ref.path,
        allow_upsampling=work.slide.allow_upsampling,
    )
    return SlideSource(slide, plan)


def plan_slide(work: SlideWork) -> dict[str, Any]:
    """Open the slide, find its tissue, choose the cores, and lay out empty stores; returns the shards of the tile store.

    Raises:
        SlideError: unreadable, no usable mpp, or no tissue.
    """
    source = open_work_source(work)
    slide, frame = source.slide, source.frame
    slide_mpp = check_mpp(slide.mpp, slide=work.ref.path)
    tissue = find_tissue(slide, slide_mpp=slide_mpp) if work.slide.tissue == "auto" else whole_slide(frame)
    lattice = work.spec.lattice
    cells = tissue_cells(tissue, lattice=lattice, frame=frame, min_fraction=work.slide.min_tissue)
    if not cells:
        raise SlideError(f"{work.ref.path}: no tissue was found; analyse everything with --set slide.tissue=all")
    shutil.rmtree(work.result, ignore_errors=True)
    work.result.mkdir(parents=True, exist_ok=True)
    windows = [lattice.window_box(cell).pad(work.margin) for cell in cells]
    stored = plan_tiles(windows, frame=frame, chunk=TILE_CHUNK, shard=TILE_SHARD)
    TileStore.create(work.tiles, frame=frame, slide=work.ref.name, plan=stored)
    overridden = work.ref.mpp is not None or work.slide.mpp is not None
    plan = SlidePlan(
        name=work.ref.name,
        frame=frame,
        cells=tuple(cells),
        tissue_mm2=tissue.area_mm2,
        tissue_um_per_px=tissue.um_per_px,
        reader=slide.info.reader,
        format=slide.info.format,
        slide_mpp=slide_mpp,
        mpp_source="override" if overridden else "file",
    )
    work.save_plan(plan, tissue.mask)
    return {"tile_shards": [list(s) for s in stored.shards], "shards": _shards(work, plan)}


def _shards(work: SlideWork, plan: SlidePlan) -> list[list[int]]:
    return [list(shard) for shard in work.spec.lattice.by_shard(plan.cells)]


def tile_shards(job: ShardJob) -> dict[str, Receipt]:
    """Read the tissue of some shards from the slide into the tile store."""
    source = open_work_source(job.work)
    store = TileStore.open(job.work.tiles)
    receipts = {}
    for shard in job.shards:
        receipt = fill_shard(source, store, shard)
        receipts[f"{shard[0]}.{shard[1]}"] = {"sha256": receipt.sha256, "nbytes": receipt.nbytes}
    return receipts


@lru_cache(maxsize=2)
def _package(folder: str, weights_sha256: str) -> Package:
    """A package, loaded once a worker process."""
    return load_package(Path(folder))


def create_predictions(work: SlideWork) -> dict[str, Any]:
    """Lay out an empty prediction store (dropping an outdated one)."""
    plan = work.load_plan()
    task = get_task(work.task)
    shutil.rmtree(work.predictions, ignore_errors=True)
    PredictionStore.create(
        work.predictions,
        storage=task.storage,
        frame=plan.frame,
        lattice=work.spec.lattice,
        channels=task.channels(work.spec),
        shards=[(r, c) for r, c in _shards(work, plan)],
    )
    return {"shards": len(_shards(work, plan))}


def predict_shards(job: PredictJob) -> dict[str, Receipt]:
    """Infer all analysed cores of some shards with the job's package."""
    torch.set_num_threads(job.threads)
    card_sha = (Path(job.package) / "card.json").read_text()
    package = _package(job.package, card_sha)
    return infer_shards(job.work, package.model, job.shards, device=pick_device(job.device))


def infer_shards(work: SlideWork, model: torch.nn.Module, shards: Sequence[Cell], *, device: torch.device) -> dict[str, Receipt]:
    """Infer all analysed cores of some shards and store the quantised predictions; a receipt a shard."""
    task, source, predictions = get_task(work.task), TileStore.open(work.tiles), PredictionStore(work.predictions)
    groups = work.spec.lattice.by_shard(work.load_plan().cells)
    receipts = {}
    for shard in shards:
        found: dict[Cell, Prediction] = dict(predict_cells(model, task, work.spec, source, groups[shard], device=device))
        receipts[f"{shard[0]}.{shard[1]}"] = predictions.write(shard, found)
    return receipts


def select_slide(work: SlideWork) -> dict[str, Any]:
    """Decide over the whole slide what stays (tasks whose candidates carry masks), before its shards are stitched."""
    task = cast(SelectingTask, get_task(work.task))
    return save_part(work.selection, task.select(WorkView(work)))


def stitch_shards(job: ShardJob) -> dict[str, Receipt]:
    """Decode what some shards own, from the stitched maps."""
    task, view = get_task(job.work.task), WorkView(job.work)
    receipts = {}
    for shard in job.shards:
        part = task.stitch_shard(view, shard)
        if part is not None:
            receipts[f"{shard[0]}.{shard[1]}"] = save_part(job.work.part(shard), part)
    return receipts


def create_labels(work: SlideWork) -> dict[str, Any]:
    """Lay out the empty label image of a slide."""
    task, frame = get_task(work.task), work.load_plan().frame
    if task.label_image is None:
        return {}
    colors = {i + 1: c.color for i, c in enumerate(work.spec.classes)} if task.label_image.reduce == "mode" else None
    create_label_image(
        work.tiles,
        task.label_image.name,
        frame=frame,
        dtype=task.label_image.dtype,
        chunk=work.spec.lattice.core,
        shard=work.spec.lattice.shard,
        colors=colors,
    )
    return {"label_image": task.label_image.name}


def paint_shards(job: ShardJob) -> dict[str, Receipt]:
    """Paint the label image of some shards: each has one writer, and gathers whatever touches it."""
    task, view = get_task(job.work.task), WorkView(job.work)
    assert task.label_image is not None
    array = open_label_image(job.work.tiles, task.label_image.name)
    first_id = view.first_id
    receipts = {}
    for shard in job.shards:
        receipt = array.write_shard(shard, task.paint(view, shard, first_id))
        receipts[f"{shard[0]}.{shard[1]}"] = {"sha256": receipt.sha256, "nbytes": receipt.nbytes}
    return receipts


def build_pyramids(work: SlideWork) -> dict[str, Any]:
    """Coarser levels of the image (mean) and of its label image (mode or nearest)."""
    task = get_task(work.task)
    build_pyramid(work.tiles, reduce="mean", chunk=TILE_CHUNK, shard=TILE_SHARD)
    if task.label_image is not None:
        lattice = work.spec.lattice
        folder = work.tiles / "labels" / task.label_image.name
        build_pyramid(folder, reduce=task.label_image.reduce, chunk=lattice.core, shard=lattice.shard)
    return {}


def shards_of(keys: Sequence[Sequence[int]]) -> list[Cell]:
    """Shard indices as JSON holds them, as cells."""
    return [(int(r), int(c)) for r, c in keys]
