"""QuPath GeoJSON to records, and to Annotations (RFC 7946; properties as QuPath 0.2 and later write
them).

Coordinates are level-0 px. QuPath writes rectangles and ellipses as polygons; "isEllipse" changes
nothing, the outline counts. For a cell it writes "nucleusGeometry" next to the border; the border
is used. Features in the list "childObjects" of a feature are features as well. The parts of a
GeometryCollection are those of one object, as in a MultiPolygon.
https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.formats.qupath import is_core, left_out_note, meaning_of
from quadrat.annotations.formats.text import parse_json, unpacked
from quadrat.annotations.record import Record, Rings, Sheet, faulty, to_annotations
from quadrat.annotations.types import Kind
from quadrat.core.errors import AnnotationError
from quadrat.core.text import not_utf8

_DRAWN = ("Polygon", "MultiPolygon", "Point", "MultiPoint")
_COLLECTION = "GeometryCollection"
_PROBABILITY = ("Detection probability", "Probability")
_DEEPEST = 50
"""So many levels of features in features, or of collections in collections, are gone through."""


def read_geojson(path: Path) -> Sheet:
    """The records of a QuPath GeoJSON file: a FeatureCollection, a bare list, or one feature per
    line.

    ``feature N`` counts from 1, and so does ``child N`` in it. A feature without objectType has no
    stated kind. Tiles and TMA cores are left out, which is noted.

    Raises:
        AnnotationError: the file is not GeoJSON, or is truncated. (A broken feature is a record
            with a fault.)
    """
    records: list[Record] = []
    aside = Counter[str]()
    for number, top in enumerate(_features(path), start=1):
        for place, feature in _with_children(top, f"feature {number}"):
            record = _record(feature, place)
            if isinstance(record, Record):
                records.append(record)
            else:
                aside[record] += 1
    notes = tuple(left_out_note(n, "features", sort) for sort, n in aside.items())
    return Sheet(str(path), "QuPath GeoJSON", tuple(records), left_out=aside.total(), notes=notes)


@dataclass(frozen=True, slots=True)
class Roi:
    """A part of a slide that was drawn to be looked at by itself."""

    record: Record
    """Its outline, its class and its place in the file."""
    title: str
    """What it is called, apart from its class; "" for none."""
    core: bool = False
    """It is a core of a tissue microarray."""
    missing: bool = False
    """The core is marked as missing."""


def read_rois(path: Path) -> tuple[list[Roi], tuple[str, ...]]:
    """The annotations and the TMA cores of a QuPath GeoJSON file, in its order, and sentences on
    what was left out. A feature without objectType is an annotation, as in QuPath.

    Raises:
        AnnotationError: the file is not GeoJSON, or a geometry in it cannot be used (a ring that is
            not closed, ...).
    """
    rois: list[Roi] = []
    aside = Counter[str]()
    for number, top in enumerate(_features(path), start=1):
        for place, feature in _with_children(top, f"feature {number}"):
            stated = _object_type(feature) if isinstance(feature, dict) else None
            core = stated is not None and is_core(stated)
            record = _record(_as_annotation(feature) if core else feature, place)
            if isinstance(record, str) or record.kind == "object":
                aside[record if isinstance(record, str) else str(stated)] += 1
            elif record.fault is not None:
                raise AnnotationError(f"{path}, {place}: {record.fault.text}")
            elif len(record.points):
                aside["points"] += 1
            else:
                properties = feature.get("properties") or {}
                title, missing = properties.get("name"), properties.get("isMissing") is True
                rois.append(Roi(record, str(title or ""), core, core and missing))
    notes = (f"{path}: {n} features of the type '{sort}' left out" for sort, n in aside.items())
    return rois, tuple(notes)


def _as_annotation(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties") or {}
    return feature | {"properties": properties | {"objectType": "annotation"}}


def probabilities(path: Path) -> dict[str, float]:
    """How sure a tool was of its objects, by place: the measurement "Detection probability" or
    "Probability", where a feature has one.

    Raises:
        AnnotationError: not such a file, or one is no number from 0 to 1.
    """
    found = {}
    for number, top in enumerate(_features(path), start=1):
        for place, feature in _with_children(top, f"feature {number}"):
            properties = feature.get("properties") if isinstance(feature, dict) else None
            stated = (properties or {}).get("measurements") or {}
            if isinstance(stated, list):  # as QuPath wrote it before 0.4
                stated = {m["name"]: m["value"] for m in stated if {"name", "value"} <= set(m)}
            own = next((stated[name] for name in _PROBABILITY if name in stated), None)
            if own is None:
                continue
            if not isinstance(own, int | float) or not 0 <= own <= 1:
                raise AnnotationError(f"{path}, {place}: its probability is {own}, not 0 to 1")
            found[place] = float(own)
    return found


def records_of(path: Path, *, kind: Kind) -> list[Record]:
    """The records of one kind. A feature without objectType belongs to any kind.

    Raises:
        AnnotationError: not such a file, or a feature with a geometry that cannot be used.
    """
    records = read_geojson(path).records
    broken = next((record for record in records if record.fault), None)
    if broken is not None and broken.fault is not None:
        raise AnnotationError(f"{path.name}, {broken.place}: {broken.fault.text}")
    return [record for record in records if record.kind in (kind, None)]


def load_annotations(path: Path, *, kind: Kind = "object", unclassified: str = "") -> Annotations:
    """The objects or the regions of a QuPath GeoJSON file, as drawn.

    A MultiPolygon is one object with one entry per part. Holes are kept. A Point is a point entry.
    Classes are the names found, sorted. A feature without class gets the class ``unclassified``, or
    is left out if that is empty.

    Raises:
        AnnotationError: see ``records_of``.
    """
    named = [(record, record.name or unclassified) for record in records_of(path, kind=kind)]
    taken = [(record, name) for record, name in named if name]
    classes = sorted({name for _, name in taken})
    index = {name: number for number, name in enumerate(classes)}
    records, names = [record for record, _ in taken], [name for _, name in taken]
    return to_annotations(records, [index[name] for name in names], classes=classes, kind=kind)


def _features(path: Path) -> Iterator[Any]:
    """Features one by one. A file with one feature per line is not parsed as a whole, so memory
    stays low."""
    try:
        with unpacked(path) as content, TextIOWrapper(content, encoding="utf-8-sig") as stream:
            first, second = stream.readline(), stream.readline()
            stream.seek(0)
            by_line = _item(second) is not None and _item(first) is not None
            yield from _newline_delimited(stream, path) if by_line else _listed(stream, path)
    except UnicodeDecodeError as error:
        raise AnnotationError(not_utf8(path, error)) from error


def _newline_delimited(stream: TextIO, path: Path) -> Iterator[Any]:
    """Features of a file without a list around them."""
    for number, line in enumerate(stream, start=1):
        item = _item(line)
        if item is not None:
            yield item
        elif line.strip():
            raise AnnotationError(f"{path}: line {number} is not one whole feature")


def _listed(stream: TextIO, path: Path) -> Iterator[Any]:
    """Features of a list or a FeatureCollection: line by line as long as each line is one feature,
    the others from the whole text."""
    opening = stream.readline()
    done = 0
    for line in stream if _opens(opening) else ():
        item = _item(line)
        if item is not None:
            yield item
            done += 1
        elif line.lstrip().startswith("]") and _json(opening + line + stream.read()) is not None:
            return
        elif line.strip():
            break
    stream.seek(0)
    whole = parse_json(stream.read(), path)
    if isinstance(whole, dict) and whole.get("type") == "Feature":
        whole = [whole]
    features = whole.get("features") if isinstance(whole, dict) else whole
    if not isinstance(features, list):
        raise AnnotationError(
            f"{path}: not GeoJSON: want a FeatureCollection, a Feature or a list of Features"
        )
    yield from features[done:]


def _opens(line: str) -> bool:
    """Whether a line opens the file's list of features and holds none of them."""
    if not line.rstrip().endswith("["):
        return False
    whole = _json(f"{line}]}}")
    return _json(f"{line}]") == [] or (isinstance(whole, dict) and whole.get("features") == [])


