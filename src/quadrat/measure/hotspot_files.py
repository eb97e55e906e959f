"""The hotspots of a slide: rows of the table, hotspots.csv, and outlines for QuPath."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.config.measure import HotspotSection
from quadrat.core.files import write_file
from quadrat.core.unit import Unit, named
from quadrat.measure.figures import ALL
from quadrat.measure.hotspots import Window, best_circles, best_squares
from quadrat.measure.rows import Figure, Place, written
from quadrat.measure.slide import Loaded
from quadrat.outputs.results import SlideResult

CSV, FOLDER = "hotspots.csv", "hotspots"
COLUMNS = ("run", "slide", "case", "class", "rank", "shape", "mm2", "count", "per_mm2",
           "analysed_mm2", "x_l0", "y_l0")  # fmt: skip
_SIDES = 180
"""Of a circle in GeoJSON."""


@dataclass(frozen=True, slots=True)
class Hotspot:
    """A window on a slide."""

    section: HotspotSection
    """What was asked for."""
    rank: int
    """From 1."""
    count: int
    """Objects in it."""
    xy_l0: tuple[float, float]
    """Its centre in level-0 px."""
    outline: shapely.Polygon
    """In level-0 px."""
    analysed_mm2: float | None
    """How much of it was analysed; None without a tissue map."""


def hotspots_of(loaded: Loaded, sections: Sequence[HotspotSection]) -> list[Hotspot]:
    """The hotspots of a slide, in the order of the sections, then by rank."""
    result, objects = loaded.result, loaded.objects
    um = np.array(result.um_per_l0)
    found = []
    for section in sections:
        mine = slice(None)
        if section.of != ALL:
            mine = objects.class_id == result.class_names.index(section.of)
        xy = objects.xy_l0[mine] * um
        shape, mm2 = section.window
        for rank, window in enumerate(_windows(xy, shape, mm2, section.best), start=1):
            outline = _outline(window, shape, mm2, result)
            analysed = None
            if loaded.tissue is not None:
                factor = np.array(loaded.tissue.scale)
                scaled = shapely.transform(outline, lambda xy, f=factor: xy / f)
                analysed = loaded.tissue.areas_in(scaled)[0]
            centre = (window.x / um[0], window.y / um[1])
            found.append(Hotspot(section, rank, window.count, centre, outline, analysed))
    return found


def _windows(xy_um: npt.NDArray[np.float64], shape: str, mm2: float, best: int) -> list[Window]:
    um2 = mm2 * 1e6
    if shape == "circle":
        return best_circles(xy_um, math.sqrt(um2 / math.pi), best=best)
    return best_squares(xy_um, math.sqrt(um2), best=best)


def _outline(window: Window, shape: str, mm2: float, result: SlideResult) -> shapely.Polygon:
    """The window in level-0 px; a circle as a polygon of the same area."""
    if shape == "circle":
        turn = np.arange(_SIDES) * (2 * np.pi / _SIDES)
        radius = math.sqrt(mm2 * 1e6 / (_SIDES / 2 * math.sin(2 * np.pi / _SIDES)))
        xy = np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius
    else:
        half = math.sqrt(mm2 * 1e6) / 2
        xy = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    return shapely.Polygon((xy + np.array([window.x, window.y])) / np.array(result.um_per_l0))


class HotspotFiles:
    """Collects hotspots; the files appear when the block ends, if any were asked for."""

    def __init__(self, folder: Path, sections: Sequence[HotspotSection], unit: Unit) -> None:
        self._folder, self._asked, self._unit = folder, bool(sections), unit
        self._text = io.StringIO()
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(named(name, unit) for name in COLUMNS)
        self._drawn: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or not self._asked:
            return
        write_file(self._folder / CSV, self._text.getvalue())
        for slide, text in self._drawn.items():
            write_file(self._folder / FOLDER / f"{slide}.geojson", text)

    def add(self, place: Place, found: Sequence[Hotspot]) -> Iterator[tuple[Place, list[Figure]]]:
        """Keep the hotspots of a slide; the rows that the table gets of them."""
        large, features = named("mm2", self._unit), []
        for spot in found:
            shape, mm2 = spot.section.window
            density = spot.count / spot.analysed_mm2 if spot.analysed_mm2 else None
            self._csv.writerow(
                (
                    *place[:3], spot.section.of, spot.rank, shape, f"{mm2:g}", spot.count,
                    written(density, f"1/{large}"), written(spot.analysed_mm2, large),
                    *(f"{value:.2f}" for value in spot.xy_l0),
                )
            )  # fmt: skip
            name = f"hotspot {spot.section.of} {shape} {mm2:g} {large} {spot.rank}"
            features.append(_feature(spot, name))
            of = spot.section.of
            figures = [
                Figure("", f"analysed_{large}", spot.analysed_mm2, large),
                Figure(of, "count", spot.count, "", spot.count),
                Figure(of, f"per_{large}", density, f"1/{large}", spot.count),
            ]
            yield place._replace(region=name, region_class="hotspot"), figures
        if features:
            lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in features)
            text = f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'
            self._drawn[place.slide] = text


def _feature(spot: Hotspot, name: str) -> dict[str, object]:
    ring = [[round(x, 2), round(y, 2)] for x, y in spot.outline.exterior.coords]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "name": name,
            "classification": {"name": "hotspot", "color": [255, 170, 0]},
            "measurements": {f"Num {spot.section.of}": spot.count},
        },
    }
