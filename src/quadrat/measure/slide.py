"""All figures of one slide, region by region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.config.manifest import SlideRef
from quadrat.core.errors import AnnotationError
from quadrat.measure.area import Tissue
from quadrat.measure.bands import band_figures
from quadrat.measure.distances import Neighbours, distance_figures
from quadrat.measure.figures import (
    Areas,
    Tally,
    area_figures,
    count_figures,
    ratio_figures,
    size_figures,
)
from quadrat.measure.inside import Edges
from quadrat.measure.plan import Plan
from quadrat.measure.regions import MISSING, OUTSIDE, WHOLE, Region
from quadrat.measure.results import Objects, read_objects, read_outlines, tissue_of
from quadrat.measure.rows import Figure
from quadrat.measure.spatial import ripley_figures
from quadrat.measure.stain import stain_figures
from quadrat.measure.stain_reading import stains_of_objects
from quadrat.outputs.results import SlideResult

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
NO_TISSUE = "no_tissue"


@dataclass(frozen=True, slots=True)
class Measured:
    """A region of a slide with its figures."""

    region: Region
    """The region."""
    tally: Tally | None
    """What can be added up over slides; None of a core that is missing."""
    figures: list[Figure]
    """What was measured, in order."""
    overlaps: bool = False
    """Another region of its class covers a part of it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A slide's results in memory."""

    result: SlideResult
    """Where they come from."""
    objects: Objects
    """The objects that count."""
    tissue: Tissue | None
    """The analysed area that counts."""
    on_filled: F64 | None
    """(k, 2) x, y of objects on what was filled, whether they count or not; None without a tissue
    map."""
    outlines: npt.NDArray[np.object_] | None
    """Polygons of semantic regions in level-0 px; None where objects are counted."""


