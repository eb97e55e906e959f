"""What an evaluation leaves in OUT/evaluation: metrics.json, tables, pictures and a short report
(docs/evaluation.md)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.core.files import write_whole
from quadrat.evaluation.plots import (
    bland_altman,
    confusion_plot,
    count_scatter,
    precision_recall_plot,
)
from quadrat.evaluation.pooling import ALL, Evaluation
from quadrat.metrics.counts import relative_error
from quadrat.metrics.protocol import Confusion, Curve

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
"""Of these an interval over cases would say how large cases are, not how well they agree."""
UNITS = ("slide", "case")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is said beside the figures: about whom, of which split, under which settings, and what
    is to be kept in mind."""

    pipeline: str
    split: str
    settings: Mapping[str, Any]
    packages: Sequence[Mapping[str, Any]]
    thresholds: Mapping[str, float]
    notes: Sequence[str] = ()
    failed: Mapping[str, str] | None = None


def metrics_json(evaluation: Evaluation, about: Circumstances) -> dict[str, Any]:
    """The content of metrics.json: JSON values, null for what is not defined."""
    return {
        "task": evaluation.task,
        "pipeline": about.pipeline,
        "split": about.split,
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
        "packages": [dict(p) for p in about.packages],
        "thresholds": dict(about.thresholds),
        "settings": dict(about.settings),
        "notes": list(about.notes),
        "failed": dict(about.failed or {}),
    }


