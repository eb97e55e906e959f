"""How many objects and regions of each class there are, and how large: by slide, case and split
(pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quadrat.annotations.record import Record
from quadrat.annotations.shapes import geometry_of, shape_name
from quadrat.annotations.types import F64

By = Literal["slide", "case", "split", "all"]
LEVELS: tuple[By, ...] = ("slide", "case", "split", "all")
Key = tuple[str, str, str]
"""Group ("" for all), class, kind."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The records of one class and kind in one slide."""

    slide: str
    """Name of the slide."""
    case: str
    """Its case."""
    split: str
    """Its split."""
    name: str
    """The class."""
    kind: str
    """"object", "region", "outline" or "point"."""
    count: int
    """How many there are; each point counts."""
    areas: F64
    """Area of each that has one: um2, or px without an mpp."""
    in_um: bool
    """Whether areas are in um2."""


def measure(
    records: Sequence[Record], *, slide: str, case: str, split: str, mpp: float | None
) -> list[Measures]:
    """Measures of one slide, by class and kind. A record with a fault is left out. Points have no
    area."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.fault is None:
            kind: str = "point" if shape_name(record) == "point" else record.kind or "outline"
            groups.setdefault((record.name, kind), []).append(record)
    factor = 1.0 if mpp is None else mpp**2
    out = []
    for (name, kind), own in sorted(groups.items()):
        areas = np.array([geometry_of(r).area for r in own if r.parts], np.float64) * factor
        count = sum(len(r.points) if len(r.points) else 1 for r in own)
        out.append(Measures(slide, case, split, name, kind, count, areas, mpp is not None))
    return out


def summaries(measures: Sequence[Measures], by: By) -> list[dict[str, Any]]:
    """One row per group, class and kind, sorted: slides, count, total area and quantiles of the
    diameter.

    The diameter is that of the circle of the same area. Figures are in um if the mpp of every slide
    in the row is known (keys ending in _um, _um2), else in px (_px, _px2). Without areas they are
    None.
    """
    groups: dict[Key, list[Measures]] = {}
    for one in measures:
        group = "" if by == "all" else str(getattr(one, by))
        groups.setdefault((group, one.name, one.kind), []).append(one)
    rows = []
    for (group, name, kind), own in sorted(groups.items()):
        in_um = all(one.in_um for one in own)
        unit = "um" if in_um else "px"
        areas = (
            np.concatenate([one.areas for one in own])
            if in_um or not any(o.in_um for o in own)
            else np.zeros(0)
        )
        low, middle, high = _diameters(areas)
        row: dict[str, Any] = {} if by == "all" else {by: group}
        row |= {
            "class": name,
            "kind": kind,
            "slides": len({one.slide for one in own}),
            "count": sum(o.count for o in own),
        }
        row |= {f"area_{unit}2": float(areas.sum()) if len(areas) else None}
        row |= {
            f"diameter_p5_{unit}": low,
            f"diameter_median_{unit}": middle,
            f"diameter_p95_{unit}": high,
        }
        rows.append(row)
    return rows


def _diameters(areas: F64) -> tuple[float | None, float | None, float | None]:
    if not len(areas):
        return None, None, None
    low, middle, high = np.quantile(2 * np.sqrt(areas / math.pi), (0.05, 0.5, 0.95)).tolist()
    return low, middle, high
