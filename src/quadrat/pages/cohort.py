"""Which slides of a cohort stand out: robust z-scores of their figures, and what is shown of a
slide in the overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quadrat.core.unit import Unit
from quadrat.pages.folder import Finished

FLAG = 3.5
"""A robust z beyond this flags a figure (B. Iglewicz and D. Hoaglin, 1993)."""
LEAST = 5
"""Slides with a figure, below which none of them can stand out."""
_TO_SIGMA, _MEAN_TO_SIGMA = 1.4826, 1.253314
"""Of a normal distribution: standard deviation over median and over mean absolute deviation."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A small picture of an object."""

    file: str
    """Name in the slide's folder of the report."""
    why: str
    """"random", "least sure" or "hotspot"."""
    text: str
    """What it shows."""


@dataclass(slots=True)
class Entry:
    """What the report says of a slide."""

    slide: Finished
    """The slide."""
    figures: Mapping[str, float]
    """Measured figures by name; what is not defined is left out."""
    crops: Sequence[Crop] = ()
    """Pictures of objects."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """File by what it shows: "thumbnail", "overlay", "density", "heatmap"."""
    problem: str = ""
    """Why the picture itself could not be read."""
    capsule: bool = False
    """Whether the slide is in the report in deep zoom."""
    z: dict[str, float] = field(default_factory=dict)
    """Robust z of figures within the slides of the same model."""

    @property
    def flags(self) -> list[str]:
        """Figures that stand out, the farthest first."""
        far = [name for name, z in self.z.items() if abs(z) > FLAG]
        return sorted(far, key=lambda name: (-abs(self.z[name]), name))

    @property
    def farthest(self) -> float:
        """The greatest distance from the cohort, in robust standard deviations."""
        return max(map(abs, self.z.values()), default=0.0)

    @property
    def unit(self) -> Unit:
        """Of lengths."""
        return self.slide.summary.frame.unit


def robust_z(values: Sequence[float]) -> list[float]:
    """How far each value lies from the median, in standard deviations estimated by the median
    absolute deviation (by the mean one where more than half of the values are equal); zeros where
    all are equal."""
    given = np.asarray(values, np.float64)
    away = given - np.median(given)
    spread = _TO_SIGMA * float(np.median(np.abs(away)))
    if spread == 0:
        spread = _MEAN_TO_SIGMA * float(np.mean(np.abs(away)))
    return [0.0] * len(values) if spread == 0 else (away / spread).tolist()


def compare(entries: Sequence[Entry]) -> None:
    """Fill in the z of all slides, each among those of the same task and model, if at least LEAST
    have the figure."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for one in entries:
        groups.setdefault(group_of(one), []).append(one)
    for group in groups.values():
        for name in dict.fromkeys(name for one in group for name in one.figures):
            having = [one for one in group if name in one.figures]
            if len(having) < LEAST:
                continue
            scores = robust_z([one.figures[name] for one in having])
            for one, z in zip(having, scores, strict=True):
                one.z[name] = z


def group_of(entry: Entry) -> tuple[str, str]:
    """What slides have to share to be compared: the task and the model's weights."""
    summary = entry.slide.summary
    return summary.task, summary.provenance.package.weights_sha256


def outliers_first(entries: Sequence[Entry]) -> list[Entry]:
    """The slide that is farthest from its cohort first; of equals by name."""
    return sorted(entries, key=lambda one: (-round(one.farthest, 6), one.slide.name))
