"""Evaluation: result files of finished slides against their annotations, pooled over slides and
grouped by case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.annotations import SlideTruth
from quadrat.annotations.truth import load_truth, need_annotated
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.config.splits import case_of
from quadrat.core.errors import QuadratError
from quadrat.evaluation.results import read_answer
from quadrat.metrics.bootstrap import DRAWS, Interval, case_intervals
from quadrat.metrics.counts import count_agreement
from quadrat.metrics.protocol import AS_USUAL, Judging
from quadrat.models.task import Task

ALL = "all"
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Slides whose results lie in one folder (``<results>/<slide>/``); the folds of a
    cross-validation are a part each."""

    slides: tuple[SlideRef, ...]
    results: Path


@dataclass(frozen=True, slots=True)
class Judged:
    """One slide: its name, its case (its own name where the manifest states none), and what the
    metrics kept of it."""

    slide: str
    case: str
    measured: Any


@dataclass(frozen=True, slots=True)
class CountUnit:
    """Planted and found objects of one class ("all": of all) in one slide or case."""

    unit: str
    name: str
    class_name: str
    planted: int
    found: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that came out. Figures are by the flat names of the metrics; ``intervals`` hold those
    that are bootstrapped over cases. ``per_slide`` and ``per_case``: figures of each alone.
    ``agreement``: unit ("slide", "case") -> class or "all" -> figure; ``agreement_intervals``
    likewise. ``slides`` by name."""

    task: str
    main: str
    classes: tuple[str, ...]
    slides: tuple[Judged, ...]
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    per_slide: Mapping[str, Mapping[str, float]]
    per_case: Mapping[str, Mapping[str, float]]
    counts: tuple[CountUnit, ...]
    agreement: Mapping[str, Mapping[str, Mapping[str, float]]]
    agreement_intervals: Mapping[str, Mapping[str, Mapping[str, Interval]]]

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(sorted({judged.case for judged in self.slides}))


def expected_of(ref: SlideRef, data: DataSection, classes: Sequence[str]) -> SlideTruth:
    """The truth of a slide as the manifest and the pipeline's ``data`` section say.

    Raises:
        ConfigError: the manifest names no annotation or label. AnnotationError: it cannot be
        used, or objects are drawn and
            the manifest does not say where all of them are.
    """
    truth = load_truth(ref, data, classes)
    need_annotated(truth, ref, otherwise="what is found beside them cannot be judged")
    return truth


def judge_slides(
    parts: Iterable[Part],
    *,
    task: Task,
    data: DataSection,
    classes: Sequence[str],
    how: Judging = AS_USUAL,
) -> tuple[Judged, ...]:
    """Measure every slide of all parts, one at a time; by name, so that the order of a manifest is
    of no consequence.

    Raises:
        QuadratError: a slide is in two parts, has no finished result, or result and truth
        cannot be compared; names it.
    """
    places = [(ref, part.results / ref.name) for part in parts for ref in part.slides]
    twice = [name for name, times in Counter(ref.name for ref, _ in places).items() if times > 1]
    if twice:
        raise QuadratError(
            f"the slide '{twice[0]}' is to be evaluated twice, which would count it double"
        )
    label_image = None if task.label_image is None else task.label_image.name
    judged = []
    for ref, folder in sorted(places, key=lambda place: place[0].name):
        answer = read_answer(folder, classes=classes, label_image=label_image)
        try:
            measured = task.metrics.measure(
                answer, expected_of(ref, data, classes), classes=classes, how=how
            )
        except ValueError as error:
            raise QuadratError(f"{folder}: cannot be evaluated ({error})") from error
        judged.append(Judged(ref.name, case_of(ref), measured))
    return tuple(judged)


def evaluate(
    slides: Sequence[Judged], *, task: Task, classes: Sequence[str], draws: int = DRAWS
) -> Evaluation:
    """Pool measured slides: figures with intervals, by slide and by case, and how well counts
    agree."""
    metrics, names = task.metrics, tuple(classes)
    measured = [judged.measured for judged in slides]
    cases = [judged.case for judged in slides]

    def pooled(index: Sequence[int]) -> dict[str, float]:
        return metrics.additive([measured[i] for i in index], classes=names)

    figures = metrics.summarise(measured, classes=names)
    agreement, agreement_intervals, counts = _counts(slides, names, draws)
    return Evaluation(
        task=task.name,
        main=metrics.main,
        classes=names,
        slides=tuple(slides),
        figures={name: value for name, value in figures.items() if not name.startswith("count_")},
        intervals=case_intervals(cases, pooled, draws=draws),
        per_slide={judged.slide: pooled([i]) for i, judged in enumerate(slides)},
        per_case={
            case: pooled([i for i, c in enumerate(cases) if c == case])
            for case in sorted(set(cases))
        },
        counts=counts,
        agreement=agreement,
        agreement_intervals=agreement_intervals,
    )


def with_ranking(
    judged: Sequence[Judged], ranked: Sequence[Judged], *, task: Task, classes: Sequence[str]
) -> dict[str, float]:
    """Figures of average precision of ``ranked``, the same slides run with a lower threshold.

    Raises:
        ValueError: not the same slides.
    """
    if [j.slide for j in judged] != [j.slide for j in ranked]:
        raise ValueError("average precision was asked for of other slides than the other figures")
    figures = task.metrics.summarise([j.measured for j in ranked], classes=classes)
    return {name: value for name, value in figures.items() if name.startswith("ap")}


def _counts(
    slides: Sequence[Judged], classes: tuple[str, ...], draws: int
) -> tuple[
    dict[str, dict[str, dict[str, float]]],
    dict[str, dict[str, dict[str, Interval]]],
    tuple[CountUnit, ...],
]:
    """Agreement of counts by unit and class, with intervals, and the counts themselves; empty for
    tasks that count nothing."""
    if not slides or not hasattr(slides[0].measured, "planted"):
        return {}, {}, ()
    table = np.stack(
        [np.stack([j.measured.planted, j.measured.found]) for j in slides]
    )  # slide, side, class
    cases = sorted({j.case for j in slides})
    of_case = np.zeros((len(cases), *table.shape[1:]), np.int64)
    np.add.at(of_case, [cases.index(j.case) for j in slides], table)
    agreement: dict[str, dict[str, dict[str, float]]] = {}
    intervals: dict[str, dict[str, dict[str, Interval]]] = {}
    rows: list[CountUnit] = []
    for unit, names, groups, sides in (
        ("slide", [j.slide for j in slides], [j.case for j in slides], table),
        ("case", cases, cases, of_case),
    ):
        agreement[unit], intervals[unit] = {}, {}
        for k, name in enumerate((ALL, *classes)):
            planted, found = (
                sides[:, i].sum(axis=1) if k == 0 else sides[:, i, k - 1] for i in (0, 1)
            )
            agreement[unit][name] = count_agreement(planted, found)
            intervals[unit][name] = case_intervals(
                groups, partial(_drawn_agreement, planted, found), draws=draws
            )
            rows += [
                CountUnit(unit, of, name, int(p), int(f))
                for of, p, f in zip(names, planted, found, strict=True)
            ]
    return agreement, intervals, tuple(rows)


def _drawn_agreement(planted: Counts, found: Counts, index: Sequence[int]) -> dict[str, float]:
    return count_agreement(planted[index], found[index])
