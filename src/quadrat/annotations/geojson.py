"""QuPath GeoJSON -> Annotations (RFC 7946; properties as QuPath 0.3 and later write them, in level-0 px).

https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.annotations import Annotations, Kind, class_index
from quadrat.errors import AnnotationError
from quadrat.results import Polygons

_KINDS: dict[str, Kind] = {
    "detection": "object",
    "cell": "object",
    "annotation": "region",
    "PathDetectionObject": "object",  # the feature's id in QuPath 0.2
    "PathCellObject": "object",
    "PathAnnotationObject": "region",
}

Ring = list[list[float]]


@dataclass(slots=True)
class _Columns:
    """What is gathered while a file is read: plain lists, turned into arrays once."""

    rings: list[Ring] = field(default_factory=list)
    rings_of: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    feature_of: list[int] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    unclassified: int = 0
    other_kind: int = 0


def load_annotations(
    path: Path, *, classes: Sequence[str] | None = None, kind: Kind | None = None, unclassified: str | None = None
) -> Annotations:
    """Read the objects or the regions of a QuPath GeoJSON file: a FeatureCollection, a bare list, one feature a line.

    A MultiPolygon gives one entry a part, holes are kept, a cell gives its outer border, a Point a point entry. What
    has no class is left out and counted in ``unclassified`` (or is of the class ``unclassified``, if one is given); what
    is not of ``kind`` in ``other_kind``. A feature without objectType is taken as ``kind``. With ``kind=None`` all are
    taken, and the file must hold one kind only.
    ``classes`` fixes names and order; None takes the names found, sorted.

    Raises:
        AnnotationError: not such a file, a broken or unknown geometry, an unknown class, or two kinds and none chosen.
    """
    path = Path(path)
    columns = _Columns()
    kinds: set[Kind] = set()
    for number, feature in enumerate(_features(path), start=1):
        where = f"{path.name}, feature {number}"
        if not isinstance(feature, dict) or not isinstance(feature.get("properties") or {}, dict):
            raise AnnotationError(f"{where}: not a GeoJSON Feature")
        found = _kind_of(feature, default=kind or "object")
        if found is None or (kind is not None and found != kind):
            columns.other_kind += 1
            continue
        name = _class_name(feature, where) or unclassified
        if name is None:
            columns.unclassified += 1
            continue
        kinds.add(found)
        _take(feature.get("geometry"), name, number, where, columns)
    if len(kinds) > 1:
        raise AnnotationError(f"{path.name}: holds both objects and regions; ask for one with kind='object' or 'region'")
    return _arrays(columns, path, classes, kind or (kinds.pop() if kinds else "object"))


def _features(path: Path) -> Iterator[Any]:
    """Features one by one; a file of one feature a line is never parsed as a whole, which keeps memory flat."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            head = "".join(next(stream, "") for _ in range(2))
            lines = head.splitlines()
            if len(lines) == 2 and _is_item(lines[1]) and (lines[0].rstrip().endswith("[") or _is_item(lines[0])):
                yield from _by_line(chain(lines, stream), path)
                return
            text = head + stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as GeoJSON text ({error})") from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path}: not valid JSON ({error}); is the file cut short?") from error
    if isinstance(whole, dict) and whole.get("type") == "Feature":
        whole = [whole]
    features = whole.get("features") if isinstance(whole, dict) else whole
    if not isinstance(features, list):
        raise AnnotationError(f"{path}: not GeoJSON: want a FeatureCollection, a Feature or a list of Features")
    yield from features


def _is_item(line: str) -> bool:
    """Whether a line is one whole JSON object (with or without the comma to the next)."""
    line = line.strip().removesuffix(",")
    if not (line.startswith("{") and line.endswith("}")):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _by_line(lines: Iterator[str], path: Path) -> Iterator[Any]:
    """Features of a file whose second line is one: an opening line, one feature a line, a closing line."""
    closed = False
    opening = next(lines).strip()
    if _is_item(opening):  # newline-delimited features have neither opening nor closing
        yield json.loads(opening.removesuffix(","))
        closed = True
    for number, line in enumerate(lines, start=2):
        item = line.strip()
        if item.startswith("]"):
            return
        if item:
            try:
                yield json.loads(item.removesuffix(","))
            except json.JSONDecodeError as error:
                raise AnnotationError(f"{path}: line {number} is not one whole feature ({error})") from error
    if not closed:
        raise AnnotationError(f"{path}: the list of features is not closed; the file is cut short")


