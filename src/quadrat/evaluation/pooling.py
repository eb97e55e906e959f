"""Result files of finished slides compared with their annotations, pooled over slides and grouped
by case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.annotations.truth import load_truth, mpp_of, need_annotated
from quadrat.annotations.types import SlideTruth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.config.splits import case_of
from quadrat.core.errors import QuadratError
from quadrat.core.unit import PX, Mpp, Unit, Value, named
from quadrat.evaluation.results import read_answer
from quadrat.metrics.bootstrap import DRAWS, Interval, case_intervals
from quadrat.metrics.counts import Counted, count_agreement
from quadrat.metrics.protocol import DEFAULT_SETTINGS, MetricSettings
from quadrat.metrics.ratios import Ids
from quadrat.models.task import Task

ALL = "all"


@dataclass(frozen=True, slots=True)
class ResultFolder:
    """Slides whose results lie in one folder. Each fold of a cross-validation has a folder."""

    slides: tuple[SlideRef, ...]
    """The slides to compare."""
    folder: Path
    """Holds a folder per slide."""


@dataclass(frozen=True, slots=True)
class SlideMetrics:
    """One slide, compared with its truth."""

    slide: str
    """Its name."""
    case: str
    """Its case; its own name where the manifest states none."""
    measured: Any
    """What the metrics of the task keep of a slide."""


@dataclass(frozen=True, slots=True)
class ObjectCount:
    """The objects of one class in one slide or case."""

    unit: str
    """"slide" or "case"."""
    name: str
    """Name of the slide or case."""
    class_name: str
    """The class; "all": all classes together."""
    planted: int
    """True objects."""
    found: int
    """Found objects."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of an evaluation, by the names that the metrics give them."""

    task: str
    """Name of the task."""
    main: str
    """Name of the main figure."""
    unit: Unit
    """Of lengths, in the names of figures."""
    classes: tuple[str, ...]
    """Names of the classes."""
    slides: tuple[SlideMetrics, ...]
    """The slides, by name."""
    figures: Mapping[str, float]
    """Of all slides together."""
    intervals: Mapping[str, Interval]
    """Of the figures that are bootstrapped over cases."""
    per_slide: Mapping[str, Mapping[str, float]]
    """Slide -> its own figures and sizes."""
    per_case: Mapping[str, Mapping[str, float]]
    """Case -> the figures and sizes of its slides."""
    counts: tuple[ObjectCount, ...]
    """Objects of each class in each slide and case; empty for tasks that count nothing."""
    agreement: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Unit ("slide", "case") -> class or "all" -> figure of count agreement."""
    agreement_intervals: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    """The same, with intervals."""

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(sorted({slide.case for slide in self.slides}))


def read_truths(
    slides: Iterable[SlideRef], data: DataSection, classes: Sequence[str], *, unit: Unit = "um"
) -> dict[str, SlideTruth]:
    """The truth of each slide, by name, as the manifest and the pipeline's ``data`` section say.
    Each annotation file is read once. ``unit``: that of the model.

    Raises:
        ConfigError: the manifest names no annotation or label.
        AnnotationError: it cannot be used, or objects are drawn and the manifest does not say where
            all of them are.
    """
    truths = {}
    for ref in slides:
        mpp: Mpp | None = PX if unit == PX else None
        if unit == "um" and data.annotations == "points":  # points may be in um
            mpp = mpp_of(ref)
        truths[ref.name] = load_truth(ref, data, classes, mpp=mpp)
        need_annotated(
            truths[ref.name], ref, otherwise="objects that are found elsewhere cannot be evaluated"
        )
    return truths


def measure_slides(
    results: Iterable[ResultFolder],
    truths: Mapping[str, SlideTruth],
    *,
    task: Task,
    classes: Sequence[str],
    settings: MetricSettings = DEFAULT_SETTINGS,
) -> tuple[SlideMetrics, ...]:
    """Compare every slide with its truth, one slide at a time. They are sorted by name, so that the
    order of a manifest has no influence.

    Raises:
        QuadratError: a slide is in two folders, has no finished result, or cannot be compared;
            names it.
    """
    places = [(ref, part.folder / ref.name) for part in results for ref in part.slides]
    twice = [name for name, times in Counter(ref.name for ref, _ in places).items() if times > 1]
    if twice:
        raise QuadratError(
            f"the slide '{twice[0]}' is to be evaluated twice, which would count it double"
        )
    label_image = None if task.label_image is None else task.label_image.name
    measured = []
    for ref, folder in sorted(places, key=lambda place: place[0].name):
        answer = read_answer(folder, classes=classes, label_image=label_image)
        try:
            one = task.metrics.measure(answer, truths[ref.name], classes=classes, settings=settings)
        except ValueError as error:
            raise QuadratError(f"{folder}: cannot be evaluated ({error})") from error
        measured.append(SlideMetrics(ref.name, case_of(ref), one))
    return tuple(measured)


def pool(
    slides: Sequence[SlideMetrics],
    *,
    task: Task,
    classes: Sequence[str],
    ranked: Sequence[SlideMetrics] = (),
    draws: int = DRAWS,
    unit: Unit = "um",
) -> Evaluation:
    """All figures of measured slides, with intervals, by slide and by case; named in ``unit``.

    ``ranked``: the same slides run with a lower threshold. Average precision is taken from them, if
    there are any.

    Raises:
        ValueError: ``ranked`` are other slides.
    """
    metrics, names = task.metrics, tuple(classes)
    cases = [slide.case for slide in slides]

    def additive(index: Sequence[int]) -> dict[str, float]:
        return metrics.additive([slides[i].measured for i in index], classes=names)

    def alone(index: Sequence[int]) -> dict[str, float]:
        sizes = metrics.sizes([slides[i].measured for i in index], classes=names)
        return _in_unit(additive(index) | sizes, unit)

    figures = metrics.summarise([slide.measured for slide in slides], classes=names)
    if ranked:
        if [slide.slide for slide in slides] != [slide.slide for slide in ranked]:
            raise ValueError("average precision must be of the same slides as the other figures")
        lower = metrics.summarise([slide.measured for slide in ranked], classes=names)
        figures |= {name: value for name, value in lower.items() if name.startswith("ap")}
    agreement, agreement_intervals, counts = _counts(slides, names, draws)
    return Evaluation(
        task=task.name,
        main=named(metrics.main, unit),
        unit=unit,
        classes=names,
        slides=tuple(slides),
        figures=_in_unit(figures, unit),
        intervals=_in_unit(case_intervals(cases, additive, draws=draws), unit),
        per_slide={slide.slide: alone([i]) for i, slide in enumerate(slides)},
        per_case={
            case: alone([i for i, c in enumerate(cases) if c == case])
            for case in sorted(set(cases))
        },
        counts=counts,
        agreement=agreement,
        agreement_intervals=agreement_intervals,
    )


def _in_unit(figures: Mapping[str, Value], unit: Unit) -> dict[str, Value]:
    """Figures, of all or of a class (``annotated_mm2.tumor``), with their names in a unit."""
    parts = {name: name.partition(".") for name in figures}
    return {named(base, unit) + dot + of: figures[name] for name, (base, dot, of) in parts.items()}


def _counts(
    slides: Sequence[SlideMetrics], classes: tuple[str, ...], draws: int
) -> tuple[
    dict[str, dict[str, dict[str, float]]],
    dict[str, dict[str, dict[str, Interval]]],
    tuple[ObjectCount, ...],
]:
    """Agreement of counts by unit and class, with intervals, and the counts themselves; empty for
    tasks that count nothing."""
    counted = [s.measured for s in slides if isinstance(s.measured, Counted)]
    if not counted:
        return {}, {}, ()
    table = np.stack([np.stack([one.planted, one.found]) for one in counted])  # slide, side, class
    of_slide = [s.case for s in slides]
    cases = sorted(set(of_slide))
    of_case = np.zeros((len(cases), *table.shape[1:]), np.int64)
    np.add.at(of_case, [cases.index(case) for case in of_slide], table)
    agreement: dict[str, dict[str, dict[str, float]]] = {}
    intervals: dict[str, dict[str, dict[str, Interval]]] = {}
    rows: list[ObjectCount] = []
    for unit, names, groups, sides in (
        ("slide", [s.slide for s in slides], of_slide, table),
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
                ObjectCount(unit, of, name, int(p), int(f))
                for of, p, f in zip(names, planted, found, strict=True)
            ]
    return agreement, intervals, tuple(rows)


def _drawn_agreement(planted: Ids, found: Ids, index: Sequence[int]) -> dict[str, float]:
    return count_agreement(planted[index], found[index])
