"""The steps up to the stitched parts: what runs on a worker, and under which names it is booked.

Each job takes one small payload and returns a small receipt. It writes files that no other job
writes, and may run twice without harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from quadrat.annotations.regions import load_regions, restrict
from quadrat.core.clock import spent_on
from quadrat.core.errors import SlideError
from quadrat.core.files import remove
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell, CoreIndex, ShardIndex
from quadrat.core.objects import Frame
from quadrat.core.predictions import Prediction
from quadrat.core.unit import PX
from quadrat.engine.journal import Done, PartReceipt, Planned, Sealed, Selected, StoreLaid
from quadrat.engine.opened import Opened, damage_mode, opened
from quadrat.engine.state import AnyStep, RunSettings, ShardStep, SlideState, Step
from quadrat.engine.view import WorkView, save_part
from quadrat.engine.work import SlidePlan, SlideWork
from quadrat.models.card import CARD
from quadrat.models.device import pick_device
from quadrat.models.inference import predict_groups
from quadrat.models.package import Package, load_package
from quadrat.slides.protocol import Slide
from quadrat.slides.source import PixelSource, SlideSource, believable_mpp
from quadrat.slides.tissue.mask import TissueMap, find_tissue, tissue_cells, whole_slide
from quadrat.store.predictions import Layout, PredictionMissing
from quadrat.store.seal import seal
from quadrat.store.shard import ShardReceipt
from quadrat.store.tiles import TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles
from quadrat.tasks import build_network, get_task


@dataclass(frozen=True, slots=True)
class TileJob:
    """Some shards of a store of pixels, in its own grid, to be filled."""

    work: SlideWork
    """The slide that is read, and the folder that holds the store."""
    shards: tuple[Cell, ...]
    """(row, column) of each in the store's own grid, not in the lattice."""