def table_rows(evaluation: Evaluation) -> list[list[str]]:
    """The one table, header first: figure, value, 95 % interval, then a column a class."""
    figures, intervals = evaluation.figures, evaluation.intervals
    columns = list(dict.fromkeys(name.partition(".")[2] for name in figures if "." in name))
    rows = [["figure", "value", "95 %", *columns]]
    bases = list(dict.fromkeys(name.partition(".")[0] for name in figures))
    for base in sorted(bases, key=lambda name: name != evaluation.main):
        by_class = [_text(figures.get(f"{base}.{column}")) for column in columns]
        rows.append([base, _text(figures.get(base)), _range(intervals.get(base)), *by_class])
    for unit, by_name in evaluation.agreement.items():
        if unit == "case" and _slides_are_cases(evaluation):
            continue  # the same figures again
        for figure in AGREEMENT:
            whole = (
                None if figure in TOTALS else evaluation.agreement_intervals[unit][ALL].get(figure)
            )
            cells = [
                _text(by_name[column][figure]) if column in by_name else "" for column in columns
            ]
            rows.append(
                [f"count {figure} ({unit}s)", _text(by_name[ALL][figure]), _range(whole), *cells]
            )
    return [row for row in rows if any(row[1:])]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of one width each."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    about: Circumstances,
    *,
    confusion: Confusion,
    curves: Sequence[Curve],
) -> None:
    """Write all files of an evaluation; metrics.json comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / "per_slide.csv", ("slide", "case"), _slide_rows(evaluation))
    _write_table(folder / "per_case.csv", ("case", "slides"), _case_rows(evaluation))
    if evaluation.counts:
        header = ("unit", "name", "class", "planted", "found", "difference", "relative_error")
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
        write_whole(folder / "counts.csv", _csv(header, lines))
    pictures = _draw(folder, evaluation, about, confusion, curves)
    write_whole(folder / "report.md", report_text(evaluation, about, pictures).encode("utf-8"))
    text = json.dumps(metrics_json(evaluation, about), indent=2, sort_keys=True) + "\n"
    write_whole(folder / "metrics.json", text.encode("utf-8"))


def report_text(
    evaluation: Evaluation, about: Circumstances, pictures: Sequence[tuple[str, str]]
) -> str:
    """report.md: the table, what is to be kept in mind, the pictures."""
    header, *rows = table_rows(evaluation)
    cells = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    value, interval = (
        evaluation.figures[evaluation.main],
        _range(evaluation.intervals.get(evaluation.main)),
    )
    lines = [
        f"# Evaluation of {about.pipeline}",
        "",
        f"{evaluation.task}, split '{about.split}': {len(evaluation.slides)} slides of "
        f"{len(evaluation.cases)} cases. "
        f"**{evaluation.main} {_text(value)}**{f' (95 % {interval})' if interval else ''}.",
        "",
        *cells,
        "",
        "Intervals: bootstrap over cases. Definitions: docs/evaluation.md. Research use only, not "
        "for diagnosis.",
    ]
    if about.notes or about.failed:
        lines += ["", "## Keep in mind", "", *(f"- {note}" for note in about.notes)]
        lines += [
            f"- no result of {name}: {reason}" for name, reason in (about.failed or {}).items()
        ]
    for name, title in pictures:
        lines += ["", f"## {title}", "", f"![{title}]({name})"]
    return "\n".join(lines) + "\n"


def _draw(
    folder: Path,
    evaluation: Evaluation,
    about: Circumstances,
    confusion: Confusion,
    curves: Sequence[Curve],
) -> list[tuple[str, str]]:
    """Draw what the evaluation has; (file, title) of each picture."""
    pictures = [("confusion.png", "Confusion")]
    confusion_plot(
        folder / "confusion.png", confusion, title=f"{about.pipeline}: {confusion.counted}"
    )
    for unit in UNITS if evaluation.counts else ():
        rows = [c for c in evaluation.counts if c.unit == unit]
        if unit == "case" and _slides_are_cases(evaluation):
            continue  # the same picture again
        names = (ALL, *evaluation.classes) if len(evaluation.classes) > 1 else (ALL,)
        counts = {
            name: (
                np.array([c.planted for c in rows if c.class_name == name], np.int64),
                np.array([c.found for c in rows if c.class_name == name], np.int64),
            )
            for name in names
        }
        icc = {name: evaluation.agreement[unit][name]["icc"] for name in names}
        count_scatter(folder / f"counts_{unit}.png", counts, unit=unit, icc=icc)
        bland_altman(folder / f"bland_altman_{unit}.png", counts, unit=unit)
        pictures += [
            (f"counts_{unit}.png", f"Counts per {unit}"),
            (f"bland_altman_{unit}.png", f"Bland-Altman plot per {unit}"),
        ]
    if curves:
        bases = ("ap50", "ap_distance")
        area = {
            c.name: v
            for c in curves
            for base in bases
            if (v := evaluation.figures.get(f"{base}.{c.name}")) is not None
        }
        working = (
            {c.name: about.thresholds["score"] for c in curves}
            if "score" in about.thresholds
            else {}
        )
        precision_recall_plot(
            folder / "precision_recall.png",
            curves,
            area=area,
            thresholds=working,
            title=f"{about.pipeline}: precision and recall",
        )
        pictures.append(("precision_recall.png", "Precision and recall"))
    return pictures


def _slides_are_cases(evaluation: Evaluation) -> bool:
    return len(evaluation.cases) == len(evaluation.slides)


def _slide_rows(evaluation: Evaluation) -> list[tuple[tuple[str, str], Mapping[str, float]]]:
    return [((j.slide, j.case), evaluation.per_slide[j.slide]) for j in evaluation.slides]


def _case_rows(evaluation: Evaluation) -> list[tuple[tuple[str, str], Mapping[str, float]]]:
    slides = {case: sum(j.case == case for j in evaluation.slides) for case in evaluation.per_case}
    return [((case, str(slides[case])), figures) for case, figures in evaluation.per_case.items()]


def _write_table(
    path: Path, keys: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], Mapping[str, float]]]
) -> None:
    """A CSV of figures, six decimals; the empty string where a figure is not defined."""
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    lines = [
        (
            *key,
            *(
                f"{figures[n]:.6f}" if math.isfinite(figures.get(n, math.nan)) else ""
                for n in names
            ),
        )
        for key, figures in rows
    ]
    write_whole(path, _csv((*keys, *names), lines))


def _csv(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode("utf-8")


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
