"""The training job: from planned slides to a model package, on whatever worker it lands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from pydantic import TypeAdapter

from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import ConfigError
from quadrat.core.files import write_file
from quadrat.engine.opened import Opened, open_work_source
from quadrat.engine.steps import create_predictions, infer_shards
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.models.device import pick_device
from quadrat.models.encoders import Encoder, load_encoder_weights
from quadrat.models.mismatch import describe_promise, seam_mismatch
from quadrat.models.package import (
    SCHEDULE_EXACT,
    begin_from,
    exactness,
    rounded,
    save_package,
)
from quadrat.models.spec import spec_of
from quadrat.models.task import ModelSpec, Task
from quadrat.slides.source import PixelSource
from quadrat.store.tiles import TileStore
from quadrat.tasks import build_network, get_task
from quadrat.training.card import card_of
from quadrat.training.data import training_slide, window_set
from quadrat.training.distributed import SOLO, Ranks
from quadrat.training.key import training_key
from quadrat.training.launch import run_ranks
from quadrat.training.loop import Callback, Event, Trained, Validation, train
from quadrat.training.pages import examples_page, learning_curves
from quadrat.training.progress import ProgressFile
from quadrat.training.thresholds import InferredSlides, Trial, TrialView, calibrate, figures_of
from quadrat.training.truth import TrainingSlide

PROGRESS, CHECKPOINTS = "progress.json", "checkpoints"
"""What lies in the folder of a training."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One package to train."""

    pipeline: Pipeline
    """Its settings."""
    works: tuple[SlideWork, ...]
    """The slides of splits train and val, planned."""
    package: str
    """Folder that the package is written to."""
    folder: str
    """Folder of checkpoints and logs."""


@dataclass(frozen=True, slots=True)
class TrainReceipt:
    """What came of a training job."""

    package: str
    """Folder of the package."""
    seconds: float
    """What the training took, interruptions left out."""
    losses: Mapping[str, float]
    """Mean of the last tenth of the steps."""
    promise: str
    """What the package promises of its exactness, in words."""
    figures: Mapping[str, float]
    """Of the validation slides; empty without such slides."""
    main: str
    """The name of the task's main figure."""
    step: int
    """How many steps the kept weights have seen."""


@dataclass(frozen=True, slots=True)
class Material:
    """The slides of a job, opened, with their truth."""

    train: Sequence[TrainingSlide]
    """What the network learns from."""
    val: Sequence[tuple[SlideWork, TrainingSlide]]
    """What it is evaluated on."""

    @property
    def notes(self) -> list[str]:
        """What was left out of the annotations, or understood otherwise than it stands there."""
        return [note for slide in (*self.train, *(s for _, s in self.val)) for note in slide.notes]


def job_to_json(job: TrainJob) -> str:
    """A job as text; :func:`job_from_json` gives an equal one."""
    return TypeAdapter(TrainJob).dump_json(job).decode()


def job_from_json(text: str) -> TrainJob:
    """The job of :func:`job_to_json`, checked field by field.

    Raises:
        ValueError: it is not one.
    """
    return TypeAdapter(TrainJob).validate_json(text)


def train_package(job: TrainJob, *, callback: Callback | None = None) -> TrainReceipt:
    """Train, choose thresholds on the validation slides, write the package.

    ``callback``: see :func:`quadrat.training.loop.train`; it gets no event of other processes.
    """
    pipeline = job.pipeline
    torch.set_num_threads(pipeline.train.threads)
    task, device = get_task(pipeline.task), pick_device(pipeline.run.device)
    spec = spec_of(pipeline, task)
    if pipeline.train.processes > 1:  # to the end: what follows finds it done
        run_ranks(
            job_to_json(job),
            package=job.package,
            log=Path(job.folder) / "torchrun.log",
            processes=pipeline.train.processes,
            threads=pipeline.train.threads,
            device=pipeline.run.device,
        )
    with material(job) as slides:
        trained = train_network(job, slides, device=device, callback=callback)
        model = rounded(trained.model, pipeline.model.precision)
        inferred = _inferred(slides, spec, model, device)
        spec, tried = _choose_thresholds(pipeline, task, spec, inferred)
        final = next((t for t in tried if t.thresholds == spec.thresholds), None)
        if final is None and inferred:
            final = figures_of(task, spec, inferred)
        measured = exactness(model, spec)
        if measured["promise"] == SCHEDULE_EXACT:
            looked_at = [slide for _, slide in slides.val] or slides.train
            places = [(slide.source, slide.cells) for slide in looked_at]
            measured["seam_mismatch"] = seam_mismatch(model, task, spec, places, device=device)
        refs = [work.ref for work in job.works]
        save_package(
            Path(job.package),
            model,
            spec,
            about=card_of(pipeline, refs, trained, tried=tried, final=final, notes=slides.notes),
            measured=measured,
            precision=pipeline.model.precision,
            extra=lambda package: _write_pages(
                package, Path(job.folder), task, spec, trained, slides, inferred
            ),
        )
    return TrainReceipt(
        package=job.package,
        seconds=trained.seconds,
        losses=dict(trained.losses),
        promise=describe_promise(measured),
        figures={} if final is None else dict(final.figures),
        main=task.metrics.main,
        step=trained.step,
    )


