"""What a batch costs beside its network, and what it does with bad slides.

(a) small slides, six of them bad (truncated, a corrupt tile, no mpp, no slide, one that kills its
worker, one that hangs) on two workers: the others are done, six are explained, and the command ends
with 1; then the same command again, which finds nothing to do.
(b) planning: the look at all slides of a run before the first is begun; files of 3 MiB, as a slide
is recognised by its first and its last MiB.
(c) the driver: outcomes booked per second (flow, batch, journal on this disk) when steps do
nothing.
(d) fixed cost of a shard where the worker has seen the slide: what a job of inference takes in the
worker when its windows cost nothing, writing left out, and what a message to a worker and back
takes, in wall time and in CPU time of all processes (on a busy machine the wall says little).

    python benchmarks/batch.py [--quick] [--only abcd]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from small_runs import MPP, PIPELINE, SETTINGS, slides_of, words

from quadrat.config.manifest import SlideRef, slides_from_paths
from quadrat.config.pipeline import Pipeline, load_pipeline
from quadrat.core.lattice import Cell
from quadrat.core.numerics import Numerics
from quadrat.engine import run as engine_run
from quadrat.engine import steps
from quadrat.engine.batch import Batch
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Job, Outcome, Serial, Source, guarded, run_all
from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.flow import ANYWHERE
from quadrat.engine.journal import Done, Journal, PartReceipt
from quadrat.engine.progress import Reporter
from quadrat.engine.state import AnyStep, RunSettings, ShardStep, SlideState, Step
from quadrat.engine.work import SlideWork, work_folder

BAD = ("truncated", "corrupt", "no_mpp", "no_slide", "kills", "hangs")
DEADLINE_S = 20.0


def die(payload: object) -> None:
    """Kill the process, as memory that runs out does."""
    os._exit(9)


def hang(payload: object) -> None:
    """Never come back."""
    time.sleep(10_000)


@dataclass(frozen=True, slots=True)
class Deadly:
    """A source in which the inference of two slides does what no slide file does on request."""

    source: Source

    @property
    def network_left(self) -> bool:
        return self.source.network_left

    def next(self, needs: Any) -> Job | None:
        job = self.source.next(needs)
        if job is None or "/predict/" not in job.key:
            return job
        fatal: dict[str, Callable[[Any], Any]] = {"kills": die, "hangs": hang}
        return replace(job, fn=fatal.get(job.key.partition("/")[0], job.fn))


@dataclass(frozen=True, slots=True)
class WithDeadly:
    """An executor that runs them."""

    executor: Executor

    @property
    def ahead(self) -> int:
        return self.executor.ahead

    def numerics(self, device: str, threads: int) -> Numerics:
        return self.executor.numerics(device, threads)

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        return self.executor.run(Deadly(source))


def spoil(folder: Path, good: Path) -> list[Path]:
    """Six bad slides."""
    whole = good.read_bytes()
    content = dict.fromkeys(BAD, whole)
    content["truncated"] = whole[: len(whole) // 2]
    middle = len(whole) // 2
    content["corrupt"] = whole[:middle] + bytes(200) + whole[middle + 200 :]
    content["no_slide"] = b"slide,mpp\n" * 1000
    found = [folder / f"{name}{good.suffix}" for name in BAD]
    for path in found:
        path.write_bytes(content[path.stem])
    import numpy as np
    import tifffile

    tifffile.imwrite(
        folder / f"no_mpp{good.suffix}", np.zeros((512, 512, 3), np.uint8), tile=(256, 256)
    )
    return found


def bad_slides(folder: Path, *, number: int) -> dict[str, object]:
    """(a)"""
    slides = slides_of(folder, number - len(BAD), side=512)
    slides += spoil(folder, slides[0])
    out = folder / "out"
    pipeline = load_pipeline(PIPELINE, [*SETTINGS, f"run.deadline_s={DEADLINE_S}"])
    refs = slides_from_paths([str(path) for path in slides], mpp=None)
    start = time.perf_counter()
    with (
        open_executor(workers=2, threads=1, logs=str(folder / "logs")) as executor,
        Reporter(quiet=True) as reporter,
    ):
        report = engine_run.run(
            pipeline, refs, out, reporter=reporter, executor=WithDeadly(executor)
        )
    took = time.perf_counter() - start
    failed = {row.slide: row.reason for row in report.rows if row.status == "failed"}
    for name, reason in failed.items():
        print(f"  {name}: {reason[:140]}")
    again = words(slides, out, "-j", "2", "--set", f"run.deadline_s={DEADLINE_S}", "--quiet")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        second = subprocess.run(again, capture_output=True, check=False)
        times.append(time.perf_counter() - start)
    return {
        "slides": len(slides),
        "done": sum(row.status == "done" for row in report.rows),
        "explained": len(failed),
        "as_they_should_be": sorted(failed) == sorted(BAD),
        "exit_code": report.exit_code,
        "seconds": round(took, 1),
        "second_run_s": round(min(times), 2),
        "second_exit_code": second.returncode,
    }


PLANNING = """
import json, resource, sys, time
from pathlib import Path
from small_runs import PIPELINE, SETTINGS
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import run, todo
paths = sorted(str(path) for path in Path(sys.argv[1]).glob("*.svs"))
refs, pipeline = slides_from_paths(paths, mpp=0.5), load_pipeline(PIPELINE, SETTINGS)
asked = run._asked(pipeline, Path(sys.argv[1]) / "out", until="results", overwrite=False,
                   infer=True, retry_failed=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, cpu = time.perf_counter(), time.process_time()
left, rows = todo.prepare(asked, refs)
assert len(left) == len(paths), rows
print(json.dumps({
    "slides": len(left),
    "seconds": round(time.perf_counter() - start, 2),
    "cpu_s": round(time.process_time() - cpu, 2),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "of_it_for_slides_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
}))
"""


def planning(folder: Path, *, number: int) -> dict[str, object]:
    """(b), in a process of its own for the sake of its memory. The files are sparse."""
    for i in range(number):
        with (folder / f"s{i:05}.svs").open("wb") as stream:
            stream.write(i.to_bytes(8, "little"))
            stream.truncate(3 << 20)
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(folder)],
        capture_output=True, check=False, text=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@dataclass(frozen=True, slots=True)
class Nothing:
    """Jobs that do nothing."""

    shards: tuple[Cell, ...] = ()


def no_work(job: Nothing) -> Done:
    """Nothing for a slide."""
    return Done()


def no_shards(job: Nothing) -> list[PartReceipt]:
    """Nothing for some shards."""
    return [PartReceipt(shard, 0) for shard in job.shards]  # type: ignore[arg-type]


class Inline:
    """Runs jobs here, as a worker would whose messages take no time."""

    ahead = 0

    def numerics(self, device: str, threads: int) -> Numerics:
        return Serial().numerics(device, threads)

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        while (job := source.next(ANYWHERE)) is not None:
            yield guarded(job)


def driver(folder: Path, *, slides: int, side: int) -> dict[str, object]:
    """(c): every slide has three steps of ``side`` x ``side`` shards."""
    pipeline = load_pipeline(PIPELINE, SETTINGS)
    shards = [(row, col) for row in range(side) for col in range(side)]
    way: list[AnyStep] = [
        Step("plan", "tile", no_work, lambda state, run: Nothing()),
        *(
            ShardStep(
                name,
                "predict",
                no_shards,
                lambda state, run, some: Nothing(some),
                lambda state: shards,
                early=no_shards if name == "b" else None,
            )
            for name in "abc"
        ),
    ]
    states = iter([_state(folder, pipeline, f"s{i}") for i in range(slides)])
    with Reporter(folder / "log.jsonl", quiet=True) as reporter:
        batch = Batch(RunSettings(pipeline, ""), Inline(), reporter)
        start, cpu = time.perf_counter(), time.process_time()
        batch.drive(lambda: next(states, None), way, total=slides)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
    outcomes = slides * (3 * len(shards) + 1)
    return {
        "outcomes": outcomes,
        "outcomes_per_s": round(outcomes / took),
        "outcomes_per_cpu_s": round(outcomes / cpu),
    }


def _state(folder: Path, pipeline: Pipeline, name: str) -> SlideState:
    ref = SlideRef(name=name, path=str(folder / f"{name}.svs"))
    spec: Any = None
    work = SlideWork(ref, str(work_folder(folder, name)), spec, pipeline.slide, "instance", name)
    return SlideState(work, Fingerprints("t" * 64, "p" * 64, "r" * 64), Journal(work.journal))


def shard_cost(folder: Path, *, side: int) -> dict[str, object]:
    """(d)"""
    (slide,) = slides_of(folder, 1, side=side)
    pipeline = load_pipeline(PIPELINE, SETTINGS)
    refs = slides_from_paths([str(slide)], mpp=MPP)
    module: Any = steps
    real, timed = module.predict_groups, _Timed()
    canned: list[Any] = []

    def free(*given: Any, **options: Any) -> Iterator[Any]:
        """The predictions of the first window, for all."""
        groups = given[4]
        if not canned:
            canned.extend(p for found in real(*given, **options) for p in found.values())
        yield from (dict.fromkeys(cells, canned[0]) for cells in groups)

    module.predict_groups = free
    try:
        engine_run.run(
            pipeline, refs, folder / "out", until="predict", executor=timed,
            reporter=Reporter(quiet=True),
        )  # fmt: skip
    finally:
        module.predict_groups = real
    jobs = [one for one in timed.outcomes if "/predict/" in one.key][1:]
    beside = sorted(1000 * (one.seconds - sum(one.spent.values())) for one in jobs)
    with open_executor(workers=1, threads=1, logs=str(folder / "logs")) as executor:
        for number in (50, 500):  # the first ones warm up
            start, cpu = time.perf_counter(), cpu_seconds()
            list(run_all(executor, no_shards, {f"s/x/{i}": Nothing() for i in range(number)}))
            took, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    return {
        "shards": len(jobs),
        "job_ms": round(beside[len(beside) // 2], 2),
        "job_best_ms": round(beside[0], 2),
        "message_ms": round(1000 * took / number, 2),
        "message_cpu_ms": round(1000 * cpu / number, 2),
    }


def cpu_seconds() -> float:
    """CPU time of this process and of all below it."""
    here = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (here, *here.children(recursive=True)))


class _Timed(Serial):
    """Keeps the outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome[Any]] = []

    def run(self, source: Source) -> Iterator[Outcome[Any]]:
        for outcome in super().run(source):
            self.outcomes.append(outcome)
            yield outcome


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, say what was found, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer slides: a minute or so")
    parser.add_argument("--only", help="some of the four (default: all; with --quick, not a)")
    args = parser.parse_args(argv)
    quick = args.quick
    only = args.only or ("bcd" if quick else "abcd")
    parts: dict[str, tuple[str, Callable[[Path], dict[str, object]]]] = {
        "a": ("bad_slides", lambda folder: bad_slides(folder, number=16 if quick else 200)),
        "b": ("planning", lambda folder: planning(folder, number=1000 if quick else 10_000)),
        "c": ("driver", lambda folder: driver(folder, slides=4, side=25 if quick else 50)),
        "d": ("shard", lambda folder: shard_cost(folder, side=2048 if quick else 4096)),
    }
    found: dict[str, object] = {}
    for letter, (name, measure) in parts.items():
        if letter in only:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = measure(Path(folder))
            print(f"({letter}) {name}: {found[name]}", flush=True)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
