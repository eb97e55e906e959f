"""``quadrat evaluate``: choose the slides, refuse what would not be honest, run them, hold results
against annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.config.leakage import check_leakage, content_digests, seen_by
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, Pipeline
from quadrat.config.splits import case_of
from quadrat.core.errors import ConfigError, SlideError
from quadrat.engine.progress import Reporter
from quadrat.engine.run import EXIT_FAILED, EXIT_OK, package_folder, run, run_spec
from quadrat.evaluation.pooling import (
    Evaluation,
    Part,
    evaluate,
    expected_of,
    judge_slides,
    with_ranking,
)
from quadrat.evaluation.report import (
    Circumstances,
    aligned,
    metrics_json,
    table_rows,
    write_evaluation,
)
from quadrat.evaluation.results import read_summary
from quadrat.metrics.bootstrap import DRAWS, LEAST_CASES, SEED
from quadrat.metrics.protocol import AS_USUAL, Judging
from quadrat.models.package import CARD, read_card
from quadrat.models.task import Task
from quadrat.tasks import get_task

EVERY = "all"
"""As a split: the slides of all splits."""
RANKING = "ap"
"""Where under OUT the results with a lower threshold lie, from which average precision is taken."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for. ``results``: folders of finished results in place of a run;
    ``ranking``: whether to run a second time for average precision, where the task can;
    ``pictures``: write overlays and GeoJSON as a run does."""

    split: str = "test"
    results: tuple[Path, ...] = ()
    allow_seen: bool = False
    how: Judging = AS_USUAL
    ranking: bool = True
    pictures: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Exam:
    """One package and the slides that it is judged on; the folds of a cross-validation are an exam
    each. ``out``: where its results go."""

    pipeline: Pipeline
    slides: tuple[SlideRef, ...]
    out: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished evaluation: what came out, its circumstances, and the slides that
    have no result.
    """

    evaluation: Evaluation
    about: Circumstances

    @property
    def exit_code(self) -> int:
        return EXIT_FAILED if self.about.failed else EXIT_OK


def of_split(slides: Sequence[SlideRef], split: str) -> list[SlideRef]:
    """The slides of a split ("" is train); of "all" every one.

    Raises:
        ConfigError: there are none; says which splits there are.
    """
    chosen = [ref for ref in slides if split == EVERY or (ref.split or "train") == split]
    if not chosen:
        there = ", ".join(
            f"{name} ({n})"
            for name, n in sorted(Counter(ref.split or "train" for ref in slides).items())
        )
        raise ConfigError(
            f"the manifest has no slide of split '{split}' (there are: {there}); choose one with "
            "--split"
        )
    return chosen


def need_unseen(card: Mapping[str, Any], package: Path, slides: Sequence[SlideRef]) -> None:
    """Refuse to evaluate a package on what it was trained, stopped or calibrated on.

    Raises:
        ConfigError: the card names a case or a slide of the evaluated ones, or does not say
        what it was trained on.
    """
    seen = seen_by(card)
    if seen is None:
        raise ConfigError(
            f"{package / CARD} does not say on which slides and cases the model was trained (or "
            "the one that it was begun from), "
            "so nobody knows whether these are among them; train it again, or evaluate with "
            "--allow-seen and say so"
        )
    known = seen.of(slides)
    if known:
        first, more = known[0], f" and {len(known) - 1} more" if len(known) > 1 else ""
        raise ConfigError(
            f"{package} has seen the case '{case_of(first)}' (slide '{first.name}'{more} of "
            f"{len(slides)}) in training or "
            "validation, itself or by the package that it was begun from: its figures there would "
            "be too good; choose another "
            "--split or manifest, or --allow-seen if that is what you want to know"
        )


def check_truth(pipeline: Pipeline, slides: Sequence[SlideRef]) -> None:
    """Read every annotation once, before time is spent.

    Raises:
        ConfigError, AnnotationError: one is missing or cannot be used.
    """
    names = [c.name for c in pipeline.classes]
    for ref in slides:
        expected_of(ref, pipeline.data, names)


def for_evaluation(pipeline: Pipeline, *, pictures: bool = False) -> Pipeline:
    """The pipeline as annotated slides are run: analysed where the annotated set says
    (``data.tissue``), at the scale that the manifest or the file states, without pictures unless
    they are wanted."""
    outputs = (
        pipeline.outputs if pictures else OutputsSection(image=False, geojson=False, overlay=False)
    )
    return replace(
        pipeline,
        slide=replace(pipeline.slide, mpp=None, tissue=pipeline.data.tissue),
        outputs=outputs,
    )


