"""What each job up to the stitched parts does to a slide's folder, and what its receipt says."""

from dataclasses import replace

import numpy as np
import pytest

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.engine import steps
from quadrat.engine.opened import open_work_source
from quadrat.engine.steps import (
    LAYOUT,
    PLAN,
    SEAL,
    STORE,
    TILE,
    PredictJob,
    ShardJob,
    TileJob,
    create_predictions,
    create_tiles,
    plan_slide,
    predict_shards,
    seal_tiles,
    select_slide,
    stitch_early,
    stitch_shards,
    tile_shards,
)
from quadrat.engine.view import WorkView
from quadrat.store.predictions import PredictionMissing
from quadrat.store.seal import verify
from quadrat.store.tiles import TileStore


@pytest.fixture
def planned(tiny):
    """(work, its shards): a slide with a plan and an empty prediction store."""
    work = tiny.work()
    shards = plan_slide(work).shards
    create_predictions(work)
    return work, shards


def predict_job(tiny, work, shards, **more):
    return PredictJob(work, tuple(shards), str(tiny.folder / "package"), **more)


def test_a_plan_names_the_shards_with_analysed_cores_and_where_the_mpp_comes_from(tiny):
    work = tiny.work()
    receipt = plan_slide(work)
    plan = work.load_plan()
    assert receipt.shards == tuple(work.spec.lattice.by_shard(plan.cells))
    assert len(receipt.shards) == 16
    assert (plan.name, plan.mpp_source, plan.slide_mpp) == ("a", "override", 0.5)
    assert plan.tissue_mm2 == pytest.approx((64 * 0.5e-3) ** 2)
    assert plan_slide(work) == receipt, "the same again"


def test_a_slide_without_tissue_is_refused_with_the_way_out(tiny):
    work = tiny.work("a", tiny.pipeline(slide={"min_tissue": 1.0}))  # more than all of a core
    with pytest.raises(SlideError, match=r"a\.png: nothing to analyse .*slide\.tissue=all"):
        plan_slide(work)
    assert not work.has_plan


def test_a_slide_that_is_replaced_while_it_is_read_is_refused(tiny):
    work = replace(tiny.work(), identity="of another file")
    with pytest.raises(SlideError, match="replaced or changed while the run was reading it"):
        plan_slide(work)


def test_a_tile_store_holds_the_slides_pixels_and_is_sealed_by_its_receipts(tiny):
    state = tiny.state()
    work = state.work
    state.journal.add(state.key(PLAN), plan_slide(work))
    laid = create_tiles(work)
    state.journal.add(state.key(STORE), laid)
    assert laid.nbytes > 0
    assert TILE.shards(state) == laid.shards
    for receipt in tile_shards(TileJob(work, laid.shards)):
        state.journal.add(state.key(TILE, receipt.cell), receipt)
    job = SEAL.job(state, None)
    assert [receipt.cell for receipt in job.receipts] == list(laid.shards)
    assert seal_tiles(job).shards == len(laid.shards)
    assert verify(work.tiles) == []
    whole = Box(0, 0, 64, 64)
    with open_work_source(work) as source:
        assert np.array_equal(TileStore.open(work.tiles).read(whole), source.read(whole))


def test_predictions_from_the_slide_and_from_its_tile_store_are_the_same(tiny, planned):
    work, shards = planned
    streamed = predict_shards(predict_job(tiny, work, shards))
    assert [receipt.cell for receipt in streamed] == list(shards)
    laid = create_tiles(work)
    tile_shards(TileJob(work, laid.shards))
    lost = (Box(0, 0, 8, 8),)
    stored = predict_shards(predict_job(tiny, work, shards, stored=True, lost=lost))
    assert [receipt.lost for receipt in stored] == [lost] * 16, "they may outlive the store"
    assert [replace(receipt, lost=()) for receipt in stored] == streamed


def test_a_prediction_job_is_told_of_a_sealed_tile_store_and_of_its_damage(tiny):
    state = tiny.advanced("a", until="tile")[0]
    batch = tiny.batch()
    job = steps.PREDICT.job(state, batch.run, ((0, 0),))
    assert job.stored
    receipt = next(r for k, r in state.journal.receipts.items() if k.step == "tile")
    damaged = replace(receipt, lost=(Box(1, 2, 3, 4),))
    state.journal.add(state.key(TILE, receipt.cell), damaged)
    assert steps.PREDICT.job(state, batch.run, ((0, 0),)).lost == (Box(1, 2, 3, 4),)


def test_stitching_waits_for_predictions_that_an_object_reaches_and_gives_no_receipt_early(
    tiny, planned
):
    work, shards = planned
    predict_shards(predict_job(tiny, work, shards[:1]))
    with pytest.raises(PredictionMissing, match="run again to infer it"):
        stitch_shards(ShardJob(work, shards[:1]))
    assert stitch_early(ShardJob(work, shards[:2])) == []
    assert not work.part(shards[0]).exists()
    assert predict_shards(predict_job(tiny, work, shards[1:]))[0].cell == shards[1]
    receipts = stitch_early(ShardJob(work, shards))
    assert [receipt.cell for receipt in receipts] == list(shards)
    counts = [len(WorkView(work).part(shard)["class_id"]) for shard in shards]
    assert [receipt.objects for receipt in receipts] == counts
    assert sum(counts) > 3


def test_stitching_twice_writes_the_same_part(tiny, planned):
    work, shards = planned
    predict_shards(predict_job(tiny, work, shards))
    first = stitch_shards(ShardJob(work, shards))
    bytes_of = [work.part(shard).read_bytes() for shard in shards]
    assert stitch_shards(ShardJob(work, tuple(reversed(shards)))) == first[::-1]
    assert [work.part(shard).read_bytes() for shard in shards] == bytes_of


def test_laying_out_predictions_again_drops_those_that_were_there(tiny, planned):
    work, shards = planned
    predict_shards(predict_job(tiny, work, shards))
    assert WorkView(work).predictions.read(Box(0, 0, 64, 64)).any()
    assert LAYOUT.fn(work) == create_predictions(work)
    with pytest.raises(PredictionMissing):
        WorkView(work).predictions.read(Box(0, 0, 64, 64))


def test_a_selection_over_the_slide_counts_what_becomes_an_object(tiny, planned, monkeypatch):
    work, _ = planned
    from quadrat.models.task import Parts

    chosen = {"class_id": np.zeros(5, np.uint8)}
    task = steps.get_task("instance")
    monkeypatch.setattr(type(task), "parts", Parts(task.parts.stitch, lambda view: chosen))
    assert select_slide(work).objects == 5
    assert WorkView(work).selection()["class_id"].tolist() == [0] * 5
