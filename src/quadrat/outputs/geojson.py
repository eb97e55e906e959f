"""Objects as GeoJSON as QuPath reads it (https://qupath.readthedocs.io, "Exporting objects").

The file is one valid FeatureCollection with one feature per line, in level-0 px. Feature ids are
version 5 UUIDs (RFC 9562) of slide and object id, so a repeated run writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quadrat.core.files import new_file
from quadrat.core.kernel import kernel
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.core.unit import length, small_area
from quadrat.core.writer import Writer
from quadrat.outputs.objects import (
    check_append,
    object_table,
    outlines_of,
    polygons_of,
    slice_polygons,
)

DECIMALS = 2
"""Coordinates are rounded (half up) to this many decimals of a level-0 px. Trailing zeros are not
written."""
_BATCH = 8_192
_NUMBER_BYTES = 24
_VARIANTS = "89ab"


def feature_ids(slide: str, ids: npt.NDArray[np.int64]) -> Iterator[str]:
    """``uuid5(uuid5(NAMESPACE_URL, "quadrat:" + slide), str(id))`` of each object id, computed
    faster."""
    space = hashlib.sha1(
        uuid.uuid5(uuid.NAMESPACE_URL, f"quadrat:{slide}").bytes, usedforsecurity=False
    )
    for number in ids.tolist():
        digest = space.copy()
        digest.update(b"%d" % number)
        h = digest.hexdigest()
        yield f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANTS[int(h[16], 16) & 3]}{h[17:20]}-{h[20:32]}"


class GeoJSONWriter(Writer):
    """Writes objects as GeoJSON features; a context manager, the file appears when it closes
    without error.

    Args:
        path: the file. frame: the slide's grid, to
        convert to level-0 px and um. classes: the classes, by class_id. slide: the slide's id, the
        name space of the feature ids. object_type: "detection" for objects (QuPath stays quick with
        a million of them), "annotation" for regions.
    """

    def __init__(
        self,
        path: Path,
        *,
        frame: Frame,
        classes: Sequence[ClassInfo],
        slide: str,
        object_type: Literal["detection", "annotation"] = "detection",
    ) -> None:
        self._path, self._frame, self._slide = Path(path), frame, slide
        self.n_classes = len(classes)
        score = "Detection probability" if object_type == "detection" else "Probability"
        self._heads = [_class_json(c, object_type=object_type, score=score) for c in classes]
        unit = frame.unit
        self._sizes = f'"Area {small_area(unit)}":%.3f,"Perimeter {length(unit)}":%.3f'.encode()
        self._first = True

    def _begin(self, stack: ExitStack) -> None:
        self._stream = stack.enter_context(new_file(self._path))
        self._stream.write(b'{"type":"FeatureCollection","features":[\n')

    def _end(self) -> None:
        self._stream.write(b"]}\n" if self._first else b"\n]}\n")

    def append(
        self,
        table: ObjectTable,
        polygons: Polygons,
        nearest: npt.NDArray[np.float32],
        *,
        first_id: int,
    ) -> None:
        """Add objects; arguments as for ``ObjectWriter.append`` (``nearest`` is checked but not
        written here).

        Raises:
            ValueError: parts that do not agree, an object without outline, or a score that is
            not a number.
        """
        check_append(table, polygons, nearest, n_classes=self.n_classes, first_id=first_id)
        if not np.isfinite(table.score).all():
            raise ValueError(
                f"score of object {first_id + int(np.argmin(np.isfinite(table.score)))} is not a "
                "number"
            )
        if (np.diff(polygons.polygon_starts) == 0).any():
            raise ValueError(
                f"object {first_id + int(np.argmin(np.diff(polygons.polygon_starts)))} has no "
                "outline"
            )
        for start in range(0, len(table), _BATCH):
            stop = min(start + _BATCH, len(table))
            part = table.take(np.arange(start, stop))
            ids = np.arange(first_id + start, first_id + stop, dtype=np.int64)
            lines = b",\n".join(self._features(part, slice_polygons(polygons, start, stop), ids))
            self._stream.write(lines if self._first else b",\n" + lines)
            self._first = False

    def _features(
        self, table: ObjectTable, polygons: Polygons, ids: npt.NDArray[np.int64]
    ) -> Iterator[bytes]:
        outlines = coordinates_json(polygons, self._frame)
        classes = table.class_id.tolist()
        scores = table.score.astype(np.float64).tolist()
        areas = (table.area_px * self._frame.mpp**2).tolist()
        perimeters = (table.perimeter_px * self._frame.mpp).tolist()
        columns = zip(
            feature_ids(self._slide, ids), outlines, classes, scores, areas, perimeters, strict=True
        )
        for name, outline, class_id, score, area, perimeter in columns:
            yield (
                b'{"type":"Feature","id":"%b","geometry":{"type":"Polygon","coordinates":%b},'
                b"%b%.4f,%b}}}"
                % (
                    name.encode("ascii"),
                    outline,
                    self._heads[class_id],
                    score,
                    self._sizes % (area, perimeter),
                )
            )


def append_rows(
    writer: GeoJSONWriter,
    rows: pa.Table,
    frame: Frame,
    *,
    first_id: int,
    class_id: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Add rows of an object table, with the columns of ``object_columns`` and the outline.

    ``frame``: that of the writer. ``class_id``: (n,) classes, in place of their own.
    """
    table = object_table(rows, frame)
    if class_id is not None:
        table = replace(table, class_id=class_id)
    outlines = polygons_of(outlines_of(rows))
    xy = frame.scale.from_l0(outlines.xy)
    nearest = np.zeros((len(table), writer.n_classes), np.float32)  # it is not written
    writer.append(table, replace(outlines, xy=xy), nearest, first_id=first_id)


