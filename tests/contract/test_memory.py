"""A worker that takes more memory than its share is ended, not the machine; the job that took it
fails with the reason, and the others are done."""

import time

from quadrat.core.allocation import memory_bytes
from quadrat.engine import local
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Job, JobList
from quadrat.engine.workers import memory_of_each

SHARE = 700 << 20
"""Of each worker here: three times what one has that has done nothing."""


def greedy(_):
    kept = []
    while True:
        kept.append(bytearray(b"x") * (32 << 20))
        time.sleep(0.02)
        assert len(kept) < 200, "nobody stopped it at 6 GB"


def modest(value):
    time.sleep(0.05)
    return value


def test_each_worker_gets_its_share_of_what_the_job_may_use():
    assert memory_of_each(4) == memory_bytes().value // 4


def test_a_job_that_takes_too_much_memory_fails_with_the_reason_and_the_others_are_done(
    monkeypatch,
):
    monkeypatch.setattr(local, "memory_of_each", lambda workers: SHARE)
    jobs = [Job(f"modest {i}", modest, i) for i in range(6)]
    with open_executor(workers=2, threads=1) as executor:
        outcomes = executor.run(JobList([*jobs[:3], Job("greedy", greedy, None), *jobs[3:]]))
        found = {outcome.key: outcome for outcome in outcomes}
    failure = found.pop("greedy").failure
    assert failure.refused
    assert "its worker process died 3 times (out of memory" in failure.message
    assert sorted(outcome.receipt for outcome in found.values()) == list(range(6))
