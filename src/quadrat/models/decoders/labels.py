"""A label image per window: 0 is background, and each other number one object of that window.

Whatever made the labels has decided inside the window, so this is schedule-exact and cannot be
more. An object belongs to the core that holds the centre of its bounding box; what two windows both
emit meets in the suppression over the whole slide, by the overlap of masks. An object that is cut
by its window's border is flagged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from quadrat.core.errors import PackageError
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.predictions import Array, MaskCandidates
from quadrat.models.decoders.decoder import Decoder, Outputs, nothing
from quadrat.models.decoders.maps import described
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.found import Found, masks_of, owned


@dataclass(frozen=True, slots=True)
class FoundLabels(Found):
    """Images (b, h, w) under the names ``labels``, and ``classes`` (class + 1, 0 = none) where
    there are several classes."""

    def candidates(self, index: int, cell: CoreIndex, lattice: Lattice) -> MaskCandidates:
        window = lattice.window_box(cell)
        labels = self._image("labels", index)
        if labels.shape != window.shape:
            raise PackageError(
                f"decoder labels: the label image covers {labels.shape} px, and the window has "
                f"{window.shape} px"
            )
        classes = self._image("classes", index) if "classes" in self.raw else None
        _, flat = np.unique(labels, return_inverse=True)
        numbered = flat.reshape(labels.shape) + (0 if (labels == 0).any() else 1)
        corner = np.array([window.row0, window.col0])
        inside, bounds, class_id = [np.zeros(0, np.uint8)], [], []
        for number, where in enumerate(ndimage.find_objects(numbered), start=1):
            box = Box(where[0].start, where[1].start, where[0].stop, where[1].stop)
            centre = np.array([[(box.row0 + box.row1) // 2, (box.col0 + box.col1) // 2]]) + corner
            if owned(centre, cell, lattice)[0]:
                mask = numbered[where] == number
                inside.append(mask.ravel().astype(np.uint8))
                bounds.append((box.row0, box.col0, box.row1, box.col1))
                class_id.append(self._class_of(classes, where, mask, labels))
        found = np.array(bounds, np.int64).reshape(-1, 4) + np.tile(corner, 2)
        return masks_of(
            np.concatenate(inside),
            found,
            np.ones(len(found)),
            np.array(class_id, np.int64),
            (found[:, :2] + found[:, 2:]) // 2,
            window=(window.row0, window.col0, window.row1, window.col1),
        )

    def _image(self, name: str, index: int) -> Array:
        """An image of a window in grid px, int64."""
        values = self.raw[name][index].cpu().numpy()
        image = values.astype(np.int64)
        if (image != values).any() or image.min(initial=0) < 0:
            raise PackageError(
                f"decoder labels: output '{name}' holds values that are no whole numbers from 0 "
                f"on, such as {values[(image != values) | (image < 0)][0]:g}"
            )
        step = self.head.out_stride
        repeated: Array = image.repeat(step, axis=0).repeat(step, axis=1)
        return repeated

    def _class_of(
        self, classes: Array | None, where: tuple[slice, slice], mask: Array, labels: Array
    ) -> int:
        """The class of most of an object's pixels; the lowest of equal ones."""
        if classes is None:
            return 0
        counts = np.bincount(classes[where][mask], minlength=1 + self.head.classes)[1:]
        if len(counts) > self.head.classes or not counts.any():
            value = int(labels[where][mask][0])
            raise PackageError(
                f"decoder labels: object {value} has no class, or one beyond the card's "
                f"{self.head.classes}, in output 'classes' (class + 1, 0 = none)"
            )
        return int(counts.argmax())


def adapt(outputs: Outputs, head: ForeignHead) -> FoundLabels:
    """Checked images."""
    names = ("labels", "classes") if head.classes > 1 else ("labels",)
    raw: dict[str, Tensor] = {}
    for name in names:
        given = outputs.get(name)
        if given is None:
            raise PackageError(
                f"decoder labels needs an output '{name}' for {head.classes} class(es), and the "
                f"network gives {', '.join(outputs) or 'none'}: name its outputs in the card"
            )
        one_channel = isinstance(given, Tensor) and given.ndim == 4 and given.shape[1] == 1
        if not isinstance(given, Tensor) or not (one_channel or given.ndim == 3):
            raise PackageError(
                f"decoder labels: output '{name}' is {described(given)}, and it must be (batch, "
                "height, width) or (batch, 1, height, width)"
            )
        raw[name] = given[:, 0] if one_channel else given
    shapes = {name: tuple(image.shape) for name, image in raw.items()}
    if len(set(shapes.values())) > 1:
        raise PackageError(f"decoder labels: outputs differ in shape ({shapes})")
    return FoundLabels(raw, head)


LABELS = Decoder(
    name="labels",
    task="instance_masks",
    outputs=("labels",),
    optional=("classes",),
    thresholds={"by_mask": 1.0, "iou": 0.25},
    local=False,
    reach=nothing,
    adapt=adapt,
)