@dataclass(frozen=True, slots=True)
class SealJob:
    """A tile store that is complete."""

    work: SlideWork
    """The slide; its store is ``work.tiles``."""
    receipts: tuple[ShardReceipt, ...]
    """Of its shards."""


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Inference of some shards of one slide."""

    work: SlideWork
    """The slide and its model; predictions go to ``work.predictions``."""
    shards: tuple[ShardIndex, ...]
    """(row, column) of each in the lattice; each has analysed cores."""
    package: str
    """Folder of the model package."""
    device: str = "cpu"
    """``run.device``; "auto" is the worker's own."""
    threads: int = 1
    """Of torch."""
    batch: int | None = None
    """``run.batch``."""
    stored: bool = False
    """Whether pixels come from the tile store instead of the slide."""
    lost: tuple[Box, ...] = ()
    """What of the tile store is damage, grid px."""


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Some shards of one slide, to be stitched or painted."""

    work: SlideWork
    """The slide; its predictions or its parts are there already."""
    shards: tuple[ShardIndex, ...]
    """(row, column) of each in the lattice; each has analysed cores."""


def windows_of(work: SlideWork, cells: Sequence[CoreIndex]) -> list[Box]:
    """What is read of the slide for these cores: their windows, and the margin that training
    needs."""
    return [work.spec.lattice.window_box(cell).pad(work.margin) for cell in cells]


def plan_slide(work: SlideWork) -> Planned:
    """Open the slide, find its tissue, and choose the cores.

    Raises:
        SlideError: unreadable, no usable mpp, or no tissue.
    """
    with opened(work, reading=True) as at_hand:
        source = at_hand.source
        slide, frame = source.slide, source.frame
        slide_mpp = believable_mpp(slide)
        tissue, notes = analysed_part(work, slide, slide_mpp=slide_mpp, frame=frame)
        cells = tissue_cells(
            tissue, lattice=work.spec.lattice, frame=frame, min_fraction=work.slide.min_tissue
        )
        if not cells:
            raise SlideError(
                f"{work.ref.path}: nothing to analyse ({tissue.account()}); "
                "look at it with 'quadrat inspect --pictures', or analyse everything with --set "
                "slide.tissue=all"
            )
        plan = SlidePlan(
            name=work.ref.name,
            frame=frame,
            cells=tuple(cells),
            tissue_mm2=tissue.area_mm2,
            tissue_frame=tissue.frame,
            reader=slide.info.reader,
            format=slide.info.format,
            slide_mpp=None if frame.unit == PX else slide_mpp,
            mpp_source=_mpp_source(work, slide),
            excluded=tuple((part.reason, part.mm2) for part in tissue.excluded),
            filled_mm2=tissue.filled_mm2,
            task=get_task(work.task).name,
            notes=notes,
        )
    work.save_plan(plan, tissue)
    return Planned(tuple(work.spec.lattice.by_shard(cells)), len(cells))


def _mpp_source(work: SlideWork, slide: Slide) -> str:
    """Where the scale of a slide comes from, for its summary."""
    if work.spec.unit == PX:
        return "not used: model.mpp is px"
    if work.ref.mpp is not None or work.slide.mpp is not None:
        return "override"
    return slide.info.mpp_source or "file"


def analysed_part(
    work: SlideWork, slide: Slide, *, slide_mpp: float, frame: Frame
) -> tuple[TissueMap, tuple[str, ...]]:
    """The tissue as the run's settings find it, inside what the user's regions allow; and notes on
    these."""
    how = work.slide
    if how.tissue == "auto":
        tissue = find_tissue(
            slide,
            slide_mpp=slide_mpp,
            min_mm2=how.tissue_min_mm2,
            fill_um=how.tissue_fill_um,
            hole_mm2=how.tissue_hole_mm2,
            margin_um=how.tissue_margin_um,
            threshold=how.tissue_threshold,
            damaged=damage_mode(work),
        )
    else:
        tissue = whole_slide(frame)
    if not work.ref.regions:
        return tissue, ()
    regions = load_regions(
        Path(work.ref.regions),
        include=how.include,
        exclude=how.exclude,
        picture=work.ref.path,
        origin=how.regions_origin,
    )
    return restrict(tissue, regions), regions.notes


def create_tiles(work: SlideWork) -> StoreLaid:
    """Lay out an empty tile store, in place of one that was begun.

    Raises:
        WriteError: the disk has too little room.
    """
    with opened(work, reading=True) as at_hand:
        frame = at_hand.source.frame
        tiles = plan_tiles(
            windows_of(work, at_hand.plan.cells), frame=frame, tiles=movable_tiles(at_hand.source)
        )
    remove(work.tiles)
    TileStore.create(work.tiles, frame=frame, slide=work.ref.name, plan=tiles)
    return StoreLaid(tiles.shards, tiles.nbytes)


def tile_shards(job: TileJob) -> list[ShardReceipt]:
    """Read the tissue of some shards from the slide into the tile store."""
    store = TileStore.open(job.work.tiles)
    with opened(job.work, reading=True) as at_hand, spent_on("read"):
        return [fill_shard(at_hand.source, store, shard) for shard in job.shards]


def seal_tiles(job: SealJob) -> Sealed:
    """Close a complete tile store: from now on it vouches for itself, without the journal."""
    seal(job.work.tiles, job.receipts)
    return Sealed(len(job.receipts))


def create_predictions(work: SlideWork) -> Done:
    """Lay out an empty prediction store, in place of an outdated one."""
    plan, lattice = work.load_plan(), work.spec.lattice
    remove(work.predictions)
    layout = Layout(plan.frame, lattice, tuple(lattice.by_shard(plan.cells)))
    get_task(work.task).storage(work.spec).create(work.predictions, layout)
    return Done()


_packages: dict[tuple[str, str], Package] = {}
"""The last package of this process, by its folder and the text of its card, which names the
weights."""


def keep_package(folder: Path, package: Package) -> None:
    """Have the jobs of this process use a package that was loaded and checked for them."""
    _packages.clear()
    _packages[str(folder.absolute()), (folder / CARD).read_text()] = package


def _package(folder: str, card: str) -> Package:
    """A package, loaded once per worker process."""
    if (folder, card) not in _packages:
        _packages.clear()
        _packages[folder, card] = load_package(Path(folder), build_network)
    return _packages[folder, card]


def predict_shards(job: PredictJob) -> list[ShardReceipt]:
    """Infer all analysed cores of some shards with the job's package."""
    torch.set_num_threads(job.threads)
    card = (Path(job.package) / CARD).read_text()
    model, device = _package(job.package, card).model, pick_device(job.device)
    infer = partial(
        infer_shards,
        job.work,
        model,
        job.shards,
        device=device,
        batch=None if device.type == "cpu" else job.batch,
        readers=job.threads if device.type == "cuda" else 1,
    )
    if job.stored:
        tiles = TileStore.open(job.work.tiles)
        with opened(job.work) as at_hand:
            receipts = infer(tiles, at_hand)
        # the predictions may outlive the tile store
        return [replace(receipt, lost=job.lost) for receipt in receipts]
    with opened(job.work, reading=True) as at_hand:
        return infer(at_hand.source, at_hand)


