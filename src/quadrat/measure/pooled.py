"""Figures of cases and of all cases, from sums over slides (pure).

Counts and areas of a case are added up, and its densities and ratios are those of the sums. A
figure of all cases is the mean of the cases' figures, with an interval from cases drawn with
replacement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quadrat.core.unit import Unit
from quadrat.measure.figures import Tally, count_figures, ratio_figures
from quadrat.measure.plan import Plan
from quadrat.measure.regions import OUTSIDE, WHOLE
from quadrat.measure.rows import Figure
from quadrat.measure.slide import Measured
from quadrat.metrics.bootstrap import case_intervals

OVERLAPS, LOW_N, FEW_CASES = "overlapping", "low_n", "few_cases"
Key = tuple[str, str]
"""Region and region class of pooled figures."""


@dataclass(slots=True)
class Pool:
    """Sums over slides; grows slide by slide."""

    tallies: dict[str, dict[Key, Tally]] = field(default_factory=dict)
    """By case, and by what is added up there."""
    slides: dict[str, dict[Key, int]] = field(default_factory=dict)
    """How many slides went into each."""
    overlapping: set[tuple[str, Key]] = field(default_factory=set)
    """Sums in which regions overlap, so that objects may count twice."""

    def add(self, case: str, measured: Sequence[Measured]) -> None:
        """The regions of one slide: those of one class are added up."""
        tallies = self.tallies.setdefault(case, {})
        slides = self.slides.setdefault(case, {})
        seen = set()
        for one in measured:
            if one.tally is None:
                continue
            key = pooled_key(one)
            tallies[key] = tallies[key].plus(one.tally) if key in tallies else one.tally
            seen.add(key)
            if one.overlaps:
                self.overlapping.add((case, key))
        for key in seen:
            slides[key] = slides.get(key, 0) + 1


def pooled_key(one: Measured) -> Key:
    """What a region is added to: the whole slides, the outsides, a region of another run by its
    name, or all regions (or cores) of a class."""
    kind, name = one.region.kind, one.region.name
    if kind in ("whole", "outside", "within"):
        return name, one.region.class_name
    return ("all cores" if kind == "core" else "all regions"), one.region.class_name


def case_figures(
    pool: Pool, case: str, classes: Sequence[str], plan: Plan, *, unit: Unit
) -> Iterator[tuple[Key, list[Figure]]]:
    """The figures of a case."""
    for key in in_order(pool.tallies[case]):
        tally = pool.tallies[case][key]
        flags = (OVERLAPS,) if (case, key) in pool.overlapping else ()
        found = [
            Figure("", "slides", pool.slides[case][key], ""),
            *count_figures(tally, classes, unit=unit, flags=flags),
            *ratio_figures(tally, classes, plan.ratios, low_n=plan.file.low_n, flags=flags),
        ]
        yield key, found


def cohort_figures(
    pool: Pool, classes: Sequence[str], plan: Plan, *, unit: Unit
) -> Iterator[tuple[Key, list[Figure]]]:
    """Means over cases, with 95 % intervals where there are three cases or more."""
    keys = {key for tallies in pool.tallies.values() for key in tallies}
    cases = sorted(pool.tallies)
    for key in in_order(keys):
        rows: dict[tuple[str, str, str], dict[str, float]] = {}
        for case in cases:
            tally = pool.tallies[case].get(key)
            if tally is None:
                continue
            figures = [
                *count_figures(tally, classes, unit=unit),
                *ratio_figures(tally, classes, plan.ratios, low_n=1),
            ]
            for figure in figures:
                if figure.measure != "count" and figure.value is not None:
                    name = figure.class_name, figure.measure, figure.unit
                    rows.setdefault(name, {})[case] = figure.value
        yield key, [_mean(*name, values) for name, values in rows.items()]


def _mean(class_name: str, measure: str, unit: str, by_case: Mapping[str, float]) -> Figure:
    cases, values = list(by_case), list(by_case.values())

    def mean(chosen: Sequence[int]) -> dict[str, float]:
        return {"mean": sum(values[k] for k in chosen) / len(chosen)}

    low, high = case_intervals(cases, mean).get("mean", (None, None))
    flags = (FEW_CASES,) if low is None else ()
    value = mean(range(len(values)))["mean"]
    return Figure(class_name, f"{measure}_mean", value, unit, len(values), low, high, flags)


def in_order(keys: set[Key] | Mapping[Key, object]) -> list[Key]:
    """The whole slides, then regions by name and class, then what is outside."""
    return sorted(keys, key=lambda key: (key[0] != WHOLE, key[0] == OUTSIDE, key))
