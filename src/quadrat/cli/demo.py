"""The demo: phantoms with exact truth, four trainings from random weights, one batch through dask,
one table.

Every figure comes from ``quadrat.cli.judge`` in a process of its own, which sees only the files on
disk.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import Pipeline, load_pipeline
from quadrat.core.errors import QuadratError
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Job
from quadrat.engine.progress import Reporter
from quadrat.engine.run import EXIT_OK, run
from quadrat.phantom import PhantomSpec, write_phantom
from quadrat.phantom.spec import RegionName
from quadrat.training.plan import train

TASKS = ("instance", "semantic", "detection", "classification")
"""The dearest training first, so that two workers end together."""
REGIONS: tuple[RegionName, ...] = get_args(RegionName)
SMALL_PX = 2048


@dataclass(frozen=True, slots=True)
class Scale:
    """How much the demo does: slides to learn from, to choose thresholds on, to judge; side of the
    large one in px; training steps where they are not the pipeline's."""

    train: int
    validate: int
    judge: int
    large_px: int
    steps: Mapping[str, int]


SMALL_STEPS = {"instance": 220, "semantic": 100, "detection": 130, "classification": 120}
SCALES = {
    "full": Scale(train=8, validate=2, judge=8, large_px=8192, steps={}),
    "small": Scale(train=3, validate=1, judge=3, large_px=4096, steps=SMALL_STEPS),
}


def demo(out: Path, *, scale: str, workers: int, reporter: Reporter) -> int:
    """Make, train, run, judge; returns the exit code of the worst part."""
    started = time.perf_counter()
    size = SCALES[scale]
    out.mkdir(parents=True, exist_ok=True)
    with open_executor("dask", workers=workers, threads=1) as executor:
        reporter.say("writing phantom slides with exact truth")
        make_phantoms(out / "phantoms", size, executor)
        seconds = {"phantoms": time.perf_counter() - started}
        pipelines = [demo_pipeline(task, out, size) for task in TASKS]
        reporter.say("training four models from random weights")
        train(pipelines, reporter=reporter, executor=executor)
        seconds["train"] = time.perf_counter() - started - sum(seconds.values())
        codes = []
        slides = read_manifest(out / "phantoms" / "judge.csv")
        for pipeline in pipelines:
            codes.append(
                run_task(pipeline, slides, out / "runs" / pipeline.task, reporter, executor)
            )
        seconds["run"] = time.perf_counter() - started - sum(seconds.values())
    judge(out, reporter)
    seconds["judge"] = time.perf_counter() - started - sum(seconds.values())
    about = {
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "peak_worker_mb": reporter.peak_mb,
    }
    (out / "cost.json").write_text(json.dumps(about) + "\n")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    reporter.say(
        f"done in {time.perf_counter() - started:.0f} s ({spent}); largest worker process "
        f"{reporter.peak_mb / 1024:.2f} GiB"
    )
    reporter.say(
        f"figures: {out / 'scores.json'}; pictures: {out}/runs/TASK/results/SLIDE/overlay.png"
    )
    return max(codes, default=EXIT_OK)


def make_phantoms(folder: Path, size: Scale, executor: Executor) -> None:
    """Training, validation and unseen slides with other seeds, and their manifests."""
    groups: dict[str, list[tuple[PhantomSpec, str]]] = {"train": [], "judge": []}
    for i in range(size.train + size.validate):
        split = "train" if i < size.train else "val"
        groups["train"].append((_spec(f"{split}_{i}", 100 + i, SMALL_PX), split))
    for i in range(size.judge):
        groups["judge"].append((_spec(f"small_{i}", 200 + i, SMALL_PX), "test"))
    groups["judge"].append((_spec("large_0", 300, size.large_px), "test"))
    jobs = [
        Job(f"{group}/{spec.name}", (str(folder / group), spec))
        for group, members in groups.items()
        for spec, _ in members
        if not (folder / group / f"{spec.name}.truth.json").exists()
    ]
    for outcome in executor.run(_write, sorted(jobs, key=lambda job: -job.payload[1].width)):
        if outcome.failure is not None:
            raise QuadratError(
                f"phantom {outcome.key}: {outcome.failure.message}\n{outcome.failure.trace}"
            )
    for group, members in groups.items():
        with (folder / f"{group}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["slide", "annotation", "annotated", "split", "case"])
            for spec, split in members:
                truth = f"{group}/{spec.name}.truth.geojson"
                writer.writerow([f"{group}/{spec.name}.tiff", truth, "all", split, spec.name])


def _spec(name: str, seed: int, side: int) -> PhantomSpec:
    dominant = REGIONS[seed % len(REGIONS)]
    return PhantomSpec(
        name=name, width=side, height=side, seed=seed, dominant=dominant, tissue_fraction=0.5
    )


def _write(payload: tuple[str, PhantomSpec]) -> str:
    """Written beside its place and moved there, so that an interrupted demo leaves no
    half phantom.
    """
    folder, spec = Path(payload[0]), payload[1]
    staging = folder / f".{spec.name}"
    shutil.rmtree(staging, ignore_errors=True)
    write_phantom(staging, spec=spec)
    for path in sorted(staging.iterdir(), key=lambda p: p.name.endswith(".truth.json")):
        os.replace(path, folder / path.name)
    staging.rmdir()
    return spec.name


def demo_pipeline(task: str, out: Path, size: Scale) -> Pipeline:
    """The shipped demo pipeline of a task, pointed at this demo's folders."""
    overrides = [
        f"data.manifest={json.dumps(str(out / 'phantoms' / 'train.csv'))}",
        f"model.package={json.dumps(str(out / 'packages' / task))}",
        *(f"train.steps={steps}" for name, steps in size.steps.items() if name == task),
    ]
    return load_pipeline(f"demo_{task}", overrides)


def run_task(
    pipeline: Pipeline,
    slides: Sequence[SlideRef],
    out: Path,
    reporter: Reporter,
    executor: Executor,
) -> int:
    """One pipeline over the unseen slides."""
    reporter.say(f"running {pipeline.name} on {len(slides)} unseen slides")
    return run(pipeline, slides, out, reporter=reporter, executor=executor).exit_code


def judge(out: Path, reporter: Reporter) -> list[dict[str, Any]]:
    """Let a separate process compare files with truth; prints the table and returns the records."""
    scores = out / "scores.json"
    scores.unlink(missing_ok=True)
    for task in TASKS:
        command = [
            sys.executable,
            "-m",
            "quadrat.cli.judge",
            "--truth",
            str(out / "phantoms" / "judge"),
            "--results",
            str(out / "runs" / task / "results"),
            "--task",
            task,
            "--out",
            str(scores),
        ]
        if task == TASKS[-1]:
            command.append("--table")
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise QuadratError(f"the judge failed on {task} (exit code {done.returncode})")
    records: list[dict[str, Any]] = json.loads(scores.read_text())
    return records
