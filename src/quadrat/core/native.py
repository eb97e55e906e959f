"""What native libraries are asked of: no more threads than a process may use, and an allocator that
keeps the memory that it has.

A network on CPUs takes and frees blocks of hundreds of MB for each layer. By default glibc gives
each back to the kernel and takes it anew, page by page: with the shipped ``nuclei`` network
(windows of 864 px, one thread) 190,000 page faults a window, and as much time in the kernel as in
the network. What it costs is memory: the peak of a worker is a third higher (docs/decisions.md).
"""

from __future__ import annotations

import ctypes

_POOLS = (
    "OMP_NUM_THREADS",  # torch, and pyarrow's pool
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # numpy, scipy
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BLOSC_NTHREADS",
    "ARROW_IO_THREADS",
    "TIFFFILE_NUM_THREADS",
    "TIFFFILE_NUM_IOTHREADS",
    "ZARR_THREADING__MAX_WORKERS",
)
"""What the libraries read that have a pool of threads. Torch's pool for independent operators has
no such variable, and starts no thread before a compiled script asks for it."""
_ALLOCATOR = (
    # by default each thread has an arena of its own, which cannot grow beyond 64 MiB and takes
    # larger blocks from the kernel whatever the other settings say; workers compute in a thread
    ("MALLOC_ARENA_MAX", -8, 1),
    ("MALLOC_MMAP_MAX_", -4, 0),  # glibc before 2.35 knows no threshold above 32 MiB
    ("MALLOC_TRIM_THRESHOLD_", -1, 2**31 - 1),
    ("MALLOC_TOP_PAD_", -2, 1 << 26),
)
"""Of each setting of glibc: the variable, the number that ``mallopt`` knows it by, the value."""


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a worker process with ``threads`` threads in every pool, to be there
    before the process starts."""
    pools = dict.fromkeys(_POOLS, str(threads))
    return pools | {name: str(value) for name, _, value in _ALLOCATOR}


def keep_freed_memory() -> bool:
    """Set the allocator of this process as :func:`worker_environment` does; to be called before it
    starts threads, because those that it has keep their arenas. Whether the C library is one that
    can (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(key, value) == 1 for _, key, value in _ALLOCATOR)
