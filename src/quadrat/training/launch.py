"""The side of a training job that starts several ranks: torchrun as a subprocess.

The job is handed over as JSON, in a folder that no other user can read or write.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from quadrat.core.errors import ConfigError, QuadratError, WriteError
from quadrat.core.files import open_append, write_file
from quadrat.core.native import worker_environment

JOB, REFUSED = "job.json", "refused.txt"
"""Files in the folder that the ranks are given: what they read, and why they refused."""
TAIL = 2000
"""Characters of torchrun's log that a message repeats."""


def run_ranks(
    job: str, *, package: str, log: Path, processes: int, threads: int, device: str
) -> None:
    """Train to the end with several ranks on this machine (loopback only).

    Args:
        job: the job as JSON, for :mod:`quadrat.training.rank`.
        package: what is trained, for messages.
        log: file for what torchrun and the ranks print.
        processes: how many ranks.
        threads: of each rank.
        device: ``run.device``.

    Raises:
        ConfigError: more ranks than GPUs. WriteError: a rank could not write. QuadratError: a
            rank failed or was killed; what was learnt until the last checkpoint is kept.
    """
    gpus = torch.cuda.device_count()
    if device != "cpu" and gpus and processes > gpus:
        raise ConfigError(
            f"train.processes is {processes}, but this machine has {gpus} GPUs; use at most as many"
        )
    with handed_over(job) as folder:
        code = _torchrun(folder, log, processes=processes, threads=threads)
        if (folder / REFUSED).exists():
            kind, _, message = (folder / REFUSED).read_text().partition("\n")
            raise (WriteError if kind == WriteError.__name__ else QuadratError)(message)
    if code:
        tail = " ".join(log.read_text(errors="replace")[-TAIL:].split())
        raise QuadratError(
            f"a training process of {package} died (torchrun ended with {code}); run the same "
            f"command again to go on from its checkpoint. The end of {log}: {tail}"
        )


@contextmanager
def handed_over(job: str) -> Iterator[Path]:
    """A folder with the job in it, which other users can neither read nor write."""
    with tempfile.TemporaryDirectory(prefix="quadrat-ranks-") as name:
        write_file(Path(name) / JOB, job)
        yield Path(name)


def _torchrun(folder: Path, log: Path, *, processes: int, threads: int) -> int:
    """The exit code of torchrun, which starts a rank per process and ends them all if one dies."""
    options = {
        "nnodes": "1",
        "nproc-per-node": str(processes),
        "rdzv-backend": "c10d",
        "rdzv-endpoint": "127.0.0.1:0",
        "local-addr": "127.0.0.1",
        "max-restarts": "0",
    }
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    command += ["-m", "quadrat.training.rank", str(folder)]
    environment = os.environ | worker_environment(threads) | {"GLOO_SOCKET_IFNAME": "lo"}
    with (
        open_append(log, length=0) as stream,
        # the pipe closes with this process, however it ends, and the ranks end with the pipe
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT, env=environment
        ) as torchrun,
    ):
        return torchrun.wait()
