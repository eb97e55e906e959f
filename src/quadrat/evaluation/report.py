"""The files of an evaluation in OUT/evaluation: metrics.json, tables, pictures and a short report
(docs/evaluation.md)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.core.files import write_file
from quadrat.core.text import csv_text
from quadrat.evaluation.plots import (
    bland_altman,
    confusion_plot,
    count_scatter,
    precision_recall_plot,
)
from quadrat.evaluation.pooling import ALL, Evaluation
from quadrat.metrics.counts import relative_error
from quadrat.metrics.protocol import Confusion, Curve
from quadrat.metrics.ratios import Ids

AGREEMENT = (
    "planted",
    "found",
    "bias",
    "mae",
    "relative_error_median",
    "relative_error_mean",
    "icc",
    "limit_low",
    "limit_high",
)
"""Figures of count agreement that the table shows, in this order."""
TOTALS = ("planted", "found")
"""Of these an interval over cases would say how large cases are, not how well counts agree."""
COUNT_COLUMNS = ("unit", "name", "class", "planted", "found", "difference", "relative_error")


@dataclass(frozen=True, slots=True)
class EvaluationDetails:
    """What the figures are of, and what a reader has to know."""

    pipeline: str
    """Name of the pipeline."""
    split: str
    """Name of the split."""
    settings: Mapping[str, Any]
    """Settings of the comparison and of the bootstrap, as JSON values."""
    packages: Sequence[Mapping[str, Any]]
    """Name and weights (sha256) of each package."""
    thresholds: Mapping[str, float]
    """The working thresholds that all packages have in common."""
    notes: Sequence[str] = ()
    """Sentences for the reader."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Slide without a result -> reason."""


def metrics_json(evaluation: Evaluation, details: EvaluationDetails) -> dict[str, Any]:
    """The content of metrics.json: JSON values, null for what is not defined."""
    return {
        "task": evaluation.task,
        "pipeline": details.pipeline,
        "split": details.split,
        "classes": list(evaluation.classes),
        "slides": len(evaluation.slides),
        "cases": len(evaluation.cases),
        "main": evaluation.main,
        "figures": {name: _value(v) for name, v in evaluation.figures.items()},
        "intervals": {
            name: [_value(v) for v in pair] for name, pair in evaluation.intervals.items()
        },
        "counts": {
            unit: {
                name: {
                    figure: {"value": _value(value)}
                    | _bounds(evaluation.agreement_intervals[unit][name].get(figure))
                    for figure, value in figures.items()
                }
                for name, figures in by_class.items()
            }
            for unit, by_class in evaluation.agreement.items()
        },
        "packages": [dict(p) for p in details.packages],
        "thresholds": dict(details.thresholds),
        "settings": dict(details.settings),
        "notes": list(details.notes),
        "failed": dict(details.failed),
    }


def table_rows(evaluation: Evaluation) -> list[list[str]]:
    """The one table, header first: figure, value, 95 % interval, then a column per class."""
    figures, intervals = evaluation.figures, evaluation.intervals
    columns = list(dict.fromkeys(name.partition(".")[2] for name in figures if "." in name))
    rows = [["figure", "value", "95 %", *columns]]
    bases = list(dict.fromkeys(name.partition(".")[0] for name in figures))
    for base in sorted(bases, key=lambda name: name != evaluation.main):
        by_class = [_text(figures.get(f"{base}.{column}")) for column in columns]
        rows.append([base, _text(figures.get(base)), _range(intervals.get(base)), *by_class])
    for unit in _units(evaluation):
        by_name = evaluation.agreement[unit]
        of_all = evaluation.agreement_intervals[unit][ALL]
        for figure in AGREEMENT:
            interval = None if figure in TOTALS else of_all.get(figure)
            cells = [
                _text(by_name[column][figure]) if column in by_name else "" for column in columns
            ]
            title = f"count {figure} ({unit}s)"
            rows.append([title, _text(by_name[ALL][figure]), _range(interval), *cells])
    return [row for row in rows if any(row[1:])]


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    details: EvaluationDetails,
    *,
    confusion: Confusion,
    curves: Sequence[Curve],
) -> None:
    """Write all files of an evaluation; metrics.json comes last."""
    slides = Counter(slide.case for slide in evaluation.slides)
    of_slides = [((s.slide, s.case), evaluation.per_slide[s.slide]) for s in evaluation.slides]
    of_cases = [((case, str(slides[case])), own) for case, own in evaluation.per_case.items()]
    write_file(folder / "per_slide.csv", _figures_csv(("slide", "case"), of_slides))
    write_file(folder / "per_case.csv", _figures_csv(("case", "slides"), of_cases))
    if evaluation.counts:
        lines = [
            (
                c.unit,
                c.name,
                c.class_name,
                c.planted,
                c.found,
                c.found - c.planted,
                _text(relative_error(c.planted, c.found)),
            )
            for c in evaluation.counts
        ]
        write_file(folder / "counts.csv", csv_text(COUNT_COLUMNS, lines))
    pictures = _draw(folder, evaluation, details, confusion, curves)
    write_file(folder / "report.md", report_text(evaluation, details, pictures))
    text = json.dumps(metrics_json(evaluation, details), indent=2, sort_keys=True) + "\n"
    write_file(folder / "metrics.json", text)


