"""``quadrat evaluate``: choose the slides, check them and the package, run them, and compare the
results with the annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.annotations.types import SlideTruth
from quadrat.config.leakage import check_leakage, content_digests, seen_by
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, Pipeline
from quadrat.config.splits import case_of
from quadrat.core.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_OUTPUT,
    ConfigError,
    SlideError,
    WriteError,
)
from quadrat.core.text import aligned
from quadrat.core.unit import renamed
from quadrat.engine.finished import package_folder
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run, run_spec
from quadrat.evaluation.pooling import (
    Evaluation,
    ResultFolder,
    measure_slides,
    pool,
    read_truths,
)
from quadrat.evaluation.report import (
    EvaluationDetails,
    metrics_json,
    table_rows,
    write_evaluation,
)
from quadrat.evaluation.results import finished_summary
from quadrat.metrics.bootstrap import DRAWS, LEAST_CASES, SEED
from quadrat.metrics.protocol import DEFAULT_SETTINGS, MetricSettings, point_distance
from quadrat.models.card import CARD, read_card
from quadrat.models.task import Task
from quadrat.tasks import get_task

EVERY = "all"
"""As a split: the slides of all splits."""
RANKING = "ap"
"""Folder under OUT with the results of a lower threshold, from which average precision is taken."""
EVALUATION = "evaluation"
"""Folder under OUT with the files of the evaluation."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What the user asked for."""

    split: str = "test"
    """The slides of this split; "all": every slide."""
    results: tuple[Path, ...] = ()
    """Folders of finished results; then nothing is run."""
    allow_seen: bool = False
    """Evaluate even if the package may have seen the slides."""
    settings: MetricSettings | None = None
    """How results and annotations are compared; None: as :func:`settings_of` says."""
    ranking: bool = True
    """Run a second time for average precision, if the task can."""
    pictures: bool = False
    """Write overlays and GeoJSON as a run does."""
    overwrite: bool = False
    """Replace results of other settings."""
    workers: int = 0
    """Processes to start for the runs; 0: all is done in this one."""


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """One package and the slides that it is evaluated on. Each fold of a cross-validation is a
    job."""

    pipeline: Pipeline
    """Names the package."""
    slides: tuple[SlideRef, ...]
    """The slides."""
    out: Path
    """Where the results go."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A finished evaluation."""

    evaluation: Evaluation
    """The figures."""
    details: EvaluationDetails
    """What the figures are of, and the slides without a result."""

    @property
    def exit_code(self) -> int:
        return EXIT_FAILED if self.details.failed else EXIT_OK


def of_split(slides: Sequence[SlideRef], split: str) -> list[SlideRef]:
    """The slides of a split ("" is train); of "all" every slide.

    Raises:
        ConfigError: there are none; says which splits there are.
    """
    chosen = [ref for ref in slides if split == EVERY or (ref.split or "train") == split]
    if not chosen:
        counts = sorted(Counter(ref.split or "train" for ref in slides).items())
        raise ConfigError(
            f"the manifest has no slide of split '{split}' (there are: "
            f"{', '.join(f'{name} ({n})' for name, n in counts)}); choose one with --split"
        )
    return chosen


def need_unseen(card: Mapping[str, Any], package: Path, slides: Sequence[SlideRef]) -> None:
    """Refuse to evaluate a package on what it was trained, stopped or calibrated on.

    Raises:
        ConfigError: the card names a case or a slide of ``slides``, or it does not say on what the
            model was trained.
    """
    seen = seen_by(card)
    if seen is None:
        raise ConfigError(
            f"{package / CARD} does not say on which slides and cases the model was trained (or "
            "the one that it was begun from), so nobody knows whether these are among them; train "
            "it again, or evaluate with --allow-seen and say so"
        )
    known = seen.of(slides)
    if known:
        first, more = known[0], f" and {len(known) - 1} more" if len(known) > 1 else ""
        raise ConfigError(
            f"{package} has seen the case '{case_of(first)}' (slide '{first.name}'{more} of "
            f"{len(slides)}) in training or validation, itself or by the package that it was begun "
            "from: its figures there would be too good; choose another --split or manifest, or "
            "--allow-seen if that is what you want to know"
        )


