"""Outlines of masks and label images along pixel edges. Filled again, they give the same pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.annotations.record import Rings
from quadrat.core.objects import Polygons
from quadrat.core.outlines import trace


def mask_parts(
    mask: npt.NDArray[np.bool_], *, origin: tuple[int, int] = (0, 0)
) -> tuple[Rings, ...]:
    """The 4-connected pieces of a bool (h, w) mask as polygons with holes. ``origin``: (row, col)
    of its first pixel."""
    pieces, count = ndimage.label(mask)
    polygons = trace(pieces.astype(np.int32), n=int(count), origin=origin)
    return tuple(part_of(polygons, k) for k in range(int(count)))


def part_of(polygons: Polygons, index: int) -> Rings:
    """The rings of one polygon."""
    rings = range(polygons.polygon_starts[index], polygons.polygon_starts[index + 1])
    return tuple(polygons.xy[polygons.ring_starts[r] : polygons.ring_starts[r + 1]] for r in rings)


def label_parts(labels: npt.NDArray[np.integer], count: int) -> list[tuple[Rings, ...]]:
    """For each label 1..count of an (h, w) image: its 4-connected pieces as polygons with holes, in
    raster order."""
    parts: list[tuple[Rings, ...]] = []
    for label, place in enumerate(ndimage.find_objects(labels, max_label=count), start=1):
        if place is None:
            parts.append(())
        else:
            parts.append(
                mask_parts(labels[place] == label, origin=(place[0].start, place[1].start))
            )
    return parts
