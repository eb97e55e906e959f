"""The truth as GeoJSON that QuPath reads: one feature per line, nuclei as detections, regions as
annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from quadrat.core.kernel import kernel
from quadrat.phantom.noise import hash3
from quadrat.phantom.outlines import trace
from quadrat.phantom.spec import NUCLEUS_COLOURS, NUCLEUS_NAMES, REGION_COLOURS, REGION_NAMES

Point = tuple[int, int]


def nucleus_line(seed: int, number: int, kind: int, ring: NDArray[np.int32]) -> str:
    """One nucleus as a line of JSON. number: its 1-based id; ring: (n, 2) of (x, y) in level-0 px,
    open."""
    return _line(
        seed,
        number,
        "detection",
        NUCLEUS_NAMES[kind],
        NUCLEUS_COLOURS[kind],
        [_closed(ring.tolist())],
    )


def region_lines(
    seed: int, number: int, codes: NDArray[np.uint8], reduction: int, size: Point
) -> Iterator[str]:
    """Each 4-connected piece of each region class as a line of JSON, numbered from `number` on.

    codes: the region map; reduction: level-0 px of a cell; size: (width, height) of the slide,
    which clips the last cells.
    """
    for code, name in enumerate(REGION_NAMES, start=1):
        for loops in _pieces(codes == code):
            rings = [
                _closed(
                    [[min(x * reduction, size[0]), min(y * reduction, size[1])] for x, y in loop]
                )
                for loop in loops
            ]
            yield _line(seed, number, "annotation", name, REGION_COLOURS[code - 1], rings)
            number += 1


def _line(
    seed: int,
    number: int,
    kind: str,
    name: str,
    colour: tuple[int, int, int],
    rings: list[list[list[int]]],
) -> str:
    identity = UUID(
        int=(hash3(seed, number, 0, 201) << 64) | hash3(seed, number, 1, 201), version=4
    )
    feature = {
        "type": "Feature",
        "id": str(identity),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": kind, "classification": {"name": name, "color": list(colour)}},
    }
    return json.dumps(feature, separators=(",", ":"))


def _closed(ring: list[list[int]]) -> list[list[int]]:
    return [*ring, ring[0]]


def _pieces(mask: NDArray[np.bool_]) -> Iterator[list[list[Point]]]:
    """The 4-connected pieces of a mask, each as its outer loop and then its holes, along cell
    edges."""
    names, count = label(mask)
    points, starts, owners = _all_rings(np.pad(names.astype(np.int32), 1))
    loops: list[list[list[Point]]] = [[] for _ in range(count)]
    for k, owner in enumerate(owners):
        ring = [(x - 1, y - 1) for x, y in points[starts[k] : starts[k + 1]].tolist()]
        loops[owner - 1] += _simple_loops(ring)
    for piece in loops:
        yield sorted(piece, key=_twice_area, reverse=True)


def _simple_loops(ring: list[Point]) -> list[list[Point]]:
    """Split a ring that touches itself in corners into loops that do not."""
    loops: list[list[Point]] = []
    path: list[Point] = []
    seen: dict[Point, int] = {}
    for point in ring:
        if point in seen:
            first = seen[point]
            loops.append(path[first:])
            for gone in path[first + 1 :]:
                del seen[gone]
            del path[first + 1 :]
        else:
            seen[point] = len(path)
            path.append(point)
    return [*loops, path]


def _twice_area(loop: list[Point]) -> int:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, [*loop[1:], loop[0]], strict=True))


@kernel
def _all_rings(
    names: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Every outline of every labelled piece of an array with an empty rim: points, starts, and
    owners."""
    rows, cols = names.shape
    done = np.zeros(names.shape, np.bool_)
    edges = 0
    for r in range(1, rows):
        for c in range(1, cols):
            edges += (names[r, c] != names[r, c - 1]) + (names[r, c] != names[r - 1, c])
    points = np.zeros((edges + 1, 2), np.int32)
    starts = np.zeros(edges + 2, np.int64)
    owners = np.zeros(edges + 1, np.int32)
    rings = 0
    for r in range(1, rows - 1):
        for c in range(1, cols - 1):
            owner = names[r, c]
            if owner == 0 or names[r - 1, c] == owner or done[r, c]:
                continue
            first = starts[rings]
            count, _ = trace(names, owner, c, r, points[first:], done)
            owners[rings] = owner
            starts[rings + 1] = first + count
            rings += 1
    return points[: starts[rings]], starts[: rings + 1], owners[:rings]