def report_text(
    evaluation: Evaluation, details: EvaluationDetails, pictures: Sequence[tuple[str, str]]
) -> str:
    """report.md: the table, the notes, the pictures."""
    header, *rows = table_rows(evaluation)
    cells = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    value = _text(evaluation.figures[evaluation.main])
    interval = _range(evaluation.intervals.get(evaluation.main))
    lines = [
        f"# Evaluation of {details.pipeline}",
        "",
        f"{evaluation.task}, split '{details.split}': {len(evaluation.slides)} slides of "
        f"{len(evaluation.cases)} cases. "
        f"**{evaluation.main} {value}**{f' (95 % {interval})' if interval else ''}.",
        "",
        *cells,
        "",
        "Intervals: bootstrap over cases. Definitions: docs/evaluation.md. Research use only, not "
        "for diagnosis.",
    ]
    if details.notes or details.failed:
        lines += ["", "## Keep in mind", "", *(f"- {note}" for note in details.notes)]
        lines += [f"- no result of {name}: {reason}" for name, reason in details.failed.items()]
    for name, title in pictures:
        lines += ["", f"## {title}", "", f"![{title}]({name})"]
    return "\n".join(lines) + "\n"


def _draw(
    folder: Path,
    evaluation: Evaluation,
    details: EvaluationDetails,
    confusion: Confusion,
    curves: Sequence[Curve],
) -> list[tuple[str, str]]:
    """Draw what the evaluation has; (file, title) of each picture."""
    pictures = [("confusion.png", "Confusion")]
    title = f"{details.pipeline}: {confusion.counted}"
    confusion_plot(folder / "confusion.png", confusion, title=title)
    names = (ALL, *evaluation.classes) if len(evaluation.classes) > 1 else (ALL,)
    for unit in _units(evaluation):
        counts = {name: _counts_of(evaluation, unit, name) for name in names}
        icc = {name: evaluation.agreement[unit][name]["icc"] for name in names}
        count_scatter(folder / f"counts_{unit}.png", counts, unit=unit, icc=icc)
        bland_altman(folder / f"bland_altman_{unit}.png", counts, unit=unit)
        pictures += [
            (f"counts_{unit}.png", f"Counts per {unit}"),
            (f"bland_altman_{unit}.png", f"Bland-Altman plot per {unit}"),
        ]
    if curves:
        names_of = {f"{base}.{c.name}": c.name for c in curves for base in ("ap50", "ap_distance")}
        figures = evaluation.figures
        score = details.thresholds.get("score")
        precision_recall_plot(
            folder / "precision_recall.png",
            curves,
            area={of: figures[name] for name, of in names_of.items() if name in figures},
            thresholds={} if score is None else {c.name: score for c in curves},
            title=f"{details.pipeline}: precision and recall",
        )
        pictures.append(("precision_recall.png", "Precision and recall"))
    return pictures


def _counts_of(evaluation: Evaluation, unit: str, name: str) -> tuple[Ids, Ids]:
    """Planted and found objects of a class, in the order of the units."""
    own = [c for c in evaluation.counts if (c.unit, c.class_name) == (unit, name)]
    return np.array([c.planted for c in own], np.int64), np.array([c.found for c in own], np.int64)


def _units(evaluation: Evaluation) -> Sequence[str]:
    """The units of count agreement: slides, and cases unless each slide is a case (then the figures
    would be the same again)."""
    same = len(evaluation.cases) == len(evaluation.slides)
    return [unit for unit in evaluation.agreement if unit == "slide" or not same]


def _figures_csv(
    keys: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], Mapping[str, float]]]
) -> str:
    """A CSV of figures, six decimals; the empty string where a figure is not defined."""
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    lines = [
        (*key, *(_decimals(figures.get(name, math.nan)) for name in names)) for key, figures in rows
    ]
    return csv_text((*keys, *names), lines)


def _decimals(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def _value(value: float) -> float | None:
    return round(value, 9) if math.isfinite(value) else None


def _bounds(interval: tuple[float, float] | None) -> dict[str, Any]:
    return {} if interval is None else {"low": _value(interval[0]), "high": _value(interval[1])}


def _text(value: float | None) -> str:
    """A figure for people: whole numbers as they are, shares with three decimals; "" where not
    defined."""
    if value is None or not math.isfinite(value):
        return ""
    if value == int(value) and abs(value) > 1:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{_text(interval[0])} to {_text(interval[1])}"
