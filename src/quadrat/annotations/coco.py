"""COCO JSON -> records: boxes, polygons and run-length masks, of one picture out of many in a file.

Coordinates are px with the corner of the first pixel at 0 (https://cocodataset.org/#format-data). The polygons of a
segmentation are the parts of one object, and have no holes; a mask's outline follows its pixels. Where there is a
segmentation it counts, else the box, else the first keypoint, which is a point. ``iscrowd``: many things in one outline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.annotations import Kind
from quadrat.annotations.outlines import mask_parts
from quadrat.annotations.pictures import same_pictures
from quadrat.annotations.record import Problem, Record, Rings, Sheet, box_record
from quadrat.annotations.rle import decompress, mask_of
from quadrat.annotations.text import parse_json
from quadrat.errors import AnnotationError

_FILES = 4
"""Parsed files that are kept, because one file serves many slides."""


@dataclass(frozen=True, slots=True)
class _File:
    """A parsed file: pictures by file name, their annotations by picture id, class names by category id."""

    pictures: Mapping[str, Mapping[str, Any]]
    annotations: Mapping[Any, tuple[tuple[int, Any], ...]]
    names: Mapping[Any, str]


class _BrokenError(Exception):
    """An annotation that cannot be understood; becomes the fault of its record."""


def read_coco(path: Path, *, picture: str = "", called: str = "") -> Sheet:
    """The records of one picture; ``picture``: its file, "" where there is only one; ``called``: see ``same_pictures``.

    Raises:
        AnnotationError: no COCO file, or the picture is not in it.
    """
    file = _parsed(path)
    names = same_pictures(list(file.pictures), picture, called=called) if picture else list(file.pictures)
    if len(names) != 1:
        shown = ", ".join(list(file.pictures)[:3]) + (", ..." if len(file.pictures) > 3 else "")
        what = f"no picture {picture}" if picture and not names else f"{len(names)} pictures {picture}".rstrip()
        raise AnnotationError(f"{path}: {what} among its {len(file.pictures)} ({shown}); one must have the slide's file name")
    image = file.pictures[names[0]]
    records = tuple(_record(item, number, file) for number, item in file.annotations.get(image.get("id"), ()))
    height, width = image.get("height"), image.get("width")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None
    return Sheet(str(path), "COCO", records, size, picture=names[0])


def pictures_in(path: Path) -> list[str]:
    """The file names of a COCO file's pictures, in its order."""
    return list(_parsed(path).pictures)


def orphans(path: Path) -> list[str]:
    """Places of the annotations whose picture the file does not list."""
    file = _parsed(path)
    known = {image.get("id") for image in file.pictures.values()}
    return [_place(item, number) for key, items in file.annotations.items() if key not in known for number, item in items]


def _parsed(path: Path) -> _File:
    try:
        stat = path.stat()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _parse(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=_FILES)
def _parse(path: Path, changed: int, length: int) -> _File:
    content = parse_json(path)
    lists: list[Any] = [content.get(key) for key in ("images", "annotations", "categories")] if isinstance(content, dict) else []
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise AnnotationError(f"{path}: no COCO file: want the lists images, annotations and categories")
    images, items, categories = lists
    try:
        pictures = {str(image["file_name"]): image for image in images}
        names = {category["id"]: str(category["name"]) for category in categories}
    except (KeyError, TypeError) as error:
        raise AnnotationError(f"{path}: an image without file_name or a category without id and name ({error!r})") from error
    if len(pictures) < len(images):
        raise AnnotationError(f"{path}: {len(images) - len(pictures)} pictures have the file name of another; each needs its own")
    by_picture: dict[Any, list[tuple[int, Any]]] = {}
    for number, item in enumerate(items, start=1):
        key = item.get("image_id") if isinstance(item, dict) else None
        by_picture.setdefault(key, []).append((number, item))
    return _File(pictures, {key: tuple(own) for key, own in by_picture.items()}, names)


def _place(item: Any, number: int) -> str:
    stated = item.get("id") if isinstance(item, dict) else None
    return f"annotation number {number}" if stated is None else f"annotation {stated}"


def _record(item: Mapping[str, Any], number: int, file: _File) -> Record:
    place, category = _place(item, number), item.get("category_id")
    name = file.names.get(category, f"category {category}")
    stated = item.get("kind")  # quadrat's own export tells objects from regions; COCO does not
    kind: Kind | None = "object" if stated == "object" else "region" if stated == "region" else None
    crowd = bool(item.get("iscrowd"))
    segmentation, box = item.get("segmentation"), item.get("bbox")
    try:
        if segmentation:
            return Record(place, name, kind, _parts(segmentation), crowd=crowd)
        if box is not None:
            x, y, width, height = _numbers(box, "bbox", multiple=4)
            return box_record(place, name, (x, y, x + width, y + height), kind=kind)
        x, y, _ = _numbers(item.get("keypoints") or [], "keypoints", multiple=3)[:3]
        return Record(place, name, kind, points=np.array([[x, y]]))
    except _BrokenError as error:
        return Record(place, name, kind, fault=Problem("no geometry", str(error)))
    except ValueError:
        return Record(place, name, kind, fault=Problem("no geometry", "neither segmentation nor bbox nor keypoints"))


def _parts(segmentation: Any) -> tuple[Rings, ...]:
    if isinstance(segmentation, Mapping):
        return _mask(segmentation)
    if not isinstance(segmentation, list) or not all(isinstance(ring, list) for ring in segmentation):
        raise _BrokenError("a segmentation that is neither a list of polygons nor a run-length mask")
    parts: list[Rings] = []
    for ring in segmentation:
        pairs = np.array(_numbers(ring, "polygon", multiple=2), np.float64).reshape(-1, 2)
        if len(pairs) < 3:
            raise _BrokenError(f"a polygon of {len(pairs)} points (want 3 or more)")
        parts.append((pairs if (pairs[0] == pairs[-1]).all() and len(pairs) > 3 else np.concatenate([pairs, pairs[:1]]),))
    return tuple(parts)


def _mask(segmentation: Mapping[str, Any]) -> tuple[Rings, ...]:
    try:
        counts, (height, width) = segmentation["counts"], segmentation["size"]
        runs = decompress(counts) if isinstance(counts, str) else np.array(counts, np.int64)
        mask, origin = mask_of(runs, (int(height), int(width)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _BrokenError(f"a run-length mask that makes no sense ({error})") from error
    if mask.size == 0:
        raise _BrokenError("a run-length mask without a pixel")
    return mask_parts(mask, origin=origin)


def _numbers(values: Any, what: str, *, multiple: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise _BrokenError(f"a {what} that is not a list of numbers") from error
    if len(numbers) % multiple or (what == "bbox" and len(numbers) != multiple):
        raise _BrokenError(f"a {what} of {len(numbers)} numbers")
    if not np.isfinite(numbers).all():
        raise _BrokenError(f"a {what} with a number that is not finite")
    return numbers