def exams_of(
    pipeline: Pipeline, manifest: Path | None, out: Path, wish: Wish, *, folds: int | None = None
) -> list[Exam]:
    """What is to be evaluated: the pipeline's package on a split, or with ``folds`` (0: as the
    manifest says) the package of each fold on the cases that its training left out. ``manifest``:
    in place of the pipeline's.

    Raises:
        ConfigError: no manifest, no such slide, a slide listed twice, a case on two sides, or
        folds that cannot be.
    """
    from quadrat.training.plan import folds_of, training_manifest  # brings the training along

    if manifest is not None:
        pipeline = replace(pipeline, data=replace(pipeline.data, manifest=str(manifest.resolve())))
    if folds is None:
        slides = training_manifest(pipeline)
        check_leakage(slides, content_digests([ref.path for ref in slides]))
        return [Exam(pipeline, tuple(of_split(slides, wish.split)), out)]
    return [
        Exam(
            replace(pipeline, model=replace(pipeline.model, package=str(course.package))),
            tuple(of_split(course.slides, "test")),
            out / course.package.suffix.removeprefix("."),
        )
        for course in folds_of(pipeline, folds or None)
    ]


def examine(
    exams: Sequence[Exam], out: Path, wish: Wish, *, reporter: Reporter | None = None
) -> Outcome:
    """Run what is to be evaluated, judge it, and write the files under ``out``/evaluation; the
    exams are pooled.

    Raises:
        QuadratError: see the functions above; nothing ran. PackageError: no such package.
    """
    first = exams[0].pipeline
    task, classes = get_task(first.task), tuple(c.name for c in first.classes)
    cards = [_checked_card(exam, wish) for exam in exams]
    if wish.results:
        chosen = [ref for exam in exams for ref in exam.slides]
        sums = {
            ref.name: card["weights_sha256"]
            for exam, card in zip(exams, cards, strict=True)
            for ref in exam.slides
        }
        parts, failed = _finished(chosen, wish, sums), dict[str, str]()
        ranked = _ranked_parts(chosen, wish.results)
    else:
        parts, failed = _run(exams, wish, reporter)
        ranked = _run_ranking(exams, task, failed, wish, reporter)
    judged = judge_slides(parts, task=task, data=first.data, classes=classes, how=wish.how)
    if not judged:
        raise ConfigError(
            f"no slide has a result, so there is nothing to evaluate: {'; '.join(failed.values())}"
        )
    of_rank = (
        judge_slides(ranked, task=task, data=first.data, classes=classes, how=wish.how)
        if ranked
        else judged
    )
    evaluation = evaluate(judged, task=task, classes=classes)
    if ranked:
        figures = dict(evaluation.figures) | with_ranking(
            judged, of_rank, task=task, classes=classes
        )
        evaluation = replace(evaluation, figures=figures)
    about = Circumstances(
        pipeline=first.name,
        split="left-out folds" if len(exams) > 1 else wish.split,
        settings=asdict(wish.how)
        | {"bootstrap_draws": DRAWS, "bootstrap_seed": SEED, "allow_seen": wish.allow_seen},
        packages=[
            {
                "name": Path(exam.pipeline.model.package).name,
                "weights_sha256": card["weights_sha256"],
            }
            for exam, card in zip(exams, cards, strict=True)
        ],
        thresholds=_thresholds(parts),
        notes=_notes(evaluation, task, wish, ranked=bool(ranked)),
        failed=failed,
    )
    write_evaluation(
        out / "evaluation",
        evaluation,
        about,
        confusion=task.metrics.confusion([j.measured for j in judged], classes=classes),
        curves=task.metrics.curves([j.measured for j in of_rank], classes=classes),
    )
    return Outcome(evaluation, about)


def command(
    exams: Sequence[Exam], out: Path, wish: Wish, *, as_json: bool, write: Callable[[str], None]
) -> int:
    """The command: one table (or the content of metrics.json), and the exit code."""
    outcome = examine(exams, out, wish)
    evaluation, about = outcome.evaluation, outcome.about
    if as_json:
        write(json.dumps(metrics_json(evaluation, about), sort_keys=True))
        return outcome.exit_code
    extent = f"{len(evaluation.slides)} slides, {len(evaluation.cases)} cases"
    write(f"{about.pipeline} ({evaluation.task}), split '{about.split}': {extent}")
    for line in aligned(table_rows(evaluation)):
        write(line)
    for note in about.notes:
        write(f"note: {note}")
    for name, reason in (about.failed or {}).items():
        write(f"{name}: failed  {reason}")
    write(f"evaluation: {out / 'evaluation'}")
    return outcome.exit_code


