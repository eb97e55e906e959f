"""The steps that make the OME-Zarr of a result: an image (whole, or an overview), the label image,
their pyramids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quadrat.core.clock import spent_on
from quadrat.core.files import remove
from quadrat.core.geometry import plan_read
from quadrat.core.objects import Frame
from quadrat.engine.journal import Done, StoreLaid
from quadrat.engine.opened import opened
from quadrat.engine.state import ShardStep, Step
from quadrat.engine.steps import (
    ShardJob,
    TileJob,
    planned,
    some_shards,
    some_tiles,
    the_slide,
    windows_of,
)
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.slides.source import SlideSource
from quadrat.store.ome_zarr import (
    build_pyramid,
    create_image_group,
    create_label_image,
    open_label_image,
)
from quadrat.store.seal import seal
from quadrat.store.shard import ShardReceipt
from quadrat.store.tiles import CHUNK_PX, SHARD_PX, TileStore, is_tile_store
from quadrat.store.tiling import fill_shard, plan_tiles
from quadrat.tasks import get_task

OVERVIEW_PX = 1000
Rgb = npt.NDArray[np.uint8]


def create_image(work: SlideWork) -> StoreLaid:
    """Lay out the empty image of the analysed part at the grid's mpp.

    Raises:
        WriteError: the disk has too little room.
    """
    plan = work.load_plan()
    remove(work.image)
    tiles = plan_tiles(windows_of(work, plan.cells), frame=plan.frame)
    TileStore.create(work.image, frame=plan.frame, slide=work.ref.name, plan=tiles)
    return StoreLaid(tiles.shards, tiles.nbytes)


def image_shards(job: TileJob) -> list[ShardReceipt]:
    """Copy some shards of the image from the slide (a store of moved tiles holds other pixels
    around the tissue)."""
    image = TileStore.open(job.work.image)
    with opened(job.work, reading=True) as at_hand, spent_on("read"):
        return [fill_shard(at_hand.source, image, shard) for shard in job.shards]


def create_labels(work: SlideWork) -> Done:
    """Lay out the empty label image of a slide, under an image of the overview if there is none at
    full resolution."""
    label, frame = get_task(work.task).label_image, work.load_plan().frame
    assert label is not None
    lattice = work.spec.lattice
    if not is_tile_store(work.image):
        remove(work.image)  # an overview that was begun
        write_overview(work, frame)
    create_label_image(
        work.image,
        label.name,
        frame=frame,
        dtype=label.dtype,
        chunk=lattice.core,
        shard=lattice.shard,
        colors={i + 1: c.color for i, c in enumerate(work.spec.classes)}
        if label.reduce == "mode"
        else None,
    )
    return Done()


def write_overview(work: SlideWork, frame: Frame) -> None:
    """The slide at low power as the image of the result; its corner is that of the grid."""
    rgb, mpp = read_overview(work, frame)
    coarse = replace(
        frame,
        height=rgb.shape[0],
        width=rgb.shape[1],
        mpp=mpp,
        scale_row=frame.scale_row * mpp / frame.mpp,
        scale_col=frame.scale_col * mpp / frame.mpp,
    )
    level = create_image_group(
        work.image,
        frame=coarse,
        dtype=np.uint8,
        channels=3,
        chunk=CHUNK_PX,
        shard=SHARD_PX,
        name=work.ref.name,
        finest_mpp=frame.mpp,
    )
    level.write_shard((0, 0), np.ascontiguousarray(np.moveaxis(rgb, 2, 0)))


def read_overview(work: SlideWork, frame: Frame) -> tuple[Rgb, float]:
    """The whole slide at about OVERVIEW_PX a side, and its mpp."""
    with opened(work, reading=True) as at_hand, spent_on("read"):
        source = at_hand.source
        mpp = frame.mpp * max(1.0, max(frame.height, frame.width) / OVERVIEW_PX)
        plan = plan_read(
            source.slide.levels,
            slide_mpp=source.frame.mpp_l0,
            mpp=mpp,
            slide=work.ref.path,
            allow_upsampling=True,
        )
        return SlideSource(source.slide, plan, damaged=source.damaged).read(plan.box), plan.mpp


def paint_shards(job: ShardJob) -> list[ShardReceipt]:
    """Paint the label image of some shards: each has one writer and gathers what touches it."""
    label, view = get_task(job.work.task).label_image, WorkView(job.work)
    assert label is not None
    array = open_label_image(job.work.image, label.name)
    first_id = view.first_id
    return [array.write_shard(s, label.paint(view, s, first_id)) for s in job.shards]


def build_pyramids(work: SlideWork) -> Done:
    """Coarser levels of the full image (mean) and of the label image (mode or nearest); then both
    are sealed."""
    label, lattice = get_task(work.task).label_image, work.spec.lattice
    levels = None
    if label is not None:
        folder = work.image / "labels" / label.name
        levels = build_pyramid(folder, reduce=label.reduce, chunk=lattice.core, shard=lattice.shard)
    if work.image.exists():  # the format wants as many levels of an image as of its labels
        build_pyramid(work.image, reduce="mean", chunk=CHUNK_PX, shard=SHARD_PX, levels=levels)
        seal(work.image)
    return Done()


IMAGE = Step("image", "result", create_image, the_slide)
COPY = ShardStep(
    "copy", "result", image_shards, some_tiles, lambda state: state.receipt(IMAGE).shards
)
LABELS = Step("labels", "result", create_labels, the_slide)
PAINT = ShardStep("paint", "result", paint_shards, some_shards, planned)
PYRAMID = Step("pyramid", "result", build_pyramids, the_slide)
