"""COCO JSON to records: boxes, polygons and run-length masks of one picture in a file of many.

Coordinates are px, and the corner of the first pixel is 0 (https://cocodataset.org/#format-data).
The polygons of a segmentation are the parts of one object and have no holes. The outline of a mask
follows its pixels. A segmentation counts before a box, and a box before the first keypoint, which
is a point. ``iscrowd``: many things in one outline. Ids may be numbers or text: 7 and "7" are one
id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.annotations.formats.kept import kept
from quadrat.annotations.formats.pictures import one_picture
from quadrat.annotations.formats.rle import decompress, mask_of
from quadrat.annotations.formats.text import parse_json, read_text
from quadrat.annotations.outlines import mask_parts
from quadrat.annotations.record import Record, Rings, Sheet, box_record, faulty
from quadrat.annotations.types import Kind
from quadrat.core.errors import AnnotationError

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
"""A whole number as text, spelt in the one way that a program would."""


@dataclass(frozen=True, slots=True)
class _File:
    """A parsed file."""

    pictures: Mapping[str, Mapping[str, Any]]
    """Pictures by file name."""
    annotations: Mapping[Any, tuple[tuple[int, Any], ...]]
    """Number and annotation by the id of the picture."""
    names: Mapping[Any, str]
    """Class names by the id of the category."""


class _BrokenError(Exception):
    """An annotation that cannot be understood. It becomes the fault of its record."""


def read_coco(path: Path, *, picture: str = "", called: str = "") -> Sheet:
    """The records of one picture. ``picture``: its file, "" if there is only one; ``called``: see
    ``one_picture``.

    Raises:
        AnnotationError: not a COCO file, or the picture is not in it.
    """
    file = _parsed(path)
    name = one_picture(list(file.pictures), picture, called=called, where=str(path))
    image = file.pictures[name]
    height, width = image.get("height"), image.get("width")
    size = (
        (height, width)
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
        else None
    )
    records = tuple(
        _record(item, number, file.names, size)
        for number, item in file.annotations.get(_key(image, "id"), ())
    )
    return Sheet(str(path), "COCO", records, size, picture=name)


def pictures_in(path: Path) -> list[str]:
    """The file names of the pictures of a COCO file, in its order."""
    return list(_parsed(path).pictures)


def orphans(path: Path) -> list[str]:
    """Places of the annotations of pictures that the file does not list."""
    file = _parsed(path)
    known = {_key(image, "id") for image in file.pictures.values()}
    return [
        _place(item, number)
        for key, items in file.annotations.items()
        if key not in known
        for number, item in items
    ]


@kept
def _parsed(path: Path) -> _File:
    content = parse_json(read_text(path), path)
    lists: list[Any] = (
        [content.get(key) for key in ("images", "annotations", "categories")]
        if isinstance(content, dict)
        else []
    )
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise AnnotationError(
            f"{path}: no COCO file: want the lists images, annotations and categories"
        )
    images, items, categories = lists
    for what, entries, own in (("image", images, "file_name"), ("category", categories, "name")):
        _need_keys(entries, ("id", own), what, path)
        _need_own_ids(entries, what, path)
    _need_own_ids(items, "annotation", path)
    pictures = {str(image["file_name"]): image for image in images}
    if len(pictures) < len(images):
        raise AnnotationError(
            f"{path}: {len(images) - len(pictures)} pictures have the file name of another; each "
            "needs its own"
        )
    by_picture: dict[Any, list[tuple[int, Any]]] = {}
    for number, item in enumerate(items, start=1):
        by_picture.setdefault(_key(item, "image_id"), []).append((number, item))
    names = {_key(category, "id"): str(category["name"]) for category in categories}
    return _File(pictures, {key: tuple(own) for key, own in by_picture.items()}, names)


def _need_keys(entries: Sequence[Any], keys: Sequence[str], what: str, path: Path) -> None:
    for number, entry in enumerate(entries, start=1):
        missing = [key for key in keys if _key(entry, key) is None]
        if missing:
            raise AnnotationError(
                f"{path}: {what} number {number} has no {' and no '.join(missing)} that is text or "
                "a number"
            )


def _need_own_ids(entries: Sequence[Any], what: str, path: Path) -> None:
    """Refuse two entries of one id: nobody can tell which of them is meant. Entries without an id
    are allowed."""
    first: dict[Any, int] = {}
    for number, entry in enumerate(entries, start=1):
        key = _key(entry, "id")
        if key is not None and first.setdefault(key, number) != number:
            raise AnnotationError(
                f"{path}: {what} numbers {first[key]} and {number} both have the id {key}; each "
                "needs its own"
            )


def _key(entry: Any, name: str) -> Any:
    """The value that a list is searched by; None if it is neither text nor a number. A whole number
    that is written as text ("7") is that number."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return value if isinstance(value, str | int | float) else None


