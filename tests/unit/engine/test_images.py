"""The OME-Zarr of a result: image or overview, label image, pyramids."""

import shutil

import numpy as np
import pytest
import zarr

from quadrat.engine import images
from quadrat.engine.images import (
    build_pyramids,
    create_image,
    create_labels,
    image_shards,
    paint_shards,
    read_overview,
)
from quadrat.engine.opened import open_work_source
from quadrat.engine.steps import ShardJob, TileJob
from quadrat.engine.view import WorkView
from quadrat.store.seal import verify
from quadrat.tasks import get_task


@pytest.fixture
def merged(tiny):
    """The folder of a slide that is merged, without its images."""
    (state,) = tiny.advanced("a")
    shutil.rmtree(state.work.image)
    return state.work


def level(work, path):
    return np.asarray(zarr.open_group(work.image, mode="r")[path])


def test_the_image_holds_the_slides_very_pixels(merged):
    laid = create_image(merged)
    receipts = image_shards(TileJob(merged, laid.shards))
    assert [receipt.cell for receipt in receipts] == list(laid.shards)
    with open_work_source(merged) as source:
        wanted = source.read(source.frame.box)
    assert np.array_equal(np.moveaxis(level(merged, "0"), 0, 2), wanted)


def test_without_a_full_image_the_labels_lie_over_an_overview(merged, monkeypatch):
    monkeypatch.setattr(images, "OVERVIEW_PX", 32)
    create_labels(merged)
    rgb, mpp = read_overview(merged, merged.load_plan().frame)
    assert rgb.shape == (32, 32, 3)
    assert mpp == 1.0
    assert np.array_equal(np.moveaxis(level(merged, "0"), 0, 2), rgb)


def test_a_full_image_is_kept_when_the_labels_are_laid_out(merged):
    image_shards(TileJob(merged, create_image(merged).shards))
    before = level(merged, "0")
    create_labels(merged)
    assert np.array_equal(level(merged, "0"), before)


@pytest.mark.parametrize("order", [1, -1])
def test_each_shard_is_painted_with_what_the_task_says(merged, order):
    create_labels(merged)
    view, label = WorkView(merged), get_task("instance").label_image
    receipts = paint_shards(ShardJob(merged, tuple(view.shards[::order])))
    assert [receipt.cell for receipt in receipts] == list(view.shards[::order])
    painted = level(merged, "labels/objects/0").squeeze()
    for shard in view.shards:
        box = merged.spec.lattice.shard_box(shard)
        wanted = label.paint(view, shard, view.first_id)
        assert np.array_equal(painted[box.slices_in(view.frame.box)], wanted)
    assert painted.max() == sum(len(view.part(s)["class_id"]) for s in view.shards)


def test_the_pyramids_of_image_and_labels_have_as_many_levels_and_are_sealed(merged):
    image_shards(TileJob(merged, create_image(merged).shards))
    create_labels(merged)
    paint_shards(ShardJob(merged, tuple(WorkView(merged).shards)))
    assert verify(merged.image) != []
    build_pyramids(merged)
    assert verify(merged.image) == []
    group = zarr.open_group(merged.image, mode="r")
    of = [set(dict(g.arrays())) for g in (group, group["labels/objects"])]
    assert of[0] == of[1]


def test_a_task_without_a_label_image_needs_none(tiny_of):
    (state,) = tiny_of("detection", side=32).advanced("a")
    assert state.failure is None
    assert not state.work.image.exists()
