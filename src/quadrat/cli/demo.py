"""The demo: the commands phantom, train, run and evaluate in a row, and one table of their figures.

Phantoms have exact truth, and the four models begin from random weights. Every figure of the table
is read from the files that ``quadrat evaluate`` writes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.config.manifest import read_manifest
from quadrat.config.pipeline import Pipeline, load_pipeline
from quadrat.core.errors import EXIT_OK, QuadratError, WriteError
from quadrat.core.files import write_file
from quadrat.core.text import aligned
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, run_all
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run
from quadrat.evaluation.evaluate import (
    EVALUATION,
    EvaluationOptions,
    evaluate,
    evaluation_jobs,
)
from quadrat.metrics.counts import relative_error
from quadrat.phantom import REGION_NAMES, PhantomFiles, PhantomSpec, write_phantom
from quadrat.training.plan import train_all, training_of

TASKS = ("instance", "semantic", "detection", "classification")
"""The training that takes longest comes first, so that two workers end together."""
SMALL_PX = 2048
MANIFEST_COLUMNS = ("slide", "annotation", "annotated", "label", "split", "case")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much the demo does."""

    train: int
    """Slides to train on."""
    validate: int
    """Slides to choose thresholds on."""
    test: int
    """Small slides to evaluate; a large one is added."""
    large_px: int
    """Side of the large one, px."""
    steps: Mapping[str, int]
    """Task -> training steps, where they are not those of the pipeline."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The columns of per_slide.csv that the table shows of a task."""

    planted: str
    """How much is there, by the truth."""
    found: str
    """How much was found."""
    units: tuple[str, str]
    """Units of both, if they are not objects."""
    metric: str
    """The figure of quality."""


HEADER = ("task", "slides", "planted", "found", "largest error", "metric", "mean", "worst")
SMALL_STEPS = {"instance": 220, "semantic": 100, "detection": 130, "classification": 120}
SCALES = {
    "full": Scale(train=8, validate=2, test=8, large_px=8192, steps={}),
    "small": Scale(train=3, validate=1, test=3, large_px=4096, steps=SMALL_STEPS),
}
SHOWN = {
    "instance": Shown("count_planted", "count_found", ("", ""), "pq"),
    "semantic": Shown("annotated_mm2", "found_mm2", ("mm²", "mm²"), "dice"),
    "detection": Shown("count_planted", "count_found", ("", ""), "f1"),
    "classification": Shown(
        "evaluated_slides", "accuracy", ("slides", "right"), "tile_balanced_accuracy"
    ),
}


def demo(out: Path, *, scale: str, workers: int, reporter: Reporter) -> int:
    """Make phantoms, train, run, evaluate, print the table; the exit code of the worst part."""
    size, started = SCALES[scale], time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - started - sum(seconds.values())

    pipelines = [demo_pipeline(task, out, size) for task in TASKS]
    test = out / "phantoms" / "test.csv"
    reports = []
    with open_executor(workers=workers, threads=1) as executor:
        reporter.say("writing phantom slides with exact truth")
        make_phantoms(out / "phantoms", size, executor)
        lap("phantoms")
        reporter.say("training four models from random weights")
        trainings = [training_of(pipeline) for pipeline in pipelines]
        train_all(trainings, reporter=reporter, executor=executor)
        lap("train")
        slides = read_manifest(test)
        for pipeline in pipelines:
            reporter.say(f"running {pipeline.name} on {len(slides)} unseen slides")
            place = run_folder(out, pipeline.task)
            reports.append(run(pipeline, slides, place, reporter=reporter, executor=executor))
        lap("run")
    code = max((report.exit_code for report in reports), default=EXIT_OK)
    if code != EXIT_OK:
        reporter.say(f"not evaluated: slides failed; see {out}/runs/TASK/results/summary.csv")
        return code
    for pipeline in pipelines:
        reporter.say(f"evaluating {pipeline.name}")
        place = run_folder(out, pipeline.task)
        options = EvaluationOptions(results=(place / "results",))
        evaluate(evaluation_jobs(pipeline, test, place, options), place, options)
    lap("evaluate")
    for line in aligned(figures_table(out)):
        print(line)
    about = {
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "peak_worker_mb": reporter.peak_mb,
    }
    write_file(out / "cost.json", json.dumps(about) + "\n")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    reporter.say(
        f"done in {time.perf_counter() - started:.0f} s ({spent}); largest worker process "
        f"{reporter.peak_mb / 1024:.2f} GiB"
    )
    reporter.say(f"figures: {out}/runs/TASK/evaluation; pictures: {out}/runs/TASK/results/SLIDE")
    return EXIT_OK