def _place(item: Any, number: int) -> str:
    stated = item.get("id") if isinstance(item, dict) else None
    return f"annotation number {number}" if stated is None else f"annotation {stated}"


def _record(
    item: Mapping[str, Any], number: int, names: Mapping[Any, str], size: tuple[int, int] | None
) -> Record:
    place = _place(item, number)
    name = names.get(_key(item, "category_id"), f"category {item.get('category_id')}")
    stated = item.get("kind")  # quadrat's own export tells objects from regions; COCO does not
    kind: Kind | None = "object" if stated == "object" else "region" if stated == "region" else None
    crowd = bool(item.get("iscrowd"))
    segmentation, box = item.get("segmentation"), item.get("bbox")
    try:
        if segmentation:
            return Record(place, name, kind, _parts(segmentation, size), crowd=crowd)
        if box is not None:
            x, y, width, height = _numbers(box, "bbox", multiple=4)
            return box_record(place, name, (x, y, x + width, y + height), kind=kind)
        x, y, _ = _numbers(item.get("keypoints") or [], "keypoints", multiple=3)[:3]
        return Record(place, name, kind, points=np.array([[x, y]]))
    except _BrokenError as error:
        return faulty(place, name, str(error), kind=kind)
    except ValueError:
        return faulty(place, name, "neither segmentation nor bbox nor keypoints", kind=kind)


def _parts(segmentation: Any, size: tuple[int, int] | None) -> tuple[Rings, ...]:
    if isinstance(segmentation, Mapping):
        return _mask(segmentation, size)
    if not isinstance(segmentation, list) or not all(
        isinstance(ring, list) for ring in segmentation
    ):
        raise _BrokenError(
            "a segmentation that is neither a list of polygons nor a run-length mask"
        )
    parts: list[Rings] = []
    for ring in segmentation:
        pairs = np.array(_numbers(ring, "polygon", multiple=2), np.float64).reshape(-1, 2)
        if len(pairs) < 3:
            raise _BrokenError(f"a polygon of {len(pairs)} points (want 3 or more)")
        parts.append(
            (
                pairs
                if (pairs[0] == pairs[-1]).all() and len(pairs) > 3
                else np.concatenate([pairs, pairs[:1]]),
            )
        )
    return tuple(parts)


def _mask(segmentation: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[Rings, ...]:
    try:
        counts, (height, width) = segmentation["counts"], segmentation["size"]
        if size is not None and (height, width) != size:
            raise _BrokenError(
                f"a run-length mask of {width} x {height} px; its picture has {size[1]} x {size[0]}"
            )
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
    except (TypeError, ValueError, OverflowError) as error:
        raise _BrokenError(f"a {what} that is not a list of finite numbers") from error
    if len(numbers) % multiple or (what == "bbox" and len(numbers) != multiple):
        raise _BrokenError(f"a {what} of {len(numbers)} numbers")
    if not np.isfinite(numbers).all():
        raise _BrokenError(f"a {what} with a number that is not finite")
    return numbers
