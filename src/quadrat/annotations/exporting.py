"""Records written in formats that other programs read. Read back, they give the same classes and
shapes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from quadrat.annotations.faults import extent
from quadrat.annotations.formats.rle import compress, runs_of_mask
from quadrat.annotations.formats.table import Entry
from quadrat.annotations.record import Record, Rings, to_annotations
from quadrat.annotations.shapes import geometry_of, shape_name
from quadrat.annotations.types import F64
from quadrat.core.errors import AnnotationError
from quadrat.core.files import write_file
from quadrat.core.geometry import Box, Scale

CSV_COLUMNS = (
    *("slide", "case", "split", "source", "place", "class", "kind", "shape", "crowd"),
    *("x", "y", "x0", "y0", "x1", "y1", "wkt"),
)
_OBJECT_TYPES = {"object": "detection", "region": "annotation", None: None}


def write_geojson(path: Path, entry: Entry) -> None:
    """One slide as QuPath reads it: objects as detections, regions as annotations, one feature per
    line."""
    features = (json.dumps(_feature(record), ensure_ascii=False) for record in _drawn(entry))
    text = '{"type":"FeatureCollection","features":[\n' + ",\n".join(features) + "\n]}\n"
    write_file(path, text)


def _feature(record: Record) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if _OBJECT_TYPES[record.kind]:
        properties["objectType"] = _OBJECT_TYPES[record.kind]
    if record.name:
        properties["classification"] = {"name": record.name}
    return {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(geometry_of(record)),
        "properties": properties,
    }


def write_coco(path: Path, entries: Sequence[Entry], *, pictures: Sequence[str]) -> None:
    """All slides in one COCO file. ``pictures``: the file name of each.

    A point is a keypoint, a box has no segmentation, and a shape with holes is a run-length mask.

    Raises:
        AnnotationError: a polygon with a hole that COCO cannot write, a picture of unknown size, or
            a record without class.
    """
    names = sorted({record.name for entry in entries for record in _drawn(entry)})
    images, annotations = [], list[dict[str, Any]]()
    for number, (entry, picture) in enumerate(zip(entries, pictures, strict=True), start=1):
        if entry.sheet.size is None:
            raise AnnotationError(
                f"{entry.sheet.source}: the size of {picture} is not known, and COCO states it; "
                "give the slide"
            )
        height, width = entry.sheet.size
        images.append({"id": number, "file_name": picture, "width": width, "height": height})
        for record in _drawn(entry):
            where = f"{entry.sheet.source}, {record.place}"
            if not record.name:
                raise AnnotationError(
                    f"{where}: it has no class, and COCO needs one; export to geojson, csv or "
                    "parquet"
                )
            own: dict[str, Any] = {
                "image_id": number,
                "category_id": names.index(record.name) + 1,
                "iscrowd": int(record.crowd),
            }
            if record.kind:
                own["kind"] = record.kind
            bodies = _coco_bodies(record, where, entry.sheet.size)
            annotations += [
                {"id": len(annotations) + 1 + i} | own | body for i, body in enumerate(bodies)
            ]
    categories = [
        {"id": i, "name": name} | _keypoints(entries, name) for i, name in enumerate(names, start=1)
    ]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    write_file(path, json.dumps(whole, ensure_ascii=False))


def _keypoints(entries: Sequence[Entry], name: str) -> dict[str, Any]:
    drawn = any(
        record.name == name and len(record.points) for entry in entries for record in _drawn(entry)
    )
    return {"keypoints": ["centre"], "skeleton": []} if drawn else {}


def _coco_bodies(record: Record, where: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    if len(record.points):
        yield from ({"keypoints": [x, y, 2], "num_keypoints": 1} for x, y in record.points.tolist())
        return
    box = extent(record)
    assert box is not None  # only what draws something is exported
    x0, y0, x1, y1 = box.tolist()
    body = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": float(geometry_of(record).area)}
    if any(len(part) > 1 for part in record.parts):
        body["segmentation"] = _run_lengths(record, where, size)
    elif not record.box:
        body["segmentation"] = [_unclosed(part[0]).ravel().tolist() for part in record.parts]
    yield body


def _unclosed(ring: F64) -> F64:
    """A ring without its last vertex, except where the rest would look closed to a reader."""
    return ring if (ring[0] == ring[-2]).all() else ring[:-1]


def _run_lengths(record: Record, where: str, size: tuple[int, int]) -> dict[str, Any]:
    """A shape with holes as a mask. This is exact only if its outline follows the pixels.

    Raises:
        AnnotationError: the outline does not, or leaves the picture.
    """
    drawn = to_annotations([record], [0], classes=("",), kind="region")
    mask = drawn.regions(Box(0, 0, *size), Scale(1.0, 1.0)) > 0
    if (
        not all(_on_corners(part) for part in record.parts)
        or mask.sum() != geometry_of(record).area
    ):
        raise AnnotationError(
            f"{where}: a polygon with a hole, which COCO cannot write; export to geojson, csv or "
            "parquet"
        )
    return {"size": list(size), "counts": compress(runs_of_mask(mask).tolist())}


def _on_corners(part: Rings) -> bool:
    """Whether all vertices of a polygon lie on corners of pixels."""
    return all(bool((ring == np.floor(ring)).all()) for ring in part)


def write_csv(path: Path, entries: Sequence[Entry]) -> None:
    """All slides in one table. ``wkt`` is the geometry, x and y its centre, x0 to y1 its extent
    (level-0 px)."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for entry in entries:
        for record in _drawn(entry):
            shape, box = geometry_of(record), extent(record)
            centre = shape.centroid
            row = (
                entry.slide,
                entry.case,
                entry.split,
                entry.sheet.source,
                record.place,
                record.name,
                record.kind or "",
            )
            numbers = (centre.x, centre.y, *(box.tolist() if box is not None else ()))
            writer.writerow(
                (
                    *row,
                    shape_name(record),
                    int(record.crowd),
                    *map(repr, numbers),
                    exact_wkt(record),
                )
            )
    write_file(path, stream.getvalue())


def exact_wkt(record: Record) -> str:
    """Well-known text with all digits of every float64 (GEOS writes one too few)."""
    if len(record.points):
        points = [f"({_coordinates([point])})" for point in record.points.tolist()]
        return f"POINT {points[0]}" if len(points) == 1 else f"MULTIPOINT ({', '.join(points)})"
    parts = [
        f"({', '.join(f'({_coordinates(ring.tolist())})' for ring in part)})"
        for part in record.parts
    ]
    return f"POLYGON {parts[0]}" if len(parts) == 1 else f"MULTIPOLYGON ({', '.join(parts)})"


def _coordinates(xy: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{x!r} {y!r}" for x, y in xy)


def _drawn(entry: Entry) -> list[Record]:
    return [record for record in entry.sheet.records if not record.fault]
