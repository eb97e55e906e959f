"""Which steps a slide takes, and how a batch takes several slides through them."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadrat.core.errors import WriteError
from quadrat.core.lattice import ShardIndex
from quadrat.engine import flow
from quadrat.engine.executor import Serial, guarded
from quadrat.engine.flow import ReadyShards, steps_of
from quadrat.engine.journal import Journal
from quadrat.tasks import get_task

SHARDS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


class Watched(Serial):
    """Remembers the keys of its jobs in the order in which they were drawn."""

    def __init__(self):
        self.keys = []

    def run(self, fn, jobs, *, needs="cpu", deadline_s=None):
        for job in jobs:
            self.keys.append(job.key)
            yield guarded(fn, job)

    def count(self, step):
        return sum(key.split("/")[1] == step for key in self.keys)


class Window(Watched):
    """Has several jobs in flight, and finishes the last one first."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.most = Counter()

    def run(self, fn, jobs, *, needs="cpu", deadline_s=None):
        flying, source = [], iter(jobs)
        while True:
            while len(flying) < self.size and (job := next(source, None)) is not None:
                flying.append(job)
                self.keys.append(job.key)
                now = Counter(job.key.split("/")[1] for job in flying)
                self.most |= now
                assert now["stitch early"] <= now["predict"] + 1
            if not flying:
                return
            yield guarded(fn, flying.pop())


def names(task, pipeline, until="results"):
    return [step.name for step in steps_of(get_task(task), pipeline, until=until)]


def test_a_slide_of_each_task_takes_the_steps_that_its_task_has(tiny):
    last = ["labels", "paint", "pyramid", "finish"]
    first = ["plan", "layout", "predict"]
    pipeline = tiny.pipeline()
    assert names("instance", pipeline) == [*first, "stitch", "merge", *last]
    assert names("semantic", pipeline) == [*first, "stitch", "merge", *last]
    assert names("instance_masks", pipeline) == [*first, "select", "stitch", "merge", *last]
    for task in ("detection", "classification"):
        assert names(task, pipeline) == [*first, "merge", "pyramid", "finish"]


def test_settings_and_the_end_of_a_run_choose_among_the_steps(tiny):
    stored = tiny.pipeline(source="stored", outputs={"image": True})
    tiles = ["plan", "store", "tile", "seal"]
    assert names("instance", stored, "plan") == ["plan"]
    assert names("instance", stored, "tile") == names("instance", tiny.pipeline(), "tile") == tiles
    assert names("instance", stored, "predict") == [*tiles, "layout", "predict"]
    assert names("instance", stored)[7:] == [
        *("merge", "image", "copy", "labels", "paint", "pyramid", "finish")
    ]


def test_a_batch_takes_its_slides_to_results_and_books_every_shard(tiny):
    states = tiny.advanced("a", "b")
    for state in states:
        assert state.failure is None
        steps = Counter(key.step for key in state.journal.receipts)
        assert steps["predict"] == steps["stitch"] == steps["paint"] == 16
        assert steps["merge"] == steps["finish"] == 1
        assert (state.work.result / "summary.json").exists()
        assert set(state.seconds) == {"plan", "layout", "predict", "stitch", "merge", "labels",
                                      "paint", "pyramid", "finish"}  # fmt: skip


def test_shards_with_a_receipt_are_not_done_again_and_units_are_as_large_as_the_run_says(tiny):
    first = Watched()
    tiny.advanced("a", until="predict", pipeline=tiny.pipeline(shards_per_unit=5), executor=first)
    assert first.keys == ["a/plan", "a/layout", *(f"a/predict/{i}" for i in range(4))]
    second = Watched()
    (state,) = tiny.advanced("a", executor=second)
    assert state.failure is None
    assert not {"plan", "layout", "predict"} & {key.split("/")[1] for key in second.keys}
    third = Watched()
    tiny.advanced("a", executor=third)
    assert third.keys == []


def test_a_slide_that_fails_is_set_aside_with_its_reason_and_the_others_go_on(tiny):
    tiny.slide("bad")
    (tiny.folder / "bad.png").write_bytes(b"no picture")
    watched = Watched()
    bad, good = tiny.advanced("bad", "good", executor=watched)
    assert bad.stage == "plan"
    assert bad.failure.kind == "SlideError"
    assert "bad.png" in bad.failure.message
    assert [key for key in watched.keys if key.startswith("bad/")] == ["bad/plan"]
    assert good.failure is None
    assert (good.work.result / "summary.json").exists()


def test_a_slide_that_fails_half_way_through_a_step_gets_no_more_work(tiny, monkeypatch):
    tiny.slide("a")
    states = tiny.advanced("a", "b", until="plan")
    (states[0].work.path / "plan.json").write_text("{}")
    watched = Watched()
    a, b = tiny.advanced("a", "b", until="predict", executor=watched)
    assert a.failure is not None
    assert not [key for key in watched.keys if key.startswith("a/predict")]
    real, drawn = flow.predict_or_stitch, []

    def fails_once(job):
        drawn.append(job.work.ref.name)
        if job.work.ref.name == "c" and drawn.count("c") == 3:
            raise ValueError("out of luck")
        return real(job)

    monkeypatch.setattr(flow, "predict_or_stitch", fails_once)
    c, d = tiny.advanced("c", "d")
    assert (c.stage, c.failure.message) == ("predict", "out of luck")
    assert drawn.count("c") == 3
    assert d.failure is None
    assert b.failure is None


def test_shards_are_stitched_while_others_are_predicted_by_at_most_as_many_jobs(tiny):
    window = Window(4)
    (state,) = tiny.advanced("a", executor=window)
    assert state.failure is None
    assert window.count("stitch early") > 0
    first_stitch = next(i for i, k in enumerate(window.keys) if "stitch early" in k)
    assert any("/predict/" in key for key in window.keys[first_stitch:])
    assert window.most["stitch early"] >= 1


def test_a_slide_with_a_journal_that_cannot_be_written_has_failed(tiny, monkeypatch):
    add = Journal.add

    def full(self, key, receipt):
        if key.step == "stitch" and self.path.parent.name == "a":
            raise WriteError("the disk is full")
        add(self, key, receipt)

    monkeypatch.setattr(Journal, "add", full)
    a, b = tiny.advanced("a", "b")
    assert a.failure.unwritten
    assert (a.stage, a.failure.message) == ("stitch", "the disk is full")
    assert b.failure is None


def test_stores_that_fit_alone_but_not_together_are_not_begun(tiny, monkeypatch):
    asked = []

    def check(path, needed, *, what):
        asked.append((needed, what))
        raise WriteError(f"{what} needs {needed}")

    monkeypatch.setattr(flow, "check_free_space", check)
    states = [tiny.state("a"), tiny.state("b")]
    with pytest.raises(WriteError, match="2 tile stores at a time"):
        tiny.batch().advance(states, until="tile")
    need = [next(r for k, r in s.journal.receipts.items() if k.step == "store") for s in states]
    assert asked[0][0] == sum(receipt.nbytes for receipt in need) > 0


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
            queue.predicted([ShardIndex(shard)])
    assert sorted(given_out) == sorted(planned - stitched)
