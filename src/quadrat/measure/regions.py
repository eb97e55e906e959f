"""The parts of a slide that are measured: the whole slide, what was drawn, TMA cores, what another
run found, and what is outside of all of them.

All are in level-0 px. A region belongs to whoever draws it: nested and overlapping ones each have
their own rows, and an object may belong to several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.formats.geojson import Roi, read_rois
from quadrat.annotations.orientation import turn_of
from quadrat.annotations.origin import Origin, move
from quadrat.annotations.record import Record, Rings
from quadrat.core.errors import AnnotationError
from quadrat.core.objects import Frame, Polygons
from quadrat.measure.inside import Edges
from quadrat.slides.scanned_part import scanned_part

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Kind = Literal["whole", "drawn", "core", "within", "outside"]
WHOLE, OUTSIDE = "whole slide", "outside every region"
TOUCHES, CROSSES, BEYOND, MISSING = (
    "touches_itself",
    "crosses_itself",
    "beyond_slide",
    "missing_core",
)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a slide."""

    name: str
    """What its rows call it."""
    class_name: str
    """Its class; "" for none."""
    kind: Kind
    """How it came about. The whole slide and the outside have no rings."""
    polygons: Polygons = field(default_factory=lambda: polygons_of(()))
    """Closed rings; what lies in an odd number of them is inside."""
    flags: tuple[str, ...] = ()
    """What a reader has to know of it."""

    def shape(self, *, scale: tuple[float, float] = (1.0, 1.0)) -> shapely.Geometry:
        """The region as a valid geometry, x and y divided by ``scale``: what lies in an odd number
        of its rings."""
        drawn = self.polygons
        xy = drawn.xy / np.array(scale)
        starts = drawn.ring_starts, drawn.polygon_starts
        parts = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, starts)
        whole = shapely.multipolygons(parts) if len(parts) else shapely.MultiPolygon()
        if shapely.is_valid(whole):
            return whole
        return even_odd(xy, drawn.ring_starts)


def even_odd(xy: F64, ring_starts: Ids) -> shapely.Geometry:
    """What lies in an odd number of closed rings, which may touch or cross themselves and each
    other: of the faces between all lines those that the rule of ``inside`` takes."""
    lines = shapely.MultiLineString([ring for ring in np.split(xy, ring_starts[1:-1]) if len(ring)])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.node(lines))))
    middles = shapely.get_coordinates(shapely.point_on_surface(faces))
    return shapely.union_all(faces[Edges.of(xy, ring_starts).inside(middles)])


def polygons_of(parts: Sequence[Rings]) -> Polygons:
    """Polygons, each given as its rings, as ragged arrays."""
    rings = [ring for part in parts for ring in part]
    return Polygons(
        xy=np.concatenate(rings).astype(np.float64) if rings else np.zeros((0, 2)),
        ring_starts=_starts([len(ring) for ring in rings]),
        polygon_starts=_starts([len(part) for part in parts]),
    )


def _starts(counts: Sequence[int]) -> Ids:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def read_regions(
    path: Path, *, frame: Frame, picture: str, slide: str, origin: Origin = "auto"
) -> tuple[list[Region], tuple[str, ...]]:
    """The regions of a slide from a QuPath GeoJSON file, and notes on how it was understood.

    A region is called by its name, else by its class; names that several have get a number.

    Args:
        path: the file.
        frame: of the slide.
        picture: the slide's file, "" where nobody knows it.
        slide: its name, for messages.
        origin: from which corner its regions count, where only a part was scanned.

    Raises:
        AnnotationError: the file cannot be read, has no region, or is that of another slide; or a
            region has no area.
    """
    rois, notes = read_rois(path)
    if not rois:
        raise AnnotationError(
            f"{path}: holds no annotation and no TMA core; draw one, or leave the file away"
        )
    if turn_of(picture) is not None:
        raise AnnotationError(
            f"{path}: the picture {picture} is shown turned, and nobody can tell whether the "
            "regions were drawn on that or on the pixels as they are stored; save the picture "
            "upright and draw on that"
        )
    records, part = tuple(roi.record for roi in rois), scanned_part(picture)
    if part is not None:
        key = "regions_origin in the measurement file"
        records, moved = move(records, part, origin=origin, where=str(path), key=key)
        notes = (*notes, f"{path}: {moved}") if moved else notes
    rois = [replace(roi, record=record) for roi, record in zip(rois, records, strict=True)]
    width, height = frame.size_l0
    size = (round(height), round(width))
    problems = geometry_problems(records, size=size)
    named = _names(rois)
    regions = []
    for roi, found, name in zip(rois, problems, named, strict=True):
        codes = {problem.code for problem in found}
        empty = next((problem for problem in found if problem.code == "empty"), None)
        if empty is not None:
            raise AnnotationError(
                f"{path}, {roi.record.place}: {empty.text}; draw an outline, or delete it"
            )
        flags = [
            flag
            for flag, on in (
                (TOUCHES, "touching itself" in codes),
                (CROSSES, "self-crossing" in codes),
                (BEYOND, codes & {"outside", "partly outside"}),
                (MISSING, roi.missing),
            )
            if on
        ]
        kind: Kind = "core" if roi.core else "drawn"
        outline = polygons_of(roi.record.parts)
        regions.append(Region(name, roi.record.name, kind, outline, tuple(flags)))
    _refuse_other_slide(path, records, size, slide)
    return regions, notes


def _names(rois: Sequence[Roi]) -> list[str]:
    """A name for each region, in order; never one twice."""
    plain = [
        roi.title or roi.record.name or ("TMA core" if roi.core else "annotation") for roi in rois
    ]
    often, taken, names = Counter(plain), set(plain), list[str]()
    number = Counter[str]()
    for name in plain:
        if often[name] == 1 and name not in (WHOLE, OUTSIDE):
            names.append(name)
            continue
        while True:
            number[name] += 1
            mine = f"{name} {number[name]}"
            if mine not in taken:
                break
        taken.add(mine)
        names.append(mine)
    return names


def _refuse_other_slide(
    path: Path, records: Sequence[Record], size: tuple[int, int], slide: str
) -> None:
    """Raises AnnotationError where a region lies wholly outside the slide."""
    height, width = size
    for record in records:
        xy = np.concatenate([part[0] for part in record.parts])
        (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise AnnotationError(
                f"{path}, {record.place}: spans x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}, "
                f"and the slide {slide} has {width} x {height} px; is it the file of another "
                "slide, or not in px of the full resolution?"
            )
