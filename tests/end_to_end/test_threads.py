"""Worker processes run as many native threads as they were given, whatever the libraries that they
load think of the machine."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.runs import end_session, session_members, start

TICKS = os.sysconf("SC_CLK_TCK")
WORKER = b"spawn_main"
BUSY = 0.1
"""A thread that has this share of the CPU time of the busiest one takes part in the work."""


def seconds_of(process):
    """CPU time so far of every thread of a process, by its id."""
    found = {}
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[int(task.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    except OSError:
        pass  # it has ended
    return found


def is_worker(process):
    try:
        return WORKER in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def watched(command):
    """CPU time of the threads of each worker of a command that runs, by worker. The first thread of
    a worker is dask's: it imports, and answers the scheduler."""
    workers: dict[int, dict[int, float]] = {}
    while command.poll() is None:
        for process in filter(is_worker, session_members(command.pid)):
            threads = workers.setdefault(process, {})
            for _ in range(10):
                threads |= seconds_of(process)
                time.sleep(0.02)
        time.sleep(0.02)
    for process, threads in workers.items():
        threads.pop(process, None)
    return workers


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_computes_with_as_many_threads_as_it_was_given(tmp_path, threads):
    """CPU time counts, which does not depend on what else the machine does. That two threads are
    found where two are asked for shows that one too many would be seen."""
    pixels = np.random.default_rng(3).integers(120, 255, (1280, 1280, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    (tmp_path / "slides.csv").write_text("slide,mpp\na.png,0.5\n")
    words = {"slide.tissue": "all", "run.threads": threads, "run.workers": 1, "run.device": "cpu"}
    settings = [word for key, value in words.items() for word in ("--set", f"{key}={value}")]
    command = start(
        "run", "nuclei", "--manifest", tmp_path / "slides.csv", "--out", tmp_path / "out",
        *settings, log=tmp_path / "log.txt",
    )  # fmt: skip
    try:
        workers = watched(command)
    finally:
        end_session(command)
    assert command.returncode == 0, (tmp_path / "log.txt").read_text()
    (used,) = workers.values()
    most = max(used.values())
    assert most > 0.5, "else there was no work to see"
    busy = {thread: seconds for thread, seconds in used.items() if seconds > BUSY * most}
    assert len(busy) == threads, used
