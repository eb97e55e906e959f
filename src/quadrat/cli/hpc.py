"""``quadrat hpc``: job scripts for a computing cluster."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Literal

from cyclopts import Parameter

from quadrat.cli.options import Name
from quadrat.core.errors import EXIT_OK, ConfigError
from quadrat.core.limits import WALLTIME

SIGNAL_S = 120
"""So long before the walltime a job is warned; it ends in well under a minute."""
AT_ONCE = 10
"""Tasks of an array that nobody gave a number."""
WAYS = {
    "array": "tasks that need nothing of each other; each takes its part of the slides",
    "srun": "one allocation; the slides share the workers of all its nodes",
    "slurm": "a small job that submits worker jobs, and replaces those that end",
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a job asks SLURM for."""

    partition: Annotated[str, Parameter(metavar="NAME")] = ""
    """partition; left out: the site's default"""
    account: Annotated[str, Parameter(metavar="NAME")] = ""
    """account; left out: your default"""
    time: Annotated[str, Parameter(metavar="HH:MM:SS")] = "04:00:00"
    """walltime of a job"""
    cpus: Annotated[int, Parameter(metavar="N")] = 8
    """CPUs: of an array's task, of each node (srun), of a worker job (slurm)"""
    mem: Annotated[str, Parameter(metavar="SIZE")] = "32G"
    """memory of the same, e.g. 32G or 64000M"""
    gpus: Annotated[int, Parameter(metavar="N")] = 0
    """GPUs of the same"""
    nodes: Annotated[int, Parameter(metavar="N")] = 1
    """nodes of the allocation (srun)"""
    array: Annotated[int | None, Parameter(metavar="N")] = None
    """tasks of the array; left out: one for each slide, 10 at most"""
    jobs: Annotated[int, Parameter(metavar="N")] = 4
    """worker jobs (slurm)"""

    def __post_init__(self) -> None:
        for name, value in (("--cpus", self.cpus), ("--nodes", self.nodes), ("--jobs", self.jobs)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.gpus < 0:
            raise ConfigError(f"--gpus is {self.gpus}; it must be 0 or more")
        if not re.fullmatch(WALLTIME, self.time):
            raise ConfigError(f"--time is '{self.time}'; write it as HH:MM:SS or D-HH:MM:SS")
        if not re.fullmatch(r"[1-9]\d*[MG]", self.mem):
            raise ConfigError(f"--mem is '{self.mem}'; write it as 32G or 64000M")

    @property
    def memory_gb(self) -> float:
        """The memory in GB, as ``slurm.memory_gb`` wants it."""
        return int(self.mem[:-1]) * {"M": 2**20, "G": 2**30}[self.mem[-1]] / 1e9


DEFAULTS = Ask()


def init(
    pipeline: Name,
    manifest: Path,
    /,
    *,
    out: Path = Path("quadrat_out"),
    cluster: Literal["array", "srun", "slurm"] = "array",
    overwrite: bool = False,
    overrides: Annotated[tuple[str, ...], Parameter(name="--set", metavar="KEY=VALUE")] = (),
    ask: Annotated[Ask, Parameter(name="*")] = DEFAULTS,
) -> int:
    """Write a job script for SLURM.

    The script goes into OUT/hpc. array: tasks that need nothing of each other;
    srun: one allocation, of several nodes if need be; slurm: a small job that
    submits worker jobs. Submit it again, and it goes on.

    examples:
      quadrat hpc init nuclei slides.csv --out out --partition gpu --gpus 1
      quadrat hpc init my.yaml slides.csv --out out --array 20 --time 02:00:00
      quadrat hpc init my.yaml slides.csv --out out --cluster srun --nodes 2

    Args:
        pipeline: a shipped pipeline's name, or a YAML file
        manifest: CSV with the columns slide, mpp, ...
        out: folder of the run; all nodes must see it
        cluster: array, srun, or slurm
        overwrite: replace a script that is there
        overrides: override a key of the pipeline, e.g. run.interface=ib0
    """
    from quadrat.config.manifest import read_manifest
    from quadrat.config.pipeline import find_pipeline, load_pipeline
    from quadrat.core.files import write_file

    load_pipeline(pipeline, overrides)
    slides = len(read_manifest(manifest))
    tasks = min(slides, AT_ONCE) if ask.array is None else ask.array
    if not 1 <= tasks <= slides:
        raise ConfigError(
            f"--array is {tasks}, but {manifest} has {slides} slides; it must lie in 1 to {slides}"
        )
    if pipeline.endswith((".yaml", ".yml")):
        pipeline = str(find_pipeline(pipeline).absolute())
    out = out.absolute()
    script = out / "hpc" / f"{cluster}.sh"
    if script.exists() and not overwrite:
        raise ConfigError(f"{script} is there already; --overwrite replaces it")
    words = ["run", pipeline, "--manifest", str(manifest.absolute()), "--out", str(out)]
    words += (word for one in overrides for word in ("--set", one))
    write_file(script, _script(cluster, words, out, ask, tasks))
    print(f"wrote {script} ({WAYS[cluster]})\n\nnext:")
    for line in (
        f"sbatch {quote(str(script))}",
        f"quadrat status {quote(str(out))}",
        f"sbatch {quote(str(script))}   # once more, if some of it was stopped: it goes on",
    ):
        print(f"  {line}")
    return EXIT_OK


def _script(cluster: str, words: Sequence[str], out: Path, ask: Ask, tasks: int) -> str:
    """The text of a job script."""
    command = [sys.executable, "-m", "quadrat", *words]
    number = "%A_%a" if cluster == "array" else "%j"
    lines = [f"--job-name=quadrat-{cluster}"]
    lines += [f"--partition={ask.partition}"] if ask.partition else []
    lines += [f"--account={ask.account}"] if ask.account else []
    lines += [f"--time={ask.time}"]
    part = ""
    if cluster == "array":
        lines += [f"--array=1-{tasks}", "--nodes=1", "--ntasks=1", *_size(ask)]
        command += ["--cluster", "local"]
        part = f' --part "$SLURM_ARRAY_TASK_ID/{tasks}"'
    elif cluster == "srun":
        lines += [f"--nodes={ask.nodes}", "--ntasks-per-node=1", *_size(ask)]
        command += ["--cluster", "srun"]
    else:
        lines += ["--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=8G"]
        command += ["--cluster", "slurm", "--workers", str(ask.jobs), *_workers(ask)]
    lines += ["--requeue", f"--signal=B:USR1@{SIGNAL_S}", "--open-mode=append"]
    lines += [f"--output={out / 'hpc' / f'{cluster}-{number}.log'}"]
    return "\n".join(
        (
            "#!/bin/bash",
            *(f"#SBATCH {line}" for line in lines),
            "",
            "# What modules and environments need goes here.",
            f"cd {quote(os.getcwd())} || exit",
            "# exec: the signal before the walltime is sent to this shell, and must reach quadrat",
            f"exec {join(command)}{part}",
            "",
        )
    )


def _size(ask: Ask) -> list[str]:
    """CPUs, memory and GPUs of a node's share."""
    gpus = [f"--gpus-per-node={ask.gpus}"] if ask.gpus else []
    return [f"--cpus-per-task={ask.cpus}", f"--mem={ask.mem}", *gpus]


def _workers(ask: Ask) -> list[str]:
    """What the worker jobs ask for, as options of ``quadrat run``."""
    keys = {
        "partition": ask.partition and json.dumps(ask.partition),
        "account": ask.account and json.dumps(ask.account),
        "walltime": json.dumps(ask.time),
        "cpus": str(ask.cpus),
        "memory_gb": f"{ask.memory_gb - 0.0005:.3f}",  # rounded down
        "gpus": str(ask.gpus),
    }
    return [
        word for key, value in keys.items() if value for word in ("--set", f"slurm.{key}={value}")
    ]
