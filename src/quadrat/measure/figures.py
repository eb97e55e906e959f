"""The figures of one region from its objects and its areas (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.core.unit import Unit, named
from quadrat.measure.ratios import Ratio, wilson
from quadrat.measure.rows import Figure

F64 = npt.NDArray[np.float64]
ALL = "all"
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
NO_TISSUE_MAP, LOW_N = "no_tissue_map", "low_n"


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas of a region in mm²; None: not known."""

    region_mm2: float | None = None
    """Its own area; None for the whole slide and the outside."""
    analysed_mm2: float | None = None
    """How much of it was analysed; None where the results hold no tissue map."""
    filled_mm2: float | None = None
    """How much of that was filled gaps and holes."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What can be added up over slides."""

    counts: tuple[int, ...]
    """Objects of each class."""
    area_mm2: tuple[float, ...]
    """Their area."""
    analysed_mm2: float | None
    """Of the region."""

    def plus(self, other: Tally) -> Tally:
        """Both together; the analysed area is not known if one is not."""
        known = self.analysed_mm2 is not None and other.analysed_mm2 is not None
        return Tally(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + b for a, b in zip(self.area_mm2, other.area_mm2, strict=True)),
            (self.analysed_mm2 or 0.0) + (other.analysed_mm2 or 0.0) if known else None,
        )


def area_figures(areas: Areas, *, on_filled: int | None, unit: Unit) -> Iterator[Figure]:
    """Areas of a region, and how many objects lie on what was filled."""
    large = named("mm2", unit)
    for name in ("region_mm2", "analysed_mm2", "filled_mm2"):
        value = getattr(areas, name)
        if value is not None:
            yield Figure("", named(name, unit), value, large)
    if on_filled is not None:
        yield Figure(ALL, "count_on_filled", on_filled, "")


def count_figures(
    tally: Tally, classes: Sequence[str], *, unit: Unit, flags: tuple[str, ...] = ()
) -> Iterator[Figure]:
    """Count, density and covered share of each class, then of all."""
    per, area = named("per_mm2", unit), tally.analysed_mm2
    if area is None:
        flags = (*flags, NO_TISSUE_MAP)
    totals = (*tally.counts, sum(tally.counts)), (*tally.area_mm2, sum(tally.area_mm2))
    for name, count, covered in zip((*classes, ALL), *totals, strict=True):
        yield Figure(name, "count", count, "", count, flags=flags)
        density = count / area if area else None
        share = covered / area if area else None
        yield Figure(name, per, density, f"1/{named('mm2', unit)}", count, flags=flags)
        yield Figure(name, "area_fraction", share, "1", count, flags=flags)


def ratio_figures(
    tally: Tally,
    classes: Sequence[str],
    ratios: Sequence[Ratio],
    *,
    low_n: int,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """The ratios of a region; ``n`` is the denominator."""
    counts = dict(zip(classes, tally.counts, strict=True))
    for ratio in ratios:
        part, whole = ratio.counts(counts)
        low, high = wilson(part, whole) if ratio.is_proportion else (None, None)
        mine = (*flags, LOW_N) if whole < low_n else flags
        value = part / whole if whole else None
        yield Figure("", f"ratio.{ratio.name}", value, "1", whole, low, high, mine)


def size_figures(
    sizes: Mapping[str, F64],
    class_id: npt.NDArray[np.uint8],
    classes: Sequence[str],
    *,
    unit: Unit,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """Distributions of sizes and shapes of each class that has objects, then of all."""
    groups: list[tuple[str, npt.NDArray[np.intp] | slice]] = [
        (name, np.flatnonzero(class_id == k)) for k, name in enumerate(classes)
    ]
    groups.append((ALL, slice(None)))
    for name, index in groups:
        for measure, values in sizes.items():
            yield from distribution(
                values[index], named(measure, unit), class_name=name, flags=flags
            )


def distribution(
    values: F64, measure: str, *, class_name: str, flags: tuple[str, ...] = ()
) -> Iterator[Figure]:
    """Mean, standard deviation (n - 1) and quantiles (linear) of the values that are numbers; no
    figure if there is none."""
    known = values[~np.isnan(values)]
    n = len(known)
    if not n:
        return
    unit = unit_of(measure)
    mean = float(known.mean())
    sd = float(known.std(ddof=1)) if n > 1 else math.nan
    found = np.quantile(known, list(QUANTILES.values()))
    stats = {"mean": mean, "sd": sd, **dict(zip(QUANTILES, found.tolist(), strict=True))}
    for name, value in stats.items():
        yield Figure(class_name, f"{measure}_{name}", value, unit, n, flags=flags)


def unit_of(measure: str) -> str:
    """The unit that a name says; "1" for shares and ratios."""
    if measure.startswith("od_"):
        return "od"
    end = measure.partition(".")[0].rpartition("_")[2]
    return end if end in ("um", "um2", "px", "px2") else "1"
