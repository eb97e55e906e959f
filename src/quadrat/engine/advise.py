"""What to ask a scheduler for, from what a few slides took, and what was used of what was asked.
Pure functions on the records of a run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from quadrat.core.errors import ConfigError
from quadrat.engine.drivers import Driver
from quadrat.engine.timings import Timing

TIME_MARGIN, MEMORY_MARGIN = 1.5, 1.3
"""What is asked for is so many times what is expected."""
DRIVER_MB = 1024.0
"""What the driver itself takes, beside its workers."""
START_S = 60.0
"""To start a driver and its workers."""
STEP_S = 600
"""Times are rounded up to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to ask for."""

    slides: int
    """How many slides it is for."""
    measured: int
    """How many slides it is made from."""
    worker_s: float
    """What all slides are expected to take, in seconds of workers."""
    workers: int
    """Worker processes of a task, as in the run that was measured."""
    busy: float
    """Share of their time in which they worked there."""
    tasks: int
    """Of the array."""
    time_s: int
    """Walltime of a task."""
    cpus: int
    """Of a task."""
    memory_gb: int
    """Of a task, in GiB."""
    gpus: int
    """Of a task."""
    unseen: int
    """Slides of which the file cannot be looked at; they count as an average one."""

    @property
    def lines(self) -> tuple[str, ...]:
        """For the head of a job script."""
        return (
            f"#SBATCH --array=1-{self.tasks}",
            f"#SBATCH --time={clock(self.time_s)}",
            f"#SBATCH --cpus-per-task={self.cpus}",
            f"#SBATCH --mem={self.memory_gb}G",
            *((f"#SBATCH --gpus={self.gpus}",) if self.gpus else ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a job was given, and what it used of that."""

    job: str
    """Its id, with the task of an array."""
    slides: int
    """How many slides it finished."""
    time_s: tuple[float | None, float]
    """Walltime, given (None: not known) and used."""
    cpus: tuple[int | None, float]
    """CPUs, given and busy on average."""
    memory_gb: tuple[float | None, float]
    """GiB, given and used at most."""


def advise(
    timings: Sequence[Timing], drivers: Sequence[Driver], sizes: Sequence[int], *, hours: float
) -> Advice:
    """What to ask for, for slides of so many bytes (0: not known), if a task of the array is to
    take about ``hours``.

    Raises:
        ConfigError: nothing was measured that it could be made from.
    """
    timed = [timing for timing in timings if timing.time and timing.worker_s > 0]
    if not timed:
        raise ConfigError(
            "no slide was measured in this folder; run a few first (three of different size will "
            "do), then ask again"
        )
    if not sizes:
        raise ConfigError("there is no slide to do; name some with --manifest")
    if not hours > 0:
        raise ConfigError(f"--hours is {hours:g}; it must be above 0")
    driver = _of(drivers, timed[-1])
    workers = max(1, driver.workers) if driver is not None else 1
    busy = _busy(drivers, timed)
    expected = _expected(timed, sizes)
    at_once = workers * busy
    tasks = min(len(sizes), max(1, math.ceil(sum(expected) / at_once / (hours * 3600))))
    # slides are dealt out by turns, so a task may have an average share and a long slide more
    wall = (sum(expected) / tasks + (max(expected) if tasks > 1 else 0)) / at_once + START_S
    peak = DRIVER_MB + workers * max(timing.peak_mb for timing in timed)
    return Advice(
        slides=len(sizes),
        measured=len(timed),
        worker_s=round(sum(expected), 1),
        workers=workers,
        busy=round(busy, 3),
        tasks=tasks,
        time_s=math.ceil(wall * TIME_MARGIN / STEP_S) * STEP_S,
        cpus=workers * (driver.threads if driver is not None else 1),
        memory_gb=math.ceil(peak * MEMORY_MARGIN / 1024),
        gpus=_gpus(driver),
        unseen=sum(not size for size in sizes),
    )


def _expected(timed: Sequence[Timing], sizes: Sequence[int]) -> list[float]:
    """Seconds of workers for each slide: in proportion to its file."""
    average = mean(timing.worker_s for timing in timed)
    sized = [timing for timing in timed if timing.file_bytes]
    if not sized:
        return [average] * len(sizes)
    a_byte = sum(t.worker_s for t in sized) / sum(t.file_bytes for t in sized)
    return [size * a_byte if size else average for size in sizes]


def _busy(drivers: Sequence[Driver], timed: Sequence[Timing]) -> float:
    """Share of the workers' time in which they worked, over all drivers."""
    worked = there = 0.0
    for driver in drivers:
        mine = [timing for timing in timed if timing.driver == driver.id]
        if mine:
            worked += sum(timing.worker_s for timing in mine)
            there += _wall(driver, mine) * max(1, driver.workers)
    return min(1.0, max(0.05, worked / there)) if there > 0 else 1.0


def _wall(driver: Driver, mine: Sequence[Timing]) -> float:
    """How long a driver was at work."""
    ended = driver.ended or max((timing.time for timing in mine), default=driver.began)
    return max(1.0, ended - driver.began)


def _of(drivers: Sequence[Driver], timing: Timing) -> Driver | None:
    return next((driver for driver in drivers if driver.id == timing.driver), None)


def _gpus(driver: Driver | None) -> int:
    if driver is None or "cuda" not in driver.numerics:
        return 0
    return max(1, _number(driver.given, "SLURM_GPUS_ON_NODE") or 0)


def used(drivers: Sequence[Driver], timings: Sequence[Timing]) -> list[Used]:
    """What was used of what SLURM gave, one for each job."""
    found = []
    for driver in drivers:
        job = driver.given.get("SLURM_JOB_ID")
        if job is None:
            continue
        given = driver.given
        mine = [timing for timing in timings if timing.driver == driver.id]
        wall = _wall(driver, mine)
        cpus = _number(given, "SLURM_CPUS_PER_TASK") or _number(given, "SLURM_CPUS_ON_NODE")
        begin, end = (_number(given, f"SLURM_JOB_{at}_TIME") for at in ("START", "END"))
        per_cpu = _number(given, "SLURM_MEM_PER_CPU")
        memory = _number(given, "SLURM_MEM_PER_NODE") or (per_cpu or 0) * (cpus or 0)
        peak = max((timing.peak_mb for timing in mine), default=driver.peak_mb)
        worked = sum(timing.worker_s for timing in mine) * driver.threads
        task = given.get("SLURM_ARRAY_TASK_ID")
        found.append(
            Used(
                job=f"{given.get('SLURM_ARRAY_JOB_ID', job)}_{task}" if task else job,
                slides=len(mine),
                time_s=(float(end - begin) if begin and end else None, round(wall, 1)),
                cpus=(cpus, round(worked / wall, 2)),
                memory_gb=(
                    round(memory / 1024, 2) if memory else None,
                    round((DRIVER_MB + max(1, driver.workers) * peak) / 1024, 2),
                ),
            )
        )
    return found


def _number(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name, "")
    return int(text) if text.isdecimal() else None


def clock(seconds: float) -> str:
    """As SLURM writes a walltime: [D-]HH:MM:SS."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hour:02}:{minute:02}:{second:02}"
