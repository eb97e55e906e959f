"""The training work unit: from planned slides to a model package, on whatever worker it lands."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from quadrat import __version__
from quadrat.config.leakage import Seen, seen_by
from quadrat.config.pipeline import Pipeline
from quadrat.config.splits import case_of
from quadrat.core.errors import ConfigError, WriteError
from quadrat.core.files import sha256_of, write_file
from quadrat.engine.steps import create_predictions, infer_shards, open_work_source
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.models.encoders import Encoder, load_encoder_weights
from quadrat.models.inference import pick_device
from quadrat.models.mismatch import describe_promise, seam_mismatch
from quadrat.models.package import (
    SCHEDULE_EXACT,
    begin_from,
    exactness,
    read_card,
    rounded,
    save_package,
)
from quadrat.models.spec import spec_of, versions
from quadrat.models.task import ModelSpec, Task
from quadrat.slides.identity import regions_digest, slide_identity
from quadrat.slides.source import PixelSource
from quadrat.store.tiles import TileStore
from quadrat.tasks import build_network, get_task
from quadrat.training.checkpoint import Key
from quadrat.training.data import training_slide, window_set
from quadrat.training.distributed import SOLO, Ranks
from quadrat.training.loop import Trained, Validation, key_of, train
from quadrat.training.pages import examples_page, learning_curves
from quadrat.training.samples import TrainingSlide
from quadrat.training.thresholds import Judged, Trial, TrialView, calibrate, figures_of

PROGRESS, CHECKPOINTS = "progress.json", "checkpoints"
PROGRESS_EVERY_S = 1.0
NOT_LEARNT = ("manifest", "source", "license")
"""Keys of the section ``data`` that change nothing of what is learnt."""
SHOWN = 16
"""Digits of a content's sha256 in a checkpoint's key."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One package to train. ``works``: the slides of splits train and val, planned. ``folder``:
    checkpoints and logs."""

    pipeline: Pipeline
    works: tuple[SlideWork, ...]
    package: str
    folder: str


@dataclass(frozen=True, slots=True)
class Material:
    """What a training learns from and is judged on."""

    learn: Sequence[TrainingSlide]
    judge: Sequence[tuple[SlideWork, TrainingSlide]]

    @property
    def notes(self) -> list[str]:
        """What was left out of the annotations, or taken otherwise than it stands in the files."""
        return [
            note for slide in (*self.learn, *(s for _, s in self.judge)) for note in slide.notes
        ]


def train_package(job: TrainJob) -> dict[str, Any]:
    """Train, choose thresholds on the validation slides, write the package; the receipt holds
    losses, figures and the promise."""
    pipeline = job.pipeline
    torch.set_num_threads(pipeline.train.threads)
    task, device = get_task(pipeline.task), pick_device(pipeline.run.device)
    spec = spec_of(pipeline, task)
    if pipeline.train.processes > 1:
        from quadrat.training.launch import train_in_processes

        train_in_processes(job)  # to its end: what follows finds it done
    with material(job) as slides:
        trained = learn(job, task, spec, slides, device=device)
        model = rounded(trained.model, pipeline.model.precision)
        views = _inferred(slides, spec, model, device)
        spec, tried = _choose_thresholds(job, task, spec, views)
        final = next((t for t in tried if t.thresholds == spec.thresholds), None)
        if final is None and views:
            final = figures_of(task, spec, views)
        measured = exactness(model, spec)
        if measured["promise"] == SCHEDULE_EXACT:
            seen = [
                (slide.source, slide.cells)
                for slide in ([s for _, s in slides.judge] or slides.learn)
            ]
            measured["seam_mismatch"] = seam_mismatch(model, task, spec, seen, device=device)
        about = _card(job, trained, tried, final, slides.notes)
        save_package(
            Path(job.package),
            model,
            spec,
            about=about,
            measured=measured,
            precision=pipeline.model.precision,
            beside=lambda package: _leave_pages(
                package, Path(job.folder), task, spec, trained, views, slides
            ),
        )
    return {
        "package": job.package,
        "seconds": trained.seconds,
        "losses": dict(trained.losses),
        "promise": describe_promise(measured),
        "figures": {} if final is None else dict(final.figures),
        "main": task.metrics.main,
        "step": trained.step,
    }


@contextlib.contextmanager
def material(job: TrainJob) -> Iterator[Material]:
    """The slides of a job, opened, with their truth.

    Raises:
        ConfigError: none is of split train. AnnotationError: see
        :func:`quadrat.training.data.training_slide`.
    """
    with contextlib.ExitStack() as stack:
        slides = []
        for work in job.works:
            stored = job.pipeline.train.source == "stored"
            source: PixelSource = (
                TileStore.open(work.tiles)
                if stored
                else stack.enter_context(open_work_source(work))
            )
            slides.append(
                (work, training_slide(work.ref, job.pipeline, source, work.load_plan().cells))
            )
        learn = [slide for work, slide in slides if work.ref.split != "val"]
        if not learn:
            raise ConfigError(f"{job.pipeline.data.manifest} has no slide of split 'train'")
        yield Material(learn, [(work, slide) for work, slide in slides if work.ref.split == "val"])


def learn(
    job: TrainJob,
    task: Task,
    spec: ModelSpec,
    slides: Material,
    *,
    device: torch.device,
    ranks: Ranks = SOLO,
) -> Trained:
    """The training itself, judged on the validation slides as it goes; goes on from the job's
    checkpoint."""
    pipeline, folder = job.pipeline, Path(job.folder)

    def measure(network: torch.nn.Module) -> Mapping[str, float]:
        return figures_of(task, spec, _inferred(slides, spec, network, device)).figures

    return train(
        task,
        spec,
        window_set(slides.learn, task, spec, pipeline),
        pipeline.train,
        device=device,
        folder=folder / CHECKPOINTS,
        progress=_Progress(folder / PROGRESS),
        validation=Validation(measure, task.metrics.main) if slides.judge else None,
        prepare=lambda network: begin(network, spec, pipeline),
        ranks=ranks,
        key=data_key(job),
    )


def whole_key(job: TrainJob, spec: ModelSpec) -> Key:
    """The key of the checkpoint that :func:`learn` will leave."""
    return {**key_of(spec, job.pipeline.train), **data_key(job)}


def begin(network: torch.nn.Module, spec: ModelSpec, pipeline: Pipeline) -> list[str]:
    """Load what the pipeline begins with, if anything: a package's weights, or an encoder's.
    Returns what a user should know.

    Raises:
        PackageError: ``train.init`` is no package, or one of another network. ConfigError: the
        encoder's weights do not fit.
    """
    if pipeline.train.init:
        return begin_from(network, spec, Path(pipeline.train.init), build_network)
    if pipeline.model.encoder_weights:
        load_encoder_weights(cast(Encoder, network.encoder), pipeline.model.encoder_weights)
    return []


def data_key(job: TrainJob) -> Key:
    """What a job learns from and is judged on, and what it begins with, by content: where the files
    lie does not count."""
    pipeline, refs = job.pipeline, [work.ref for work in job.works]
    data = {
        f"data.{name}": value
        for name, value in asdict(pipeline.data).items()
        if name not in NOT_LEARNT
    }
    reading = {f"slide.{name}": value for name, value in asdict(pipeline.slide).items()}
    slides: dict[str, Any] = {}
    for work in job.works:
        parts = {
            name: getattr(work.ref, name) for name in ("mpp", "label", "annotated", "split")
        } | {
            "pixels": work.identity[:SHOWN],
            "annotation": _digest(work.ref.annotation)[:SHOWN],
            "regions": regions_digest(work.ref.regions)[:SHOWN],
        }
        slides |= {f"{name} of slide {work.ref.name}": value for name, value in parts.items()}
    order = hashlib.sha256(json.dumps([ref.name for ref in refs]).encode()).hexdigest()
    return {**_beginning(pipeline)} | data | reading | slides | {"order of slides": order[:SHOWN]}


def _beginning(pipeline: Pipeline) -> Key:
    """The content of what a training begins with."""
    init, weights = pipeline.train.init, pipeline.model.encoder_weights
    if init:
        return {"train.init": read_card(Path(init)).get("weights_sha256", "")[:SHOWN]}
    return {"model.encoder_weights": _digest(weights)[:SHOWN] or weights}


def _digest(path: str) -> str:
    """Of a file's content, of a folder's outline and ends; "" where there is none."""
    place = Path(path)
    if not path or not place.exists():
        return ""
    return slide_identity(path) if place.is_dir() else sha256_of(place)


class _Progress:
    """Leaves word of a training for the driver, which runs in another process."""

    def __init__(self, path: Path) -> None:
        self._path, self._spoken = path, 0.0

    def __call__(self, done: int, total: int, loss: float) -> None:
        if time.monotonic() - self._spoken < PROGRESS_EVERY_S and done < total:
            return
        self._spoken = time.monotonic()
        with contextlib.suppress(WriteError):  # on a full disk the checkpoint says so
            write_file(self._path, json.dumps({"done": done, "total": total, "loss": loss}))


def _inferred(
    slides: Material, spec: ModelSpec, model: torch.nn.Module, device: torch.device
) -> Judged:
    """Predictions of the validation slides, in their training folders, with their truth.

    A slide of fewer windows than a batch gets batches of that size: small images would cost several
    times what they are.
    """
    views = []
    for work, slide in slides.judge:
        of_model = replace(work, spec=replace(spec, batch=min(spec.batch, len(slide.cells))))
        create_predictions(of_model)
        view = WorkView(of_model)
        infer_shards(of_model, model, view.shards, slide.source, device=device)
        views.append((view, slide.truth))
    return views


def _choose_thresholds(
    job: TrainJob, task: Task, spec: ModelSpec, views: Judged
) -> tuple[ModelSpec, list[Trial]]:
    aim = job.pipeline.train.calibrate
    if aim == "none" or not views or task.threshold_grid is None:
        return spec, []
    return calibrate(task, spec, job.pipeline.thresholds, views, aim=aim)


def _card(
    job: TrainJob,
    trained: Trained,
    tried: Sequence[Trial],
    final: Trial | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """What the package says of itself beside its specification."""
    pipeline, refs = job.pipeline, [work.ref for work in job.works]
    return {
        "metrics": {
            "training_loss": dict(trained.losses),
            "validation": {}
            if final is None
            else dict(final.figures) | {"count_error": final.count_error},
            "calibration": {"aim": pipeline.train.calibrate, "tried": [asdict(t) for t in tried]},
        },
        "training": {
            "slides": [ref.name for ref in refs if ref.split != "val"],
            "validation_slides": [ref.name for ref in refs if ref.split == "val"],
            "cases": sorted({case_of(ref) for ref in refs}),
            "inherited": inherited(pipeline.train.init),
            "annotation_notes": list(notes),
            "source": pipeline.data.source,
            "data_license": pipeline.data.license,
            "settings": asdict(pipeline.train),
            "kept_step": trained.step,
            "begun_from": pipeline.train.init
            or (pipeline.model.encoder_weights and Path(pipeline.model.encoder_weights).name),
        },
        "license": pipeline.model.license,
        "limits": pipeline.model.limits,
        "versions": versions() | {"quadrat": __version__},
    }


def inherited(init: str) -> dict[str, list[str]] | None:
    """What the package that a training begins from has seen, for the card; empty for none, None
    where it does not say."""
    seen = seen_by(read_card(Path(init))) if init else Seen(frozenset(), frozenset())
    return None if seen is None else {"slides": sorted(seen.slides), "cases": sorted(seen.cases)}


def _leave_pages(
    package: Path,
    folder: Path,
    task: Task,
    spec: ModelSpec,
    trained: Trained,
    views: Judged,
    slides: Material,
) -> None:
    """Logs, curves and examples into the folder of a package; ``folder``: the training's."""
    logs = folder / CHECKPOINTS
    write_file(package / "training.csv", (logs / "log.csv").read_bytes())
    learning_curves(
        package / "curves.png",
        trained.history,
        trained.validations,
        main=task.metrics.main,
        kept=trained.step,
    )
    if trained.validations:
        write_file(package / "validation.csv", (logs / "validation.csv").read_bytes())
    if views:
        slides_of = [slide for _, slide in slides.judge]
        answers = [TrialView(view, task, spec).answer() for view, _ in views]
        rows = [
            (s.name, s.source.read, a, e)
            for s, a, (_, e) in zip(slides_of, answers, views, strict=True)
        ]
        examples_page(package / "examples.png", rows, classes=spec.class_names)