def _kind_of(feature: dict[str, Any], *, default: Kind) -> Kind | None:
    """Object, region, or None for what is neither (a tile, a TMA core, the root)."""
    properties = feature.get("properties") or {}
    stated = properties.get("objectType") or properties.get("object_type")
    if stated is None and str(feature.get("id", "")).startswith("Path"):
        stated = feature["id"]
    return default if stated is None else _KINDS.get(str(stated))


def _class_name(feature: dict[str, Any], where: str) -> str | None:
    classification = (feature.get("properties") or {}).get("classification")
    if classification is None:
        return None
    name = classification.get("name") if isinstance(classification, dict) else classification
    if name is None and isinstance(classification, dict) and classification.get("names"):
        name = ": ".join(classification["names"])  # QuPath 0.5 writes derived classes as a list
    if not isinstance(name, str) or not name:
        raise AnnotationError(f"{where}: properties.classification has no name")
    return name


def _take(geometry: Any, name: str, number: int, where: str, columns: _Columns) -> None:
    """Add one feature's geometry to the columns."""
    sort: Any = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates: Any = geometry.get("coordinates") if isinstance(geometry, dict) else None
    if sort is not None and (not isinstance(coordinates, list) or not coordinates):
        raise AnnotationError(f"{where}: a {sort} without coordinates")
    parts: list[list[Ring]]
    if sort == "Polygon":
        parts, points = [coordinates], [(np.nan, np.nan)]
    elif sort == "MultiPolygon":
        parts, points = coordinates, [(np.nan, np.nan)] * len(coordinates)
    elif sort in ("Point", "MultiPoint"):
        spots = [coordinates] if sort == "Point" else coordinates
        parts, points = [[] for _ in spots], [(float(p[0]), float(p[1])) for p in spots]
    else:
        raise AnnotationError(f"{where}: geometry {sort!r}; want Polygon, MultiPolygon, Point or MultiPoint")
    for rings, point in zip(parts, points, strict=True):
        for ring in rings or ([[]] if np.isnan(point[0]) else []):
            if len(ring) < 4 or ring[0] != ring[-1]:
                raise AnnotationError(f"{where}: a ring of {len(ring)} points that is not closed (want 4 or more)")
        columns.rings.extend(rings)
        columns.rings_of.append(len(rings))
        columns.names.append(name)
        columns.feature_of.append(number)
        columns.points.append(point)


def _arrays(columns: _Columns, path: Path, classes: Sequence[str] | None, kind: Kind) -> Annotations:
    names = tuple(classes) if classes is not None else tuple(sorted(set(columns.names)))
    where = dict(zip(reversed(columns.names), reversed(columns.feature_of), strict=True))  # the first feature of each
    index = {n: class_index(n, names, where=f"{path.name}, feature {where[n]}") for n in where}
    try:
        flat = [np.asarray(ring, np.float64)[:, :2] for ring in columns.rings]
        xy = np.concatenate(flat) if flat else np.zeros((0, 2))
    except (ValueError, TypeError, IndexError) as error:
        raise AnnotationError(f"{path}: a ring that is not a list of x, y pairs ({error})") from error
    if not np.isfinite(xy).all():
        raise AnnotationError(f"{path}: a coordinate that is not a finite number")
    polygons = Polygons(
        xy=np.ascontiguousarray(xy),
        ring_starts=np.concatenate([[0], np.cumsum([len(r) for r in columns.rings], dtype=np.int64)]).astype(np.int64),
        polygon_starts=np.concatenate([[0], np.cumsum(columns.rings_of, dtype=np.int64)]).astype(np.int64),
    )
    return Annotations.of(
        polygons,
        np.array([index[n] for n in columns.names], np.int64),
        classes=names,
        kind=kind,
        points_l0=np.array(columns.points, np.float64).reshape(-1, 2),
        unclassified=columns.unclassified,
        other_kind=columns.other_kind,
    )
