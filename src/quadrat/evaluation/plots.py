"""Pictures of an evaluation: count scatter, Bland-Altman plot, confusion matrix, precision-recall
curves (the suffix of the path says in which format)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrat.metrics.counts import Numbers, limits_of_agreement
from quadrat.metrics.protocol import Confusion, Curve
from quadrat.outputs.plots import save_figure

DOT, LINE, PALE = "#2c6fbb", "#b2182b", "#8a8d91"
DPI = 120
COLUMNS = 3
"""Panels per row."""
CURVE_POINTS = 2_000
"""A longer curve is thinned to about this many points."""
LABELLED_CELLS = 16
"""A larger confusion matrix has no numbers in its cells."""


ANNOTATED = ("annotated", "found")
"""What the two counts of a unit are called."""


def count_scatter(
    path: Path,
    counts: Mapping[str, tuple[Numbers, Numbers]],
    *,
    unit: str,
    icc: Mapping[str, float],
    names: tuple[str, str] = ANNOTATED,
    lines: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Found against planted, a panel per class, a dot per unit, with the line of identity.

    counts: class -> (planted, found), both (n,). icc: class -> ICC(2,1), for the titles. names:
    what both are called. lines: class -> slope and intercept of a line through the dots.
    """
    figure, panels = _panels(len(counts))
    for axes, (name, (planted, found)) in zip(panels, counts.items(), strict=True):
        end = float(max(planted.max(initial=0), found.max(initial=0), 1)) * 1.06
        axes.plot((0, end), (0, end), color=PALE, lw=1, ls="--", zorder=1)
        axes.scatter(
            planted, found, s=_dot_size(len(planted)), color=DOT, alpha=0.7, lw=0, zorder=2
        )
        slope, intercept = (lines or {}).get(name, (math.nan, math.nan))
        if math.isfinite(slope):
            ends = (intercept, intercept + slope * end)
            axes.plot((0, end), ends, color=LINE, lw=1.1, label=f"{slope:.3g} x {intercept:+.3g}")
            axes.legend(fontsize=8, loc="upper left")
        axes.set(
            xlim=(0, end),
            ylim=(0, end),
            xlabel=f"{names[0]}, per {unit}",
            ylabel=f"{names[1]}, per {unit}",
            aspect="equal",
        )
        _integer_ticks(axes)
        agreement = icc.get(name, math.nan)
        axes.set_title(
            name + (f"   ICC {agreement:.3f}" if math.isfinite(agreement) else ""), fontsize=11
        )
    save_figure(figure, path, dpi=DPI)


def bland_altman(
    path: Path,
    counts: Mapping[str, tuple[Numbers, Numbers]],
    *,
    unit: str,
    names: tuple[str, str] = ANNOTATED,
) -> None:
    """Found - planted over their mean, a panel per class, with bias and limits of agreement (Bland
    and Altman 1986). counts: class -> (planted, found), both (n,). names: what both are called."""
    figure, panels = _panels(len(counts))
    for axes, (name, (planted, found)) in zip(panels, counts.items(), strict=True):
        mean, difference = (planted + found) / 2, (found - planted).astype(np.float64)
        axes.axhline(0, color=PALE, lw=0.8)
        axes.scatter(mean, difference, s=_dot_size(len(mean)), color=DOT, alpha=0.7, lw=0, zorder=2)
        low, high = limits_of_agreement(planted, found)
        lines = [("bias", float(difference.mean()), "-")] if len(difference) else []
        if math.isfinite(low):
            lines += [("+1.96 SD", high, "--"), ("-1.96 SD", low, "--")]
        for text, value, style in lines:
            axes.axhline(value, color=LINE, lw=1.1, ls=style)
            axes.annotate(
                f"{text}  {value:+.1f}",
                (1, value),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=LINE,
                zorder=3,
            )
        axes.set(
            xlabel=f"mean of {names[0]} and {names[1]}, per {unit}",
            ylabel=f"{names[1]} - {names[0]}",
        )
        axes.set_title(name, fontsize=11)
        axes.margins(x=0.08, y=0.16)
    save_figure(figure, path, dpi=DPI)


def confusion_plot(path: Path, confusion: Confusion, *, title: str) -> None:
    """PNG: a confusion matrix, coloured by the share of the row; the numbers are counts and
    shares."""
    matrix = confusion.matrix
    of_row = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, of_row, out=np.zeros(matrix.shape), where=of_row > 0)
    side = 1.6 + 0.95 * max(matrix.shape)
    figure = Figure(figsize=(min(side + 1.4, 14), min(side, 12)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(
        range(matrix.shape[1]), confusion.found, rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(matrix.shape[0]), confusion.truth)
    axes.set(xlabel="found", ylabel="annotated", title=title)
    if max(matrix.shape) <= LABELLED_CELLS:
        for (row, col), count in np.ndenumerate(matrix):
            if (
                row == matrix.shape[0] - 1
                and col == matrix.shape[1] - 1
                and confusion.truth[row] != confusion.found[col]
            ):
                continue  # what is neither there nor found cannot be counted
            part = f"\n{share[row, col]:.0%}" if of_row[row, 0] else ""
            color = "white" if share[row, col] > 0.55 else "black"
            axes.text(
                col,
                row,
                f"{_short(int(count))}{part}",
                ha="center",
                va="center",
                fontsize=9,
                color=color,
            )
    figure.colorbar(image, ax=axes, label=f"share of the {confusion.counted} of a row", shrink=0.8)
    save_figure(figure, path, dpi=DPI)


def precision_recall_plot(
    path: Path,
    curves: Sequence[Curve],
    *,
    area: Mapping[str, float],
    thresholds: Mapping[str, float],
    title: str,
) -> None:
    """PNG: precision over recall, a line per class.

    area: class -> average precision, for the legend. thresholds: class -> working threshold; a dot
    marks it.
    """
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    marked = False
    for number, curve in enumerate(curves):
        color = f"C{number % 10}"
        known = area.get(curve.name, math.nan)
        text = curve.name + (f"   AP {known:.3f}" if math.isfinite(known) else "")
        thin = np.unique(
            np.linspace(0, max(0, len(curve.score) - 1), CURVE_POINTS).astype(np.int64)
        )[: len(curve.score)]
        axes.plot(curve.recall[thin], curve.precision[thin], color=color, lw=1.6, label=text)
        above = int((curve.score >= thresholds.get(curve.name, np.inf)).sum())
        if above and len(curve.score):
            axes.plot(
                curve.recall[above - 1],
                curve.precision[above - 1],
                "o",
                color=color,
                ms=6,
                mec="white",
            )
            marked = True
    if marked:
        axes.plot([], [], "o", color=PALE, label="working threshold")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(color="#e4e5e7", lw=0.6)
    if curves:
        axes.legend(fontsize=9, loc="lower left")
    save_figure(figure, path, dpi=DPI)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` square panels."""
    columns = 2 if count == 4 else min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.3 * columns, 4.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for extra in grid.flat[count:]:
        extra.set_axis_off()
    return figure, list(grid.flat[:count])


def _dot_size(count: int) -> float:
    """Smaller dots for more of them."""
    return 26 if count <= 100 else 12 if count <= 1000 else 5


def _integer_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _short(count: int) -> str:
    """Three digits and a letter for large counts, so that they fit a cell."""
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:.3g} M" if count < 1e9 else f"{count / 1e9:.3g} G"
