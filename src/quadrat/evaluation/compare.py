"""``quadrat compare``: do the counts of a run agree with those of people, or of another run?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.core.errors import ConfigError
from quadrat.core.files import write_file
from quadrat.core.text import aligned, csv_text, did_you_mean
from quadrat.evaluation.difference import shared_slides
from quadrat.evaluation.manual_counts import of_slide, read_manual
from quadrat.evaluation.plots import bland_altman, count_scatter
from quadrat.metrics.agreement import Agreement, Estimate, agreement
from quadrat.metrics.ratios import F64
from quadrat.outputs.results import REGIONAL, SlideResult, read_results, some
from quadrat.outputs.tables import ALL

FEW = 10
"""With fewer slides the intervals say little, which is said."""
COMPARE_JSON, COMPARE_CSV, PAIRS_CSV = "compare.json", "compare.csv", "slides.csv"
_SUFFIXES = (".png", ".pdf")
_PAIR = ("slide", "class", "reference", "found", "difference")
_FIGURE = ("class", "figure", "value", "low", "high")


@dataclass(frozen=True, slots=True)
class Paired:
    """The counts of one class on the slides that both counted."""

    slides: tuple[str, ...]
    """Their names."""
    reference: F64
    """(n,) what people or the other run counted."""
    found: F64
    """(n,) what the run counted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against a reference."""

    names: tuple[str, str]
    """What reference and run are called."""
    pairs: Mapping[str, Paired]
    """Of each class that both counted, "all" first."""
    figures: Mapping[str, Agreement]
    """The same."""
    notes: tuple[str, ...]
    """What was left out, and what to keep in mind."""


def compare(out: Path, reference: Path, *, named: tuple[str, ...] = ()) -> Comparison:
    """A run against a table of counts, or against another run (a folder).

    Raises:
        ConfigError: there are no results, no counts, or no slide that both have.
    """
    results = read_results(out, named=named)
    classes = _classes(results)
    if reference.is_dir():
        pairs, notes = _with_run(out, results, reference, named)
        names = ("second run", "first run")
    else:
        pairs, notes = _with_people(out, results, reference, classes)
        names = ("manual", "found")
    pairs = {name: pairs[name] for name in (ALL, *classes) if name in pairs}
    if not pairs:
        raise ConfigError(f"{reference}: no class is counted on a slide of {out}")
    most = max(len(pair.slides) for pair in pairs.values())
    if most < FEW:
        notes = [*notes, f"{most} slides are few: the intervals below are wide, or undefined"]
    if any(result.summary.task == REGIONAL for result in results.values()):
        notes = [*notes, "the objects of this run are regions, which are rather measured"]
    figures = {name: agreement(pair.reference, pair.found) for name, pair in pairs.items()}
    return Comparison(names, pairs, figures, tuple(notes))


def _classes(results: Mapping[str, SlideResult]) -> list[str]:
    for result in results.values():
        if not result.counts:
            raise ConfigError(
                f"{result.folder}: the task {result.summary.task} counts nothing; compare runs of "
                "tasks that find objects"
            )
    return list(dict.fromkeys(c.name for result in results.values() for c in result.classes))


def _with_people(
    out: Path, results: Mapping[str, SlideResult], table: Path, classes: list[str]
) -> tuple[dict[str, Paired], list[str]]:
    manual = read_manual(table, classes)
    known = {name: own for name in results if (own := of_slide(manual, name)) is not None}
    if not known:
        raise ConfigError(
            f"{table} has counts of {some(list(manual.counts))}, {out} has results of "
            f"{some(list(results))}: no slide is in both; the column 'slide' holds the names of "
            "results"
        )
    notes = [f"column '{name}' is not used{did_you_mean(name, classes)}" for name in manual.unused]
    notes += [f"{name}: no manual count" for name in results if name not in known]
    taken = {id(own) for own in known.values()}
    notes += [f"{name}: no result" for name, own in manual.counts.items() if id(own) not in taken]
    return _paired(results, known), notes


def _with_run(
    out: Path, results: Mapping[str, SlideResult], other: Path, named: tuple[str, ...]
) -> tuple[dict[str, Paired], list[str]]:
    others = read_results(other, named=named)
    known = set(_classes(others)) | {ALL}
    both = shared_slides(dict(results), others, outs=(out, other))
    counts = {name: _counts(others[name]) for name in both}
    notes = [f"{name}: only in the first run" for name in results if name not in counts]
    notes += [f"{name}: only in the second run" for name in others if name not in counts]
    pairs = _paired(results, counts)
    notes += [
        f"{name}: a class of one run alone" for name in _classes(results) if name not in known
    ]
    return pairs, notes


def _paired(
    results: Mapping[str, SlideResult], reference: Mapping[str, Mapping[str, float]]
) -> dict[str, Paired]:
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for slide, own in reference.items():
        for name, count in _counts(results[slide]).items():
            if name in own:
                rows.setdefault(name, []).append((slide, own[name], count))
    return {
        name: Paired(tuple(slides), np.array(known, np.float64), np.array(found, np.float64))
        for name, own in rows.items()
        for slides, known, found in [zip(*own, strict=True)]
    }


def _counts(result: SlideResult) -> dict[str, float]:
    return {row.class_name: float(row.count) for row in result.counts}


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """compare.json; figures that are not defined are null."""
    return {
        "reference": comparison.names[0],
        "found": comparison.names[1],
        "notes": list(comparison.notes),
        "classes": {name: _defined(asdict(own)) for name, own in comparison.figures.items()},
    }


def comparison_text(comparison: Comparison) -> list[str]:
    """A table for people: a row a figure, a column a class."""
    rows = [["", *comparison.figures]]
    for field in fields(Agreement):
        own = [getattr(one, field.name) for one in comparison.figures.values()]
        rows.append([field.name.replace("_", " "), *map(_text, own)])
    return [*aligned(rows), *(f"note: {note}" for note in comparison.notes)]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """The tables, the plots as PNG and PDF, and last compare.json.

    Raises:
        WriteError: one cannot be written.
    """
    write_file(folder / PAIRS_CSV, csv_text(_PAIR, _pair_rows(comparison)))
    write_file(folder / COMPARE_CSV, csv_text(_FIGURE, _figure_rows(comparison)))
    counts = {name: (pair.reference, pair.found) for name, pair in comparison.pairs.items()}
    lines = {
        name: (own.slope.value, own.intercept.value) for name, own in comparison.figures.items()
    }
    icc = {name: own.icc.value for name, own in comparison.figures.items()}
    for suffix in _SUFFIXES:
        count_scatter(
            folder / f"scatter{suffix}",
            counts,
            unit="slide",
            icc=icc,
            names=comparison.names,
            lines=lines,
        )
        bland_altman(folder / f"bland_altman{suffix}", counts, unit="slide", names=comparison.names)
    text = json.dumps(comparison_json(comparison), indent=2) + "\n"
    write_file(folder / COMPARE_JSON, text)


def _pair_rows(comparison: Comparison) -> Iterator[list[str]]:
    for name, pair in comparison.pairs.items():
        for slide, known, found in zip(pair.slides, pair.reference, pair.found, strict=True):
            yield [slide, name, *(f"{value:.10g}" for value in (known, found, found - known))]


def _figure_rows(comparison: Comparison) -> Iterator[list[str]]:
    for name, own in comparison.figures.items():
        for field in fields(Agreement):
            value = getattr(own, field.name)
            parts = value if isinstance(value, Estimate) else Estimate(value)
            yield [name, field.name, *(_number(getattr(parts, f.name)) for f in fields(Estimate))]


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _text(value: Estimate | float) -> str:
    if not isinstance(value, Estimate):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    if not math.isfinite(value.value):
        return "-"
    known = math.isfinite(value.low) and math.isfinite(value.high)
    return f"{value.value:.4g}" + (f" ({value.low:.4g} to {value.high:.4g})" if known else "")


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
