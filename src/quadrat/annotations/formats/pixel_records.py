"""Label images and masks as records: every label, or every class, with its outline along pixel
edges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.formats.label_image import need_exact_values, read_values, renumber
from quadrat.annotations.outlines import label_parts, mask_parts
from quadrat.annotations.record import Record, Sheet


def read_pixels(
    path: Path, *, meaning: str = "", threshold: int | None = 127, classes: Sequence[str] = ()
) -> Sheet:
    """The records of a label image or mask (see ``reading.Choice`` for ``meaning`` and
    ``threshold``).

    ``label V`` is the object of value V. ``value K`` is all 4-connected pieces of class number K.
    ``piece N`` is a piece of the foreground of a mask, in raster order.

    Raises:
        AnnotationError: unreadable, not one channel of integers, or JPEG where values are labels or
            classes.
    """
    values = read_values(path)
    size = (values.shape[0], values.shape[1])
    mask = (
        meaning == "mask" if meaning else values.dtype == np.uint8 and bool((values == 255).any())
    )
    if not mask or threshold is None:
        need_exact_values(path)
    if not mask:
        return Sheet(str(path), "label image", _objects(values), size, one_class=True)
    if threshold is None:
        return Sheet(str(path), "class mask", _classes(values, classes), size)
    pieces = [
        Record(f"piece {n}", "", "region", (part,))
        for n, part in enumerate(mask_parts(values > threshold), start=1)
    ]
    return Sheet(str(path), "mask", tuple(pieces), size, one_class=True)


def _objects(values: npt.NDArray[np.integer]) -> tuple[Record, ...]:
    labels, ids = renumber(values)
    parts = label_parts(labels, len(ids))
    return tuple(
        Record(f"label {value}", "", "object", own)
        for value, own in zip(ids.tolist(), parts, strict=True)
    )


def _classes(values: npt.NDArray[np.integer], classes: Sequence[str]) -> tuple[Record, ...]:
    found = [value for value in np.unique(values).tolist() if value > 0]
    names = {
        value: classes[value - 1] if value <= len(classes) else f"value {value}" for value in found
    }
    return tuple(
        Record(f"value {value}", names[value], "region", mask_parts(values == value))
        for value in found
    )
