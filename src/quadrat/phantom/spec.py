"""What a phantom slide is: its settings, its classes, its files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from quadrat.core.errors import ConfigError

RegionName = Literal["stroma", "gland", "tumour"]

#: Region classes; the value in the region map is the index + 1 (0 is glass).
REGION_NAMES: Final[tuple[RegionName, ...]] = ("stroma", "gland", "tumour")
REGION_COLOURS: Final = ((150, 200, 150), (150, 150, 230), (200, 60, 60))

#: Nuclear classes; `kind` in the nucleus table is the index.
NUCLEUS_NAMES: Final = ("lymphocyte", "epithelial", "stromal")
NUCLEUS_COLOURS: Final = ((60, 90, 220), (220, 70, 60), (60, 170, 70))

#: A nucleus with fewer visible pixels than this is not painted and not counted.
MIN_AREA_PX: Final = 30

_SIDES_PX: Final = (2_000, 100_000)
_MPP: Final = (0.2, 0.6)
_FRACTION: Final = (0.1, 0.9)
_SEED_END: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """Settings of one phantom slide.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str
    """How the names of all its files begin."""
    width: int
    """Level-0 px."""
    height: int
    """Level-0 px."""
    seed: int
    """Of all random numbers; the same seed gives the same slide."""
    mpp: float = 0.5
    """Micrometres per pixel."""
    dominant: RegionName = "stroma"
    """The region class that covers most of the tissue."""
    tissue_fraction: float = 0.45
    """Share of the slide that is tissue, before the pen is drawn."""
    pen: bool = True
    """Whether to draw pen strokes."""
    dust: bool = True
    """Whether to add dust."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"phantom name {self.name!r} must be letters, digits, '.', '_' or '-' (it becomes "
                "a file name)"
            )
        for label, side in (("width", self.width), ("height", self.height)):
            if not _SIDES_PX[0] <= side <= _SIDES_PX[1]:
                raise ConfigError(
                    f"phantom {self.name}: {label} {side} px must lie in "
                    f"{_SIDES_PX[0]}..{_SIDES_PX[1]} px"
                )
        _check_range(self.name, "mpp", self.mpp, _MPP)
        _check_range(self.name, "tissue_fraction", self.tissue_fraction, _FRACTION)
        if not 0 <= self.seed < _SEED_END:
            raise ConfigError(f"phantom {self.name}: seed {self.seed} must lie in 0..2**63 - 1")
        if self.dominant not in REGION_NAMES:
            raise ConfigError(
                f"phantom {self.name}: dominant {self.dominant!r} must be one of "
                f"{', '.join(REGION_NAMES)}"
            )

    @property
    def region_reduction(self) -> int:
        """Side of a cell of the region map, level-0 px: 8, and more for slides above 20,000 px."""
        side = max(self.width, self.height)
        return 8 if side <= 20_000 else 16 if side <= 50_000 else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomFiles:
    """The files of one phantom: the slide, and its exact truth."""

    slide: Path
    """Pyramidal JPEG TIFF."""
    geojson: Path
    """Nuclei, then regions: a FeatureCollection for QuPath."""
    nuclei: Path
    """uint32 label image at level 0; the id of a nucleus is its place among the features, from
    1."""
    regions: Path
    """uint8 region map: 0 glass, then REGION_NAMES."""
    table: Path
    """Counts, areas and densities, CSV."""
    facts: Path
    """Size, seed, label of the slide and more, JSON."""

    @classmethod
    def of(cls, folder: Path, name: str) -> PhantomFiles:
        """The paths that `write_phantom` gives to the phantom `name` in `folder`."""
        return cls(
            slide=folder / f"{name}.tiff",
            geojson=folder / f"{name}.truth.geojson",
            nuclei=folder / f"{name}.truth.nuclei.tiff",
            regions=folder / f"{name}.truth.regions.tiff",
            table=folder / f"{name}.truth.csv",
            facts=folder / f"{name}.truth.json",
        )


def _check_range(name: str, label: str, value: float, limits: tuple[float, float]) -> None:
    if not (math.isfinite(value) and limits[0] <= value <= limits[1]):
        raise ConfigError(f"phantom {name}: {label} {value} must lie in {limits[0]}..{limits[1]}")
