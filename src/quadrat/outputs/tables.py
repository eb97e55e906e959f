r"""The CSV files of a slide and of a run: comma, UTF-8, ``\n``, a header row, empty if undefined.

Numbers are written with a fixed number of decimals (constants below), so equal results give equal
bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.core.files import write_file
from quadrat.core.objects import ClassInfo, Frame, ObjectTable
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.core.text import csv_text
from quadrat.core.unit import Unit, named

ALL = "all"
"""Name of the row over all classes in counts.csv."""
AREA_DECIMALS, DENSITY_DECIMALS, FRACTION_DECIMALS, UM_DECIMALS = 6, 3, 6, 3
PROBABILITY_DECIMALS, PIXEL_DECIMALS, MPP_DECIMALS = 6, 2, 6
_COUNT_COLUMNS = ("class", "count", "per_mm2", "area_mm2", "covered_fraction", "median_nearest_um")
_TILE_COLUMNS = ("row", "col", "x0_l0", "y0_l0", "x1_l0", "y1_l0", "class")
_SUMMARY_COLUMNS = ("slide", "status", "task")
_SCALE_COLUMNS: Mapping[Unit, tuple[str, ...]] = {
    "um": ("mpp", "tissue_mm2"),
    "px": ("tissue_mpx",),
}
"""What summary.csv has besides of rows in a unit."""


@dataclass(frozen=True, slots=True)
class CountRow:
    """How much of one class a slide holds."""

    class_name: str
    """The class, or "all"."""
    count: int
    """Number of objects."""
    per_mm2: float | None
    """Objects per mm2 of analysed tissue; None without tissue."""
    area_mm2: float
    """Area of all objects together."""
    covered_fraction: float | None
    """Share of the analysed tissue that they cover; None without tissue."""
    median_nearest_um: float | None
    """Median distance to the nearest other object of the same class (in row "all": of any class);
    None with fewer than two objects."""


@dataclass(frozen=True, slots=True)
class TileRows:
    """What tiles.csv holds."""

    cell: npt.NDArray[np.int32]
    """(n, 2) int32: lattice (row, column)."""
    box_l0: npt.NDArray[np.float64]
    """(n, 4) float64: x0, y0, x1, y1 in level-0 px."""
    class_id: npt.NDArray[np.uint8]
    """(n,) uint8: the class of highest probability."""
    probability: npt.NDArray[np.float64]
    """(n, classes) float64."""
    class_names: tuple[str, ...]
    """Class names in the order of the columns."""


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One slide of a run."""

    slide: str
    """Name of the slide."""
    status: str
    """What became of it."""
    task: str
    """Name of the task."""
    mpp: float | None
    """um per grid px."""
    tissue_mm2: float | None
    """Analysed tissue."""
    figures: tuple[tuple[str, str], ...] = ()
    """(name, value) of the columns of the task."""
    reason: str = ""
    """Why there is no result, or what a user should know of it; else empty."""
    unit: Unit = "um"
    """Of lengths. In pixel work ``mpp`` is None, and ``tissue_mm2`` are megapixels."""


def count_rows(
    table: ObjectTable,
    nearest: npt.NDArray[np.float32],
    *,
    classes: Sequence[ClassInfo],
    frame: Frame,
    tissue_mm2: float,
) -> list[CountRow]:
    """Counts of each class and of all together, from the object table alone.

    Args:
        table: the objects of the slide.
        nearest: (n, classes) float32 um to the nearest other object of each class, nan if there is
            none.
        classes: the classes, by class_id.
        frame: the grid of the slide (for um).
        tissue_mm2: analysed tissue.

    Returns:
        One row per class in the order of ``classes``, then the row "all".
    """
    px_mm2 = (frame.mpp / 1000) ** 2
    rows = []
    for class_id, info in enumerate(classes):
        own = table.class_id == class_id
        area_mm2 = float(table.area_px[own].sum()) * px_mm2  # the sum of whole pixels is exact
        rows.append(
            _count_row(info.name, int(own.sum()), area_mm2, nearest[own, class_id], tissue_mm2)
        )
    any_class = np.fmin.reduce(nearest, axis=1) if nearest.shape[1] else np.zeros(0, np.float32)
    return [
        *rows,
        _count_row(ALL, len(table), float(table.area_px.sum()) * px_mm2, any_class, tissue_mm2),
    ]


def _count_row(
    name: str, count: int, total: float, nearest_um: npt.NDArray[np.float32], tissue_mm2: float
) -> CountRow:
    near = nearest_um[~np.isnan(nearest_um)]
    return CountRow(
        class_name=name,
        count=count,
        per_mm2=count / tissue_mm2 if tissue_mm2 > 0 else None,
        area_mm2=total,
        covered_fraction=total / tissue_mm2 if tissue_mm2 > 0 else None,
        median_nearest_um=float(np.median(near)) if len(near) else None,
    )


