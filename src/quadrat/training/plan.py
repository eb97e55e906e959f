"""Training as the command line calls it: check, plan the slides, then one job per package on the
workers; k folds if they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadrat.config.leakage import check_leakage, check_training, content_digests, seen_by
from quadrat.config.manifest import SlideRef, read_manifest, with_mpp
from quadrat.config.pipeline import Pipeline, manifest_of
from quadrat.config.splits import assign_folds, fold_split
from quadrat.core.errors import ConfigError, QuadratError, SlideError, StoreError, WriteError
from quadrat.core.files import recover_folder, remove
from quadrat.core.unit import PX
from quadrat.engine.batch import Batch
from quadrat.engine.cluster import check_workers, open_executor
from quadrat.engine.executor import Executor, Failure, Outcome, run_all
from quadrat.engine.fingerprint import fingerprints
from quadrat.engine.lease import held
from quadrat.engine.progress import Reporter
from quadrat.engine.resume import open_journal
from quadrat.engine.state import RunSettings, SlideState
from quadrat.engine.work import SlideWork
from quadrat.models.card import CARD, read_card
from quadrat.models.package import check_stride
from quadrat.models.spec import IN_PX, need_stated, spec_of
from quadrat.slides.identity import slide_identity
from quadrat.tasks import get_task
from quadrat.training.checkpoint import changed_since, check_same_training, read_about
from quadrat.training.data import Known, check_material, known_of
from quadrat.training.job import (
    CHECKPOINTS,
    PROGRESS,
    TrainJob,
    TrainReceipt,
    load_first_weights,
    train_package,
)
from quadrat.training.key import training_key
from quadrat.training.progress import shown
from quadrat.training.samples import sample_margin

TrainOne = Callable[[TrainJob], TrainReceipt]


@dataclass(frozen=True, slots=True)
class Training:
    """One package that is to be trained."""

    name: str
    """Of the pipeline, and of the fold."""
    pipeline: Pipeline
    """The settings."""
    slides: tuple[SlideRef, ...]
    """All slides of the manifest, with their splits."""
    package: Path
    """Folder of the package."""
    notes: tuple[str, ...] = ()
    """What a user should know of the splits."""

    @property
    def folder(self) -> Path:
        """Checkpoints, logs and predictions of the validation slides."""
        return self.package.with_name(self.package.name + ".training")


def training_manifest(pipeline: Pipeline) -> list[SlideRef]:
    """The slides that a pipeline file names for training.

    Raises:
        ConfigError: it names none, or the manifest is wrong.
    """
    if not pipeline.data.manifest:
        raise ConfigError(
            f"the pipeline {pipeline.name} names no training data; set data.manifest to a CSV of "
            "slides ('quadrat init' writes one)"
        )
    return with_mpp(read_manifest(manifest_of(pipeline)), pipeline.data.mpp)


def training_of(pipeline: Pipeline) -> Training:
    """The training of a pipeline, with the splits of its manifest.

    Raises:
        ConfigError: no slide to learn from, a slide listed twice, or one case on two sides.
    """
    slides = training_manifest(pipeline)
    notes = check_training(slides, content_digests([ref.path for ref in slides]))
    return Training(
        pipeline.name,
        pipeline,
        tuple(slides),
        Path(pipeline.model.package),
        (*notes, *_seen_before(slides, pipeline)),
    )


def folds_of(pipeline: Pipeline, folds: int | None = None) -> list[Training]:
    """Trainings that leave out other cases each: packages ``<package>.fold0``, ``.fold1``, ...

    ``folds``: how many; None: as the manifest's column ``fold`` says.

    Raises:
        ConfigError: fewer cases than folds, a slide listed twice, or one case in two folds.
    """
    slides = training_manifest(pipeline)
    check_leakage(slides, content_digests([ref.path for ref in slides]))
    seed, package = pipeline.train.seed, Path(pipeline.model.package)
    folded = assign_folds(slides, folds, seed=seed)
    trainings = []
    for k in sorted({ref.fold for ref in folded if ref.fold is not None}):
        division = fold_split(folded, k, seed=seed)
        place = package.with_name(f"{package.name}.fold{k}")
        notes = *division.notes, *_seen_before(division.slides, pipeline)
        name = f"{pipeline.name}.fold{k}"
        trainings.append(Training(name, pipeline, division.slides, place, notes))
    return trainings


def _seen_before(slides: Sequence[SlideRef], pipeline: Pipeline) -> tuple[str, ...]:
    """Notes on validation and test slides that the package which the training begins with has
    seen."""
    seen = seen_by(read_card(Path(pipeline.train.init))) if pipeline.train.init else None
    if seen is None:
        return ()
    consequence = {
        "val": "early stopping and thresholds will be chosen on what is known already",
        "test": "'quadrat evaluate' will refuse them",
    }
    notes = []
    for split, what in consequence.items():
        known = seen.of([ref for ref in slides if ref.split == split])
        if known:
            notes.append(
                f"{pipeline.train.init} has seen {len(known)} of the {split} slides "
                f"({known[0].name}, ...): {what}"
            )
    return tuple(notes)


def train_all(
    trainings: Sequence[Training],
    *,
    overwrite: bool = False,
    workers: int = 0,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
    train_one: TrainOne = train_package,
) -> dict[str, Path]:
    """Plan the slides of all trainings, then train: one job per package, at the same time on
    ``workers`` processes (0: one after the other, in this one) or on the ``executor``'s. Returns
    the package folders by name.

    A package that exists is left alone unless ``overwrite``; an interrupted training goes on from
    its checkpoint. ``train_one``: what a worker runs.

    Raises:
        ConfigError, AnnotationError: before any time is spent. StoreError: another training is at
            work on a package. KeyboardInterrupt: run again to go on.
    """
    check_workers(workers)
    made: dict[str, Path] = {}
    _check_apart(trainings)
    with contextlib.ExitStack() as stack:
        if reporter is None:
            reporter = stack.enter_context(Reporter())
        todo: list[Training] = []
        for training in trainings:
            recover_folder(training.package, tidy=True)
            if (training.package / CARD).exists() and not overwrite:
                made[training.name] = training.package
                reporter.say(
                    f"{training.name}: {training.package} exists already; --overwrite trains it "
                    "again"
                )
            else:
                todo.append(training)
        for note in _check_truths(todo):
            reporter.say(note)
        jobs = [(training, _job(training, reporter)) for training in todo]
        for training, _ in jobs:
            busy = f"{training.name}: another training is at work on {training.package}"
            otherwise = "give this one another model.package"
            lease = held(
                training.folder / "driver", busy=busy, otherwise=otherwise, say=reporter.say
            )
            stack.enter_context(lease)
        for training, job in jobs:
            _make_way(training, job, reporter, overwrite=overwrite)
        if not jobs:
            return made
        if executor is None:
            threads = todo[0].pipeline.run.threads
            executor = stack.enter_context(open_executor(workers=workers, threads=threads))
        for _, job in jobs:
            _plan(job, executor, reporter)
        named = {training.name: job for training, job in jobs}
        return made | _train_jobs(named, executor, reporter, train_one)


def _train_jobs(
    jobs: Mapping[str, TrainJob], executor: Executor, reporter: Reporter, train_one: TrainOne
) -> dict[str, Path]:
    """Run the training jobs. The first failure is raised when the others have ended (their packages
    are kept)."""
    made: dict[str, Path] = {}
    failures: list[Exception] = []
    steps = sum(job.pipeline.train.steps for job in jobs.values())
    paths = [Path(job.folder) / PROGRESS for job in jobs.values()]
    with reporter.phase("train", steps) as bar, shown(paths, bar):
        for outcome in _run_each(jobs, executor, train_one):
            reporter.saw_memory(outcome.peak_mb)
            if outcome.failure is not None:
                if failures:  # whoever catches the first one reports it
                    reporter.say(f"{outcome.key}: failed: {outcome.failure.message}")
                failures.append(_as_error(outcome.failure, outcome.key))
                continue
            receipt = outcome.receipt
            assert receipt is not None
            made[outcome.key] = Path(receipt.package)
            for line in _summary(receipt):
                reporter.say(f"{outcome.key}: {line}")
    if failures:
        raise failures[0]
    return made


def _summary(receipt: TrainReceipt) -> Iterator[str]:
    """The report of a finished training, line by line."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in receipt.losses.items())
    yield f"trained in {receipt.seconds:.0f} s ({losses})"
    if receipt.figures:
        figure = f"{receipt.main} {receipt.figures[receipt.main]:.3f}"
        yield f"{figure} on validation slides, step {receipt.step} kept"
    yield receipt.promise


