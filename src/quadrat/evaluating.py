"""``quadrat evaluate``: choose the slides, refuse what would not be honest, run them, hold results against annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quadrat import stages
from quadrat.config import OutputsSection, Pipeline
from quadrat.errors import ConfigError
from quadrat.evaluation import Evaluation, Judged, Part, case_of, evaluate, expected_of, judge_slides, with_ranking
from quadrat.evaluation_report import Circumstances, aligned, metrics_json, table_rows, write_evaluation
from quadrat.manifest import SlideRef
from quadrat.metrics.bootstrap import DRAWS, LEAST_CASES, SEED
from quadrat.metrics.protocol import Judging
from quadrat.package import CARD, read_card
from quadrat.progress import Reporter
from quadrat.result_files import read_summary
from quadrat.stages import EXIT_FAILED, EXIT_OK, package_folder
from quadrat.task import Task, get_task

EVERY = "all"
"""As a split: the slides of all splits."""
RANKING = "ap"
"""Where under OUT the results with a lower threshold lie, from which average precision is taken."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for. ``results``: folders of finished results in place of a run; ``ranking``: whether to run a
    second time for average precision, where the task can; ``pictures``: write overlays and GeoJSON as a run does."""

    split: str = "test"
    results: tuple[Path, ...] = ()
    allow_seen: bool = False
    how: Judging = Judging()
    ranking: bool = True
    pictures: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished evaluation: what came out, its circumstances, and the slides that have no result."""

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
        there = ", ".join(f"{name} ({n})" for name, n in sorted(Counter(ref.split or "train" for ref in slides).items()))
        raise ConfigError(f"the manifest has no slide of split '{split}' (there are: {there}); choose one with --split")
    return chosen


