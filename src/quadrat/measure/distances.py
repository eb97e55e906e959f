"""Distances from the objects of a class to those of another (pure).

Neighbours are looked for on the whole slide, whatever the region. So only the border of the
analysed area cuts them off: an object that lies nearer to it than to its neighbour may have a
nearer one that was not analysed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quadrat.config.measure import DistanceSection
from quadrat.core.unit import named
from quadrat.measure.area import Tissue
from quadrat.measure.borders import border_distance, tissue_border
from quadrat.measure.figures import NO_TISSUE_MAP, distribution
from quadrat.measure.results import Objects
from quadrat.measure.rows import Figure
from quadrat.outputs.results import SlideResult

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
EDGE_EFFECT, EDGE_SHARE = "edge_effect", 0.05
"""A distance has the flag where more than this share of its objects may have nearer neighbours."""
_QUERY = 1 << 16


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What of the whole slide is known of distances, before regions ask for their part."""

    nearest: tuple[F64, ...]
    """Of each section: (n,) um from every object of ``of`` to the nearest of ``to``; NaN for other
    objects, and where there is none."""
    within: tuple[tuple[F64, ...], ...]
    """Of each section and radius: (n,) how many of ``to`` are within it; NaN for other objects."""
    border: F64 | None
    """(n,) um to the border of the analysed area, 0 outside of it; NaN where nobody asks. None:
    there is no tissue map."""

    @staticmethod
    def of(
        objects: Objects,
        result: SlideResult,
        tissue: Tissue | None,
        sections: Sequence[DistanceSection],
    ) -> Neighbours:
        """Of all objects of a slide."""
        xy = objects.xy_l0 * np.array(result.um_per_l0)
        near, within = [], []
        asked = np.zeros(len(objects), np.bool_)
        for section in sections:
            mine = objects.class_id == result.class_names.index(section.of)
            theirs = objects.class_id == result.class_names.index(section.to)
            asked |= mine
            distance, counts = neighbours(
                xy, mine, theirs, same=section.of == section.to, radii=section.within_um
            )
            near.append(distance)
            within.append(tuple(counts))
        border = None if tissue is None else np.full(len(objects), np.nan)
        if border is not None and tissue is not None and asked.any():
            found = border_distance(xy[asked], tissue_border(tissue, result.um_per_l0))
            border[asked] = np.where(tissue.holds(objects.xy_l0[asked]), found, 0.0)
        return Neighbours(tuple(near), tuple(within), border)


def neighbours(
    xy_um: F64,
    mine: npt.NDArray[np.bool_],
    theirs: npt.NDArray[np.bool_],
    *,
    same: bool,
    radii: Sequence[float],
) -> tuple[F64, list[F64]]:
    """Distance of each point of ``mine`` to the nearest of ``theirs``, and how many of them lie
    within each radius (at most that far); the point itself does not count where both are the
    ``same``. NaN for other points; the distance is NaN where there is no other."""
    nearest = np.full(len(xy_um), np.nan)
    counts = [np.full(len(xy_um), np.nan) for _ in radii]
    index = np.flatnonzero(mine)
    if not len(index):
        return nearest, counts
    targets = xy_um[theirs]
    tree = cKDTree(targets) if len(targets) else None
    for start in range(0, len(index), _QUERY):
        some = index[start : start + _QUERY]
        if tree is not None and tree.n > same:
            found, _ = tree.query(xy_um[some], k=[1 + same])
            nearest[some] = found[:, 0]
        for radius, out in zip(radii, counts, strict=True):
            out[some] = 0.0
            if tree is not None:
                out[some] = tree.query_ball_point(xy_um[some], radius, return_length=True) - same
    return nearest, counts


def distance_figures(
    near: Neighbours,
    index: Ids,
    sections: Sequence[DistanceSection],
    result: SlideResult,
    *,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """The distances of the objects of a region."""
    unit = result.summary.frame.unit
    for section, whole, counts in zip(sections, near.nearest, near.within, strict=True):
        values = whole[index]
        known = ~np.isnan(values)
        n = int(known.sum())
        mine = flags
        measure = f"{named('nearest_um', unit)}.{section.to}"
        share = None
        if near.border is None:
            mine = (*flags, NO_TISSUE_MAP)
        elif n:
            share = float((values[known] > near.border[index][known]).mean())
            mine = (*flags, EDGE_EFFECT) if share > EDGE_SHARE else flags
        yield from distribution(values, measure, class_name=section.of, flags=mine)
        if share is not None:
            yield Figure(section.of, f"{measure}_edge_share", share, "1", n, flags=mine)
        for radius, found in zip(section.within_um, counts, strict=True):
            asked = found[index]
            asked = asked[~np.isnan(asked)]
            if len(asked):
                name = named(f"within_{radius:g}_um", unit) + f".{section.to}"
                any_share = float((asked > 0).mean())
                yield Figure(
                    section.of, f"{name}_mean", float(asked.mean()), "1", len(asked), flags=mine
                )
                yield Figure(section.of, f"{name}_share", any_share, "1", len(asked), flags=mine)
