"""Whether coordinates are px of the full resolution, judged from all records of a slide together
(pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quadrat.annotations.faults import extent
from quadrat.annotations.record import Problem, Record, Sheet, same_size
from quadrat.annotations.shapes import geometry_of
from quadrat.annotations.types import F64

OBJECT_UM = (1.0, 1000.0)
"""Median diameters (um) that counted objects can have: from an organelle to the largest glands.
Others mean a wrong scale."""
CORNER = 0.35
"""Records that all lie within this share of both sides, next to the first corner, may be px of a
coarser level, or um."""
LEAST_RECORDS = 10
"""Fewer records do not show where records lie."""


def scale_problems(
    sheet: Sheet, *, size: tuple[int, int] | None, mpp: float | None
) -> list[Problem]:
    """What is wrong with the scale of a sheet.

    ``size``: (height, width) of the slide in level-0 px; ``mpp``: um per level-0 px. What is None
    cannot be judged.
    """
    found = []
    if size is not None and sheet.size is not None and not same_size(size, sheet.size):
        stated = (
            f"the file is of a picture of {sheet.size[1]} x {sheet.size[0]} px, the slide has "
            f"{size[1]} x {size[0]}"
        )
        found.append(Problem("wrong scale", f"{stated} ({_factor(size, sheet.size)})"))
    objects = [record for record in sheet.records if record.kind == "object"]
    small = diameter_problem(diameters_px(objects), mpp)
    found += [small] if small else []
    if size is not None and sheet.size is None:
        reach = _reach_problem(sheet.records, size, mpp, sure=small is not None)
        found += [reach] if reach else []
    return found


def diameters_px(records: Sequence[Record]) -> F64:
    """Diameter (px) of the circle of the same area, for each record that has an area."""
    areas = [
        float(geometry_of(record).area) for record in records if record.parts and not record.fault
    ]
    return 2 * np.sqrt(np.array([area for area in areas if area > 0], np.float64) / math.pi)


def diameter_px(record: Record) -> float:
    """Diameter (px) of what a record outlines: of the circle of the same area; of a box, of the
    circle (or the circle's area of an ellipse) that fits into it."""
    area = float(geometry_of(record).area)
    return math.sqrt(area) if record.box else 2 * math.sqrt(area / math.pi)


def diameter_problem(objects: F64, mpp: float | None) -> Problem | None:
    """Whether the median diameter (px) of counted objects is impossible."""
    if mpp is None or len(objects) == 0:
        return None
    median = float(np.median(objects)) * mpp
    if OBJECT_UM[0] <= median <= OBJECT_UM[1]:
        return None
    span = f"{OBJECT_UM[0]:g} to {OBJECT_UM[1]:g} um"
    text = (
        f"the median diameter of {len(objects)} objects is {median:.3g} um at {mpp:g} um/px; "
        f"{span} can be counted"
    )
    return Problem(
        "wrong scale",
        f"{text}; is the mpp right, and are the coordinates px of the full resolution?",
    )


def _reach_problem(
    records: Sequence[Record], size: tuple[int, int], mpp: float | None, *, sure: bool
) -> Problem | None:
    boxes = [
        box for box in (extent(record) for record in records if not record.fault) if box is not None
    ]
    if not boxes:
        return None
    height, width = size
    spans = np.array(boxes)
    outside = (
        (spans[:, 0] >= width) | (spans[:, 1] >= height) | (spans[:, 2] <= 0) | (spans[:, 3] <= 0)
    )
    far = spans[:, 2].max() / width, spans[:, 3].max() / height
    reach = (
        f"the records reach x {spans[:, 2].max():g}, y {spans[:, 3].max():g}; the slide has "
        f"{width} x {height} px"
    )
    if outside.mean() > 0.5:
        return Problem(
            "wrong scale",
            f"{reach}, and {int(outside.sum())} of {len(boxes)} lie outside; {_ask(mpp)}",
        )
    if len(boxes) >= LEAST_RECORDS and max(far) < CORNER:
        share = f"all within the first {far[0]:.0%} x {far[1]:.0%}"
        return Problem("wrong scale", f"{reach}: {share}; {_ask(mpp)}", warning=not sure)
    return None


def _ask(mpp: float | None) -> str:
    um = "" if mpp is None else f", or um (1 px is {mpp:g} um)"
    return f"are the coordinates px of another level{um}, or the file of another slide?"


def _factor(size: tuple[int, int], stated: tuple[int, int]) -> str:
    ratios = size[0] / stated[0], size[1] / stated[1]
    if abs(ratios[0] / ratios[1] - 1) < 0.02:
        return (
            f"{(ratios[0] + ratios[1]) / 2:.3g} times as large; export in px of the full resolution"
        )
    return "another shape; is it the file of another slide?"
