"""Sizes, places and perimeters of labels as integer sums, which add up exactly over pieces of any
cut.

Perimeter: Cauchy-Crofton with lines in four directions, P = pi / 8 * (N0 + N90 + (N45 + N135) /
sqrt 2). N is the number of transitions between a label and anything else along the lines of a
direction. It is ``skimage.measure.perimeter_crofton`` (after S. Rivollier, PhD thesis, Ecole des
Mines de Saint-Etienne, 2010, https://tel.archives-ouvertes.fr/tel-00560838) for all labels at once.
A transition is counted by the pixel of the label next to it, so each belongs to one piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quadrat.core.columns import Columns
from quadrat.core.kernel import kernel
from quadrat.core.objects import ObjectTable
from quadrat.core.runs import Runs

IntArray = npt.NDArray[np.integer]
"""int32 or uint32, checked where it enters."""
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Moments(Columns):
    """Integer sums of n objects; those of an object's pieces add up to those of the object, in any
    order.

    In grid px of the slide. An object without pixels has area 0, the greatest int64 in ``first``,
    ``row0`` and ``col0``, and the least in the rest.
    """

    area: npt.NDArray[np.int64]
    """(n,) pixels."""
    sums: npt.NDArray[np.int64]
    """(n, 2) sums of pixel rows and columns."""
    bbox: npt.NDArray[np.int64]
    """(n, 4) row0, col0, row1, col1, half-open."""
    first: npt.NDArray[np.int64]
    """(n, 2) row, column of the first pixel in raster order."""
    transitions: npt.NDArray[np.int64]
    """(n, 2) along rows and columns, and along diagonals."""
    value: npt.NDArray[np.int64]
    """(n,) sum of the measured values."""

    COLUMNS: ClassVar = {
        "area": ((), np.int64),
        "sums": ((2,), np.int64),
        "bbox": ((4,), np.int64),
        "first": ((2,), np.int64),
        "transitions": ((2,), np.int64),
        "value": ((), np.int64),
    }

    def __add__(self, other: Moments) -> Moments:
        if len(self) != len(other):
            raise ValueError(f"moments of {len(self)} and {len(other)} objects cannot be added")
        later = (other.first[:, 0] < self.first[:, 0]) | (
            (other.first[:, 0] == self.first[:, 0]) & (other.first[:, 1] < self.first[:, 1])
        )
        low, high = np.minimum(self.bbox, other.bbox), np.maximum(self.bbox, other.bbox)
        return Moments(
            area=self.area + other.area,
            sums=self.sums + other.sums,
            bbox=np.concatenate([low[:, :2], high[:, 2:]], axis=1),
            first=np.where(later[:, None], other.first, self.first),
            transitions=self.transitions + other.transitions,
            value=self.value + other.value,
        )

    def scatter(self, index: npt.NDArray[np.integer], *, n: int) -> Moments:
        """Sums of n objects. Row i is (a piece of) object ``index[i]``, from 0; several rows may
        name the same object."""
        out = Moments.zeros(n)
        np.add.at(out.area, index, self.area)
        np.add.at(out.sums, index, self.sums)
        np.minimum.at(out.bbox[:, :2], index, self.bbox[:, :2])
        np.maximum.at(out.bbox[:, 2:], index, self.bbox[:, 2:])
        np.add.at(out.transitions, index, self.transitions)
        np.add.at(out.value, index, self.value)
        latest_first = np.lexsort((self.first[:, 1], self.first[:, 0]))[::-1]
        # the last write, the earliest pixel, stays
        out.first[index[latest_first]] = self.first[latest_first]
        return out

    @staticmethod
    def zeros(n: int) -> Moments:
        """Moments of n objects without pixels, the neutral element of the sum."""
        return Moments(
            area=np.zeros(n, np.int64),
            sums=np.zeros((n, 2), np.int64),
            bbox=np.tile(np.array([_FAR, _FAR, -_FAR, -_FAR], np.int64), (n, 1)),
            first=np.full((n, 2), _FAR, np.int64),
            transitions=np.zeros((n, 2), np.int64),
            value=np.zeros(n, np.int64),
        )

    @property
    def area_px(self) -> npt.NDArray[np.float64]:
        """(n,) float64, grid px squared."""
        return self.area.astype(np.float64)

    @property
    def centroid(self) -> npt.NDArray[np.float64]:
        """(n, 2) float64 (row, col): mean of pixel centres, in corner-based grid px; nan without
        pixels."""
        area = self.area[:, None]
        return (2 * self.sums + area) / np.where(area > 0, 2.0 * area, np.nan)

    @property
    def perimeter_px(self) -> npt.NDArray[np.float64]:
        """(n,) float64, grid px (Cauchy-Crofton, four directions)."""
        return math.pi / 8 * (self.transitions[:, 0] + self.transitions[:, 1] / math.sqrt(2))

    @property
    def mean_value(self) -> npt.NDArray[np.float64]:
        """(n,) float64 mean of the measured values; nan without pixels."""
        return self.value / np.where(self.area > 0, self.area, np.nan)

    def table(
        self,
        *,
        class_id: npt.NDArray[np.uint8],
        score: npt.NDArray[np.float32],
        anchor: npt.NDArray[np.int64] | None = None,
        flags: npt.NDArray[np.uint8] | None = None,
    ) -> ObjectTable:
        """Object table of these sums. The anchor is the first pixel in raster order unless given;
        flags are 0 unless given."""
        if (self.area == 0).any():
            raise ValueError(
                f"object {int(np.argmin(self.area))} has no pixels and cannot stand in an object "
                "table"
            )
        return ObjectTable(
            anchor=self.first if anchor is None else anchor,
            class_id=class_id,
            score=score,
            bbox=self.bbox.astype(np.float64),
            centroid=self.centroid,
            area_px=self.area_px,
            perimeter_px=self.perimeter_px,
            flags=np.zeros(len(self), np.uint8) if flags is None else flags,
        )


def measure(
    labels: IntArray,
    *,
    n: int,
    origin: tuple[int, int],
    values: npt.NDArray[np.unsignedinteger] | None = None,
) -> Moments:
    """Moments of each label 1..n of a complete (h, w) array. What lies outside counts as another
    label.

    Args:
        labels: (h, w) int32 or uint32, 0 is background; row i of the result is label i + 1.
        n: number of labels.
        origin: (row, col) of ``labels[0, 0]`` in grid px.
        values: (h, w) uint8 or uint16, summed for each label, such as quantised scores; 0 if not
            given.

    Raises:
        ValueError: a label outside 0..n, or shapes that do not agree.
    """
    return measure_piece(np.pad(labels, 1), n=n, origin=origin, values=values)


def measure_piece(
    labels: IntArray,
    *,
    n: int,
    origin: tuple[int, int],
    values: npt.NDArray[np.unsignedinteger] | None = None,
    classes: npt.NDArray[np.uint8] | None = None,
) -> Moments:
    """As ``measure`` for one piece: ``labels`` is (h + 2, w + 2) with one pixel of true context on
    each side.

    ``origin`` is the (row, col) of ``labels[1, 1]``. ``values`` has the shape of the piece without
    context.

    Transitions are counted between labels, so a label must mean the same in all pieces. This does
    not hold for regions of a class map that were labelled piece by piece: two that meet only at a
    corner here may be one elsewhere. For them pass ``classes``, uint8 of the shape of ``labels``.
    Then transitions are counted between classes, which is the same except for such corners, and
    adds up.
    """
    if labels.ndim != 2 or labels.dtype not in (np.int32, np.uint32) or min(labels.shape) < 2:
        raise ValueError(
            f"labels is {labels.dtype}{labels.shape}, want int32 or uint32 (h + 2, w + 2)"
        )
    shape = labels.shape[0] - 2, labels.shape[1] - 2
    if values is None:
        values = np.broadcast_to(np.uint8(0), shape)
    if values.shape != shape or values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"values is {values.dtype}{values.shape}, want uint8 or uint16 {shape}")
    if classes is not None and (classes.shape != labels.shape or classes.dtype != np.uint8):
        raise ValueError(f"classes is {classes.dtype}{classes.shape}, want uint8{labels.shape}")
    own = np.ascontiguousarray(labels).view(np.int32)
    sides = own if classes is None else np.ascontiguousarray(classes)
    out = Moments.zeros(n)
    sums = out.area, out.sums, out.bbox, out.first, out.transitions, out.value
    wrong = _accumulate(own, sides, np.ascontiguousarray(values), *sums)
    if wrong:
        raise ValueError(f"labels holds {wrong}, want 0 to {n}")
    _shift(out, origin)
    return out


def _shift(moments: Moments, origin: tuple[int, int]) -> None:
    """From the coordinates of the piece to grid px."""
    some = moments.area > 0
    moments.sums[:] += moments.area[:, None] * np.array(origin)
    moments.bbox[some] += np.array([*origin, *origin])
    moments.first[some] += np.array(origin)


def measure_runs(
    padded: npt.NDArray[np.int32],
    maps: npt.NDArray[np.uint8],
    runs: Runs,
    *,
    n: int,
    origin: tuple[int, int],
) -> tuple[Moments, npt.NDArray[np.int64]]:
    """As ``measure``, but only objects are visited. Also the sums of each channel over each object.

    Args:
        padded: (h + 2, w + 2) int32, labels 0..n with one pixel of context on each side.
        maps: (channels, h, w) uint8.
        runs: the runs of the labels in grid px, in raster order.
        n: number of labels.
        origin: (row, col) in grid px of ``padded[1, 1]``.

    Returns:
        Moments of each label, and int64 (channels, n).
    """
    if padded.shape != (maps.shape[1] + 2, maps.shape[2] + 2):
        raise ValueError(
            f"labels have shape {padded.shape}, want {(maps.shape[1] + 2, maps.shape[2] + 2)}"
        )
    out, channels = Moments.zeros(n), np.zeros((n, len(maps)), np.int64)
    places = np.stack(
        [runs.object, runs.row - origin[0], runs.col0 - origin[1], runs.col1 - origin[1]]
    )
    _accumulate_runs(
        padded, maps, places, out.area, out.sums, out.bbox, out.first, out.transitions, channels
    )
    _shift(out, origin)
    return out, np.ascontiguousarray(channels.T)


def nearest_distances(
    centroid_um: npt.NDArray[np.float64], class_id: npt.NDArray[np.uint8], n_classes: int
) -> npt.NDArray[np.float32]:
    """Distance in um from each object to the nearest other object of each class.

    Args:
        centroid_um: (n, 2) float64 centroids in um.
        class_id: (n,) uint8, below ``n_classes``.
        n_classes: number of classes, the columns of the result.

    Returns:
        (n, n_classes) float32; nan if there is no (other) object of the class.
    """
    out = np.full((len(centroid_um), n_classes), np.nan, np.float32)
    for target in range(n_classes):
        own = class_id == target
        if not own.any():
            continue
        tree = cKDTree(centroid_um[own])
        for start in range(0, len(out), _QUERY):
            some = slice(start, start + _QUERY)
            mine, points = own[some], centroid_um[some]
            found = np.full(len(points), np.nan)
            if not mine.all():
                found[~mine] = tree.query(points[~mine], k=1)[0]
            if tree.n > 1 and mine.any():
                found[mine] = tree.query(points[mine], k=2)[0][:, 1]
            out[some, target] = found
    return out


_QUERY = 1 << 17
"""Objects per query; this bounds its memory."""


@kernel
def _accumulate(
    labels: npt.NDArray[np.int32],
    sides: npt.NDArray[np.integer],
    values: npt.NDArray[np.unsignedinteger],
    area: npt.NDArray[np.int64],
    sums: npt.NDArray[np.int64],
    bbox: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    transitions: npt.NDArray[np.int64],
    value: npt.NDArray[np.int64],
) -> int:
    """Add up the pixels of a piece in its own coordinates. Returns the first label out of range,
    else 0."""
    n = len(area)
    for r in range(labels.shape[0] - 2):
        for c in range(labels.shape[1] - 2):
            a = labels[r + 1, c + 1]
            if a == 0:
                continue
            if a < 0 or a > n:
                return int(a)
            i = a - 1
            if area[i] == 0:
                first[i, 0], first[i, 1] = r, c
            area[i] += 1
            sums[i, 0] += r
            sums[i, 1] += c
            value[i] += values[r, c]
            bbox[i, 0], bbox[i, 1] = min(bbox[i, 0], r), min(bbox[i, 1], c)
            bbox[i, 2], bbox[i, 3] = max(bbox[i, 2], r + 1), max(bbox[i, 3], c + 1)
            up, here, down = sides[r], sides[r + 1], sides[r + 2]
            b = here[c + 1]
            transitions[i, 0] += (
                (up[c + 1] != b) + (down[c + 1] != b) + (here[c] != b) + (here[c + 2] != b)
            )
            transitions[i, 1] += (
                (up[c] != b) + (up[c + 2] != b) + (down[c] != b) + (down[c + 2] != b)
            )
    return 0


@kernel
def _accumulate_runs(
    padded: npt.NDArray[np.int32],
    maps: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
    area: npt.NDArray[np.int64],
    sums: npt.NDArray[np.int64],
    bbox: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    transitions: npt.NDArray[np.int64],
    channels: npt.NDArray[np.int64],
) -> None:
    """Add up the pixels of raster-ordered runs (object, row, col0, col1)."""
    for k in range(places.shape[1]):
        i, r, start, stop = places[0, k], places[1, k], places[2, k], places[3, k]
        if area[i] == 0:
            first[i, 0], first[i, 1] = r, start
        n = np.int64(stop) - start
        area[i] += n
        sums[i, 0] += n * r
        sums[i, 1] += n * (np.int64(start) + stop - 1) // 2
        bbox[i, 0], bbox[i, 1] = min(bbox[i, 0], r), min(bbox[i, 1], start)
        bbox[i, 2], bbox[i, 3] = max(bbox[i, 2], r + 1), max(bbox[i, 3], stop)
        b = i + 1
        up, down = padded[r], padded[r + 2]
        straight, diagonal = 2, 0
        for c in range(start, stop):
            straight += (up[c + 1] != b) + (down[c + 1] != b)
            diagonal += (up[c] != b) + (up[c + 2] != b) + (down[c] != b) + (down[c + 2] != b)
        transitions[i, 0] += straight
        transitions[i, 1] += diagonal
        for channel in range(maps.shape[0]):
            line = maps[channel, r]
            total = 0
            for c in range(start, stop):
                total += line[c]
            channels[i, channel] += total
