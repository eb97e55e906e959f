"""Where worker processes cannot be started, one sentence says so before anything is done."""

import multiprocessing
import subprocess
import sys

import pytest

from quadrat.config.pipeline import RunSection
from quadrat.core.allocation import Amount
from quadrat.core.errors import ConfigError
from quadrat.engine import cluster, local
from quadrat.engine.cluster import check_workers, open_executor, processes
from quadrat.engine.executor import Serial, run_all


def test_no_workers_are_a_loop_in_this_process():
    with open_executor(workers=0, threads=1) as executor:
        assert isinstance(executor, Serial)
        assert [o.receipt for o in run_all(executor, abs, {"a": -1})] == [1]


def test_a_worker_of_another_pool_may_start_none():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(check_workers, (0,)) is None
        with pytest.raises(ConfigError, match=r"inside a worker of another pool.*workers=0"):
            pool.apply(check_workers, (2,))


def test_a_program_that_comes_through_a_pipe_is_asked_to_be_in_a_file():
    program = "from quadrat.engine.cluster import check_workers; check_workers(0); check_workers(3)"
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60
    )
    sentence = done.stderr.splitlines()[-1]
    assert "3 worker processes are asked for by a program that is in no file" in sentence


def test_workers_that_the_system_does_not_give_are_said_in_a_sentence(monkeypatch):
    def refuse(**_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(local, "LocalCluster", refuse)
    with (
        pytest.raises(ConfigError, match=r"^9 worker .*temporarily unavailable.*workers=0"),
        open_executor(workers=9, threads=1),
    ):
        pytest.fail("it was opened")


def test_a_run_without_a_number_of_workers_takes_what_the_job_has(monkeypatch):
    def given(cores, gigabytes):
        monkeypatch.setattr(cluster, "cpus", lambda: Amount(cores, "the job"))
        monkeypatch.setattr(cluster, "memory_bytes", lambda: Amount(gigabytes << 30, "the job"))

    given(16, 256)
    assert processes(RunSection()) == 16
    assert processes(RunSection(threads=4)) == 4
    assert processes(RunSection(threads=32)) == 1
    assert processes(RunSection(workers=3)) == 3
    assert processes(RunSection(cluster="serial", workers=3)) == 0
    given(16, 20)
    assert processes(RunSection()) == 6
    given(16, 1)
    assert processes(RunSection()) == 1