def _checked_card(exam: Exam, wish: Wish) -> Mapping[str, Any]:
    """The card of an exam's package, when neither it nor the annotations speak against the exam."""
    package = package_folder(exam.pipeline)
    run_spec(exam.pipeline, package)  # whole, and of this task and these classes
    card = read_card(package)
    if not wish.allow_seen:
        need_unseen(card, package, exam.slides)
    check_truth(exam.pipeline, exam.slides)
    return card


def _run(
    exams: Sequence[Exam], wish: Wish, reporter: Reporter | None
) -> tuple[list[Part], dict[str, str]]:
    """Results of all exams, and the slides that failed with their reasons."""
    parts, failed = [], dict[str, str]()
    for exam in exams:
        prepared = for_evaluation(exam.pipeline, pictures=wish.pictures)
        report = run(prepared, exam.slides, exam.out, overwrite=wish.overwrite, reporter=reporter)
        failed |= {row.slide: row.reason for row in report.rows if row.status == "failed"}
        parts.append(
            Part(tuple(ref for ref in exam.slides if ref.name not in failed), exam.out / "results")
        )
    return parts, failed


def _run_ranking(
    exams: Sequence[Exam],
    task: Task,
    failed: Mapping[str, str],
    wish: Wish,
    reporter: Reporter | None,
) -> list[Part]:
    """Run again with the thresholds at which every candidate is a result, for tasks that have such;
    where the results lie.

    Raises:
        SlideError: a slide fails that did not the first time.
    """
    if not task.candidate_thresholds or not wish.ranking:
        return []
    parts = []
    for exam in exams:
        spec, _ = run_spec(exam.pipeline, package_folder(exam.pipeline))
        lowered = dict(spec.thresholds) | dict(task.candidate_thresholds)
        slides = tuple(ref for ref in exam.slides if ref.name not in failed)
        pipeline = replace(for_evaluation(exam.pipeline), thresholds=lowered)
        report = (
            run(pipeline, slides, exam.out / RANKING, overwrite=wish.overwrite, reporter=reporter)
            if slides
            else None
        )
        for row in report.rows if report else ():
            if row.status == "failed":
                raise SlideError(f"{row.slide}: {row.reason}")
        parts.append(Part(slides, exam.out / RANKING / "results"))
    return parts


def _finished(chosen: Sequence[SlideRef], wish: Wish, sums: Mapping[str, str]) -> list[Part]:
    """The folder, of those given, in which each slide's results lie. ``sums``: sha256 of the
    weights that should have made each slide's.

    Raises:
        ConfigError: a slide has results in none or in several, or they are of another package
        than the checked one.
    """
    members: dict[Path, list[SlideRef]] = {folder: [] for folder in wish.results}
    for ref in chosen:
        there = [folder for folder in members if (folder / ref.name).is_dir()]
        if len(there) != 1:
            named = ", ".join(str(f) for f in there or members)
            raise ConfigError(
                f"the slide '{ref.name}' has {'several results' if there else 'no result'} in "
                f"{named}"
            )
        made_by = read_summary(there[0] / ref.name).get("package", {}).get("weights_sha256")
        if made_by != sums[ref.name] and not wish.allow_seen:
            raise ConfigError(
                f"{there[0] / ref.name} was made by another model than the pipeline's package, so "
                "nobody knows what that was "
                "trained on; name its package with --set model.package=FOLDER, or evaluate with "
                "--allow-seen"
            )
        members[there[0]].append(ref)
    return [Part(tuple(refs), folder) for folder, refs in members.items() if refs]


def _ranked_parts(chosen: Sequence[SlideRef], folders: Sequence[Path]) -> list[Part]:
    """Results with a lower threshold, where an earlier evaluation left them beside those given;
    none unless of all slides."""
    places = [folder.parent / RANKING / "results" for folder in folders]
    parts = [
        Part(tuple(ref for ref in chosen if (place / ref.name).is_dir()), place) for place in places
    ]
    return parts if sum(len(part.slides) for part in parts) == len(chosen) else []


def _thresholds(parts: Sequence[Part]) -> dict[str, float]:
    """The thresholds that all parts have in common, as their results state them."""
    stated = [
        read_summary(part.results / part.slides[0].name).get("thresholds", {})
        for part in parts
        if part.slides
    ]
    return {
        name: value
        for name, value in stated[0].items()
        if all(other.get(name) == value for other in stated)
    }


def _notes(evaluation: Evaluation, task: Task, wish: Wish, *, ranked: bool) -> list[str]:
    """What is to be kept in mind with the figures."""
    notes = []
    if wish.allow_seen:
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
