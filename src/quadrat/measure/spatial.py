"""Ripley's K and cross-K with border correction, against shuffled classes (pure).

K(r) is the mean number of neighbours within r, over their density (Ripley, J. R. Stat. Soc. B 39,
1977). Only objects at least r from the border of the analysed area are asked, so all their
neighbours were analysed (Baddeley, Rubak and Turner, Spatial Point Patterns, 2015, chapter 7.4).
Shuffling classes among the places that there are keeps the density of the tissue as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quadrat.config.measure import SpatialSection
from quadrat.core.errors import ConfigError
from quadrat.core.kernel import kernel
from quadrat.core.unit import named
from quadrat.measure.area import Tissue
from quadrat.measure.borders import border_distance, tissue_border
from quadrat.measure.figures import NO_TISSUE_MAP
from quadrat.measure.results import Objects
from quadrat.measure.rows import Figure
from quadrat.outputs.results import SlideResult

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MOST_PAIRS = 20_000_000
SEED = 0


@dataclass(frozen=True, slots=True)
class Ripley:
    """K at one radius."""

    k: float
    """um²; NaN where no object is far enough from the border, or there is no neighbour at all."""
    asked: int
    """Objects that are."""
    low: float
    """2.5 % of the shuffled K are below it."""
    high: float
    """97.5 % are."""
    p: float
    """Share of shuffles, this one among them, with as many neighbours or more."""


def ripley(
    xy_um: F64,
    of: Mask,
    to: Mask,
    border_um: F64,
    area_um2: float,
    radii: Sequence[float],
    *,
    permutations: int,
) -> list[Ripley]:
    """K at each radius. ``xy_um``: (n, 2) places of all objects among which classes are shuffled;
    ``of``, ``to``: those that are asked and their neighbours, the same or apart; ``border_um``:
    (n,) distances to the border.

    Raises:
        ConfigError: there are too many neighbours.
    """
    order = np.argsort(radii)
    sorted_radii = np.asarray(radii, np.float64)[order]
    starts, others, rank = _pairs(xy_um, sorted_radii)
    rng = np.random.default_rng(SEED)
    same = bool(np.array_equal(of, to))
    counted = [_counts(of, to, border_um, sorted_radii, starts, others, rank)]
    for _ in range(permutations):
        shuffled = rng.permutation(len(of))
        counted.append(
            _counts(of[shuffled], to[shuffled], border_um, sorted_radii, starts, others, rank)
        )
    targets = int(to.sum()) - same
    found: list[Ripley] = [Ripley(math.nan, 0, math.nan, math.nan, math.nan)] * len(order)
    for j, place in enumerate(order.tolist()):
        asked = np.array([c[j, 0] for c in counted])
        pairs = np.array([c[j, 1] for c in counted])
        known = asked > 0
        if not known[0] or targets < 1:
            continue
        mean = pairs[known] / asked[known]
        k = mean * area_um2 / targets
        low, high = np.percentile(k[1:], [2.5, 97.5]) if len(k) > 1 else (math.nan, math.nan)
        p = float((mean >= mean[0] * (1 - 1e-12)).mean())
        found[place] = Ripley(float(k[0]), int(asked[0]), float(low), float(high), p)
    return found


def _pairs(xy: F64, radii: F64) -> tuple[Ids, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Of each place, its neighbours within the largest radius, and the first radius that holds
    each."""
    tree = cKDTree(xy)
    total = int(tree.count_neighbors(tree, radii[-1])) - len(xy)
    if total > MOST_PAIRS:
        raise ConfigError(
            f"spatial: {total:,} pairs of objects lie within {radii[-1]:g} of each other (at most "
            f"{MOST_PAIRS:,}); give smaller radii"
        )
    pairs = tree.query_pairs(radii[-1], output_type="ndarray")
    a, b = np.concatenate([pairs, pairs[:, ::-1]]).T
    by = np.argsort(a, kind="stable")
    a, b = a[by], b[by]
    distance = np.hypot(*(xy[a] - xy[b]).T)
    starts = np.searchsorted(a, np.arange(len(xy) + 1)).astype(np.int64)
    rank = np.minimum(np.searchsorted(radii, distance, side="left"), len(radii) - 1)
    return starts, b.astype(np.int32), rank.astype(np.uint8)


@kernel
def _counts(
    of: Mask,
    to: Mask,
    border: F64,
    radii: F64,
    starts: Ids,
    others: npt.NDArray[np.int32],
    rank: npt.NDArray[np.uint8],
) -> Ids:
    """(radii, 2): objects that are asked, and their neighbours."""
    out = np.zeros((len(radii), 2), np.int64)
    near = np.zeros(len(radii), np.int64)
    for i in range(len(of)):
        if not of[i]:
            continue
        near[:] = 0
        for k in range(starts[i], starts[i + 1]):
            if to[others[k]]:
                near[rank[k]] += 1
        total = 0
        for j in range(len(radii)):
            total += near[j]
            if border[i] >= radii[j]:
                out[j, 0] += 1
                out[j, 1] += total
    return out


def ripley_figures(
    objects: Objects,
    result: SlideResult,
    tissue: Tissue | None,
    section: SpatialSection,
    *,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """L(r) - r and its test, of a whole slide. Objects outside of the analysed area are left
    out."""
    unit, classes = result.summary.frame.unit, result.class_names
    name = named("um", unit)
    if tissue is None:
        for radius in section.radii_um:
            measure = f"ripley_l_{radius:g}_{name}.{section.to}"
            yield Figure(section.of, measure, None, name, flags=(*flags, NO_TISSUE_MAP))
        return
    ids = classes.index(section.of), classes.index(section.to)
    chosen = tissue.holds(objects.xy_l0)
    if ids[0] != ids[1]:
        chosen &= np.isin(objects.class_id, ids)
    places, kinds = objects.xy_l0[chosen], objects.class_id[chosen]
    if not len(places):
        return
    xy = places * np.array(result.um_per_l0)
    border = border_distance(xy, tissue_border(tissue, result.um_per_l0))
    found = ripley(
        xy,
        kinds == ids[0],
        kinds == ids[1],
        border,
        tissue.analysed_mm2 * 1e6,
        section.radii_um,
        permutations=section.permutations,
    )
    for radius, one in zip(section.radii_um, found, strict=True):
        end = f"{radius:g}_{name}.{section.to}"
        value, low, high = (
            math.sqrt(k / math.pi) - radius if k >= 0 else math.nan
            for k in (one.k, one.low, one.high)
        )
        yield Figure(section.of, f"ripley_l_{end}", value, name, one.asked, low, high, flags=flags)
        yield Figure(section.of, f"ripley_p_{end}", one.p, "1", one.asked, flags=flags)