def infer_shards(
    work: SlideWork,
    model: torch.nn.Module,
    shards: Sequence[ShardIndex],
    source: PixelSource,
    at_hand: Opened,
    *,
    device: torch.device,
    batch: int | None = None,
    readers: int = 1,
) -> list[ShardReceipt]:
    """Infer all analysed cores of some shards and store the quantised predictions: one shard is
    written while the next one is inferred."""
    task, store = get_task(work.task), at_hand.predictions
    groups = [at_hand.cells[shard] for shard in shards]
    predicted = predict_groups(
        model, task, work.spec, source, groups, device=device, batch=batch, readers=readers
    )

    def write(shard: ShardIndex, found: Mapping[CoreIndex, Prediction]) -> ShardReceipt:
        with spent_on("write"):
            return store.write(shard, found)

    with ThreadPoolExecutor(1) as writer:
        written = [
            writer.submit(write, shard, found)
            for shard, found in zip(shards, predicted, strict=True)
        ]
        receipts = [future.result() for future in written]
    lost = tuple(source.damage) if isinstance(source, SlideSource) else ()
    return [replace(receipt, lost=lost) for receipt in receipts]


def select_slide(work: SlideWork) -> Selected:
    """Decide over the whole slide what stays, before its shards are stitched."""
    parts = get_task(work.task).parts
    assert parts is not None
    assert parts.select is not None
    selection = parts.select(WorkView(work))
    save_part(work.selection, selection)
    return Selected(len(selection["class_id"]))


def stitch_shards(job: ShardJob) -> list[PartReceipt]:
    """Stitch what some shards own.

    Raises:
        PredictionMissing: an object of a shard reaches predictions that are not there yet.
    """
    return list(_stitched(job))


def stitch_early(job: ShardJob) -> list[PartReceipt]:
    """Stitch while others are still being predicted: a shard with objects that reach what is not
    predicted yet gets no receipt."""
    return list(_stitched(job, missing=suppress(PredictionMissing)))


def _stitched(
    job: ShardJob, *, missing: AbstractContextManager[object] | None = None
) -> Iterator[PartReceipt]:
    """``missing``: what happens to a shard that is not stitched because predictions are missing;
    None: it is an error."""
    parts = get_task(job.work.task).parts
    assert parts is not None
    with opened(job.work) as at_hand:
        view = WorkView(job.work, at_hand.predictions)
        for shard in job.shards:
            with missing or nullcontext():
                with spent_on("stitch"):
                    part = parts.stitch(view, shard)
                with spent_on("write"):
                    save_part(job.work.part(shard), part)
                yield PartReceipt(shard, len(part["class_id"]))


def the_slide(state: SlideState, run: RunSettings) -> SlideWork:
    """The payload of a step that needs nothing but the slide."""
    return state.work


def some_shards(state: SlideState, run: RunSettings, shards: tuple[ShardIndex, ...]) -> ShardJob:
    """The payload of a step that works on parts."""
    return ShardJob(state.work, shards)


def some_tiles(state: SlideState, run: RunSettings, shards: tuple[Cell, ...]) -> TileJob:
    """The payload of a step that fills a store of pixels."""
    return TileJob(state.work, shards)


def _predict_job(state: SlideState, run: RunSettings, shards: tuple[ShardIndex, ...]) -> PredictJob:
    section, stored = run.pipeline.run, state.done(SEAL)
    return PredictJob(
        state.work,
        shards,
        run.package,
        device=section.device,
        threads=section.threads,
        batch=section.batch,
        stored=stored,
        lost=state.lost if stored else (),
    )


def _seal_job(state: SlideState, run: RunSettings) -> SealJob:
    return SealJob(state.work, tuple(state.receipts(TILE)))


def planned(state: SlideState) -> tuple[ShardIndex, ...]:
    """Shards with analysed cores."""
    return state.receipt(PLAN).shards


def work_bytes(state: SlideState, steps: Sequence[AnyStep]) -> int:
    """About what the work on a planned slide takes on disk before it is compressed, in bytes."""
    work, lattice = state.work, state.work.spec.lattice
    a_core = get_task(work.task).storage(work.spec).core_bytes(lattice) if PREDICT in steps else 0
    if STORE in steps and not state.done(SEAL):
        a_core += 3 * lattice.core**2
    return state.receipt(PLAN).cores * a_core


PLAN = Step("plan", "tile", plan_slide, the_slide)
STORE = Step("store", "tile", create_tiles, the_slide)
TILE = ShardStep("tile", "tile", tile_shards, some_tiles, lambda state: state.receipt(STORE).shards)
SEAL = Step("seal", "tile", seal_tiles, _seal_job)
LAYOUT = Step("layout", "predict", create_predictions, the_slide)
PREDICT = ShardStep("predict", "predict", predict_shards, _predict_job, planned, needs="gpu")
SELECT = Step("select", "result", select_slide, the_slide)
STITCH = ShardStep("stitch", "result", stitch_shards, some_shards, planned, early=stitch_early)
