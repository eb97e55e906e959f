"""The seam report: does the result of a slide show where the slide was cut?

There are three signs: density of objects near seams, objects with a straight edge on a seam, and
duplicates. Each is compared with the same away from seams, with an interval by block bootstrap
(Künsch, Ann. Statist. 17, 1989; here blocks along the seams are resampled). Percentile ends are
widened for few blocks (Hesterberg, Am. Stat. 69, 2015). An exact result shows none of the signs,
whatever the tissue looks like, except by chance: each interval misses once in a hundred slides
(CONFIDENCE).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.seams import Contrast, SeamFigures
from quadrat.core.unit import Unit
from quadrat.stitching.seam_tally import (
    COLUMNS,
    SeamLattice,
    SeamScale,
    Tally,
    duplicate_midpoints,
    empty_tally,
    tally_areas,
    tally_edges,
    tally_points,
)

CONFIDENCE = 0.99
REPLICATES = 2000
SEED = 20_260
LEAST_OBJECTS = 30
"""Fewer objects near seams (or fewer that meet them) are not judged."""
LEAST_BLOCKS = 8
F64 = npt.NDArray[np.float64]
Parts = Sequence[Callable[[], tuple[ObjectTable, Polygons]]]


@dataclass(frozen=True, slots=True)
class SeamReport:
    """What :func:`seam_report` found."""

    pitch_px: float
    """px per side of a core, or of another tool's tile."""
    seams: int
    """How many sides two analysed cores share."""
    blocks: int
    """How many blocks of half seams hold anything; these are resampled."""
    near_um: float
    """Reach of the near strip on either side of a seam, um."""
    confidence: float
    """Of each interval, 0-1."""
    density: Contrast
    """Objects per mm²; ``inside``: in the flanks behind the near strips, up to four times
    ``near_um`` from the seam. The value is the ratio."""
    straight_edges: Contrast
    """Share, of the objects that meet a seam, with a straight edge on it; ``inside``: on control
    lines within cores. The value is the difference."""
    duplicates: Contrast
    """Pairs of one class closer than half its median diameter, per 1,000 objects; ``inside``: in
    the flanks. The value is the difference."""

    def signs(self) -> list[str]:
        """What tells that there are seams, in words; empty where nothing does."""
        found = []
        if self.density.differs_from(1.0):
            found.append(f"density near seams is {_ratio(self.density)} of that inside")
        if self.straight_edges.differs_from(0.0):
            shares = self.straight_edges
            found.append(
                f"{_percent(shares.near)} of the objects that meet a seam have a straight edge on "
                "it, "
                f"{_percent(shares.inside)} on control lines"
            )
        if self.duplicates.differs_from(0.0):
            pairs = self.duplicates
            found.append(
                f"{pairs.near:.1f} duplicates per 1,000 objects near seams, {pairs.inside:.1f} "
                "inside"
            )
        return found

    @property
    def verdict(self) -> str:
        """The report in one line."""
        if not self.seams:
            return "there are no seams: no two analysed cores share a side"
        signs = self.signs()
        if signs:
            return "; ".join(signs)
        if not self.density.judged:
            few = f"{self.density.objects} objects near {self.seams} seams"
            return (
                f"too little to judge: {few} (at least {LEAST_OBJECTS} objects at {LEAST_BLOCKS} "
                "corners of cores are needed)"
            )
        return f"no sign of seams (density near them is {_ratio(self.density)} of that inside)"

    def figures(self, unit: Unit = "um") -> SeamFigures:
        """The report as results state it: rounded, with its verdict. ``unit``: of its lengths."""
        return SeamFigures(
            verdict=self.verdict,
            sign_of_seams=bool(self.signs()),
            pitch_px=self.pitch_px,
            seams=self.seams,
            blocks=self.blocks,
            near_um=round(self.near_um, 3),
            confidence=self.confidence,
            density=_rounded(self.density),
            straight_edges=_rounded(self.straight_edges),
            duplicates=_rounded(self.duplicates),
            unit=unit,
        )


