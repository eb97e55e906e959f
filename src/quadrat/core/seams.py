"""A seam report as results state it: does a slide's result show where the slide was cut?"""

from __future__ import annotations

from dataclasses import dataclass

from quadrat.core.unit import Unit


@dataclass(frozen=True, slots=True)
class Contrast:
    """One sign of seams. Value and interval are None where they are not defined."""

    near: float | None
    """The figure near seams."""
    inside: float | None
    """The figure away from seams."""
    value: float | None
    """How the two compare: their ratio or their difference."""
    low: float | None
    """Lower end of the interval of ``value``."""
    high: float | None
    """Upper end."""
    objects: int
    """How many objects were looked at near seams."""

    @property
    def judged(self) -> bool:
        return self.low is not None and self.high is not None

    def differs_from(self, expected: float) -> bool:
        """Whether the interval leaves out what a result without seams shows."""
        return (
            self.low is not None and self.high is not None and not self.low <= expected <= self.high
        )


@dataclass(frozen=True, slots=True)
class SeamFigures:
    """The report in ``summary.json``, rounded (docs/artifacts.md, "seams")."""

    verdict: str
    """One line: no sign of seams, the signs found, or why there is nothing to judge."""
    sign_of_seams: bool
    """Whether an interval leaves out what a result without seams shows."""
    pitch_px: int | float
    """px per side of a core, or of another tool's tile."""
    seams: int
    """How many there are."""
    blocks: int
    """How many blocks were resampled."""
    near_um: float
    """Reach of the near strip on either side of a seam."""
    confidence: float
    """Of each interval."""
    density: Contrast
    """Objects per mm²; the value is a ratio."""
    straight_edges: Contrast
    """Share of the objects that meet a seam with a straight edge on it; a difference."""
    duplicates: Contrast
    """Pairs of one class that lie too close, per 1,000 objects; a difference."""
    unit: Unit = "um"
    """Of lengths: where it is "px", ``near_um`` is in px and densities are per Mpx."""
