"""One of several ranks that train a model: ``python -m quadrat.training.rank FOLDER``, which
torchrun starts once per rank.

It trains to the end and leaves the checkpoint, from which the job that started it goes on. A rank
that dies ends them all, and the job with them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from quadrat.core.errors import QuadratError
from quadrat.core.files import write_file
from quadrat.training.distributed import Ranks, joined
from quadrat.training.job import TrainJob, job_from_json, material, train_network
from quadrat.training.launch import JOB, REFUSED

CODE_REFUSED = 3
"""Exit code of a rank that refused; its message is in the folder."""
CODE_ORPHANED = 4
"""Exit code of a rank that outlived its job."""
Join = Callable[[torch.device], AbstractContextManager[Ranks]]


def end_with_the_job() -> None:
    """End this process when standard input ends, which is the job's end of a pipe: a rank must not
    go on by itself."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(CODE_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def train_rank(job: TrainJob, *, refusal: Path, join: Join = joined) -> int:
    """Train as one rank; the exit code. Where it refuses, the kind of error and its message are
    written to ``refusal``."""
    torch.set_num_threads(job.pipeline.train.threads)
    on_gpu = job.pipeline.run.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        with join(device) as ranks, material(job) as slides:
            train_network(job, slides, device=device, ranks=ranks)
    except QuadratError as error:
        write_file(refusal, f"{type(error).__name__}\n{error}")
        return CODE_REFUSED
    return 0


if __name__ == "__main__":
    end_with_the_job()
    folder = Path(sys.argv[1])
    own = job_from_json((folder / JOB).read_text())
    sys.exit(train_rank(own, refusal=folder / REFUSED))
