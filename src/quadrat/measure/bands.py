"""Objects around the border of a region, in bands of distance (pure).

Distances are exact. Areas of bands are those of the region grown or shrunk, with 256 sides to a
circle, so that a round corner is 0.01 % too small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.core.unit import named
from quadrat.measure.area import Tissue
from quadrat.measure.borders import border_distance, segments_of
from quadrat.measure.figures import ALL, NO_TISSUE_MAP, distribution
from quadrat.measure.results import Objects
from quadrat.measure.rows import Figure
from quadrat.outputs.results import SlideResult

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
_SIDES = 64
"""Of a quarter of a circle."""


def band_figures(
    objects: Objects,
    result: SlideResult,
    tissue: Tissue | None,
    shape: shapely.Geometry,
    members: Ids,
    edges: Sequence[float],
    *,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """Distances of a region's own objects to its border (negative: inside), and counts in bands
    between ``edges`` (um, half-open) of all objects of the slide."""
    unit, classes = result.summary.frame.unit, result.class_names
    distance = signed_distances(objects, result, shape, members, edges)
    own = distance[members]
    for k, name in enumerate((*classes, ALL)):
        mine = own if name == ALL else own[objects.class_id[members] == k]
        measure = named("border_distance_um", unit)
        yield from distribution(mine, measure, class_name=name, flags=flags)
    if tissue is None:
        flags = (*flags, NO_TISSUE_MAP)
    large = named("mm2", unit)
    for low, high in pairwise(edges):
        band = named(f"band_{low:g}_{high:g}_um", unit)
        area = None if tissue is None else band_mm2(shape, result, tissue, low, high)
        if area is not None:
            yield Figure("", f"{named('analysed_mm2', unit)}_{band}", area, large, flags=flags)
        found = objects.class_id[(distance >= low) & (distance < high)]
        counts = np.bincount(found, minlength=len(classes)).tolist()
        for name, count in zip((*classes, ALL), (*counts, len(found)), strict=True):
            density = count / area if area else None
            yield Figure(name, f"count_{band}", count, "", count, flags=flags)
            measure = f"{named('per_mm2', unit)}_{band}"
            yield Figure(name, measure, density, f"1/{large}", count, flags=flags)


def signed_distances(
    objects: Objects,
    result: SlideResult,
    shape: shapely.Geometry,
    members: Ids,
    edges: Sequence[float],
) -> F64:
    """um from each object's centroid to the border of a region, negative for its members. Objects
    outside that are farther than the last edge are infinitely far."""
    segments = segments_of(shape, result.um_per_l0)
    xy = objects.xy_l0 * np.array(result.um_per_l0)
    out = np.full(len(xy), np.inf)
    if not len(segments):
        return out
    most = max(edges[-1], 0.0)
    low = segments.reshape(-1, 2).min(axis=0) - most
    high = segments.reshape(-1, 2).max(axis=0) + most
    near = ((xy >= low) & (xy <= high)).all(axis=1)
    near[members] = False
    if most > 0:
        out[near] = border_distance(xy[near], segments, most=most)
    out[members] = -border_distance(xy[members], segments)
    return out


def band_mm2(
    shape: shapely.Geometry, result: SlideResult, tissue: Tissue, low: float, high: float
) -> float:
    """Analysed mm² between two distances (um) from the border of a region."""
    scale = np.array(result.um_per_l0)
    in_um = shapely.transform(shape, lambda xy: xy * scale)
    outer, inner = (
        shapely.buffer(in_um, edge, quad_segs=_SIDES) if edge else in_um for edge in (high, low)
    )
    factor = scale * np.array(tissue.scale)
    areas = [
        tissue.areas_in(shapely.transform(one, lambda xy: xy / factor))[0] for one in (outer, inner)
    ]
    return max(areas[0] - areas[1], 0.0)
