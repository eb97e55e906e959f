"""Records as shapely geometry and back: the same vertices either way (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from quadrat.annotations.record import Record, Rings
from quadrat.annotations.types import F64, Kind


def shape_name(record: Record) -> str:
    """How a record was drawn: "polygon", "box" or "point"."""
    return "point" if len(record.points) else "box" if record.box else "polygon"


def geometry_of(record: Record) -> shapely.Geometry:
    """A Polygon, a MultiPolygon of the parts, a Point or a MultiPoint, as it was drawn, valid or
    not."""
    if len(record.points):
        return (
            shapely.Point(record.points[0])
            if len(record.points) == 1
            else shapely.MultiPoint(record.points)
        )
    parts = [shapely.Polygon(part[0], part[1:]) for part in record.parts]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def record_of(
    geometry: Any, *, place: str, name: str, kind: str, shape: str, crowd: bool = False
) -> Record:
    """The record of a row; the inverse of ``geometry_of``.

    Raises:
        ValueError: a geometry that ``geometry_of`` does not make, a coordinate that is not finite,
            or a kind that does not exist.
    """
    if kind not in ("", "object", "region"):
        raise ValueError(f"kind '{kind}'; want object, region or nothing")
    own: Kind | None = "object" if kind == "object" else "region" if kind == "region" else None
    if geometry is None or geometry.is_empty:
        raise ValueError("no geometry")
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError("a coordinate that is not a finite number")
    if geometry.geom_type in ("Point", "MultiPoint"):
        return Record(place, name, own, points=shapely.get_coordinates(geometry), crowd=crowd)
    if geometry.geom_type not in ("Polygon", "MultiPolygon"):
        raise ValueError(
            f"geometry {geometry.geom_type}; want Polygon, MultiPolygon, Point or MultiPoint"
        )
    parts = tuple(_rings(polygon) for polygon in shapely.get_parts(geometry))
    return Record(place, name, own, parts, box=shape == "box", crowd=crowd)


def _rings(polygon: shapely.Polygon) -> Rings:
    rings: list[F64] = [
        shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)
    ]
    return tuple(rings)
