"""Label images (PNG, TIFF, OME-Zarr; 8, 16 or 32 bits) as a source of truth: one pixel is one
level-0 px."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.drawn import points_inside
from quadrat.annotations.extents import Extents
from quadrat.annotations.formats.pixels import labels_in, read_pixels
from quadrat.annotations.types import F64, Ids, Kind
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.core.kernel import kernel

_LOOKUP_END = 1 << 26
"""Label values below this are renumbered by a table, larger ones by sorting."""


@dataclass(frozen=True)  # no slots, since an index is kept once it is made
class LabelImage:
    """Objects or regions painted at level 0. A crop at another scale takes the pixel under the
    centre of each grid pixel."""

    labels: npt.NDArray[np.int32]
    """(h, w) int32, 0 for none. Objects: ids 1..n in the order of the values in the file. Regions:
    class index + 1."""
    classes: tuple[str, ...]
    """Names of the classes."""
    kind: Kind
    """Whether labels are objects or regions."""
    class_id: Ids
    """(n,) int64: class of each object; empty for regions."""
    extents: F64
    """(n, 4) float64: x0, y0, x1, y1 of each object in level-0 px, corner-based."""
    centres: F64
    """(n, 2) float64: x, y of each object in level-0 px, corner-based."""
    ids: Ids
    """(n,) int64: the values in the file."""

    def instances(self, box: Box, scale: Scale) -> tuple[npt.NDArray[np.int32], Ids]:
        """See ``Truth.instances``.

        Raises:
            AnnotationError: this is an image of regions.
        """
        self._need("object")
        crop = _nearest(self.labels, box, scale)
        present, inverse = np.unique(crop, return_inverse=True)
        shift = 1 if len(present) and present[0] != 0 else 0
        return (inverse.reshape(crop.shape) + shift).astype(np.int32), self.class_id[
            present[present > 0] - 1
        ]

    def regions(self, box: Box, scale: Scale) -> npt.NDArray[np.uint8]:
        """See ``Truth.regions``. Of an image of objects: the class of the object at each pixel."""
        crop = _nearest(self.labels, box, scale)
        if self.kind == "object":
            crop = np.concatenate([[0], self.class_id + 1])[crop]
        return crop.astype(np.uint8)

    def boxes(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.boxes``.

        Raises:
            AnnotationError: this is an image of regions.
        """
        self._need("object")
        near = self._index.near(*scale.box_l0(box))
        xyxy = scale.from_l0(self.extents[near])
        meets = (
            (xyxy[:, 0] < box.col1)
            & (xyxy[:, 2] > box.col0)
            & (xyxy[:, 1] < box.row1)
            & (xyxy[:, 3] > box.row0)
        )
        return xyxy[meets], self.class_id[near[meets]]

    def points(self, box: Box, scale: Scale) -> tuple[F64, Ids]:
        """See ``Truth.points``.

        Raises:
            AnnotationError: this is an image of regions.
        """
        self._need("object")
        near = self._index.near(*scale.box_l0(box))
        xy = scale.from_l0(self.centres[near])
        inside = points_inside(xy, box)
        return xy[inside], self.class_id[near[inside]]

    @cached_property
    def _index(self) -> Extents:
        """Where every object lies."""
        return Extents(self.extents)

    def present(self) -> frozenset[int]:
        """See ``Truth.present``."""
        return frozenset(
            (
                self.class_id
                if self.kind == "object"
                else np.unique(self.labels[self.labels > 0]) - 1
            ).tolist()
        )

    def diameters(self) -> F64:
        """(n,) px: diameter of the circle of the same area, for each object."""
        self._need("object")
        area: F64 = np.bincount(self.labels.ravel(), minlength=len(self.ids) + 1)[1:] / math.pi
        return 2 * np.sqrt(area)

    def _need(self, kind: Kind) -> None:
        if self.kind != kind:
            raise AnnotationError(
                f"this label image holds {self.kind}s, but {kind}s were asked for; load it with "
                f"kind={kind!r}"
            )


def load_label_image(
    path: Path,
    *,
    classes: Sequence[str] = ("object",),
    kind: Kind = "object",
) -> LabelImage:
    """Read a label image.

    ``path``: PNG, TIFF, or an OME-Zarr label image. Objects: every value is one object of
    ``classes[0]``. Regions: a value is class index + 1.

    Raises:
        AnnotationError: not an image of one channel of integers, a region value without a class, or
            a JPEG.
    """
    path = Path(path)
    values = labels_in(read_pixels(path), path)
    return from_array(values, classes=classes, kind=kind, where=path.name)


def from_array(
    values: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    kind: Kind = "object",
    where: str = "label image",
) -> LabelImage:
    """A LabelImage of an (h, w) array of integers >= 0, with the meaning that ``load_label_image``
    gives them."""
    none = np.zeros(0, np.int64)
    if kind == "region":
        highest = int(values.max(initial=0))
        if highest > len(classes):
            raise AnnotationError(
                f"{where}: value {highest} has no class; {len(classes)} are given "
                f"({', '.join(classes)})"
            )
        return LabelImage(
            values.astype(np.int32),
            tuple(classes),
            kind,
            none,
            np.zeros((0, 4)),
            np.zeros((0, 2)),
            none,
        )
    labels, ids = renumber(values)
    extents, centres = _measure(labels, len(ids))
    xyxy = extents[:, [1, 0, 3, 2]].astype(np.float64)
    return LabelImage(
        labels, tuple(classes), kind, np.zeros(len(ids), np.int64), xyxy, centres, ids
    )


def renumber(values: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int32], Ids]:
    """Values to 1..n in their order (0 stays), and the values that were there."""
    highest = int(values.max(initial=0))
    if highest < _LOOKUP_END:
        present = np.zeros(highest + 1, np.bool_)
        present[values] = True
        present[0] = False
        table = np.cumsum(present, dtype=np.int32) * present
        return table[values].astype(np.int32), np.flatnonzero(present).astype(np.int64)
    ids = np.unique(values)
    ids = ids[ids > 0]
    return np.where(values > 0, np.searchsorted(ids, values) + 1, 0).astype(np.int32), ids.astype(
        np.int64
    )


def _nearest(labels: npt.NDArray[np.integer], box: Box, scale: Scale) -> npt.NDArray[np.integer]:
    """The label under the centre of every grid pixel of ``box``, 0 outside."""
    rows, cols = (np.floor(centres).astype(np.int64) for centres in scale.centres_l0(box))
    row_in, col_in = (rows >= 0) & (rows < labels.shape[0]), (cols >= 0) & (cols < labels.shape[1])
    out = np.zeros(box.shape, labels.dtype)
    out[np.ix_(row_in, col_in)] = labels[np.ix_(rows[row_in], cols[col_in])]
    return out


@kernel
def _measure(labels: npt.NDArray[np.int32], count: int) -> tuple[Ids, F64]:
    """Extent (count, 4) int64 row0, col0, row1, col1 and centre (count, 2) x, y of the labels
    1..count."""
    box = np.empty((count, 4), np.int64)
    box[:, 0], box[:, 1], box[:, 2], box[:, 3] = labels.shape[0], labels.shape[1], 0, 0
    total = np.zeros((count, 3))
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            k = labels[r, c] - 1
            if k >= 0:
                box[k, 0], box[k, 1] = min(box[k, 0], r), min(box[k, 1], c)
                box[k, 2], box[k, 3] = max(box[k, 2], r + 1), max(box[k, 3], c + 1)
                total[k, 0] += c + 0.5
                total[k, 1] += r + 0.5
                total[k, 2] += 1
    return box, total[:, :2] / total[:, 2:]
