"""Several processes for one training, started by torchrun as a subprocess of the training's job.

``python -m quadrat.training.rank JOB`` is what torchrun starts, once a rank; it trains to the
end and leaves the checkpoint, from which the job that started it goes on. A rank that dies ends
them all, and the job with them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import torch

from quadrat.core.errors import ConfigError, QuadratError
from quadrat.models.task import get_task
from quadrat.training.data import spec_of
from quadrat.training.distributed import joined
from quadrat.training.job import TrainJob, learn, material

REFUSED = 3
"""Exit code of a rank that refused knowingly; its message is in the file beside the job."""
ORPHANED = 4
"""Exit code of a rank whose job is gone."""
TAIL = 2000


def train_in_processes(job: TrainJob) -> None:
    """Train to the end with ``train.processes`` ranks on this machine (loopback only).

    Raises:
        ConfigError: more ranks than GPUs. QuadratError: a rank failed or was killed; what was
            learnt until the last checkpoint is kept.
    """
    cfg = job.pipeline.train
    gpus = torch.cuda.device_count()
    if job.pipeline.run.device != "cpu" and gpus and cfg.processes > gpus:
        raise ConfigError(
            f"train.processes is {cfg.processes}, but this machine has {gpus} GPUs; use at most as "
            "many"
        )
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    payload, refusal = folder / "job.pickle", folder / "refused.txt"
    payload.write_bytes(pickle.dumps(job))
    refusal.unlink(missing_ok=True)
    command = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "1",
            "--nproc-per-node",
            str(cfg.processes),
        ),
        *(
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "127.0.0.1:0",
            "--local-addr",
            "127.0.0.1",
            "--max-restarts",
            "0",
        ),
        *("-m", "quadrat.training.rank", str(payload)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(cfg.threads), "GLOO_SOCKET_IFNAME": "lo"}
    with (
        (folder / "torchrun.log").open("wb") as log,
        # the pipe closes with this process, however it ends, and the ranks end with the pipe
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        ) as torchrun,
    ):
        code = torchrun.wait()
    payload.unlink()
    if refusal.exists():
        raise QuadratError(refusal.read_text())
    if code:
        tail = (folder / "torchrun.log").read_text(errors="replace")[-TAIL:]
        raise QuadratError(
            f"a training process of {job.package} died (torchrun ended with {code}); run the same "
            "command again to go on from "
            f"its checkpoint. The end of {folder / 'torchrun.log'}: {' '.join(tail.split())}"
        )


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
        (Path(job.folder) / "refused.txt").write_text(str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