def load_slide(result: SlideResult, plan: Plan, *, ref: SlideRef | None, to: Path) -> Loaded:
    """Read what is measured of a slide. ``ref``: its file, if anybody knows it; ``to``: where
    tables of objects are written.

    Raises:
        QuadratError: a file cannot be read.
    """
    objects = read_objects(result, shapes=plan.shapes)
    if plan.file.stain is not None:
        objects.sizes.update(stains_of_objects(result, ref, plan.file.stain, to))
    tissue, on_filled = tissue_of(result), None
    if tissue is not None:
        filled = tissue.on_filled(objects.xy_l0)
        on_filled = objects.xy_l0[filled]
        if plan.without_filled:
            objects, tissue = objects.take(~filled), tissue.without_filled()
    outlines = None
    if result.regional:
        whole = read_outlines(result)
        starts = whole.ring_starts, whole.polygon_starts
        outlines = shapely.from_ragged_array(shapely.GeometryType.POLYGON, whole.xy, starts)
    return Loaded(result, objects, tissue, on_filled, outlines)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a slide, before it is measured."""

    region: Region
    """How it is called."""
    shape: shapely.Geometry | None
    """Its outline; of the outside: all regions together; None: the whole slide."""
    members: Ids
    """The objects in it."""
    areas: Areas
    """Its areas."""
    on_filled: int | None
    """How many objects lie in it on what was filled; None without a tissue map."""


def measure_slide(loaded: Loaded, regions: Sequence[Region], plan: Plan) -> Iterator[Measured]:
    """The figures of the whole slide, of each region, and of what is outside of every region.

    Raises:
        AnnotationError: no region meets anything that was analysed.
    """
    near = Neighbours.of(loaded.objects, loaded.result, loaded.tissue, plan.distances)
    filled = loaded.on_filled
    everything = np.arange(len(loaded.objects), dtype=np.int64)
    count = None if filled is None else len(filled)
    whole = Part(Region(WHOLE, "", "whole"), None, everything, _whole_areas(loaded), count)
    yield _measured(loaded, plan, whole, near)
    drawn = [region for region in regions if MISSING not in region.flags]
    edges = [Edges.of(one.polygons.xy, one.polygons.ring_starts) for one in drawn]
    members = [edge.inside(loaded.objects.xy_l0) for edge in edges]
    on_filled = [None if filled is None else edge.inside(filled) for edge in edges]
    shapes = [region.shape() for region in drawn]
    areas = [_areas(loaded, *pair) for pair in zip(drawn, shapes, strict=True)]
    _refuse_other_scale(loaded, drawn, areas)
    overlapping = _overlapping(drawn, shapes)
    found = zip(drawn, shapes, members, areas, on_filled, strict=True)
    parts = {id(r): Part(r, s, m, a, None if f is None else len(f)) for r, s, m, a, f in found}
    for region in regions:
        part = parts.get(id(region))
        if part is None:
            missing = Figure("all", "count", None, "", flags=region.flags)
            yield Measured(region, None, [missing])
        else:
            mine = _measured(loaded, plan, part, near)
            yield replace(mine, overlaps=id(region) in overlapping)
    if drawn:
        union = shapely.union_all(shapes)
        rest = _outside(len(everything), members)
        count = None if filled is None else len(_outside(len(filled), on_filled))
        outside = Region(OUTSIDE, "", "outside")
        part = Part(outside, union, rest, _rest(loaded, union), count)
        yield _measured(loaded, plan, part, near)


def _outside(n: int, members: Sequence[Ids | None]) -> Ids:
    """Which of n things are in no region."""
    free = np.ones(n, np.bool_)
    for index in members:
        free[index] = False
    return np.flatnonzero(free)


def _measured(loaded: Loaded, plan: Plan, part: Part, near: Neighbours) -> Measured:
    """The figures of one part."""
    result, objects, region, index = loaded.result, loaded.objects, part.region, part.members
    unit, classes = result.summary.frame.unit, result.class_names
    flags = (*region.flags, NO_TISSUE) if part.areas.analysed_mm2 == 0 else region.flags
    class_id = objects.class_id[index]
    tally = Tally(
        tuple(np.bincount(class_id, minlength=len(classes)).tolist()),
        _covered(loaded, part),
        part.areas.analysed_mm2,
    )
    figures = [
        *area_figures(part.areas, on_filled=part.on_filled, unit=unit),
        *count_figures(tally, classes, unit=unit, flags=flags),
        *ratio_figures(tally, classes, plan.ratios, low_n=plan.file.low_n, flags=flags),
        *distance_figures(near, index, plan.distances, result, flags=flags),
    ]
    if region.kind == "whole":
        for section in plan.file.spatial:
            figures += ripley_figures(objects, result, loaded.tissue, section, flags=flags)
    edges, shape = plan.file.bands_um, part.shape
    if edges and region.kind not in ("whole", "outside") and shape is not None:
        figures += band_figures(objects, result, loaded.tissue, shape, index, edges, flags=flags)
    if plan.file.stain is not None:
        dab = objects.sizes["od_dab_mean"][index]
        figures += stain_figures(dab, class_id, classes, plan.file.stain.bands, flags=flags)
    if plan.shapes:
        sizes = {name: values[index] for name, values in objects.sizes.items()}
        figures += size_figures(sizes, class_id, classes, unit=unit, flags=flags)
    return Measured(region, tally, figures)


def _covered(loaded: Loaded, part: Part) -> tuple[float, ...]:
    """mm² that the objects of each class cover. Of counted objects: the areas of those in the
    region. Of semantic regions: what of them lies in the region, cut exactly."""
    objects, shape, n = loaded.objects, part.shape, len(loaded.result.class_names)
    if loaded.outlines is None or shape is None:
        weights = objects.area_um2[part.members]
        sums = np.bincount(objects.class_id[part.members], weights=weights, minlength=n)
        return tuple((sums / 1e6).tolist())
    px_um2 = float(np.prod(loaded.result.um_per_l0))
    shapely.prepare(shape)
    meets = np.flatnonzero(shapely.intersects(shape, loaded.outlines))
    parts = shapely.area(shapely.intersection(loaded.outlines[meets], shape)) * px_um2
    if part.region.kind == "outside":
        rest = objects.area_um2.copy()
        rest[meets] -= parts
        sums = np.bincount(objects.class_id, weights=rest, minlength=n)
    else:
        sums = np.bincount(objects.class_id[meets], weights=parts, minlength=n)
    return tuple((sums / 1e6).tolist())


def _whole_areas(loaded: Loaded) -> Areas:
    if loaded.tissue is not None:
        return Areas(None, loaded.tissue.analysed_mm2, loaded.tissue.filled_mm2)
    area = loaded.result.summary.figures.area
    return Areas(None, area.tissue_mm2, area.tissue_filled_mm2)


def _areas(loaded: Loaded, region: Region, shape: shapely.Geometry) -> Areas:
    px_mm2 = float(np.prod(loaded.result.um_per_l0)) / 1e6
    own = float(shapely.area(shape)) * px_mm2
    if loaded.tissue is None:
        return Areas(own)
    return Areas(own, *loaded.tissue.areas_in(region.shape(scale=loaded.tissue.scale)))


def _rest(loaded: Loaded, union: shapely.Geometry) -> Areas:
    """Areas of what is outside of every region."""
    tissue = loaded.tissue
    if tissue is None:
        return Areas()
    factor = np.array(tissue.scale)
    inside = tissue.areas_in(shapely.transform(union, lambda xy: xy / factor))
    whole = tissue.analysed_mm2, tissue.filled_mm2
    analysed, filled = (max(a - b, 0.0) for a, b in zip(whole, inside, strict=True))
    return Areas(None, analysed, filled)


def _refuse_other_scale(loaded: Loaded, drawn: Sequence[Region], areas: Sequence[Areas]) -> None:
    """Raises AnnotationError where what was drawn meets no analysed tissue at all."""
    mine = [a.analysed_mm2 for r, a in zip(drawn, areas, strict=True) if r.kind != "within"]
    if mine and all(area == 0 for area in mine):
        raise AnnotationError(
            f"{loaded.result.name}: none of its {len(mine)} regions meets analysed tissue; is the "
            "file that of another slide, or not in px of the full resolution?"
        )


def _overlapping(drawn: Sequence[Region], shapes: Sequence[shapely.Geometry]) -> set[int]:
    """Regions that share area with another one of their kind and class."""
    found = set()
    tree = shapely.STRtree(shapes)
    for a, b in tree.query(np.array(shapes, object)).T.tolist():
        one, other = drawn[a], drawn[b]
        alike = (one.kind, one.class_name) == (other.kind, other.class_name)
        if a < b and alike and shapely.area(shapely.intersection(shapes[a], shapes[b])) > 0:
            found |= {id(one), id(other)}
    return found
