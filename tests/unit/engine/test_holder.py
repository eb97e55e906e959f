"""Which process works at something, and whether it is known to be gone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from helpers.leases import NOBODY, started
from quadrat.core.records import from_json, to_json
from quadrat.engine.holder import Holder, fate, this_process

HERE = this_process("a", {})


@pytest.fixture
def other():
    """Another process of this host, which lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def of(process):
    return replace(HERE, pid=process.pid, started=started(process.pid))


def test_a_process_that_runs_is_alive_and_so_is_this_one(other):
    assert fate(of(other), HERE) == "alive"
    assert fate(HERE, replace(HERE, nonce="another lease")) == "alive"


def test_a_process_that_is_stopped_is_alive(other):
    other.send_signal(signal.SIGSTOP)
    assert fate(of(other), HERE) == "alive"


def test_a_process_of_another_user_is_alive():
    assert fate(replace(HERE, pid=1, started=started(1)), HERE) == "alive"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_killed_is_dead_even_before_its_parent_has_noticed(other, number):
    holder = of(other)
    other.send_signal(number)
    end = time.monotonic() + 5
    while fate(holder, HERE) != "dead":
        assert time.monotonic() < end
        time.sleep(0.005)
    assert os.path.exists(f"/proc/{other.pid}"), "it is a zombie until its parent waits for it"
    other.wait()
    assert fate(holder, HERE) == "dead"


def test_a_process_whose_number_was_given_to_another_one_is_dead():
    assert fate(replace(HERE, started=HERE.started - 1), HERE) == "dead"
    assert fate(replace(HERE, pid=NOBODY), HERE) == "dead"
    assert fate(replace(HERE, pid=2**70), HERE) == "dead"


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "n2"},
        {"boot": "another start of the kernel"},
        {"namespace": "pid:[1]"},
    ],
    ids=str,
)
def test_a_process_id_of_another_host_start_or_container_says_nothing(elsewhere):
    """Both containers have a process 1; one host may have the name of another one."""
    for pid, start in ((NOBODY, 5), (1, started(1)), (os.getpid(), HERE.started)):
        there = replace(HERE, pid=pid, started=start, **elsewhere)
        assert fate(there, HERE) == "unknown"


@pytest.mark.parametrize("missing", [{"boot": ""}, {"namespace": ""}, {"host": ""}], ids=str)
def test_what_the_system_does_not_say_is_not_believed_to_be_equal(missing):
    assert fate(replace(HERE, pid=NOBODY, **missing), replace(HERE, **missing)) == "unknown"


def job(**environ):
    words = {"SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "c", "SLURM_ARRAY_TASK_ID": "3"}
    return replace(this_process("a", words | environ), host="n2")


def test_the_former_life_of_a_slurm_job_is_dead_and_a_later_or_equal_one_is_not():
    first, second, third = (
        job(),
        job(SLURM_RESTART_COUNT="1"),
        job(SLURM_RESTART_COUNT="2"),
    )
    assert (first.restarts, third.restarts) == (0, 2)
    here = replace(second, host="n3")
    assert fate(first, here) == "dead"
    assert fate(replace(second, nonce="of another step of it"), here) == "unknown"
    assert fate(third, here) == "unknown"


@pytest.mark.parametrize(
    "other",
    [{"SLURM_JOB_ID": "78"}, {"SLURM_CLUSTER_NAME": "d"}, {"SLURM_ARRAY_TASK_ID": "4"}],
    ids=str,
)
def test_another_job_that_was_started_again_says_nothing_of_this_one(other):
    assert fate(job(**other), replace(job(SLURM_RESTART_COUNT="1"), host="n3")) == "unknown"


def test_without_slurm_a_count_of_restarts_says_nothing():
    assert fate(replace(HERE, host="n2"), this_process("a", {"SLURM_RESTART_COUNT": "3"})) == (
        "unknown"
    )


def test_a_holder_is_named_with_its_job():
    assert str(job()).startswith(f"process {os.getpid()} on n2, SLURM job 77 (array task 3), since")
    assert "SLURM" not in str(HERE)
    assert from_json(Holder, to_json(HERE)) == HERE


def test_two_leases_of_one_process_are_told_apart():
    assert this_process("a").nonce != this_process("a").nonce
