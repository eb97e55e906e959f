"""How a batch takes several slides through their steps."""

from collections import Counter
from dataclasses import replace

from quadrat.core.errors import SlideError, WriteError
from quadrat.engine import route
from quadrat.engine.executor import Serial, guarded
from quadrat.engine.flow import ANYWHERE
from quadrat.engine.journal import Journal
from quadrat.engine.steps import predict_shards


class Watched(Serial):
    """Remembers the keys of its jobs in the order in which they were drawn."""

    def __init__(self):
        self.keys = []

    def run(self, source):
        while (job := source.next(ANYWHERE)) is not None:
            self.keys.append(job.key)
            yield guarded(job)

    def count(self, step):
        return sum(key.split("/")[1] == step for key in self.keys)


class Window(Watched):
    """Has several jobs in flight, and finishes the last one first."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def run(self, source):
        flying = []
        while True:
            while len(flying) < self.size and (job := source.next(ANYWHERE)) is not None:
                flying.append(job)
                self.keys.append(job.key)
            if not flying:
                return
            yield guarded(flying.pop())


def test_a_batch_takes_its_slides_to_results_and_books_every_shard(tiny):
    states = tiny.advanced("a", "b")
    for state in states:
        assert state.failure is None
        steps = Counter(key.step for key in state.journal.receipts)
        assert steps["predict"] == steps["stitch"] == steps["paint"] == 16
        assert steps["merge"] == steps["finish"] == 1
        assert (state.work.result / "summary.json").exists()
        steps = {"plan", "layout", "predict", "stitch", "merge", "labels", "paint", "pyramid"}
        assert {name for name in state.seconds if ":" not in name} == {*steps, "finish"}


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
    assert [key for key in watched.keys if key.startswith("bad/")] == ["bad/plan"] * 2, (
        "tried twice"
    )
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
    drawn = []

    def fails_once(job):
        drawn.append(job.work.ref.name)
        if job.work.ref.name == "c" and drawn.count("c") == 3:
            raise ValueError("out of luck")
        return predict_shards(job)

    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=fails_once))
    c, d = tiny.advanced("c", "d")
    assert (c.stage, c.failure.message) == ("predict", "out of luck")
    assert drawn.count("c") == 3
    assert d.failure is None
    assert b.failure is None


def test_shards_are_stitched_while_others_are_predicted(tiny):
    window = Window(4)
    (state,) = tiny.advanced("a", executor=window)
    assert state.failure is None
    first_stitch = next(i for i, k in enumerate(window.keys) if "/stitch/" in k)
    assert any("/predict/" in key for key in window.keys[first_stitch:])


def test_what_cannot_be_read_is_tried_once_more_and_anything_else_is_not(tiny, monkeypatch):
    seen = Counter()

    def shaky(job):
        seen[job.work.ref.name] += 1
        if seen[job.work.ref.name] == 2:
            raise {"a": SlideError("lost the share"), "b": ValueError("a bug")}[job.work.ref.name]
        return predict_shards(job)

    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=shaky))
    a, b = tiny.advanced("a", "b")
    assert (a.failure, seen["a"]) == (None, 17)
    assert (b.failure.message, seen["b"]) == ("a bug", 2)


def test_a_job_that_gives_no_receipt_for_its_shard_fails_its_slide(tiny, monkeypatch):
    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=lambda job: []))
    (state,) = tiny.advanced("a")
    assert "gave 0 receipts for 1" in state.failure.message


def test_time_is_booked_by_step_and_by_what_it_went_into(tiny):
    (state,) = tiny.advanced("a")
    assert state.seconds["predict: network"] + state.seconds["predict: write"] > 0
    assert state.seconds["stitch: stitch"] <= state.seconds["stitch"] + 0.01


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
