"""What of earlier work counts, what is never removed unasked, and how results get their place."""

import shutil

import pytest

from helpers.faults import Killed
from helpers.runs import contents
from quadrat.core.errors import ConfigError
from quadrat.engine import resume
from quadrat.engine.journal import Done, Journal, Key
from quadrat.engine.resume import (
    KEPT,
    check_kept,
    commit_result,
    finish_commit,
    is_predicted,
    keep_stores,
    open_journal,
    results_folder,
    valid_receipts,
)

BOTH = ("tiles", "predictions")


@pytest.fixture
def tiny(tiny_of):
    """Slides of four shards."""
    return tiny_of("instance", side=32)


@pytest.fixture
def predicted(tiny):
    """A slide with a tile store and predictions, both kept."""
    pipeline = tiny.pipeline(source="stored", keep=BOTH)
    (state,) = tiny.advanced("a", until="predict", pipeline=pipeline)
    state.journal.close()
    keep_stores(state.work, state.prints, BOTH)
    return state


@pytest.fixture
def finished(tiny):
    """A slide with everything but its commit."""
    pipeline = tiny.pipeline(source="stored", keep=BOTH)
    (state,) = tiny.advanced("a", pipeline=pipeline)
    state.journal.close()
    return state


def steps(journal):
    return {key.step for key in journal.receipts}


def opened(state, prints=None, **options):
    return open_journal(state.work, prints or state.prints, **options)


def test_nothing_is_dropped_that_this_run_would_do_the_same(predicted):
    before = contents(predicted.work.path)
    again = opened(predicted)
    assert again.receipts == Journal(predicted.work.journal).receipts
    assert steps(again) == {"plan", "store", "tile", "seal", "layout", "predict", KEPT}
    assert contents(predicted.work.path) == before


def test_another_model_keeps_the_tiles_and_drops_the_receipts_of_its_predecessor(tiny, predicted):
    other = tiny.prints(predicted.work, weights="1" * 64)
    assert steps(opened(predicted, other)) == {"plan", "store", "tile", "seal", KEPT}
    assert Journal(predicted.work.journal).receipts == opened(predicted, other).receipts


def test_other_settings_of_the_slide_begin_it_anew(tiny, predicted):
    pipeline = tiny.pipeline(slide={"min_tissue": 0.1})
    other = tiny.prints(tiny.work("a", pipeline), pipeline)
    assert opened(predicted, other).receipts == {}
    assert not predicted.work.path.exists()


def test_filling_tiles_leaves_another_models_predictions_and_their_receipts_alone(tiny, predicted):
    other = tiny.prints(predicted.work, weights="1" * 64)
    assert "predict" in steps(opened(predicted, other, until="tile"))
    assert is_predicted(predicted.work, predicted.prints)


@pytest.mark.parametrize("what", ["plan.json", "journal.jsonl"])
def test_without_a_plan_or_a_journal_nothing_counts(predicted, what):
    (predicted.work.path / what).unlink()
    assert opened(predicted).receipts == {}
    assert not predicted.work.path.exists()


def test_anew_means_that_nothing_counts(predicted):
    assert opened(predicted, anew=True).receipts == {}


def test_a_receipt_does_not_count_without_its_file_at_its_full_length(predicted):
    shards = [k.shard for k in predicted.journal.receipts if k.step == "predict"]
    store = opened_store(predicted.work)
    store.shard_path(shards[0]).unlink()
    cut = store.shard_path(shards[1])
    cut.write_bytes(cut.read_bytes()[:-1])
    assert not is_predicted(predicted.work, predicted.prints)
    left = {k.shard for k in opened(predicted).receipts if k.step == "predict"}
    assert left == set(shards[2:])


def opened_store(work):
    from quadrat.engine.view import WorkView

    return WorkView(work).predictions


def test_a_seal_does_not_count_where_a_tile_shard_is_gone(predicted):
    assert "seal" in steps(opened(predicted))
    shutil.rmtree(predicted.work.tiles / "0" / "c")
    assert {"seal", "tile"} & steps(opened(predicted)) == set()


def test_results_of_other_thresholds_are_not_delivered(tiny, finished):
    (finished.work.result / "objects.geojson").exists()
    pipeline = tiny.pipeline(outputs={"geojson": False})
    other = tiny.prints(finished.work, pipeline)
    found = opened(finished, other)
    assert "merge" not in steps(found)
    assert "predict" in steps(found)
    assert not finished.work.result.exists()


def test_a_part_that_is_gone_is_stitched_again(finished):
    shard = next(k.shard for k in finished.journal.receipts if k.step == "stitch")
    finished.work.part(shard).unlink()
    found = valid_receipts(finished.work, finished.prints, finished.journal.receipts)
    assert [k.shard for k in finished.journal.receipts if k not in found] == [shard]


