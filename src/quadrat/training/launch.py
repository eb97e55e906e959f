"""Several processes for one training, started by torchrun as a subprocess."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.files import write_file
from quadrat.training.job import TrainJob

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
    payload, refusal = folder / "job.pickle", folder / "refused.txt"
    write_file(payload, pickle.dumps(job))
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
