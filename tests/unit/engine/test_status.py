"""Where a run stands, from what was seen."""

from dataclasses import replace

import pytest

from quadrat.engine.drivers import Driver
from quadrat.engine.failures import FailedSlide
from quadrat.engine.holder import this_process
from quadrat.engine.lease import Held
from quadrat.engine.seen import AtJob, Progress, Seen
from quadrat.engine.status import status_of
from quadrat.engine.timings import Timing

HOLDER = this_process("x")
DRIVER = Driver(id="d", holder=HOLDER, asked="", workers=2, began=0.0)
DEAD, ALIVE = (Held(HOLDER, fate, 0.0, sign_s=900.0) for fate in ("dead", "alive"))


def timing(slide, time, mm2=2.0):
    return Timing(slide=slide, seconds={"predict": 1.0}, time=time, tissue_mm2=mm2)


def test_every_slide_is_counted_once_and_the_strongest_word_counts():
    seen = Seen(
        time=1000.0,
        asked=dict.fromkeys(["ok", "run", "bad", "cut", "new", "again"], "results"),
        finished=frozenset(["ok", "again", "other"]),
        tissue_mm2={"ok": 1.5, "again": 1.0, "other": 2.0},
        begun=frozenset(["run", "cut", "again"]),
        failed=[FailedSlide("bad", "plan", "torn", remedy="copy it again")],
        holders={"run": ALIVE, "cut": DEAD},
        progress={"run": Progress("predict", 8, 2)},
    )
    status = status_of(seen)
    assert status.slides == 7
    assert status.done == 2, "ok, and one that nobody asked for here"
    assert [(one.slide, one.stage, one.percent) for one in status.running] == [
        ("run", "predict", 25.0)
    ]
    assert [(one.slide, one.remedy) for one in status.failed] == [("bad", "copy it again")]
    assert status.interrupted == ("again", "cut"), "to be replaced, and one of a dead driver"
    assert status.waiting == ("new",)
    assert status.tissue_mm2 == 4.5
    assert status.drivers == 1


def test_a_slide_that_fails_and_is_taken_again_runs():
    seen = Seen(time=0.0, failed=[FailedSlide("a", "plan", "")], holders={"a": ALIVE})
    status = status_of(seen)
    assert (len(status.running), status.failed, status.slides) == (1, (), 1)


def test_kept_stores_are_done_only_where_no_results_were_asked_for():
    kept = frozenset(["p", "r"])
    seen = Seen(time=0.0, asked={"p": "predict", "r": "results"}, begun=kept, kept=kept)
    status = status_of(seen)
    assert (status.done, status.waiting) == (1, ("r",))


def test_speed_and_end_are_those_since_the_drivers_at_work_began():
    driver = replace(DRIVER, began=1000.0)
    old = replace(DRIVER, id="old", began=0.0, ended=900.0)
    seen = Seen(
        time=1000.0 + 1800,
        asked=dict.fromkeys("abcdef", "results"),
        finished=frozenset("abc"),
        begun=frozenset("d"),
        holders={"d": ALIVE},
        progress={"d": Progress("predict", 4, 2)},
        timings={"a": timing("a", 500.0), "b": timing("b", 1500.0), "c": timing("c", 2500.0)},
        drivers=[old, driver],
    )
    status = status_of(seen)
    assert status.slides_per_h == 5.0, "two and a half in half an hour"
    assert status.area_per_h == 8.0
    assert status.eta_s == pytest.approx(2.5 / 5 * 3600)


def test_without_a_driver_there_is_no_end_and_the_speed_is_that_of_the_last_one():
    seen = Seen(
        time=99999.0,
        asked={"a": "results", "b": "results"},
        finished=frozenset("a"),
        timings={"a": timing("a", 1800.0)},
        drivers=[DRIVER],
    )
    status = status_of(seen)
    assert (status.slides_per_h, status.area_per_h, status.eta_s) == (2.0, 4.0, None)
    assert (status.drivers, status.waiting) == (0, ("b",))


def test_nothing_is_known_before_anything_is_done():
    status = status_of(Seen(time=10.0, asked={"a": "results"}, holders={"a": ALIVE},
                            drivers=[DRIVER]))  # fmt: skip
    assert (status.slides_per_h, status.eta_s) == (None, None)
    assert status.running[0].stage == "plan"


@pytest.mark.parametrize(("fate", "silent"), [("unknown", 100.0), ("alive", None)])
def test_a_driver_of_another_host_that_is_silent_is_said_to_be_so(fate, silent):
    held = replace(ALIVE, fate=fate)
    (one,) = status_of(Seen(time=1000.0, holders={"a": held})).running
    assert one.silent_s == silent


def test_workers_stand_at_their_slides_and_a_later_step_is_named():
    jobs = [AtJob("n1:7", "a", "stitch", 5.0), AtJob("n1:8", "b", "plan", 5.0)]
    progress = {"a": Progress("stitch", 4, 4)}
    seen = Seen(time=1.0, holders={"a": ALIVE}, progress=progress, jobs=jobs)
    (one,) = status_of(seen).running
    assert (one.workers, one.stage, one.percent) == (("n1:7 (stitch)",), "stitch", 100.0)