def for_evaluation(pipeline: Pipeline, *, pictures: bool = False) -> Pipeline:
    """The pipeline as annotated slides are run: ``data.tissue`` says what is analysed, the manifest
    or the file gives the scale, and there are no pictures unless they are wanted."""
    outputs = (
        pipeline.outputs if pictures else OutputsSection(image=False, geojson=False, overlay=False)
    )
    return replace(
        pipeline,
        slide=replace(pipeline.slide, mpp=None, tissue=pipeline.data.tissue),
        outputs=outputs,
    )


def settings_of(pipeline: Pipeline, *, distance_um: float | None = None) -> MetricSettings:
    """The settings of a comparison. ``distance_um``: of matched points, um or px; None: the
    default in the pipeline's unit."""
    if distance_um is None:
        distance_um = point_distance(pipeline.model.unit, pipeline.data.point_diameter_um)
    return replace(DEFAULT_SETTINGS, distance_um=distance_um)


def evaluation_jobs(
    pipeline: Pipeline,
    manifest: Path | None,
    out: Path,
    options: EvaluationOptions,
    *,
    folds: int | None = None,
) -> list[EvaluationJob]:
    """What is to be evaluated: the pipeline's package on a split; with ``folds`` (0: as the
    manifest says) the package of each fold on the cases that its training left out. ``manifest``:
    in place of the pipeline's.

    Raises:
        ConfigError: no manifest, no such slide, a slide listed twice, a case on two sides, or
            impossible folds.
    """
    from quadrat.training.plan import folds_of, training_manifest  # imports the training as well

    if manifest is not None:
        pipeline = replace(pipeline, data=replace(pipeline.data, manifest=str(manifest.resolve())))
    if folds is None:
        slides = training_manifest(pipeline)
        check_leakage(slides, content_digests([ref.path for ref in slides]))
        return [EvaluationJob(pipeline, tuple(of_split(slides, options.split)), out)]
    return [
        EvaluationJob(
            replace(pipeline, model=replace(pipeline.model, package=str(fold.package))),
            tuple(of_split(fold.slides, "test")),
            out / fold.package.suffix.removeprefix("."),
        )
        for fold in folds_of(pipeline, folds or None)
    ]


def evaluate(
    jobs: Sequence[EvaluationJob],
    out: Path,
    options: EvaluationOptions,
    *,
    reporter: Reporter | None = None,
) -> Evaluated:
    """Run the jobs (or take their finished results), compare them with the annotations, pool all
    slides, and write the files under ``out``/evaluation.

    Raises:
        QuadratError: see the functions above; nothing was run.
        PackageError: there is no such package.
    """
    first = jobs[0].pipeline
    task, classes = get_task(first.task), tuple(c.name for c in first.classes)
    cards, truths = [], dict[str, SlideTruth]()
    for job in jobs:
        cards.append(_checked_card(job, options))
        own = job.pipeline  # read before time is spent
        truths |= read_truths(job.slides, own.data, classes, unit=own.model.unit)
    settings = options.settings or settings_of(first)
    sums = [str(card["weights_sha256"]) for card in cards]
    if options.results:
        results, failed = _finished(jobs, sums, options), dict[str, str]()
        lower = _finished_ranking(jobs, options.results)
    else:
        results, failed = _run(jobs, options, reporter)
        lower = _run_ranking(jobs, task, failed, options, reporter)
    measured, ranked = (
        measure_slides(parts, truths, task=task, classes=classes, settings=settings)
        for parts in (results, lower)
    )
    unit = first.model.unit
    evaluation = pool(measured, task=task, classes=classes, ranked=ranked, unit=unit)
    details = EvaluationDetails(
        pipeline=first.name,
        split="left-out folds" if len(jobs) > 1 else options.split,
        settings=renamed(asdict(settings), unit)
        | {"bootstrap_draws": DRAWS, "bootstrap_seed": SEED, "allow_seen": options.allow_seen},
        packages=[
            {"name": Path(job.pipeline.model.package).name, "weights_sha256": sha256}
            for job, sha256 in zip(jobs, sums, strict=True)
        ],
        thresholds=renamed(_thresholds(results), unit),
        notes=_notes(evaluation, task, options, ranked=bool(ranked)),
        failed=failed,
    )
    write_evaluation(
        out / EVALUATION,
        evaluation,
        details,
        confusion=task.metrics.confusion([s.measured for s in measured], classes=classes),
        curves=task.metrics.curves([s.measured for s in ranked or measured], classes=classes),
    )
    return Evaluated(evaluation, details)


