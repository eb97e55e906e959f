"""One driver per run folder."""

import json
import os
import socket
import subprocess
import sys

import pytest

from quadrat.core.errors import StoreError
from quadrat.engine.lock import driver_lock, locked

HERE = socket.gethostname()


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "run" / "driver.lock"


def held_by(path, *, host=HERE, pid):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid}))


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_is_there_while_the_driver_works_and_gone_afterwards(tmp_path, lock):
    with driver_lock(tmp_path):
        assert json.loads(lock.read_text()) == {"host": HERE, "pid": os.getpid()}
    assert list(lock.parent.iterdir()) == []


def test_an_error_in_the_driver_frees_the_lock(tmp_path, lock):
    with pytest.raises(ZeroDivisionError), driver_lock(tmp_path):
        raise ZeroDivisionError
    assert list(lock.parent.iterdir()) == []


def test_a_driver_that_lives_keeps_others_out_and_its_lock(tmp_path, lock):
    held_by(lock, pid=os.getppid())
    with pytest.raises(StoreError, match="another quadrat is working in") as refused:
        driver_lock(tmp_path).__enter__()
    assert str(os.getppid()) in str(refused.value)
    assert f"delete {lock} if it is gone" in str(refused.value)
    assert json.loads(lock.read_text())["pid"] == os.getppid()


def test_the_lock_of_a_process_that_ended_here_is_taken_over(tmp_path, lock, gone):
    held_by(lock, pid=gone)
    with driver_lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_the_lock_of_another_host_is_respected(tmp_path, lock, gone):
    held_by(lock, host="elsewhere", pid=gone)
    with pytest.raises(StoreError, match="elsewhere"):
        driver_lock(tmp_path).__enter__()


@pytest.mark.parametrize("content", ["", "no json", "{}"])
def test_a_lock_that_says_nothing_is_taken_over(tmp_path, lock, content):
    lock.parent.mkdir(parents=True)
    lock.write_text(content)
    with driver_lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_what_is_busy_and_what_else_to_do_are_the_callers_words(tmp_path):
    held_by(tmp_path / "driver.lock", pid=os.getppid())
    with pytest.raises(StoreError, match=r"p: at work .* wait for it, do otherwise, or delete"):
        locked(tmp_path / "driver.lock", "p: at work", otherwise="do otherwise").__enter__()
