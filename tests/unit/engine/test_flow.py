"""Any order of completions, failures, tries and lost workers comes to the same finished work, and
no work is given out before what it needs is there."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.engine.flow import ANYWHERE, TRIES, Flow, SlideFlow

CPU, GPU = frozenset({"cpu"}), frozenset({"gpu"})


@dataclass(frozen=True)
class Step:
    name: str
    needs: str = "cpu"
    by_shard: bool = False
    can_be_early: bool = False


PLAN, LAYOUT, MERGE = Step("plan"), Step("layout"), Step("merge")
PREDICT = Step("predict", "gpu", by_shard=True)
STITCH = Step("stitch", by_shard=True, can_be_early=True)
PAINT = Step("paint", by_shard=True)
STEPS = (PLAN, LAYOUT, PREDICT, STITCH, MERGE, PAINT)
SHARDS = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9)


@dataclass
class Slide:
    """What is on record of a slide; also what a unit of its work needs to be there."""

    name: str
    shards: frozenset
    done: set = field(default_factory=set)

    def places(self, step):
        assert STEPS[step].by_shard
        assert (0, None) in self.done, "shards are known when the slide is planned"
        return sorted(self.shards)

    def is_done(self, step, place):
        return (step, place) in self.done

    def all_of(self, step):
        return {(step, s) for s in self.shards} if STEPS[step].by_shard else {(step, None)}

    def everything(self):
        return set().union(*(self.all_of(i) for i in range(len(STEPS))))

    def check_ready(self, unit):
        for place in unit.places:
            assert (unit.step, place) not in self.done, "work is given out once"
        if not unit.step:
            return
        before = self.all_of(unit.step - 1)
        if unit.early:
            assert STEPS[unit.step].can_be_early
            before = {
                (i, s)
                for i, s in before
                if any(max(abs(s[0] - p[0]), abs(s[1] - p[1])) <= 1 for p in unit.places)
            }
        assert before <= self.done


class Admission:
    def __init__(self, slides):
        self.slides, self.at = slides, 0

    def __call__(self):
        if self.at == len(self.slides):
            return None
        self.at += 1
        slide = self.slides[self.at - 1]
        return SlideFlow(slide.name, STEPS, slide)


class Play:
    """A run in which chance decides what comes back when, and how."""

    def __init__(self, rng, slides, *, kinds, hopeless=(), **options):
        self.rng, self.slides = rng, {s.name: s for s in slides}
        self.flow = Flow(Admission(slides), **options)
        self.kinds, self.hopeless = kinds, set(hopeless)
        self.flying, self.ended, self.failures = [], [], Counter()
        self.most_open = 0
        self.network_over = False

    def step(self):
        """Something happens; False: there is nothing left to happen."""
        for needs in self.kinds:
            while len(self.flying) < 6 and (unit := self.flow.next(needs)) is not None:
                assert STEPS[unit.step].needs in needs
                assert not (self.network_over and STEPS[unit.step].needs == "gpu")
                self.slides[unit.slide].check_ready(unit)
                busy = {(u.slide, u.step, p) for u in self.flying for p in u.places}
                assert not busy & {(unit.slide, unit.step, p) for p in unit.places}
                self.flying.append(unit)
        self.most_open = max(self.most_open, len(self.flow.slides))
        left = self.flow.network_left
        assert left or not any(STEPS[unit.step].needs == "gpu" for unit in self.flying)
        self.network_over = self.network_over or not left
        if not self.flying:
            return False
        unit = self.flying.pop(self.rng.randrange(len(self.flying)))
        slide = self.slides[unit.slide]
        tried = [(unit.slide, unit.step, place) for place in unit.places]
        if (unit.slide, unit.step) in self.hopeless or (
            not any(self.failures[one] for one in tried) and self.rng.random() < 0.1
        ):
            self.failures.update(tried)
            if not self.flow.failed(unit):
                self.flow.slides[unit.slide].stop()
        else:
            kept = unit.places
            if unit.early and self.rng.random() < 0.25:
                kept = kept[: self.rng.randint(0, len(kept))]
            slide.done |= {(unit.step, place) for place in kept}
            self.flow.finished(unit, kept)
        self.ended += self.flow.ended()
        return True

    def run(self):
        while self.step():
            pass
        self.ended += self.flow.ended()
        assert not self.flow.network_left
        return self


KINDS = st.sampled_from([[ANYWHERE], [CPU, GPU]])


@settings(deadline=None, max_examples=150)
@given(st.randoms(use_true_random=True), st.lists(SHARDS, min_size=1, max_size=4), KINDS)
def test_whatever_the_order_all_work_is_done_once_and_never_too_early(rng, shards, kinds):
    slides = [Slide(f"s{i}", frozenset(some)) for i, some in enumerate(shards)]
    for slide in slides:  # an interrupted run goes on
        for step in range(rng.randint(0, len(STEPS))):
            if slide.all_of(step - 1) <= slide.done or step == 0:
                some = sorted(slide.all_of(step), key=str)
                slide.done |= set(some[: rng.randint(0, len(some))])
    most = rng.randint(1, 3)
    ahead = rng.randint(0, 3) if kinds != [ANYWHERE] else 0
    play = Play(
        rng, slides, kinds=kinds, most=most, ahead=ahead,
        per_unit=rng.randint(1, 3),
    )  # fmt: skip
    play.run()
    assert sorted(play.ended) == sorted(play.slides)
    for slide in slides:
        assert slide.done == slide.everything()
    assert play.most_open <= most


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=True), st.lists(SHARDS, min_size=2, max_size=4), KINDS)
def test_a_slide_that_keeps_failing_is_given_up_alone(rng, shards, kinds):
    slides = [Slide(f"s{i}", frozenset(some)) for i, some in enumerate(shards)]
    bad = rng.randrange(len(STEPS))
    play = Play(rng, slides, kinds=kinds, most=2, hopeless=[("s0", bad)])
    play.run()
    assert sorted(play.ended) == sorted(play.slides)
    assert not any((bad, place) in slides[0].done for _, place in slides[0].all_of(bad))
    assert all(n <= TRIES for (name, *_), n in play.failures.items() if name == "s0")
    for slide in slides[1:]:
        assert slide.done == slide.everything()


def played(slides, kinds=(ANYWHERE,), order=0, **options):
    """Keys of the units in the order in which they are given out, one worker at a time."""
    flow, keys = Flow(Admission(slides), **options), []
    by_name = {s.name: s for s in slides}
    while True:
        unit = next((u for needs in kinds if (u := flow.next(needs)) is not None), None)
        if unit is None:
            return keys
        keys.append(f"{unit.slide} {STEPS[unit.step].name}")
        by_name[unit.slide].done |= {(unit.step, place) for place in unit.places}
        flow.finished(unit, unit.places)
        flow.ended()


ROW = frozenset((0, i) for i in range(4))


def test_the_oldest_slide_ends_first_and_its_deepest_work_comes_first():
    keys = played([Slide("a", ROW), Slide("b", ROW)], most=8)
    assert keys[: len(keys) // 2] == [
        *("a plan", "a layout", "a predict", "a predict", "a stitch", "a predict", "a stitch"),
        *("a predict", "a stitch", "a stitch", "a merge", *["a paint"] * 4),
    ]
    assert {key[0] for key in keys[len(keys) // 2 :]} == {"b"}


def test_a_younger_slide_enters_when_there_is_nothing_else_to_do():
    flow = Flow(Admission([Slide("a", ROW), Slide("b", ROW)]), most=8)
    assert [flow.next(ANYWHERE).slide for _ in range(2)] == ["a", "b"]
    assert flow.next(ANYWHERE) is None
    alone = Flow(Admission([Slide("a", ROW), Slide("b", ROW)]), most=1)
    assert alone.next(ANYWHERE).slide == "a"
    assert alone.next(ANYWHERE) is None


def test_workers_without_a_device_feed_those_with_one_before_they_finish_slides():
    a, b = Slide("a", ROW), Slide("b", ROW)
    for step in range(3):
        a.done |= a.all_of(step)
    flow = Flow(Admission([a, b]), most=8, ahead=2)
    unit = flow.next(CPU)
    assert (unit.slide, STEPS[unit.step].name) == ("b", "plan")
    lazy = Flow(Admission([a, b]), most=8)
    assert STEPS[lazy.next(CPU).step].name == "stitch"


def test_a_slide_waits_at_the_gate_while_others_hold_the_room_that_it_needs():
    a, b = Slide("a", ROW), Slide("b", ROW)
    flow = Flow(Admission([a, b]), most=8, gate="layout", weight=lambda name: 60, room=lambda: 100)

    def give(flow, count):
        given = []
        for _ in range(count):
            unit = flow.next(ANYWHERE)
            if unit is None:
                break
            given.append(f"{unit.slide} {STEPS[unit.step].name}")
            {"a": a, "b": b}[unit.slide].done |= {(unit.step, p) for p in unit.places}
            held.append(unit)
        return given

    held = []
    assert give(flow, 9) == ["a plan", "b plan"]
    for unit in held:
        flow.finished(unit, unit.places)
    held.clear()
    assert give(flow, 9) == ["a layout"], "b waits"
    while held:
        flow.finished(held[0], held.pop(0).places)
        flow.ended()
        give(flow, 1)
    assert b.done == b.everything(), "it enters when a is done"


def test_a_slide_too_large_for_the_disk_is_not_held_for_ever():
    slide = Slide("a", ROW)
    keys = played([slide], most=8, gate="layout", weight=lambda name: 10**9, room=lambda: 1)
    assert keys[-1] == "a paint"