def command(
    jobs: Sequence[EvaluationJob],
    out: Path,
    options: EvaluationOptions,
    *,
    as_json: bool,
    write: Callable[[str], None],
    reporter: Reporter | None = None,
) -> int:
    """The command: one table (or the content of metrics.json), and the exit code."""
    done = evaluate(jobs, out, options, reporter=reporter)
    evaluation, details = done.evaluation, done.details
    if as_json:
        write(json.dumps(metrics_json(evaluation, details), sort_keys=True))
        return done.exit_code
    extent = f"{len(evaluation.slides)} slides, {len(evaluation.cases)} cases"
    write(f"{details.pipeline} ({evaluation.task}), split '{details.split}': {extent}")
    for line in aligned(table_rows(evaluation)):
        write(line)
    for note in details.notes:
        write(f"note: {note}")
    for name, reason in details.failed.items():
        write(f"{name}: failed  {reason}")
    write(f"evaluation: {out / EVALUATION}")
    return done.exit_code


def _checked_card(job: EvaluationJob, options: EvaluationOptions) -> Mapping[str, Any]:
    """The card of a job's package, which is whole, of this task and these classes, and has not seen
    the slides."""
    package = package_folder(job.pipeline)
    run_spec(job.pipeline, package)
    card = read_card(package)
    if not options.allow_seen:
        need_unseen(card, package, job.slides)
    return card


def _run(
    jobs: Sequence[EvaluationJob], options: EvaluationOptions, reporter: Reporter | None
) -> tuple[list[ResultFolder], dict[str, str]]:
    """Results of all jobs, and the slides that failed with their reasons.

    Raises:
        ConfigError: all slides failed. WriteError: outputs of some could not be written; figures
        over the others would be of another set of slides.
    """
    results, failed = [], dict[str, str]()
    for job in jobs:
        pipeline = for_evaluation(job.pipeline, pictures=options.pictures)
        report = run(
            pipeline,
            job.slides,
            job.out,
            overwrite=options.overwrite,
            workers=options.workers,
            reporter=reporter,
        )
        failed |= {row.slide: row.reason for row in report.rows if row.status == "failed"}
        if report.exit_code == EXIT_OUTPUT:
            raise WriteError("; ".join(f"{slide}: {reason}" for slide, reason in failed.items()))
        done = tuple(ref for ref in job.slides if ref.name not in failed)
        results.append(ResultFolder(done, job.out / "results"))
    if not any(part.slides for part in results):
        raise ConfigError(
            f"no slide has a result, so there is nothing to evaluate: {'; '.join(failed.values())}"
        )
    return results, failed