def slide_seams(
    table: ObjectTable, parts: Parts, *, lattice: Lattice, frame: Frame, cells: Sequence[CoreIndex]
) -> SeamFigures:
    """The seam report of a slide as in ``summary.json``.

    ``table``: all objects (centroid, class_id and area_px are used). ``parts``: the same with all
    columns and outlines, part by part; they are gone through once. ``cells``: analysed cores.
    """
    report = seam_report(
        table, parts, core_lattice(lattice, frame=frame, cells=cells), mpp=frame.mpp
    )
    return report.figures(frame.unit)


def core_lattice(lattice: Lattice, *, frame: Frame, cells: Sequence[CoreIndex]) -> SeamLattice:
    """The lattice of the analysed cores of a slide, in grid px."""
    analysed = np.zeros((-(-frame.height // lattice.core), -(-frame.width // lattice.core)), bool)
    rows, cols = np.array(cells, np.int64).reshape(-1, 2).T
    analysed[rows, cols] = True
    return SeamLattice(
        lattice.core, (0.0, 0.0), analysed, (0.0, 0.0, float(frame.height), float(frame.width))
    )


def tile_lattice(table: ObjectTable, *, tile: float, origin: tuple[float, float]) -> SeamLattice:
    """The lattice of tiles of ``tile`` px from ``origin`` (row, column), for results that do not
    state how they were cut.

    A tile counts as analysed if it holds a centroid. The extent is that of the objects.
    """
    if not len(table):
        return SeamLattice(tile, origin, np.zeros((0, 0), bool), (0.0, 0.0, 0.0, 0.0))
    low, high = table.bbox[:, :2].min(axis=0), table.bbox[:, 2:].max(axis=0)
    place = np.floor((table.centroid - np.array(origin)) / tile).astype(np.int64)
    first = place.min(axis=0)
    analysed = np.zeros(tuple(place.max(axis=0) - first + 1), bool)
    analysed[tuple((place - first).T)] = True
    corner = (origin[0] + float(first[0]) * tile, origin[1] + float(first[1]) * tile)
    return SeamLattice(
        tile, corner, analysed, (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    )


def seam_report(
    table: ObjectTable,
    parts: Parts,
    lattice: SeamLattice,
    *,
    mpp: float,
    confidence: float = CONFIDENCE,
) -> SeamReport:
    """Look for signs of seams. Deterministic: fixed seed, sums of integers.

    Args:
        table: all objects, in px of ``lattice``; its columns centroid, class_id and area_px are
            used.
        parts: the same objects with their outlines, part by part; each is used once and not kept.
        lattice: where seams can be.
        mpp: um per px of ``lattice``.
        confidence: of each interval.
    """
    scale = SeamScale.of(table, lattice)
    blocks = lattice.blocks()
    tally = empty_tally(blocks)
    if lattice.seams().any():
        tally += tally_areas(lattice, scale, blocks)
        tally += tally_points(table.centroid, lattice, scale, blocks, pairs=False)
        tally += tally_points(duplicate_midpoints(table, scale), lattice, scale, blocks, pairs=True)
        for part in parts:
            rows, polygons = part()
            tally += tally_edges(rows, polygons, lattice, scale, blocks)
    tally = tally[:, tally.any(axis=0)]
    used = tally.shape[1]
    sums, resampled = _sums(tally.sum(axis=1)), resample(tally)
    alpha = _tail(confidence, blocks=effective_blocks(tally))
    near, met = int(sums["near"]), int(sums["on_seams"])
    enough = used >= LEAST_BLOCKS
    return SeamReport(
        pitch_px=float(lattice.pitch),
        seams=int(lattice.seams().sum()),
        blocks=used,
        near_um=scale.near * mpp,
        confidence=confidence,
        density=_contrast(
            lambda s: (
                _over(s["near"], s["near_area"]) * 1e6 / mpp**2,
                _over(s["flank"], s["flank_area"]) * 1e6 / mpp**2,
            ),
            sums,
            resampled,
            ratio=True,
            alpha=alpha,
            objects=near,
            judged=enough and near >= LEAST_OBJECTS,
        ),
        straight_edges=_contrast(
            lambda s: (
                _over(s["straight_on_seams"], s["on_seams"]),
                _over(s["straight_on_controls"], s["on_controls"]),
            ),
            sums,
            resampled,
            ratio=False,
            alpha=alpha,
            objects=met,
            judged=enough and met >= LEAST_OBJECTS,
        ),
        duplicates=_contrast(
            lambda s: (
                1000 * _over(s["near_pairs"], s["near"]),
                1000 * _over(s["flank_pairs"], s["flank"]),
            ),
            sums,
            resampled,
            ratio=False,
            alpha=alpha,
            objects=near,
            judged=enough and near >= LEAST_OBJECTS,
        ),
    )


Sums = dict[str, F64]
"""Column to its sum over blocks, () or (REPLICATES,)."""


def resample(tally: Tally) -> Sums:
    """Sums over blocks drawn with replacement, REPLICATES times, with the same draws for all
    columns."""
    blocks = tally.shape[1]
    rng = np.random.default_rng(SEED)
    weights = (
        np.bincount(rng.integers(0, blocks, blocks), minlength=blocks)
        for _ in range(REPLICATES if blocks else 0)
    )
    rows = [tally @ weight.astype(np.float64) for weight in weights]
    return _sums(np.array(rows).T if rows else np.zeros((len(COLUMNS), REPLICATES)))


def effective_blocks(tally: Tally) -> float:
    """How many equal blocks would be worth as much as these, by objects in strips (Kish, Survey
    Sampling, 1965)."""
    weight = tally[COLUMNS.index("near")] + tally[COLUMNS.index("flank")]
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def _sums(values: F64) -> Sums:
    return dict(zip(COLUMNS, values, strict=True))


def _over(a: F64, b: F64) -> F64:
    """a / b; NaN where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(b) > 0, np.asarray(a) / np.asarray(b), np.nan)


def _contrast(
    figures: Callable[[Sums], tuple[F64, F64]],
    sums: Sums,
    resampled: Sums,
    *,
    ratio: bool,
    alpha: float,
    objects: int,
    judged: bool,
) -> Contrast:
    """Value and interval of a figure near seams compared with inside, as a ratio or a
    difference."""

    def compare(near: F64, inside: F64) -> F64:
        return _over(near, inside) if ratio else np.asarray(near - inside)

    near, inside = figures(sums)
    value = _number(compare(near, inside))
    low = high = None
    if judged and value is not None:
        drawn = compare(*figures(resampled))
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            low, high = (float(v) for v in np.quantile(drawn, (alpha, 1 - alpha)))
    return Contrast(_number(near), _number(inside), value, low, high, objects)


def _number(value: F64) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tail(confidence: float, *, blocks: float) -> float:
    """Share of replicates beyond either end: that of Student's t with blocks - 1 degrees of
    freedom, widened by sqrt(n / (n - 1))."""
    if blocks < 2:
        return 0.0
    t = special.stdtrit(blocks - 1, (1 - confidence) / 2) * np.sqrt(blocks / (blocks - 1))
    return float(special.ndtr(t))


def _ratio(found: Contrast) -> str:
    return f"{found.value:.2f} ({found.low:.2f}-{found.high:.2f})"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def _rounded(sign: Contrast) -> Contrast:
    near, inside, value, low, high = (
        None if figure is None else round(figure, 4)
        for figure in (sign.near, sign.inside, sign.value, sign.low, sign.high)
    )
    return Contrast(near, inside, value, low, high, sign.objects)
