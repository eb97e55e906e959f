"""The training work unit: from tiled slides to a model package, on whatever worker it lands."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quadrat import __version__
from quadrat.config import Pipeline
from quadrat.errors import ConfigError
from quadrat.inference import pick_device
from quadrat.learning import calibrate, spec_of, training_slide, versions, window_set
from quadrat.mismatch import describe_promise, seam_mismatch
from quadrat.package import SCHEDULE_EXACT, exactness, save_package
from quadrat.prediction_store import PredictionStore
from quadrat.slides.source import PixelSource
from quadrat.store import TileStore
from quadrat.task import get_task
from quadrat.training import train
from quadrat.units import create_predictions, infer_shards
from quadrat.workplace import SlideWork, WorkView


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One package to train. ``works``: the slides of splits train and val, tiled. ``folder``: checkpoints and logs."""

    pipeline: Pipeline
    works: tuple[SlideWork, ...]
    package: str
    folder: str


def train_package(job: TrainJob) -> dict[str, Any]:
    """Train, choose thresholds on the validation slides, write the package; the receipt holds losses, seconds and the promise."""
    pipeline = job.pipeline
    torch.set_num_threads(pipeline.train.threads)
    task = get_task(pipeline.task)
    spec = spec_of(pipeline, task)
    device = pick_device(pipeline.run.device)
    slides = [
        (work, training_slide(work.ref, pipeline, TileStore.open(work.tiles), work.load_plan().cells)) for work in job.works
    ]
    learn = [slide for work, slide in slides if work.ref.split != "val"]
    judge = [(work, slide) for work, slide in slides if work.ref.split == "val"]
    if not learn:
        raise ConfigError(f"{pipeline.data.manifest} has no slide of split 'train'")
    folder = Path(job.folder)
    trained = train(
        task,
        spec,
        window_set(learn, task, spec, pipeline),
        pipeline.train,
        device=device,
        folder=folder / "checkpoints",
    )
    tried: list[dict[str, Any]] = []
    if judge and pipeline.train.calibrate and task.calibrations(spec) != [spec.thresholds]:
        views = [(_infer(replace(work, spec=spec), trained.model, slide.source, device), slide) for work, slide in judge]
        spec, tried = calibrate(task, spec, pipeline.thresholds, views)
    about = {
        "metrics": {"training_loss": trained.losses, "calibration": tried},
        "training": {
            "slides": [w.ref.name for w in job.works if w.ref.split != "val"],
            "validation_slides": [w.ref.name for w, _ in judge],
            "cases": sorted({w.ref.case for w in job.works if w.ref.case}),
            "source": pipeline.data.source,
            "data_license": pipeline.data.license,
            "steps": pipeline.train.steps,
            "seed": pipeline.train.seed,
        },
        "license": pipeline.model.license,
        "versions": versions() | {"quadrat": __version__},
    }
    measured = exactness(trained.model, spec)
    if measured["promise"] == SCHEDULE_EXACT:
        seen = [(slide.source, slide.cells) for slide in ([s for _, s in judge] or learn)]
        measured["seam_mismatch"] = seam_mismatch(trained.model, task, spec, seen, device=device)
    save_package(Path(job.package), trained.model, spec, about=about, measured=measured)
    shutil.copyfile(folder / "checkpoints" / "log.csv", Path(job.package) / "training.csv")
    promise = describe_promise(measured)
    return {"package": job.package, "seconds": trained.seconds, "losses": dict(trained.losses), "promise": promise}


def _infer(work: SlideWork, model: torch.nn.Module, source: PixelSource, device: torch.device) -> WorkView:
    """Predictions of a validation slide, in its training folder."""
    create_predictions(work)
    infer_shards(work, model, PredictionStore(work.predictions).shards, source, device=device)
    return WorkView(work)