def coordinates_json(polygons: Polygons, frame: Frame) -> Iterator[bytes]:
    """The GeoJSON coordinates of each polygon in level-0 px, with at most two decimals."""
    hundredths = np.floor(frame.scale.to_l0(polygons.xy) * 10**DECIMALS + 0.5).astype(np.int64)
    room = (
        2 * (_NUMBER_BYTES + 2) * len(hundredths)
        + 4 * len(polygons.ring_starts)
        + 4 * len(polygons)
    )
    text = np.empty(room, np.uint8)
    ends = np.empty(len(polygons), np.int64)
    used = _render(hundredths, polygons.ring_starts, polygons.polygon_starts, text, ends)
    data = text[:used].tobytes()
    start = 0
    for end in ends.tolist():
        yield data[start:end]
        start = end


def _class_json(info: ClassInfo, *, object_type: str, score: str) -> bytes:
    """The text between geometry and score, the same for all objects of a class."""
    classification = json.dumps(
        {"name": info.name, "color": list(info.color)}, ensure_ascii=False, separators=(",", ":")
    )
    text = (
        f'"properties":{{"objectType":"{object_type}","classification":{classification},'
        f'"measurements":{{"{score}":'
    )
    return text.encode("utf-8")


@kernel
def _render(
    hundredths: npt.NDArray[np.int64],
    ring_starts: npt.NDArray[np.int64],
    polygon_starts: npt.NDArray[np.int64],
    text: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
) -> int:
    """Write ``[[[x,y],...],...]`` of each polygon as ASCII and fill in the end of each. Returns the
    bytes used."""
    opening, closing, comma = 91, 93, 44
    at = 0
    for polygon in range(len(polygon_starts) - 1):
        text[at] = opening
        at += 1
        for ring in range(polygon_starts[polygon], polygon_starts[polygon + 1]):
            if ring > polygon_starts[polygon]:
                text[at] = comma
                at += 1
            text[at] = opening
            at += 1
            for point in range(ring_starts[ring], ring_starts[ring + 1]):
                if point > ring_starts[ring]:
                    text[at] = comma
                    at += 1
                text[at] = opening
                at = _number(hundredths[point, 0], text, at + 1)
                text[at] = comma
                at = _number(hundredths[point, 1], text, at + 1)
                text[at] = closing
                at += 1
            text[at] = closing
            at += 1
        text[at] = closing
        at += 1
        ends[polygon] = at
    return at


@kernel
def _number(hundredths: int, text: npt.NDArray[np.uint8], at: int) -> int:
    """Write a number of hundredths as a decimal without trailing zeros. Returns the place behind
    it."""
    zero, minus, point = 48, 45, 46
    if hundredths < 0:
        text[at] = minus
        at += 1
        hundredths = -hundredths
    whole, rest = hundredths // 100, hundredths % 100
    digits, value = 1, whole
    while value >= 10:
        value //= 10
        digits += 1
    for i in range(digits):
        text[at + digits - 1 - i] = zero + whole % 10
        whole //= 10
    at += digits
    if rest:
        text[at] = point
        text[at + 1] = zero + rest // 10
        at += 2
        if rest % 10:
            text[at] = zero + rest % 10
            at += 1
    return at
