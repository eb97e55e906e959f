"""Several processes for one training, started by torchrun as a subprocess of the training's job.

``python -m quadrat.training.rank JOB`` is what torchrun starts, once a rank; it trains to the
end and leaves the checkpoint, from which the job that started it goes on. A rank that dies ends
them all, and the job with them.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from pathlib import Path

import torch

from quadrat.core.errors import QuadratError
from quadrat.core.files import write_file
from quadrat.models.spec import spec_of
from quadrat.tasks import get_task
from quadrat.training.distributed import joined
from quadrat.training.job import TrainJob, learn, material

REFUSED = 3
"""Exit code of a rank that refused knowingly; its message is in the file beside the job."""
ORPHANED = 4
"""Exit code of a rank whose job is gone."""


def end_with_the_job() -> None:
    """End this process when standard input does, which is the job's end of a pipe: a rank must not
    train on by itself."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def main(payload: Path) -> int:
    """One rank."""
    end_with_the_job()
    job: TrainJob = pickle.loads(payload.read_bytes())
    torch.set_num_threads(job.pipeline.train.threads)
    on_gpu = job.pipeline.run.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    task = get_task(job.pipeline.task)
    try:
        with joined(device) as ranks, material(job) as slides:
            learn(job, task, spec_of(job.pipeline, task), slides, device=device, ranks=ranks)
    except QuadratError as error:
        write_file(Path(job.folder) / "refused.txt", str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