@contextlib.contextmanager
def material(job: TrainJob) -> Iterator[Material]:
    """The slides of a job, opened, with their truth.

    Raises:
        ConfigError: none is of split train. AnnotationError: see
            :func:`quadrat.training.data.training_slide`.
    """
    stored = job.pipeline.train.source == "stored"
    with contextlib.ExitStack() as stack:
        slides = []
        for work in job.works:
            source: PixelSource = (
                TileStore.open(work.tiles)
                if stored
                else stack.enter_context(open_work_source(work))
            )
            cells = work.load_plan().cells
            slides.append((work, training_slide(work.ref, job.pipeline, source, cells)))
        learnt = [slide for work, slide in slides if work.ref.split != "val"]
        if not learnt:
            raise ConfigError(f"{job.pipeline.data.manifest} has no slide of split 'train'")
        yield Material(learnt, [(work, slide) for work, slide in slides if work.ref.split == "val"])


def train_network(
    job: TrainJob,
    slides: Material,
    *,
    device: torch.device,
    ranks: Ranks = SOLO,
    callback: Callback | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """The training loop, evaluated on the validation slides as it goes; goes on from the job's
    checkpoint."""
    pipeline, folder = job.pipeline, Path(job.folder)
    task = get_task(pipeline.task)
    spec = spec_of(pipeline, task)

    def measure(network: torch.nn.Module) -> Mapping[str, float]:
        return figures_of(task, spec, _inferred(slides, spec, network, device)).figures

    progress = ProgressFile(folder / PROGRESS)

    def tell(event: Event) -> None:
        if ranks.first:
            progress(event)
        if callback is not None:
            callback(event)

    return train(
        task,
        spec,
        window_set(slides.train, task, spec, pipeline),
        pipeline.train,
        device=device,
        folder=folder / CHECKPOINTS,
        validation=Validation(measure, task.metrics.main) if slides.val else None,
        prepare=lambda network: load_first_weights(network, spec, pipeline),
        ranks=ranks,
        key=training_key(pipeline, job.works, spec),
        callback=tell,
        clock=clock,
    )


def load_first_weights(network: torch.nn.Module, spec: ModelSpec, pipeline: Pipeline) -> list[str]:
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


def _inferred(
    slides: Material, spec: ModelSpec, model: torch.nn.Module, device: torch.device
) -> InferredSlides:
    """Predictions of the validation slides, in their training folders, with their truth."""
    inferred = []
    for work, slide in slides.val:
        of_model = replace(work, spec=spec)
        create_predictions(of_model)
        view = WorkView(of_model)
        at_hand = Opened(of_model)
        infer_shards(of_model, model, view.shards, slide.source, at_hand, device=device)
        inferred.append((view, slide.truth))
    return inferred


def _choose_thresholds(
    pipeline: Pipeline, task: Task, spec: ModelSpec, slides: InferredSlides
) -> tuple[ModelSpec, list[Trial]]:
    aim = pipeline.train.calibrate
    if aim == "none" or not slides or task.threshold_grid is None:
        return spec, []
    return calibrate(task, spec, pipeline.thresholds, slides, aim=aim)


def _write_pages(
    package: Path,
    folder: Path,
    task: Task,
    spec: ModelSpec,
    trained: Trained,
    slides: Material,
    inferred: InferredSlides,
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
    if inferred:
        answers = [TrialView(view, task, spec).answer() for view, _ in inferred]
        rows = [
            (slide.name, slide.source.read, answer, truth)
            for (_, slide), answer, (_, truth) in zip(slides.val, answers, inferred, strict=True)
        ]
        examples_page(package / "examples.png", rows, classes=spec.class_names)