def need_unseen(card: Mapping[str, Any], package: Path, slides: Sequence[SlideRef]) -> None:
    """Refuse to evaluate a package on what it was trained, stopped or calibrated on.

    Raises:
        ConfigError: the card names a case or a slide of the evaluated ones, or does not say what it was trained on.
    """
    training = card.get("training")
    if not isinstance(training, dict) or not {"slides", "cases"} <= set(training):
        raise ConfigError(
            f"{package / CARD} does not say on which slides and cases the model was trained, so nobody knows whether these are "
            "among them; train it again, or evaluate with --allow-seen and say so"
        )
    names = {*training["slides"], *training.get("validation_slides", ())}
    seen = [ref for ref in slides if ref.name in names or case_of(ref) in training["cases"]]
    if seen:
        first, more = seen[0], f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        raise ConfigError(
            f"{package} was trained on the case '{case_of(first)}' (slide '{first.name}'{more} of {len(slides)}): its figures "
            "there would be too good; choose another --split or manifest, or --allow-seen if that is what you want to know"
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
    """The pipeline as annotated slides are run: analysed where the annotated set says (``data.tissue``), at the scale that
    the manifest or the file states, without pictures unless they are wanted."""
    outputs = pipeline.outputs if pictures else OutputsSection(image=False, geojson=False, overlay=False)
    return replace(pipeline, slide=replace(pipeline.slide, mpp=None, tissue=pipeline.data.tissue), outputs=outputs)


def examine(
    pipeline: Pipeline, slides: Sequence[SlideRef], out: Path, wish: Wish, *, reporter: Reporter | None = None
) -> Outcome:
    """Evaluate a pipeline's package on annotated slides; files are written under ``out``/evaluation.

    Raises:
        QuadratError: see the functions above; nothing ran. PackageError: no such package.
    """
    task = get_task(pipeline.task)
    chosen = of_split(slides, wish.split)
    package = package_folder(pipeline)
    card, notes = _card(package, chosen, wish)
    check_truth(pipeline, chosen)
    prepared = for_evaluation(pipeline, pictures=wish.pictures)
    if wish.results:
        parts, failed, ranked = _finished(chosen, wish.results, card, package, wish), {}, _ranked_parts(chosen, wish.results)
    else:
        spec, _ = stages.run_spec(pipeline, package)
        report = stages.run(prepared, chosen, out, overwrite=wish.overwrite, reporter=reporter)
        failed = {row.slide: row.reason for row in report.rows if row.status == "failed"}
        parts = [Part(tuple(ref for ref in chosen if ref.name not in failed), out / "results")]
        ranked = _run_ranking(prepared, task, parts, dict(spec.thresholds), out, wish, reporter)
    outcome, judged, of_rank = _judge(pipeline, task, parts, ranked, wish, card, failed, notes)
    classes = outcome.evaluation.classes
    write_evaluation(
        out / "evaluation",
        outcome.evaluation,
        outcome.about,
        confusion=task.metrics.confusion([j.measured for j in judged], classes=classes),
        curves=task.metrics.curves([j.measured for j in of_rank], classes=classes),
    )
    return outcome


def command(
    pipeline: Pipeline, slides: Sequence[SlideRef], out: Path, wish: Wish, *, as_json: bool, write: Callable[[str], None]
) -> int:
    """The command: one table (or the content of metrics.json), and the exit code."""
    outcome = examine(pipeline, slides, out, wish)
    if as_json:
        write(json.dumps(metrics_json(outcome.evaluation, outcome.about), sort_keys=True))
        return outcome.exit_code
    about = outcome.about
    evaluation = outcome.evaluation
    write(f"{about.pipeline} ({evaluation.task}), split '{about.split}': {len(evaluation.slides)} slides, {len(evaluation.cases)} cases")
    for line in aligned(table_rows(evaluation)):
        write(line)
    for note in about.notes:
        write(f"note: {note}")
    for name, reason in (about.failed or {}).items():
        write(f"{name}: failed  {reason}")
    write(f"evaluation: {out / 'evaluation'}")
    return outcome.exit_code


def _card(package: Path, chosen: Sequence[SlideRef], wish: Wish) -> tuple[Mapping[str, Any], list[str]]:
    """The package's card, checked; a note where it was not to be."""
    card = read_card(package)
    if wish.allow_seen:
        return card, ["--allow-seen: slides of the training may be among the evaluated ones; these figures are no test"]
    need_unseen(card, package, chosen)
    return card, []


def _finished(
    chosen: Sequence[SlideRef], folders: Sequence[Path], card: Mapping[str, Any], package: Path, wish: Wish
) -> list[Part]:
    """Each slide's folder among those given.

    Raises:
        ConfigError: a slide has results in none or in several, or they are of another package than the checked one.
    """
    members: dict[Path, list[SlideRef]] = {folder: [] for folder in folders}
    for ref in chosen:
        there = [folder for folder in members if (folder / ref.name).is_dir()]
        if len(there) != 1:
            named = ", ".join(str(f) for f in there or members)
            raise ConfigError(f"the slide '{ref.name}' has {'several results' if there else 'no result'} in {named}")
        made_by = read_summary(there[0] / ref.name).get("package", {}).get("weights_sha256")
        if made_by != card["weights_sha256"] and not wish.allow_seen:
            raise ConfigError(
                f"{there[0] / ref.name} was made by another model than {package}, so nobody knows what it was trained on; name "
                "its package with --set model.package=FOLDER, or evaluate with --allow-seen"
            )
        members[there[0]].append(ref)
    return [Part(tuple(refs), folder) for folder, refs in members.items() if refs]


def _ranked_parts(chosen: Sequence[SlideRef], folders: Sequence[Path]) -> list[Part]:
    """Results with a lower threshold, where an earlier evaluation left them beside those given."""
    places = [folder.parent / RANKING / "results" for folder in folders]
    parts = [Part(tuple(ref for ref in chosen if (place / ref.name).is_dir()), place) for place in places]
    return parts if sum(len(part.slides) for part in parts) == len(chosen) else []


def _run_ranking(
    pipeline: Pipeline,
    task: Task,
    parts: Sequence[Part],
    thresholds: Mapping[str, float],
    out: Path,
    wish: Wish,
    reporter: Reporter | None,
) -> list[Part]:
    """Run again with the thresholds at which candidates are kept at all, for tasks that have such; where the results lie."""
    lowest = task.candidate_thresholds
    if not lowest or not wish.ranking:
        return []
    slides = [ref for part in parts for ref in part.slides]
    lowered = replace(pipeline, thresholds=dict(thresholds) | dict(lowest))
    report = stages.run(lowered, slides, out / RANKING, overwrite=wish.overwrite, reporter=reporter)
    return [] if report.exit_code else [Part(tuple(slides), out / RANKING / "results")]


def _judge(
    pipeline: Pipeline,
    task: Task,
    parts: Sequence[Part],
    ranked: Sequence[Part],
    wish: Wish,
    card: Mapping[str, Any],
    failed: Mapping[str, str],
    notes: list[str],
) -> tuple[Outcome, tuple[Judged, ...], tuple[Judged, ...]]:
    """Figures and circumstances; the measured slides at the working threshold, and those that are ranked."""
    classes = tuple(c.name for c in pipeline.classes)
    judged = judge_slides(parts, task=task, data=pipeline.data, classes=classes, how=wish.how)
    evaluation = evaluate(judged, task=task, classes=classes)
    of_rank = judged
    if ranked:
        of_rank = judge_slides(ranked, task=task, data=pipeline.data, classes=classes, how=wish.how)
        figures = dict(evaluation.figures) | with_ranking(judged, of_rank, task=task, classes=classes)
        evaluation = replace(evaluation, figures=figures)
    elif task.candidate_thresholds:
        notes = [*notes, "average precision is that of the objects above the working threshold, lower than of all candidates"]
    if len(evaluation.cases) < LEAST_CASES:
        notes = [*notes, f"{len(evaluation.cases)} cases are too few for intervals (at least {LEAST_CASES})"]
    summary = read_summary(parts[0].results / judged[0].slide) if judged else {}
    about = Circumstances(
        pipeline=pipeline.name,
        split=wish.split,
        settings=asdict(wish.how) | {"bootstrap_draws": DRAWS, "bootstrap_seed": SEED, "allow_seen": wish.allow_seen},
        packages=[{"name": Path(pipeline.model.package).name, "weights_sha256": card["weights_sha256"]}],
        thresholds=summary.get("thresholds", {}),
        notes=notes,
        failed=failed,
    )
    return Outcome(evaluation, about), judged, of_rank
