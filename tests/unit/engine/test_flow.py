import random

from hypothesis import given
from hypothesis import strategies as st

from quadrat.engine.flow import ReadyShards

SHARDS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


def around(shard, planned):
    return {s for s in planned if max(abs(s[0] - shard[0]), abs(s[1] - shard[1])) <= 1}


@given(SHARDS, st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_shard_is_handed_out_once_and_only_when_all_around_it_is_predicted(
    planned, rng: random.Random, most
):
    order = sorted(planned)
    rng.shuffle(order)
    before = order[: rng.randrange(len(order) + 1)]
    stitched = {s for s in planned if rng.random() < 0.2}
    queue, there, given_out = (
        ReadyShards(planned, predicted=before, stitched=stitched),
        set(before),
        [],
    )
    for shard in [*order[len(before) :], None]:
        while taken := queue.take(most):
            assert len(taken) <= most
            for one in taken:
                assert around(one, planned) <= there
            given_out += taken
        assert {s for s in planned - stitched if around(s, planned) <= there} == set(given_out)
        if shard is not None:
            there.add(shard)
            queue.predicted([shard])
    assert sorted(given_out) == sorted(planned - stitched)
