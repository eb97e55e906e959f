"""What native libraries are asked of: as many threads as are theirs, and memory that is kept."""

import os
import subprocess
import sys

import pytest

from quadrat.core.native import worker_environment

POOLS = """
import numba, numcodecs.blosc, pyarrow, tifffile, torch
from zarr.core.config import config
print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, pyarrow.cpu_count(),
      pyarrow.io_thread_count(), tifffile.TIFF.MAXWORKERS, tifffile.TIFF.MAXIOWORKERS,
      config.get("threading.max_workers"))
"""

FAULTS = """
import resource, sys, threading
from quadrat.core.native import keep_freed_memory

def work():
    blocks = [b"x" * (size << 20) for size in (48, 96, 160)]
    del blocks

def run():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "asked":
    assert keep_freed_memory()
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
PAGES = 4 * (48 + 96 + 160) * 256
"""What the kernel gives anew where blocks are not kept."""


def python(code, *words, **environ):
    plain = {k: v for k, v in os.environ.items() if k not in worker_environment(1)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=plain | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


def test_every_pool_has_as_many_threads_as_a_worker_may_run():
    """That the libraries read the variables is theirs to change: hence the question to each."""
    assert python(POOLS, **worker_environment(1)) == [1] * 7


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="glibc only")
def test_a_thread_of_a_worker_gets_the_memory_that_it_freed_and_not_new_pages():
    plain = python(FAULTS, "plain")[0]
    kept = python(FAULTS, "plain", **worker_environment(1))[0]
    asked = python(FAULTS, "asked")[0]
    assert plain > PAGES / 2, "else there is nothing to be won here"
    assert kept < PAGES / 50
    assert asked < PAGES / 50
