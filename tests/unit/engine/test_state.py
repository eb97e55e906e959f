"""Where one slide of a run stands."""

import pytest

from quadrat.core.geometry import Box
from quadrat.engine.journal import Key, PartReceipt, Planned
from quadrat.engine.steps import PLAN, PREDICT, STITCH, TILE
from quadrat.store.shard import ShardReceipt


@pytest.fixture
def state(tiny):
    return tiny.state("a")


def test_a_step_is_done_when_it_has_its_receipt_under_the_fingerprint_of_its_level(state):
    assert not state.done(PLAN)
    state.journal.add(Key("tile", "another one", "plan"), Planned(()))
    assert not state.done(PLAN)
    state.journal.add(state.key(PLAN), Planned(((1, 2),)))
    assert state.done(PLAN)
    assert state.receipt(PLAN).shards == ((1, 2),)
    assert state.key(PREDICT, (1, 2)) == Key(
        "predict", state.prints.of("predict"), "predict", (1, 2)
    )


def test_a_shard_is_done_for_itself_alone(state):
    state.journal.add(state.key(STITCH, (0, 1)), PartReceipt((0, 1), 3))
    assert state.done(STITCH, (0, 1))
    assert not state.done(STITCH, (1, 0))
    assert not state.done(STITCH)


def test_damage_is_gathered_from_tiles_and_predictions_of_this_very_slide(state):
    a, b, c = Box(0, 0, 1, 1), Box(0, 5, 1, 6), Box(9, 9, 10, 10)
    state.journal.add(state.key(TILE, (0, 0)), ShardReceipt((0, 0), 1, "", (b, a)))
    state.journal.add(state.key(PREDICT, (0, 0)), ShardReceipt((0, 0), 1, "", (a,)))
    state.journal.add(Key("tile", "other", "tile", (0, 0)), ShardReceipt((0, 0), 1, "", (c,)))
    painted = Key("result", state.prints.of("result"), "paint", (0, 0))
    state.journal.add(painted, ShardReceipt((0, 0), 1, "", (c,)))
    assert state.lost == (a, b)
    assert [receipt.lost for receipt in state.receipts(TILE)] == [(b, a)]