def _run_each(
    jobs: Mapping[str, TrainJob], executor: Executor, train_one: TrainOne
) -> Iterator[Outcome[TrainReceipt]]:
    """One job per device, at the same time. Those that use several devices each (train.processes)
    run one after the other."""
    alone = {name: job for name, job in jobs.items() if job.pipeline.train.processes > 1}
    together = {name: job for name, job in jobs.items() if name not in alone}
    for group in (together, *({name: job} for name, job in alone.items())):
        yield from run_all(executor, train_one, group, needs="gpu")


def _as_error(failure: Failure, name: str) -> Exception:
    if failure.trace:
        return RuntimeError(f"{name}: {failure.kind}: {failure.message}\n{failure.trace}")
    kinds = {kind.__name__: kind for kind in (StoreError, WriteError)}
    return kinds.get(failure.kind, SlideError)(f"{name}: {failure.message}")


def _make_way(training: Training, job: TrainJob, reporter: Reporter, *, overwrite: bool) -> None:
    """See that the training can go on from what is there. With ``overwrite``, remove the
    checkpoints of one that came to its end or that was another one.

    Raises:
        ConfigError, StoreError: see :func:`quadrat.training.checkpoint.check_same_training`.
    """
    checkpoints = training.folder / CHECKPOINTS
    key = training_key(job.pipeline, job.works, job.works[0].spec)
    if not overwrite:
        check_same_training(checkpoints, key)
        return
    about = read_about(checkpoints)
    changed = changed_since(about, key, checkpoints)
    if changed:
        reporter.say(f"{training.name}: what was begun otherwise ({changed}) is begun anew")
    if changed or (about is not None and about.get("ended")):
        remove(checkpoints)