def write_counts(path: Path, rows: Sequence[CountRow], *, unit: Unit = "um") -> None:
    """Write counts.csv; its columns are named in ``unit``."""
    lines = [
        (
            row.class_name,
            str(row.count),
            _decimal(row.per_mm2, DENSITY_DECIMALS),
            _decimal(row.area_mm2, AREA_DECIMALS),
            _decimal(row.covered_fraction, FRACTION_DECIMALS),
            _decimal(row.median_nearest_um, UM_DECIMALS),
        )
        for row in rows
    ]
    _write(path, [named(name, unit) for name in _COUNT_COLUMNS], lines)


def write_classes(
    path: Path, classes: Sequence[ClassInfo], probability: npt.NDArray[np.floating]
) -> None:
    """Write classes.csv: one row per class. The written decimals sum to exactly 1 (largest
    remainder, ties to the first).

    Raises:
        ValueError: a probability that is negative or not finite, none above 0, or not one per
            class.
    """
    p = probability.astype(np.float64)
    if p.shape != (len(classes),) or not np.isfinite(p).all() or (p < 0).any() or p.sum() <= 0:
        raise ValueError(
            f"probabilities {p.tolist()} are not one finite value of 0 or more for {len(classes)} "
            "classes"
        )
    unit = 10**PROBABILITY_DECIMALS
    exact = p / p.sum() * unit
    whole = np.floor(exact).astype(np.int64)
    missing = unit - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:missing]] += 1
    lines = [
        (c.name, f"{w // unit}.{w % unit:0{PROBABILITY_DECIMALS}d}")
        for c, w in zip(classes, whole, strict=True)
    ]
    _write(path, ("class", "probability"), lines)


def write_tiles(
    path: Path, scores: TileScores, *, classes: Sequence[ClassInfo], frame: Frame, core: int
) -> None:
    """Write tiles.csv: one row per core in the order of ``scores``. Boxes are cut at the slide.

    The class is the most probable one (the first of equals).
    """
    low = scores.cell.astype(np.float64) * core
    high = np.minimum(low + core, np.array([frame.height, frame.width]))
    box = np.concatenate(
        [frame.scale.to_l0(low[:, ::-1]), frame.scale.to_l0(high[:, ::-1])], axis=1
    )
    winner = np.argmax(scores.probability, axis=1)
    lines = (
        (
            str(cell[0]),
            str(cell[1]),
            *(f"{v:.{PIXEL_DECIMALS}f}" for v in corners),
            classes[best].name,
            *(f"{v / SCORE_MAX:.{PROBABILITY_DECIMALS}f}" for v in row),
        )
        for cell, corners, best, row in zip(
            scores.cell.tolist(),
            box.tolist(),
            winner.tolist(),
            scores.probability.tolist(),
            strict=True,
        )
    )
    _write(path, (*_TILE_COLUMNS, *(f"p_{c.name}" for c in classes)), lines)


def read_tiles(path: Path) -> TileRows:
    """Read tiles.csv back."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    first = len(_TILE_COLUMNS)
    names = tuple(name.removeprefix("p_") for name in header[first:])
    return TileRows(
        cell=np.array([line[:2] for line in lines], dtype=np.int32).reshape(len(lines), 2),
        box_l0=np.array([line[2:6] for line in lines], dtype=np.float64).reshape(len(lines), 4),
        class_id=np.array([names.index(line[6]) for line in lines], np.uint8),
        probability=np.array([line[first:] for line in lines], dtype=np.float64).reshape(
            len(lines), len(names)
        ),
        class_names=names,
    )


def write_run_summary(path: Path, rows: Sequence[SummaryRow]) -> None:
    """Write summary.csv: one row per slide in the given order.

    Rows in um have the columns ``mpp`` and ``tissue_mm2``, those in px ``tissue_mpx``; where both
    are in one folder each leaves those of the other empty. The columns of figures stand in order of
    first appearance between these and ``reason``.
    """
    units: list[Unit] = [u for u in _SCALE_COLUMNS if any(row.unit == u for row in rows)] or ["um"]
    scale = [name for unit in units for name in _SCALE_COLUMNS[unit]]
    names = list(dict.fromkeys(name for row in rows for name, _ in row.figures))
    clash = set(names) & {*_SUMMARY_COLUMNS, *chain(*_SCALE_COLUMNS.values()), "reason"}
    if clash:
        raise ValueError(f"figures {sorted(clash)} have the name of a fixed column of summary.csv")
    lines = []
    for row in rows:
        figures = dict(row.figures)
        own = {
            "mpp": _decimal(row.mpp, MPP_DECIMALS),
            named("tissue_mm2", row.unit): _decimal(row.tissue_mm2, AREA_DECIMALS),
        }
        fixed = (row.slide, row.status, row.task, *(own.get(name, "") for name in scale))
        lines.append((*fixed, *(figures.get(name, "") for name in names), row.reason))
    _write(path, (*_SUMMARY_COLUMNS, *scale, *names, "reason"), lines)


def _decimal(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    write_file(path, csv_text(header, lines))
