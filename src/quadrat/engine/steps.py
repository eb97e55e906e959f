"""The work units up to the stitched parts: what runs on a worker. Each takes one small payload and
returns a small receipt.

Every unit writes files that no other unit writes, and may be run twice without harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import torch

from quadrat.annotations.regions import load_regions, restrict
from quadrat.core.errors import SlideError
from quadrat.core.files import remove
from quadrat.core.geometry import Box, check_mpp
from quadrat.core.lattice import Cell
from quadrat.core.objects import Frame
from quadrat.core.predictions import Prediction
from quadrat.engine.view import WorkView, save_part
from quadrat.engine.work import SlidePlan, SlideWork, unchanged
from quadrat.models.inference import pick_device, predict_cells
from quadrat.models.package import Package, load_package
from quadrat.models.task import SelectingTask
from quadrat.slides.protocol import Slide
from quadrat.slides.source import PixelSource, SlideSource, open_source
from quadrat.slides.tissue.mask import TissueMap, find_tissue, tissue_cells, whole_slide
from quadrat.store.predictions import PredictionMissing, PredictionStore, Receipt
from quadrat.store.seal import seal
from quadrat.store.tiles import ShardReceipt, TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles
from quadrat.tasks import build_network, get_task


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A unit that concerns some shards of one slide. ``stored``: its pixels come from the tile
    store, not the slide."""

    work: SlideWork
    shards: tuple[Cell, ...]
    stored: bool = False


@dataclass(frozen=True, slots=True)
class PredictJob(ShardJob):
    """Inference of some shards of one slide with the package in ``package``. ``lost``: what of the
    tile store is damage."""

    lost: tuple[Box, ...] = ()
    package: str = ""
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class SealJob:
    """A slide whose tile store is complete, with the receipts of its shards."""

    work: SlideWork
    receipts: Mapping[str, Receipt]


def open_work_source(work: SlideWork) -> SlideSource:
    """The slide itself at the model's mpp, by its one read plan."""
    return open_source(
        work.ref.path,
        mpp=work.spec.mpp,
        slide_mpp=work.ref.mpp if work.ref.mpp is not None else work.slide.mpp,
        allow_upsampling=work.slide.allow_upsampling,
        damaged=_damaged(work),
    )


def _damaged(work: SlideWork) -> Literal["fail", "mark"]:
    return "mark" if work.slide.damaged == "mark" else "fail"


def windows_of(work: SlideWork, cells: Sequence[Cell]) -> list[Box]:
    """What is read of the slide for these cores: their windows, and the margin that
    training wants.
    """
    return [work.spec.lattice.window_box(cell).pad(work.margin) for cell in cells]


def plan_slide(work: SlideWork) -> dict[str, Any]:
    """Open the slide, find its tissue, and choose the cores; returns their shards.

    Raises:
        SlideError: unreadable, no usable mpp, or no tissue.
    """
    with unchanged(work), open_work_source(work) as source:
        slide, frame = source.slide, source.frame
        slide_mpp = check_mpp(slide.mpp, slide=work.ref.path)
        tissue = analysed_part(work, slide, slide_mpp=slide_mpp, frame=frame)
        cells = tissue_cells(
            tissue, lattice=work.spec.lattice, frame=frame, min_fraction=work.slide.min_tissue
        )
        if not cells:
            raise SlideError(
                f"{work.ref.path}: nothing to analyse ({tissue.account()}); "
                "look at it with 'quadrat inspect --pictures', or analyse everything with --set "
                "slide.tissue=all"
            )
        overridden = work.ref.mpp is not None or work.slide.mpp is not None
        plan = SlidePlan(
            name=work.ref.name,
            frame=frame,
            cells=tuple(cells),
            tissue_mm2=tissue.area_mm2,
            tissue_frame=tissue.frame,
            reader=slide.info.reader,
            format=slide.info.format,
            slide_mpp=slide_mpp,
            mpp_source="override" if overridden else "file",
            excluded=tuple((part.reason, part.mm2) for part in tissue.excluded),
        )
    work.save_plan(plan, tissue)
    return {"shards": _shards(work, plan)}


def analysed_part(work: SlideWork, slide: Slide, *, slide_mpp: float, frame: Frame) -> TissueMap:
    """The tissue as the run's settings find it, inside what the user's regions allow."""
    how = work.slide
    if how.tissue == "auto":
        tissue = find_tissue(
            slide,
            slide_mpp=slide_mpp,
            min_mm2=how.tissue_min_mm2,
            margin_um=how.tissue_margin_um,
            threshold=how.tissue_threshold,
            damaged=_damaged(work),
        )
    else:
        tissue = whole_slide(frame)
    if not work.ref.regions:
        return tissue
    return restrict(
        tissue, load_regions(Path(work.ref.regions), include=how.include, exclude=how.exclude)
    )


def _shards(work: SlideWork, plan: SlidePlan) -> list[list[int]]:
    return [list(shard) for shard in work.spec.lattice.by_shard(plan.cells)]