def _check_apart(trainings: Sequence[Training]) -> None:
    """Check that trainings do not write over each other.

    Raises:
        ConfigError: two have the same package, or the same name.
    """
    names: dict[str, Training] = {}
    packages: dict[Path, Training] = {}
    for training in trainings:
        first = packages.setdefault(training.package.resolve(), training)
        if first is not training:
            raise ConfigError(
                f"{first.name} and {training.name} would both write the package "
                f"{training.package}; give each pipeline a model.package of its own"
            )
        if names.setdefault(training.name, training) is not training:
            raise ConfigError(
                f"two of the pipelines are called {training.name}; give one of them another 'name'"
            )


def _check_truths(trainings: Sequence[Training]) -> list[str]:
    """Read all annotations once before any slide's pixels are read, so that what is wrong with them
    is reported at once. What is wrong with those of test slides is a note, since nothing is learnt
    from them. Returns the notes that a user should see.

    Raises:
        ConfigError, AnnotationError, SlideError: see :func:`quadrat.training.data.known_of` and
            :func:`quadrat.training.data.check_material`.
    """
    seen: dict[object, Known] = {}
    notes = []
    for training in trainings:
        known = []
        for ref in training.slides:
            which = id(training.pipeline), replace(ref, split="", fold=None)
            if which not in seen:
                try:
                    seen[which] = known_of(ref, training.pipeline)
                except QuadratError as error:
                    if ref.split != "test":
                        raise
                    notes.append(
                        f"{training.name}: the test slide {ref.name} cannot be evaluated as it "
                        f"is: {error}"
                    )
                    continue
            if ref.split in ("", "train"):
                known.append(seen[which])
        notes += [f"{training.name}: {note}" for note in check_material(known, training.pipeline)]
    return notes


def _job(training: Training, reporter: Reporter) -> TrainJob:
    """The job of a training, checked as far as is possible without reading slides."""
    pipeline = training.pipeline
    task = get_task(pipeline.task)
    need_stated(pipeline, task)
    spec = spec_of(pipeline, task)
    network = task.build(spec)
    check_stride(network, spec, patch=pipeline.train.patch)
    in_px = [IN_PX] if spec.unit == PX else []
    for note in (*in_px, *load_first_weights(network, spec, pipeline), *training.notes):
        reporter.say(f"{training.name}: {note}")
    # slide.mpp is of a run's slides: that of training slides stands in their manifest or data.mpp
    reading = replace(pipeline.slide, mpp=None, tissue=pipeline.data.tissue)
    works = tuple(
        SlideWork(
            ref=ref,
            folder=str(training.folder / "work" / ref.name),
            spec=spec,
            slide=reading,
            task=pipeline.task,
            identity=slide_identity(ref.path),
            margin=sample_margin(spec, patch=pipeline.train.patch),
        )
        for ref in training.slides
        if ref.split in ("", "train", "val")
    )
    return TrainJob(
        pipeline=replace(pipeline, slide=reading),
        works=works,
        package=str(training.package),
        folder=str(training.folder),
    )


def _plan(job: TrainJob, executor: Executor, reporter: Reporter) -> None:
    """Plan the training slides, and fill their tile stores if the pipeline wants it. A slide that
    fails ends the training (its data would be missing)."""
    states = []
    for work in job.works:
        prints = fingerprints(work, job.pipeline, weights_sha256="")
        states.append(SlideState(work=work, prints=prints, journal=open_journal(work, prints)))
    batch = Batch(RunSettings(job.pipeline, job.package), executor, reporter)
    batch.advance(states, until="tile" if job.pipeline.train.source == "stored" else "plan")
    for state in states:
        state.journal.close()
        if state.failure is not None:
            raise _as_error(state.failure, state.name)
