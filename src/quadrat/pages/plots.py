"""Plots of a cohort as places in an SVG; ``plots.html`` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 460.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 26.0, 14.0, 42.0
BINS = 20


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis."""

    at: float
    """Place along the axis, in units of the SVG."""
    text: str
    """What stands there."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A slide in a scatter plot."""

    x: float
    """To the right."""
    y: float
    """Down."""
    slide: str
    """Name of the slide."""
    text: str
    """Its figures."""
    flagged: bool
    """Whether it stands out."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram."""

    x: float
    """Its left side."""
    y: float
    """Its top."""
    width: float
    """To the right."""
    height: float
    """Down to the axis."""
    text: str
    """What it counts."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot."""

    title: str
    """What it shows."""
    across: str
    """Label of the horizontal axis."""
    up: str
    """Label of the vertical axis."""
    ticks_x: Sequence[Tick]
    """Marks of the horizontal axis."""
    ticks_y: Sequence[Tick]
    """Marks of the vertical axis."""
    dots: Sequence[Dot] = ()
    """Of a scatter plot."""
    bars: Sequence[Bar] = ()
    """Of a histogram."""


def scatter(
    points: Sequence[tuple[str, float, float, bool]], *, title: str, across: str, up: str
) -> Plot:
    """One dot a slide: (name, x, y, whether it stands out)."""
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    marks_x, marks_y = nice_marks(0.0, max(xs)), nice_marks(0.0, max(ys))
    dots = [
        Dot(
            _x(x, marks_x[-1]),
            _y(y, marks_y[-1]),
            name,
            f"{name}: {across} {x:,.4g}, {up} {y:,.4g}",
            flagged,
        )
        for name, x, y, flagged in points
    ]
    return Plot(title, across, up, _ticks_x(marks_x), _ticks_y(marks_y), dots=dots)


def histogram(values: Sequence[float], *, title: str, across: str) -> Plot:
    """How many slides have a figure in each of at most BINS ranges."""
    marks_x = nice_marks(0.0, max(values))
    n = min(BINS, max(5, math.ceil(math.sqrt(len(values)) * 2)))
    counts, edges = np.histogram(values, bins=n, range=(0.0, marks_x[-1]))
    marks_y = [m for m in nice_marks(0.0, float(counts.max())) if m == int(m)]
    top = max(marks_y[-1], float(counts.max()))
    bars = [
        Bar(
            _x(low, marks_x[-1]),
            _y(count, top),
            _x(high, marks_x[-1]) - _x(low, marks_x[-1]),
            HEIGHT - BOTTOM - _y(count, top),
            f"{low:,.4g} to {high:,.4g}: {count} slides",
        )
        for count, low, high in zip(
            counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
        )
    ]
    ticks_y = [Tick(_y(m, top), f"{m:,.10g}") for m in marks_y]
    return Plot(title, across, "slides", _ticks_x(marks_x), ticks_y, bars=bars)


def nice_marks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to at least ``high``, four to eight of them."""
    if not high > low:
        high = low + 1.0
    rough = (high - low) / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    n = math.ceil((high - low) / step - 1e-9)
    return [round(low + i * step, 12) for i in range(n + 1)]


def _x(value: float, top: float) -> float:
    return round(LEFT + value / top * (WIDTH - LEFT - RIGHT), 2)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP), 2)


def _ticks_x(marks: Sequence[float]) -> list[Tick]:
    return [Tick(_x(m, marks[-1]), f"{m:,.10g}") for m in marks]


def _ticks_y(marks: Sequence[float]) -> list[Tick]:
    return [Tick(_y(m, marks[-1]), f"{m:,.10g}") for m in marks]