# -- what was kept on request


def test_kept_stores_are_not_replaced_unasked(tiny, predicted):
    other_model = tiny.prints(predicted.work, weights="1" * 64)
    with pytest.raises(ConfigError, match=r"keeps predictions of another .* --overwrite"):
        check_kept(predicted.work, other_model, until="predict")
    pipeline = tiny.pipeline(slide={"min_tissue": 0.1})
    other_slide = tiny.prints(tiny.work("a", pipeline), pipeline)
    for until in ("tile", "predict", "results"):
        with pytest.raises(ConfigError, match=r"keeps tiles\.zarr and predictions of another"):
            check_kept(predicted.work, other_slide, until=until)
    check_kept(predicted.work, predicted.prints, until="results")
    check_kept(predicted.work, other_model, until="tile")


def test_what_was_not_kept_or_is_not_complete_may_be_replaced(tiny):
    (state,) = tiny.advanced("a", until="predict")
    state.journal.close()
    other = tiny.prints(state.work, weights="1" * 64)
    check_kept(state.work, other, until="predict")
    (begun,) = tiny.advanced("b", until="plan")
    begun.journal.close()
    keep_stores(begun.work, begun.prints, BOTH)
    assert KEPT not in steps(Journal(begun.work.journal))


def test_a_kept_store_that_somebody_removed_is_no_loss(tiny, predicted):
    shutil.rmtree(predicted.work.predictions)
    check_kept(predicted.work, tiny.prints(predicted.work, weights="1" * 64), until="predict")


def test_a_folder_of_another_version_is_begun_anew_but_not_unasked_where_it_holds_stores(
    predicted,
):
    work = predicted.work
    work.journal.write_text('{"key": "0123456789abcdef/plan", "receipt": {"shards": [[0, 0]]}}\n')
    with pytest.raises(ConfigError, match="of another version of quadrat"):
        check_kept(work, predicted.prints, until="predict")
    assert opened(predicted).receipts == {}
    assert not work.path.exists()
    work.path.mkdir()
    work.journal.write_text('{"key": "0123456789abcdef/plan", "receipt": {"shards": [[0, 0]]}}\n')
    check_kept(work, predicted.prints, until="predict")
    with opened(predicted) as journal:
        journal.add(Key("tile", "x", "y"), Done())
    assert not Journal(work.journal).foreign


# -- commit


def test_results_get_their_place_and_nothing_else_stays_unless_it_is_to_be_kept(tiny, finished):
    made = contents(finished.work.result)
    place = commit_result(finished.work, finished.prints, tiny.out, keep=())
    assert place == results_folder(tiny.out, "a")
    assert contents(place) == made
    assert not finished.work.path.exists()


@pytest.mark.parametrize("keep", [("tiles",), ("predictions",), BOTH])
def test_what_is_to_be_kept_stays_and_is_booked(tiny, finished, keep):
    work = finished.work
    commit_result(work, finished.prints, tiny.out, keep=keep)
    assert work.tiles.exists() == ("tiles" in keep)
    assert work.predictions.exists() == work.parts.exists() == ("predictions" in keep)
    levels = {key.level for key in Journal(work.journal).receipts if key.step == KEPT}
    assert levels == {{"tiles": "tile", "predictions": "predict"}[name] for name in keep}
    assert is_predicted(work, finished.prints) == ("predictions" in keep)


def test_what_an_earlier_command_kept_stays_after_a_run_that_keeps_nothing(tiny, finished):
    commit_result(finished.work, finished.prints, tiny.out, keep=("predictions",))
    (state,) = tiny.advanced("a", pipeline=tiny.pipeline(source="stored"))
    assert state.failure is None
    state.journal.close()
    assert state.work.tiles.exists()
    commit_result(state.work, state.prints, tiny.out, keep=())
    assert not state.work.tiles.exists()
    assert is_predicted(state.work, state.prints)
    with pytest.raises(ConfigError, match="keeps predictions"):
        check_kept(state.work, tiny.prints(state.work, weights="1" * 64), until="predict")


def test_a_commit_that_was_cut_off_when_the_results_had_their_place_is_gone_on_with(
    tiny, finished, monkeypatch
):
    work = finished.work
    with monkeypatch.context() as patch:
        patch.setattr(resume, "remove", stop)
        with pytest.raises(Killed):
            commit_result(work, finished.prints, tiny.out, keep=())
    assert work.path.exists()
    finish_commit(work, finished.prints, keep=())
    assert not work.path.exists()
    finish_commit(work, finished.prints, keep=())


def stop(path):
    raise Killed


def test_work_that_was_begun_after_the_results_is_not_taken_for_a_cut_off_commit(tiny, predicted):
    finish_commit(predicted.work, predicted.prints, keep=())
    assert is_predicted(predicted.work, predicted.prints)