def _run_ranking(
    jobs: Sequence[EvaluationJob],
    task: Task,
    failed: Mapping[str, str],
    options: EvaluationOptions,
    reporter: Reporter | None,
) -> list[ResultFolder]:
    """Run again with the thresholds at which every candidate is a result, for tasks that have such
    thresholds; where the results lie.

    Raises:
        SlideError: a slide fails that did not fail the first time.
    """
    if not task.candidate_thresholds or not options.ranking:
        return []
    again = []
    for job in jobs:
        spec, _ = run_spec(job.pipeline, package_folder(job.pipeline))
        lowered = dict(spec.thresholds) | dict(task.candidate_thresholds)
        pipeline = replace(job.pipeline, thresholds=lowered)
        done = tuple(ref for ref in job.slides if ref.name not in failed)
        if done:
            again.append(EvaluationJob(pipeline, done, job.out / RANKING))
    results, newly = _run(again, replace(options, pictures=False), reporter)
    for slide, reason in newly.items():
        raise SlideError(f"{slide}: {reason}")
    return results


def _finished(
    jobs: Sequence[EvaluationJob], sums: Sequence[str], options: EvaluationOptions
) -> list[ResultFolder]:
    """For each given folder of results, the slides that lie there. ``sums``: sha256 of the weights
    of each job's package.

    Raises:
        ConfigError: a slide has results in no folder or in several, or another package made them.
    """
    members: dict[Path, list[SlideRef]] = {folder: [] for folder in options.results}
    for job, sha256 in zip(jobs, sums, strict=True):
        for ref in job.slides:
            found = [folder for folder in members if (folder / ref.name).is_dir()]
            if len(found) != 1:
                named = ", ".join(str(f) for f in found or members)
                what = "several results" if found else "no result"
                raise ConfigError(f"the slide '{ref.name}' has {what} in {named}")
            summary = finished_summary(found[0] / ref.name)
            if summary.frame.unit != job.pipeline.model.unit:
                raise ConfigError(
                    f"{found[0] / ref.name} has lengths in {summary.frame.unit}, the pipeline in "
                    f"{job.pipeline.model.unit} (model.mpp): figures of both cannot be pooled"
                )
            made_by = summary.provenance.package.weights_sha256
            if made_by != sha256 and not options.allow_seen:
                raise ConfigError(
                    f"{found[0] / ref.name} was made by another model than the pipeline's package, "
                    "so nobody knows what that was trained on; name its package with --set "
                    "model.package=FOLDER, or evaluate with --allow-seen"
                )
            members[found[0]].append(ref)
    return [ResultFolder(tuple(refs), folder) for folder, refs in members.items() if refs]


def _finished_ranking(jobs: Sequence[EvaluationJob], folders: Sequence[Path]) -> list[ResultFolder]:
    """Results with a lower threshold that an earlier evaluation left next to the given ones; none
    unless all slides have one."""
    slides = [ref for job in jobs for ref in job.slides]
    places = [folder.parent / RANKING / "results" for folder in folders]
    parts = [
        ResultFolder(tuple(ref for ref in slides if (place / ref.name).is_dir()), place)
        for place in places
    ]
    return parts if sum(len(part.slides) for part in parts) == len(slides) else []


def _thresholds(results: Sequence[ResultFolder]) -> dict[str, float]:
    """The thresholds that all folders have in common, as their first slides state them."""
    stated = [
        finished_summary(part.folder / part.slides[0].name).thresholds
        for part in results
        if part.slides
    ]
    return {
        name: value
        for name, value in stated[0].items()
        if all(other.get(name) == value for other in stated)
    }


def _notes(
    evaluation: Evaluation, task: Task, options: EvaluationOptions, *, ranked: bool
) -> list[str]:
    """What a reader of the figures has to know."""
    notes = []
    if options.allow_seen:
        notes.append(
            "--allow-seen: slides of the training may be among the evaluated ones; these figures "
            "are no test"
        )
    if task.candidate_thresholds and not ranked:
        notes.append(
            "average precision is that of the objects above the working threshold, lower than that "
            "of all candidates"
        )
    if len(evaluation.cases) < LEAST_CASES:
        notes.append(f"fewer than {LEAST_CASES} cases, so there are no intervals")
    return notes