def create_tiles(work: SlideWork) -> dict[str, Any]:
    """Lay out an empty tile store (dropping one that was begun); returns its shards.

    Raises:
        StoreError: the disk has too little room.
    """
    with unchanged(work), open_work_source(work) as source:
        tiles = movable_tiles(source)
        stored = plan_tiles(
            windows_of(work, work.load_plan().cells), frame=source.frame, tiles=tiles
        )
    remove(work.tiles)
    TileStore.create(work.tiles, frame=source.frame, slide=work.ref.name, plan=stored)
    return {
        "tile_shards": [list(s) for s in stored.shards],
        "moved": tiles is not None,
        "nbytes": stored.nbytes,
    }


def tile_shards(job: ShardJob) -> dict[str, Receipt]:
    """Read the tissue of some shards from the slide into the tile store."""
    store = TileStore.open(job.work.tiles)
    receipts = {}
    with unchanged(job.work), open_work_source(job.work) as source:
        for shard in job.shards:
            receipts[item_of(shard)] = noted(fill_shard(source, store, shard))
    return receipts


def seal_tiles(job: SealJob) -> dict[str, Any]:
    """Close a complete tile store: from now on it vouches for itself, without the journal."""
    cells = [(int(row), int(col)) for row, col in (item.split(".") for item in job.receipts)]
    written = zip(cells, job.receipts.values(), strict=True)
    seal(job.work.tiles, [ShardReceipt(cell, r["nbytes"], r["sha256"]) for cell, r in written])
    return {"shards": len(job.receipts)}


def noted(receipt: ShardReceipt) -> Receipt:
    """A shard's receipt as the journal holds it."""
    return {"sha256": receipt.sha256, "nbytes": receipt.nbytes} | lost_note(receipt.lost)


def lost_note(boxes: Sequence[Box]) -> Receipt:
    """What a receipt says of damaged tiles: their boxes in grid px; nothing if there are none."""
    return {"lost": [[b.row0, b.col0, b.row1, b.col1] for b in boxes]} if boxes else {}


@lru_cache(maxsize=2)
def _package(folder: str, weights_sha256: str) -> Package:
    """A package, loaded once a worker process."""
    return load_package(Path(folder), build_network)


def create_predictions(work: SlideWork) -> dict[str, Any]:
    """Lay out an empty prediction store (dropping an outdated one)."""
    plan = work.load_plan()
    task = get_task(work.task)
    remove(work.predictions)
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
    package, device = _package(job.package, card_sha), pick_device(job.device)
    if job.stored:
        receipts = infer_shards(
            job.work, package.model, job.shards, TileStore.open(job.work.tiles), device=device
        )
        return {
            shard: receipt | lost_note(job.lost) for shard, receipt in receipts.items()
        }  # they may outlive the store
    with unchanged(job.work), open_work_source(job.work) as source:
        return infer_shards(job.work, package.model, job.shards, source, device=device)


def infer_shards(
    work: SlideWork,
    model: torch.nn.Module,
    shards: Sequence[Cell],
    source: PixelSource,
    *,
    device: torch.device,
) -> dict[str, Receipt]:
    """Infer all analysed cores of some shards and store the quantised predictions; a receipt a
    shard."""
    task, predictions = get_task(work.task), PredictionStore(work.predictions)
    groups = work.spec.lattice.by_shard(work.load_plan().cells)
    receipts = {}
    for shard in shards:
        found: dict[Cell, Prediction] = dict(
            predict_cells(model, task, work.spec, source, groups[shard], device=device)
        )
        damage = source.damage if isinstance(source, SlideSource) else []
        receipts[item_of(shard)] = predictions.write(shard, found) | lost_note(damage)
    return receipts


def select_slide(work: SlideWork) -> dict[str, Any]:
    """Decide over the whole slide what stays (tasks whose candidates carry masks), before its
    shards are stitched."""
    task = cast(SelectingTask, get_task(work.task))
    return save_part(work.selection, task.select(WorkView(work)))


def stitch_shards(job: ShardJob) -> dict[str, Receipt]:
    """Decode what some shards own, from the stitched maps."""
    task, view = get_task(job.work.task), WorkView(job.work)
    receipts = {}
    for shard in job.shards:
        part = task.stitch_shard(view, shard)
        if part is not None:
            receipts[item_of(shard)] = save_part(job.work.part(shard), part)
    return receipts


def predict_or_stitch(job: ShardJob) -> dict[str, Receipt]:
    """Inference, or what can be stitched beside it; a shard whose objects reach what is not
    predicted yet gets no receipt."""
    if isinstance(job, PredictJob):
        return predict_shards(job)
    receipts: dict[str, Receipt] = {}
    for shard in job.shards:
        with suppress(PredictionMissing):
            receipts |= stitch_shards(replace(job, shards=(shard,)))
    return receipts


def item_of(shard: Cell) -> str:
    """A shard as journals and receipts name it."""
    return f"{shard[0]}.{shard[1]}"


def shards_of(keys: Sequence[Sequence[int]]) -> list[Cell]:
    """Shard indices as JSON holds them, as cells."""
    return [(int(r), int(c)) for r, c in keys]
