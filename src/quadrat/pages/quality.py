"""Figures of a slide that show whether something is wrong with it: areas, counts, crowding,
sharpness, stain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.outputs.summary import ObjectFigures
from quadrat.pages.folder import Finished
from quadrat.pages.things import Places
from quadrat.pages.vectors import heat

Rgb = npt.NDArray[np.uint8]
SQUARE_UM = 256.0
"""Side of the squares in which objects are counted, in um (or px)."""
FULL = 0.95
"""A square with at least this share of what the fullest holds counts as full."""
STAINED = 0.1
"""Optical density from which a pixel of the thumbnail counts as stained."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the overview."""

    name: str
    """Key, and head of its column; in px it is called otherwise."""
    meaning: str
    """What it is."""


FIGURES = (
    Figure("tissue_mm2", "analysed tissue"),
    Figure("excluded_mm2", "what was not analysed, glass left out"),
    Figure("count", "objects"),
    Figure("per_mm2", "objects per area of analysed tissue"),
    Figure("fullest_square", f"objects in the fullest square of {SQUARE_UM:g} um"),
    Figure(
        "full_squares",
        f"share of the squares with objects that hold at least {FULL:.0%} of what the fullest "
        "holds: large where a finder stops at a limit",
    ),
    Figure("sharpness", "variance of the Laplacian of the grey levels, median of the crops"),
    Figure("od_red", f"mean optical density of red where the thumbnail is stained (> {STAINED:g})"),
    Figure("od_green", "the same of green"),
    Figure("od_blue", "the same of blue"),
)
"""All but those of single classes, in the order of the columns."""


def area_and_counts(slide: Finished) -> dict[str, float]:
    """What summary.json says, by figure."""
    figures = slide.summary.figures
    other = sum(v for reason, v in figures.area.excluded_mm2.items() if reason != "glass")
    out = {"tissue_mm2": figures.area.tissue_mm2, "excluded_mm2": other}
    if not isinstance(figures.answer, ObjectFigures):
        return out | {f"p_{name}": p for name, p in figures.answer.probability.items()}
    *classes, everything = figures.answer.counts
    out["count"] = float(everything.count)
    if everything.per_mm2 is not None:
        out["per_mm2"] = everything.per_mm2
    if len(classes) > 1:
        out |= {f"count_{one.class_name}": float(one.count) for one in classes}
    return out


def crowding(slide: Finished, places: Places) -> dict[str, float]:
    """How objects are spread over squares."""
    if not len(places):
        return {}
    frame = slide.summary.frame
    everything = np.ones(len(places), bool)
    counts = heat(places, slide.size_l0, SQUARE_UM / frame.mpp_l0, shown=everything)
    held = counts[counts > 0]
    most = float(held.max())
    return {"fullest_square": most, "full_squares": float(np.mean(held >= FULL * most))}


def stain(thumbnail: Rgb) -> dict[str, float]:
    """Mean optical density of stained pixels; nothing where there are none."""
    density = -np.log10((thumbnail.astype(np.float64) + 1) / 256)
    stained = density[density.mean(axis=2) > STAINED]
    if not len(stained):
        return {}
    return dict(zip(("od_red", "od_green", "od_blue"), stained.mean(axis=0).tolist(), strict=True))


def sharpness(crops: Sequence[Rgb]) -> dict[str, float]:
    """Variance of the Laplacian, median of the crops at the model's mpp."""
    if not crops:
        return {}
    each = [float(np.var(ndimage.laplace(one.astype(np.float64).mean(axis=2)))) for one in crops]
    return {"sharpness": float(np.median(each))}
