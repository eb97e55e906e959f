"""Training as the command line calls it: check, plan the slides, one job a package on the workers,
k folds if asked for."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.config.leakage import check_leakage, check_training, content_digests, seen_by
from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import Pipeline, manifest_of
from quadrat.config.splits import assign_folds, fold_split
from quadrat.core.errors import ConfigError, QuadratError, SlideError, StoreError, WriteError
from quadrat.core.files import recover_folder, remove
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Failure, Job, Outcome
from quadrat.engine.fingerprint import fingerprints
from quadrat.engine.flow import Batch
from quadrat.engine.lock import locked
from quadrat.engine.progress import Phase, Reporter
from quadrat.engine.resume import open_journal
from quadrat.engine.state import RunSettings, SlideState
from quadrat.engine.work import SlideWork
from quadrat.models.package import CARD, check_stride, read_card
from quadrat.models.spec import spec_of
from quadrat.slides.identity import slide_identity
from quadrat.tasks import get_task
from quadrat.training.checkpoint import changed_since, check_same_training, read_about
from quadrat.training.data import Known, check_material, known_of
from quadrat.training.job import CHECKPOINTS, PROGRESS, TrainJob, begin, train_package, whole_key
from quadrat.training.samples import sample_margin

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Course:
    """One training to be done: its name, the pipeline, the slides with their splits, where the
    package goes."""

    name: str
    pipeline: Pipeline
    slides: tuple[SlideRef, ...]
    package: Path
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Checkpoints, logs and validation predictions."""
        return self.package.with_name(self.package.name + ".training")


def training_manifest(pipeline: Pipeline) -> list[SlideRef]:
    """The slides that a pipeline file names for training.

    Raises:
        ConfigError: it names none, or the manifest is wrong.
    """
    if not pipeline.data.manifest:
        raise ConfigError(
            f"the pipeline {pipeline.name} names no training data; set data.manifest to a CSV of "
            "slides "
            "('quadrat init' writes one)"
        )
    return read_manifest(manifest_of(pipeline))


def course_of(pipeline: Pipeline) -> Course:
    """The training of a pipeline as its manifest splits the slides.

    Raises:
        ConfigError: no slide to learn from, a slide listed twice, or one case on two sides.
    """
    slides = training_manifest(pipeline)
    notes = check_training(slides, content_digests([ref.path for ref in slides]))
    return Course(
        pipeline.name,
        pipeline,
        tuple(slides),
        Path(pipeline.model.package),
        (*notes, *_seen_before(slides, pipeline)),
    )


def folds_of(pipeline: Pipeline, folds: int | None = None) -> list[Course]:
    """Trainings that leave out other cases each: packages ``<package>.fold0``, ``.fold1``, ...

    ``folds``: how many; None: as the manifest's column ``fold`` says.

    Raises:
        ConfigError: fewer cases than folds, a slide listed twice, or one case in two folds.
    """
    slides = training_manifest(pipeline)
    check_leakage(slides, content_digests([ref.path for ref in slides]))
    seed, package = pipeline.train.seed, Path(pipeline.model.package)
    folded = assign_folds(slides, folds, seed=seed)
    courses = []
    for k in sorted({ref.fold for ref in folded if ref.fold is not None}):
        division = fold_split(folded, k, seed=seed)
        place = package.with_name(f"{package.name}.fold{k}")
        notes = *division.notes, *_seen_before(division.slides, pipeline)
        courses.append(Course(f"{pipeline.name}.fold{k}", pipeline, division.slides, place, notes))
    return courses


def _seen_before(slides: Sequence[SlideRef], pipeline: Pipeline) -> tuple[str, ...]:
    """Notes on validation and test slides that the package which the training begins
    from has seen.
    """
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