def run_folder(out: Path, task: str) -> Path:
    """Where the results and the evaluation of a task go."""
    return out / "runs" / task


def make_phantoms(folder: Path, size: Scale, executor: Executor) -> None:
    """Slides for training, validation and test, each with its own seed, and two manifests:
    train.csv and test.csv. Slides that are there already are kept."""
    trained = [
        (_spec(f"train_{i}", 100 + i, SMALL_PX), "train" if i < size.train else "val")
        for i in range(size.train + size.validate)
    ]
    tested = [(_spec(f"small_{i}", 200 + i, SMALL_PX), "test") for i in range(size.test)]
    tested.append((_spec("large_0", 300, size.large_px), "test"))
    groups = {"train": trained, "test": tested}
    todo = [
        (folder / group, spec)
        for group, members in groups.items()
        for spec, _ in members
        if not PhantomFiles.of(folder / group, spec.name).facts.exists()
    ]
    todo.sort(key=lambda one: -one[1].width)
    jobs = {f"{place.name}/{spec.name}": (place, spec) for place, spec in todo}
    for outcome in run_all(executor, _write, jobs):
        if outcome.failure is not None:
            kind = WriteError if outcome.failure.unwritten else QuadratError
            raise kind(f"phantom {outcome.key}: {outcome.failure.message}\n{outcome.failure.trace}")
    for group, members in groups.items():
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(MANIFEST_COLUMNS)
        writer.writerows(_manifest_row(folder / group, spec.name, split) for spec, split in members)
        write_file(folder / f"{group}.csv", text.getvalue())


def _spec(name: str, seed: int, side: int) -> PhantomSpec:
    dominant = REGION_NAMES[seed % len(REGION_NAMES)]
    return PhantomSpec(
        name=name, width=side, height=side, seed=seed, dominant=dominant, tissue_fraction=0.5
    )


def _write(payload: tuple[Path, PhantomSpec]) -> str:
    """Write one phantom, on a worker. Its facts are written last: if they exist, it is complete."""
    folder, spec = payload
    write_phantom(folder, spec=spec)
    return spec.name


def _manifest_row(folder: Path, name: str, split: str) -> tuple[str, ...]:
    """A phantom with its truth as a user would list it. Only test slides have a label: a classifier
    is trained on regions, and a label would count for all tiles of a slide."""
    files = PhantomFiles.of(folder, name)
    label = json.loads(files.facts.read_text())["slide_label"] if split == "test" else ""
    slide, truth = (f"{folder.name}/{path.name}" for path in (files.slide, files.geojson))
    return slide, truth, "all", label, split, name


def demo_pipeline(task: str, out: Path, size: Scale) -> Pipeline:
    """The shipped demo pipeline of a task, with this demo's folders."""
    overrides = [
        f"data.manifest={json.dumps(str(out / 'phantoms' / 'train.csv'))}",
        f"model.package={json.dumps(str(out / 'packages' / task))}",
    ]
    if task in size.steps:
        overrides.append(f"train.steps={size.steps[task]}")
    return load_pipeline(f"demo_{task}", overrides)


def figures_table(out: Path) -> list[tuple[str, ...]]:
    """A header, and a row per task from its per_slide.csv: slides, planted, found, the largest
    error of a slide, and the metric (mean and worst slide)."""
    table: list[tuple[str, ...]] = [HEADER]
    for task, shown in SHOWN.items():
        path = run_folder(out, task) / EVALUATION / "per_slide.csv"
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        planted, found, metric = (
            [float(row[name] or "nan") for row in rows]
            for name in (shown.planted, shown.found, shown.metric)
        )
        table.append(
            (
                task,
                str(len(rows)),
                _amount(planted, shown.units[0]),
                _amount(found, shown.units[1]),
                _largest_error(planted, found, shown.units[0]),
                shown.metric,
                f"{sum(metric) / len(metric):.3f}",
                f"{min(metric):.3f}",
            )
        )
    return table


def _amount(values: Sequence[float], unit: str) -> str:
    return f"{sum(values):,.{2 if unit == 'mm²' else 0}f} {unit}".rstrip()


def _largest_error(planted: Sequence[float], found: Sequence[float], unit: str) -> str:
    """Of counts and areas the largest relative error; of labels how many are wrong."""
    if unit == "slides":
        return f"{round(sum(planted) - sum(found))} wrong"
    errors = [abs(relative_error(p, f)) for p, f in zip(planted, found, strict=True)]
    return f"{max(errors, default=math.nan):.2%}"