def _item(line: str) -> dict[str, Any] | None:
    """The JSON object of a line (with or without the comma to the next); None if the line is not
    one whole object."""
    line = line.strip().removesuffix(",")
    item = _json(line) if line.startswith("{") and line.endswith("}") else None
    return item if isinstance(item, dict) else None


def _json(text: str) -> Any:
    """The content of a JSON text; None if it cannot be parsed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _with_children(feature: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """A feature and the features in it, each with its place."""
    yield place, feature
    children = feature.get("childObjects") if isinstance(feature, dict) else None
    if children is None:
        return
    if not isinstance(children, list) or depth == _DEEPEST:
        yield f"{place}, childObjects", None  # no feature, which becomes the fault of a record
        return
    for number, child in enumerate(children, start=1):
        yield from _with_children(child, f"{place}, child {number}", depth + 1)


def _record(feature: Any, place: str) -> Record | str:
    """The record of one feature; its type if that is neither object nor region (a tile, a TMA core,
    the root)."""
    if not isinstance(feature, dict) or not isinstance(feature.get("properties") or {}, dict):
        return faulty(place, "", "not a GeoJSON Feature")
    stated = _object_type(feature)
    meaning = None if stated is None else meaning_of(stated)
    if stated is not None and meaning == "aside":
        return stated
    kind: Kind | None = meaning if meaning in ("object", "region") else None
    name = ""
    try:
        name = _class_name(feature)
        parts, points = _geometry(feature.get("geometry"))
    except _BrokenError as error:
        return faulty(place, name, str(error), kind=kind)
    if meaning == "unknown":
        text = f"its objectType is '{stated}'; want annotation, detection, cell, or none at all"
        return faulty(place, name, text, code="unknown type")
    return Record(place, name, kind, parts, points)


class _BrokenError(Exception):
    """A feature that cannot be understood. It becomes the fault of its record."""


def _object_type(feature: dict[str, Any]) -> str | None:
    properties = feature.get("properties") or {}
    stated = properties.get("objectType") or properties.get("object_type")
    if stated is None and str(feature.get("id", "")).startswith(("Path", "TMACore")):
        stated = feature["id"]
    return None if stated is None else str(stated)


def _class_name(feature: dict[str, Any]) -> str:
    classification = (feature.get("properties") or {}).get("classification")
    if classification is None:
        return ""
    name = classification.get("name") if isinstance(classification, dict) else classification
    if (
        name is None
        and isinstance(classification, dict)
        and isinstance(classification.get("names"), list)
    ):
        # QuPath 0.5 writes derived classes as a list
        name = ": ".join(map(str, classification["names"]))
    if not isinstance(name, str) or not name:
        raise _BrokenError("properties.classification has no name")
    return name


def _geometry(geometry: Any, depth: int = 0) -> tuple[tuple[Rings, ...], Any]:
    """(parts, points) of a GeoJSON geometry."""
    sort = geometry.get("type") if isinstance(geometry, dict) else None
    if sort == _COLLECTION:
        return _collected(geometry.get("geometries"), depth)
    if sort not in _DRAWN:
        raise _BrokenError(
            f"geometry {sort!r} has no area; want {', '.join(_DRAWN)} or a {_COLLECTION} of them"
        )
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or not coordinates:
        raise _BrokenError(f"a {sort} without coordinates")
    if sort in ("Point", "MultiPoint"):
        return (), _pairs([coordinates] if sort == "Point" else coordinates)
    return tuple(
        _rings(part) for part in ([coordinates] if sort == "Polygon" else coordinates)
    ), np.zeros((0, 2))


def _collected(geometries: Any, depth: int) -> tuple[tuple[Rings, ...], Any]:
    """(parts, points) of all geometries of a collection: the parts of one object, or points."""
    if not isinstance(geometries, list) or not geometries:
        raise _BrokenError(f"a {_COLLECTION} without geometries")
    if depth == _DEEPEST:
        raise _BrokenError(f"collections nested more than {_DEEPEST} deep")
    found = [_geometry(geometry, depth + 1) for geometry in geometries]
    parts = tuple(part for own, _ in found for part in own)
    points = np.concatenate([own for _, own in found])
    if parts and len(points):
        raise _BrokenError(
            f"a {_COLLECTION} of outlines and points: one feature is one or the other; draw two"
        )
    return parts, points


def _rings(part: Any) -> Rings:
    if not isinstance(part, list) or not part:
        raise _BrokenError("a polygon without a ring")
    rings = tuple(_pairs(ring) for ring in part)
    for ring in rings:
        if len(ring) < 4 or (ring[0] != ring[-1]).any():
            raise _BrokenError(f"a ring of {len(ring)} points that is not closed (want 4 or more)")
    return rings


def _pairs(values: Any) -> Any:
    """x, y (k, 2) float64 of a list of positions. A third coordinate is ignored."""
    try:
        pairs = np.asarray(values, np.float64)
        if pairs.size == 0:
            return np.zeros((0, 2))
        pairs = np.ascontiguousarray(pairs[:, :2])
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise _BrokenError(f"coordinates that are not a list of x, y pairs ({error})") from error
    if pairs.shape[1] != 2 or not np.isfinite(pairs).all():
        raise _BrokenError("a coordinate that is not a finite number")
    return pairs