def train(
    pipelines: Sequence[Pipeline],
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> dict[str, Path]:
    """Train the packages of one or more pipelines; package folders by name. See
    :func:`train_courses`."""
    return train_courses(
        [course_of(p) for p in pipelines], overwrite=overwrite, reporter=reporter, executor=executor
    )


def train_courses(
    courses: Sequence[Course],
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> dict[str, Path]:
    """Plan the slides of all trainings, then train: a job a package, side by side on the executor's
    workers.

    A package that exists is left alone unless ``overwrite``; an interrupted training goes on from
    its checkpoint.

    Raises:
        ConfigError, AnnotationError: before any time is spent. StoreError: another training is at
            work on a package. KeyboardInterrupt: run again to go on.
    """
    made: dict[str, Path] = {}
    todo: list[Course] = []
    _check_apart(courses)
    with contextlib.ExitStack() as stack:
        if reporter is None:
            reporter = stack.enter_context(Reporter())
        for course in courses:
            recover_folder(course.package, tidy=True)
            if (course.package / CARD).exists() and not overwrite:
                reporter.say(
                    f"{course.name}: {course.package} exists already; --overwrite trains it again"
                )
                made[course.name] = course.package
                continue
            todo.append(course)
        for note in _check_truths(todo):
            reporter.say(note)
        jobs = [(course, _job(course, reporter)) for course in todo]
        for course, _ in jobs:
            busy = f"{course.name}: another training is at work on {course.package}"
            stack.enter_context(
                locked(
                    course.folder / "driver.lock",
                    busy,
                    otherwise="give this one another model.package",
                )
            )
        for course, job in jobs:
            _make_way(course, job, reporter, overwrite=overwrite)
        if jobs and executor is None:
            run = todo[0].pipeline.run
            executor = stack.enter_context(
                open_executor(run.executor, workers=run.workers, threads=run.threads)
            )
        for _, job in jobs:
            assert executor is not None
            _plan(job, executor, reporter)
        if executor is not None and jobs:
            made |= _teach([Job(course.name, job) for course, job in jobs], executor, reporter)
    return made


def _teach(
    jobs: Sequence[Job[TrainJob]], executor: Executor, reporter: Reporter
) -> dict[str, Path]:
    """Run the training jobs; the first failure is raised when the others have ended (their packages
    are kept)."""
    made: dict[str, Path] = {}
    failures: list[Exception] = []
    steps = sum(job.payload.pipeline.train.steps for job in jobs)
    with reporter.phase("train", steps) as bar, _watched([job.payload for job in jobs], bar):
        for outcome in _run_each(jobs, executor):
            reporter.saw_memory(outcome.peak_mb)
            if outcome.failure is not None:
                if failures:  # the first is told by whoever it is raised to
                    reporter.say(f"{outcome.key}: failed: {outcome.failure.message}")
                failures.append(_as_error(outcome.failure, outcome.key))
                continue
            receipt = outcome.receipt
            assert receipt is not None
            made[outcome.key] = Path(receipt["package"])
            losses = ", ".join(f"{k} {v:.4f}" for k, v in receipt["losses"].items())
            reporter.say(f"{outcome.key}: trained in {receipt['seconds']:.0f} s ({losses})")
            if receipt["figures"]:
                figure = f"{receipt['main']} {receipt['figures'][receipt['main']]:.3f}"
                reporter.say(
                    f"{outcome.key}: {figure} on validation slides, step {receipt['step']} kept"
                )
            reporter.say(f"{outcome.key}: {receipt['promise']}")
    if failures:
        raise failures[0]
    return made


def _run_each(
    jobs: Sequence[Job[TrainJob]], executor: Executor
) -> Iterator[Outcome[dict[str, Any]]]:
    """A job a device, side by side; those that use several devices each (train.processes) one after
    the other."""
    together = [job for job in jobs if job.payload.pipeline.train.processes == 1]
    yield from executor.run(train_package, together, needs="own gpu")
    for job in jobs:
        if job not in together:
            yield from executor.run(train_package, [job], needs="own gpu")


@contextlib.contextmanager
def _watched(jobs: Sequence[TrainJob], bar: Phase) -> Iterator[None]:
    """Move the bar by the steps that the trainings, in their own processes, say they have done."""
    paths = [Path(job.folder) / PROGRESS for job in jobs]
    for path in paths:
        path.unlink(missing_ok=True)
    done, over = 0, threading.Event()

    def look() -> None:
        nonlocal done
        now, losses = 0, []
        for path in paths:
            with contextlib.suppress(OSError, ValueError, KeyError):
                said = json.loads(path.read_text())
                now += said["done"]
                losses.append(f"{said['loss']:.3f}")
        if now > done:
            bar.advance(now - done, note=f"loss {' '.join(losses)}")
            done = now

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _as_error(failure: Failure, name: str) -> Exception:
    if failure.trace:
        return RuntimeError(f"{name}: {failure.kind}: {failure.message}\n{failure.trace}")
    kinds = {kind.__name__: kind for kind in (StoreError, WriteError)}
    return kinds.get(failure.kind, SlideError)(f"{name}: {failure.message}")


def _make_way(course: Course, job: TrainJob, reporter: Reporter, *, overwrite: bool) -> None:
    """See that the training can go on from what is there. With ``overwrite``, forget one that came
    to its end or that was another one.

    Raises:
        ConfigError, StoreError: see :func:`quadrat.training.checkpoint.check_same_training`.
    """
    checkpoints = course.folder / CHECKPOINTS
    key = whole_key(job, job.works[0].spec)
    if not overwrite:
        check_same_training(checkpoints, key)
        return
    about = read_about(checkpoints)
    changed = changed_since(about, key, checkpoints)
    if changed:
        reporter.say(f"{course.name}: what was begun otherwise ({changed}) is begun anew")
    if changed or (about is not None and about.get("ended")):
        remove(checkpoints)


def _check_apart(courses: Sequence[Course]) -> None:
    """Refuse (ConfigError) trainings that would write over each other."""
    names: dict[str, Course] = {}
    packages: dict[Path, Course] = {}
    for course in courses:
        first = packages.setdefault(course.package.resolve(), course)
        if first is not course:
            raise ConfigError(
                f"{first.name} and {course.name} would both write the package {course.package}; "
                "give each pipeline a model.package of its own"
            )
        if names.setdefault(course.name, course) is not course:
            raise ConfigError(
                f"two of the pipelines are called {course.name}; give one of them another 'name'"
            )


def _check_truths(courses: Sequence[Course]) -> list[str]:
    """Read all annotations once before any slide's pixels are: what is wrong with them is said at
    once. What is wrong with those of test slides is a note, since nothing is learnt from them.
    Returns the notes that a user should see.

    Raises:
        ConfigError, AnnotationError, SlideError: see :func:`quadrat.training.data.known_of` and
            :func:`quadrat.training.data.check_material`.
    """
    seen: dict[object, Known] = {}
    notes = []
    for course in courses:
        known = []
        for ref in course.slides:
            which = id(course.pipeline), replace(ref, split="", fold=None)
            if which not in seen:
                try:
                    seen[which] = known_of(ref, course.pipeline)
                except QuadratError as error:
                    if ref.split != "test":
                        raise
                    notes.append(
                        f"{course.name}: the test slide {ref.name} cannot be evaluated as it is: "
                        f"{error}"
                    )
                    continue
            if ref.split in ("", "train"):
                known.append(seen[which])
        notes += [f"{course.name}: {note}" for note in check_material(known, course.pipeline)]
    return notes


def _job(course: Course, reporter: Reporter) -> TrainJob:
    """The job of a training, checked as far as can be without reading slides."""
    pipeline = course.pipeline
    task = get_task(pipeline.task)
    spec = spec_of(pipeline, task)
    network = task.build(spec)
    check_stride(network, spec, patch=pipeline.train.patch)
    notes = [*begin(network, spec, pipeline), *course.notes]
    refs = [ref for ref in course.slides if ref.split in ("", "train", "val")]
    for note in notes:
        reporter.say(f"{course.name}: {note}")
    # the run's override of mpp is not the training slides': theirs stands in the manifest
    training = replace(
        pipeline, slide=replace(pipeline.slide, mpp=None, tissue=pipeline.data.tissue)
    )
    works = tuple(
        SlideWork(
            ref=ref,
            folder=str(course.folder / "work" / ref.name),
            spec=spec,
            slide=training.slide,
            task=pipeline.task,
            identity=slide_identity(ref.path),
            margin=sample_margin(spec, patch=pipeline.train.patch),
        )
        for ref in refs
    )
    return TrainJob(
        pipeline=training, works=works, package=str(course.package), folder=str(course.folder)
    )


def _plan(job: TrainJob, executor: Executor, reporter: Reporter) -> None:
    """Plan the training slides, and fill their tile stores if the pipeline wants it; a slide that
    fails ends the training (its data would be missing)."""
    states = []
    for work in job.works:
        prints = fingerprints(work, job.pipeline, weights_sha256="", device="")
        states.append(SlideState(work=work, prints=prints, journal=open_journal(work, prints)))
    batch = Batch(RunSettings(job.pipeline, job.package, "cpu"), executor, reporter)
    batch.advance(states, until="tile" if job.pipeline.train.source == "stored" else "plan")
    for state in states:
        state.journal.close()
        if state.failure is not None:
            raise _as_error(state.failure, state.name)
