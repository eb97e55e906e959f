"""The seam between what is to be done and where it runs: both executors keep one contract."""

import os
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest
from distributed import Future
from distributed.scheduler import KilledWorker

from quadrat.core.errors import ConfigError
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Job, JobList, Serial, guarded


def behaviour():
    """What a job does, told by its payload; made here so that it travels to workers by value."""

    def act(payload):
        import os
        import signal
        import time

        from quadrat.core.errors import SlideError

        what, value = payload
        if what == "refuse":
            raise SlideError(f"slide {value} has no mpp")
        if what == "fail":
            raise ZeroDivisionError(f"job {value}")
        if what == "exit":
            os._exit(value)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "sleep":
            time.sleep(value)
        if what == "grip":  # native code that never lets go of the interpreter
            import re

            re.match(r"(a+)+$", "a" * 60 + "b")
        if what == "append":
            with open(value, "a") as file:
                file.write("x")
        if what == "imported":
            import sys

            return value in sys.modules
        if what == "threads":
            return [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
        if what == "unpicklable":
            return lambda: value
        return {"value": value, "process": os.getpid()}

    return act


ACT = behaviour()
pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def cluster():
    with open_executor(workers=2, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module", params=["serial", "dask"])
def executor(request):
    return Serial() if request.param == "serial" else request.getfixturevalue("cluster")


def jobs(*payloads, fn=ACT, deadline_s=None):
    return [Job(f"job {i}", fn, payload, "cpu", deadline_s) for i, payload in enumerate(payloads)]


def run(executor, some):
    return executor.run(JobList(some))


def by_key(outcomes):
    outcomes = list(outcomes)
    found = {o.key: o for o in outcomes}
    assert len(found) == len(outcomes), "an outcome came twice"
    return found


def test_every_outcome_comes_back_once_with_its_receipt(executor):
    found = by_key(run(executor, jobs(*(("give", i) for i in range(25)))))
    assert {key: o.receipt["value"] for key, o in found.items()} == {
        f"job {i}": i for i in range(25)
    }
    assert all(o.failure is None and o.seconds >= 0 for o in found.values())


def test_no_jobs_give_no_outcomes_and_the_executor_can_be_used_again(executor):
    assert list(run(executor, [])) == []
    assert list(run(executor, iter([]))) == []
    for _ in range(2):
        assert set(by_key(run(executor, jobs(("give", 1))))) == {"job 0"}


def test_equal_payloads_are_all_run(executor):
    found = by_key(run(executor, jobs(*[("give", 1)] * 6)))
    assert len(found) == 6
    again = by_key(run(executor, jobs(*[("give", 1)] * 6)))
    assert len(again) == 6


def test_a_knowing_refusal_and_a_crash_are_told_apart_and_stop_nobody(executor):
    found = by_key(
        run(executor, jobs(("give", 0), ("refuse", 7), ("fail", 3), ("give", 1), ("give", 2)))
    )
    assert len(found) == 5
    refused, crashed = found["job 1"].failure, found["job 2"].failure
    assert (refused.kind, refused.refused, refused.trace) == ("SlideError", True, "")
    assert refused.message == "slide 7 has no mpp"
    assert (crashed.kind, crashed.refused) == ("ZeroDivisionError", False)
    assert crashed.message == "job 3"
    assert "Traceback" in crashed.trace
    assert "in act" in crashed.trace
    assert [found[f"job {i}"].receipt["value"] for i in (0, 3, 4)] == [0, 1, 2]


def test_seconds_are_measured_where_the_job_runs(executor):
    (outcome,) = run(executor, jobs(("sleep", 0.3)))
    assert 0.25 < outcome.seconds < 5


def test_jobs_are_drawn_only_as_fast_as_they_are_worked_off(executor):
    drawn = []

    def source():
        for job in jobs(*[("sleep", 0.0)] * 12):
            drawn.append(job.key)
            yield job

    for done, _ in enumerate(run(executor, source()), start=1):
        assert len(drawn) <= done + 4  # two for each worker
    assert len(drawn) == 12


def test_long_jobs_do_not_make_the_window_grow(cluster):
    drawn = []

    def source():
        for job in jobs(*[("sleep", 1.8)] * 2, *[("give", 0)] * 6):
            drawn.append((job.key, time.monotonic()))
            yield job

    start = time.monotonic()
    found = by_key(run(cluster, source()))
    assert len(found) == 8
    assert sum(at - start < 1.5 for _, at in drawn) <= 4


@pytest.mark.parametrize("death", [("exit", 3), ("exit", 0), ("kill", 0)])
def test_a_job_that_kills_its_process_fails_alone(cluster, death):
    payloads = [("give", i) for i in range(8)]
    payloads[2] = death
    found = by_key(run(cluster, jobs(*payloads)))
    assert len(found) == 8
    lost = found.pop("job 2")
    assert lost.receipt is None
    assert lost.failure.kind == "LostJob"
    assert "job 2" in lost.failure.message
    assert "died" in lost.failure.message
    assert all(o.failure is None for o in found.values())


@pytest.mark.parametrize("deaths", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_whatever_the_scheduler_blames_a_death_on_bystanders_answer_once(cluster, tmp_path, deaths):
    """Many deaths among many jobs: each bystander answers once, though its finished result may die
    with a worker; then it runs again."""
    payloads = [
        ("kill", 0) if i % (40 // deaths) == 2 else ("append", str(tmp_path / f"{i}"))
        for i in range(40)
    ]
    found = by_key(run(cluster, jobs(*payloads)))
    for i, (what, _) in enumerate(payloads):
        assert (found[f"job {i}"].failure is None) == (what != "kill")
        assert what == "kill" or set((tmp_path / f"{i}").read_text()) == {"x"}


@pytest.mark.parametrize(
    "error",
    [
        KilledWorker("work", SimpleNamespace(address=""), 0),
        CancelledError("the scheduler forgot it"),
        TimeoutError("not fetched in time"),
    ],
    ids=["killed", "cancelled", "timeout"],
)
def test_a_result_that_dies_with_its_worker_while_it_is_fetched_is_computed_again(
    cluster, monkeypatch, error
):
    fetch, lost = Future.result, []

    def fetch_or_lose(future, timeout=None):
        if not lost:
            lost.append(future)
            raise error
        return fetch(future, timeout=timeout)

    monkeypatch.setattr(Future, "result", fetch_or_lose)
    outcomes = list(run(cluster, jobs(*[("value", i) for i in range(4)])))
    assert lost
    assert sorted(o.receipt["value"] for o in outcomes) == [0, 1, 2, 3]


def test_two_deadly_jobs_do_not_drag_others_along(cluster):
    found = by_key(run(cluster, jobs(("kill", 0), ("exit", 1), *[("give", i) for i in range(6)])))
    assert {key for key, o in found.items() if o.failure} == {"job 0", "job 1"}
    assert len(found) == 8


def test_a_receipt_that_cannot_travel_is_a_failure_of_its_job(cluster):
    def lock(payload):
        import threading

        return threading.Lock() if payload else 1

    found = by_key(run(cluster, [Job("a", lock, True), Job("b", lock, False)]))
    assert found["a"].failure is not None
    assert found["b"].failure is None


@pytest.mark.parametrize("hang", ["sleep", "grip"])
def test_a_deadline_stops_a_hanging_job_and_nobody_else(cluster, hang):
    start = time.monotonic()
    found = by_key(
        run(cluster, jobs((hang, 600), *[("give", i) for i in range(5)], deadline_s=1.0))
    )
    assert time.monotonic() - start < 60
    assert len(found) == 6
    lost = found.pop("job 0")
    assert "deadline" in lost.failure.message
    assert "in act" in lost.failure.trace, "where it hung"
    assert all(o.failure is None for o in found.values())
    assert set(by_key(run(cluster, jobs(("give", 1))))) == {"job 0"}


def test_jobs_that_wait_behind_hanging_ones_are_not_given_up_with_them(cluster):
    payloads = [("sleep", 600), ("sleep", 600), *[("give", i) for i in range(4)]]
    # long enough for a fresh worker to import what the job needs, which its first job pays for
    found = by_key(run(cluster, jobs(*payloads, deadline_s=6.0)))
    assert {key for key, o in found.items() if o.failure} == {"job 0", "job 1"}


def test_many_jobs_within_the_deadline_are_all_done_however_long_they_take_together(cluster):
    found = by_key(run(cluster, jobs(*[("sleep", 1.0)] * 9, deadline_s=3.0)))
    assert [o.failure for o in found.values()] == [None] * 9


def test_giving_up_half_way_leaves_the_executor_usable(executor):
    outcomes = iter(run(executor, jobs(*[("give", i) for i in range(9)])))
    next(outcomes)
    if hasattr(outcomes, "close"):
        outcomes.close()
    assert len(by_key(run(executor, jobs(("give", 1), ("give", 2))))) == 2


def test_workers_are_other_processes_with_the_stated_threads(cluster):
    found = by_key(run(cluster, jobs(*[("give", i) for i in range(6)])))
    assert os.getpid() not in {o.receipt["process"] for o in found.values()}
    (outcome,) = run(cluster, jobs(("threads", 0)))
    assert outcome.receipt == ["1", "1"]


def test_a_worker_that_starts_again_does_not_wait_for_torch(cluster):
    (dead,) = run(cluster, jobs(("kill", 0)))
    assert dead.failure is not None
    found = by_key(run(cluster, jobs(*[("imported", "torch")] * 6)))
    assert {o.receipt for o in found.values()} == {False}


def test_an_interrupt_is_not_taken_for_a_failed_job():
    def interrupted(payload):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(Serial(), jobs(("give", 1), fn=interrupted)))


def test_a_failure_without_words_still_has_a_message():
    def fail(payload):
        raise ValueError

    assert guarded(Job("a", fail, None)).failure.message == "ValueError()"


def test_a_number_of_workers_below_0_is_refused():
    with pytest.raises(ConfigError, match="workers is -1; it must be 0 "):
        open_executor(workers=-1, threads=1)
