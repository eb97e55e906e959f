"""What is to be measured, checked against what the run knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quadrat.config.measure import DistanceSection, HotspotSection, MeasureFile
from quadrat.core.errors import ConfigError
from quadrat.measure.figures import ALL
from quadrat.measure.ratios import Ratio, parse_ratio
from quadrat.measure.results import check_class, tissue_of
from quadrat.outputs.results import SlideResult


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured of every slide."""

    file: MeasureFile = field(default_factory=MeasureFile)
    """What the measurement file says."""
    ratios: tuple[Ratio, ...] = ()
    """Its ratios, read."""
    shapes: bool = True
    """Read outlines for axes, eccentricity, solidity and diameters, and give the distributions of
    all sizes."""
    without_filled: bool = False
    """Gaps and holes that were filled do not count as analysed."""

    @property
    def distances(self) -> tuple[DistanceSection, ...]:
        """From class to class."""
        return self.file.distances

    @property
    def hotspots(self) -> tuple[HotspotSection, ...]:
        """Windows with most objects."""
        return self.file.hotspots


def plan_for(
    results: Sequence[SlideResult],
    file: MeasureFile,
    *,
    shapes: bool,
    without_filled: bool,
) -> Plan:
    """The plan of a run.

    Raises:
        ConfigError: a class that the run does not know, or something that cannot be done of it.
    """
    classes, first = results[0].class_names, results[0]
    ratios = tuple(parse_ratio(n, text, classes=classes) for n, text in file.ratios.items())
    for k, section in enumerate(file.distances):
        check_class(section.of, classes, where=f"distances[{k}].of")
        check_class(section.to, classes, where=f"distances[{k}].to")
    for k, one in enumerate(file.spatial):
        check_class(one.of, classes, where=f"spatial[{k}].of")
        check_class(one.to, classes, where=f"spatial[{k}].to")
    for k, spot in enumerate(file.hotspots):
        if spot.of != ALL:
            check_class(spot.of, classes, where=f"hotspots[{k}].of")
    if without_filled and first.regional:
        raise ConfigError(
            "--without-filled is of objects that are counted; the objects of a semantic run are "
            "regions, of which a part may lie on filled glass"
        )
    if without_filled:
        old = next((one for one in results if tissue_of(one) is None), None)
        if old is not None:
            raise ConfigError(
                f"{old.folder}: an older version wrote these results, without tissue.png, so "
                "nobody can tell what was filled; run the slide again with --overwrite"
            )
    return Plan(file, ratios, shapes, without_filled)
