"""Label images and masks as records: every label, or every class, with its outline along pixel
edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.formats.label_image import renumber
from quadrat.annotations.formats.mask_image import Colour, Mask, mask_of
from quadrat.annotations.formats.pixels import Pixels, labels_in, read_pixels
from quadrat.annotations.outlines import label_parts, mask_parts
from quadrat.annotations.record import Record, Sheet


def read_picture(
    path: Path,
    *,
    meaning: str = "",
    threshold: int | None = None,
    colours: Mapping[Colour, str] | None = None,
    classes: Sequence[str] = (),
) -> Sheet:
    """The records of a label image or mask (see ``reading.Choice``).

    ``label V`` is the object of value V. ``class K`` is all 4-connected pieces of the class of
    number K. ``piece N`` is a piece of the foreground of a mask, in raster order.

    Raises:
        AnnotationError: see ``pixels.read_pixels``, ``mask_image.mask_of`` and
            ``pixels.labels_in``.
    """
    pixels = read_pixels(path)
    if meaning == "mask":
        mask = mask_of(
            pixels, classes=classes, threshold=threshold, colours=colours or {}, path=path
        )
        return _of_mask(mask, path, classes)
    if not meaning and _is_black_and_white(pixels):
        mask = mask_of(pixels, classes=(), threshold=None, colours={}, path=path)
        return _of_mask(mask, path, ())
    values = labels_in(pixels, path)
    size = (values.shape[0], values.shape[1])
    return Sheet(str(path), "label image", _objects(values), size, one_class=True)


def _is_black_and_white(pixels: Pixels) -> bool:
    """What is a mask where nobody says so: 1 bit; or 8 bits without a palette and with the value
    255."""
    values = pixels.values
    if values.dtype == np.bool_:
        return True
    grey = values.ndim == 2 and values.dtype == np.uint8 and pixels.palette is None
    return grey and bool((values == 255).any())


def _of_mask(mask: Mask, path: Path, classes: Sequence[str]) -> Sheet:
    size = (mask.numbers.shape[0], mask.numbers.shape[1])
    if mask.foreground:
        name = classes[0] if classes else ""
        records = tuple(
            Record(f"piece {n}", name, "region", (part,))
            for n, part in enumerate(mask_parts(mask.numbers > 0), start=1)
        )
    else:
        records = tuple(
            Record(f"class {k}", name, "region", mask_parts(mask.numbers == k))
            for k, name in enumerate(classes, start=1)
            if (mask.numbers == k).any()
        )
    return Sheet(
        str(path),
        "mask" if mask.foreground else "class mask",
        records,
        size,
        one_class=not classes,
        notes=(f"read as a mask: {mask.meaning}",),
    )


def _objects(values: npt.NDArray[np.integer]) -> tuple[Record, ...]:
    labels, ids = renumber(values)
    parts = label_parts(labels, len(ids))
    return tuple(
        Record(f"label {value}", "", "object", own)
        for value, own in zip(ids.tolist(), parts, strict=True)
    )
