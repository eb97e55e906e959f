"""Measurement files: what ``quadrat measure --pipeline`` computes beyond counts, areas and shapes.

As pipeline files: all that is wrong is reported at once, and an unknown key is answered with the
nearest one.
"""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from quadrat.config.pipeline import STRICT, Count
from quadrat.config.yaml_file import checked, read_yaml
from quadrat.core.errors import ConfigError

Length = Annotated[float, Field(gt=0)]
NotNegativeNumber = Annotated[float, Field(ge=0)]
PRESETS = {"mitoses": ("circle", 2.0)}
"""Shape and mm² of a hotspot: mitoses are counted in 2 mm² (WHO, Breast Tumours, 5th edition)."""


@dataclass(frozen=True, slots=True, config=STRICT)
class DistanceSection:
    """From the objects of a class to the nearest ones of another."""

    of: str
    """Class of the objects that are asked."""
    to: str
    """Class that is looked for; of the same class: to another object."""
    within_um: tuple[Length, ...] = ()
    """Radii within which objects of ``to`` are counted, in um (px in pixel work)."""


@dataclass(frozen=True, slots=True, config=STRICT)
class HotspotSection:
    """Windows with most objects of a class."""

    of: str
    """Class of the objects, or ``all``."""
    preset: Literal["mitoses"] | None = None
    """``mitoses``: a circle of 2 mm²."""
    shape: Literal["circle", "square"] | None = None
    """Of the window."""
    mm2: Length | None = None
    """Its area (megapixels in pixel work)."""
    best: Count = 1
    """How many windows; they do not overlap."""

    def __post_init__(self) -> None:
        given = self.shape is not None or self.mm2 is not None
        whole = self.shape is not None and self.mm2 is not None
        if (self.preset is not None) == given or (given and not whole):
            raise ValueError(
                f"the hotspot of '{self.of}' needs either preset, or both shape and mm2"
            )

    @property
    def window(self) -> tuple[str, float]:
        """Its shape and its area in mm²."""
        if self.preset is not None:
            return PRESETS[self.preset]
        assert self.shape is not None
        assert self.mm2 is not None
        return self.shape, self.mm2


@dataclass(frozen=True, slots=True, config=STRICT)
class StainSection:
    """Optical density of haematoxylin and DAB in each object."""

    vectors: Literal["given", "estimate"] = "given"
    """``given``: the two below; ``estimate``: from each slide (Macenko)."""
    hematoxylin: tuple[NotNegativeNumber, NotNegativeNumber, NotNegativeNumber] = (0.65, 0.70, 0.29)
    """Density of red, green and blue of haematoxylin; their length does not matter."""
    dab: tuple[NotNegativeNumber, NotNegativeNumber, NotNegativeNumber] = (0.27, 0.57, 0.78)
    """The same of DAB."""
    white: Length = 255.0
    """Value of a channel where nothing absorbs."""
    bands: tuple[float, float, float] = (0.2, 0.4, 0.6)
    """Least mean DAB density of an object for 1+, 2+ and 3+."""

    def __post_init__(self) -> None:
        if not self.bands[0] < self.bands[1] < self.bands[2]:
            raise ValueError(
                f"stain.bands is {list(self.bands)}; each must be above the one before"
            )
        if min(sum(self.hematoxylin), sum(self.dab)) <= 0:
            raise ValueError("stain.hematoxylin and stain.dab must not be all zero")


@dataclass(frozen=True, slots=True, config=STRICT)
class SpatialSection:
    """Ripley's K from the objects of a class to those of another, against shuffled classes."""

    of: str
    """Class of the objects that are asked."""
    to: str
    """Class of their neighbours."""
    radii_um: Annotated[tuple[Length, ...], Field(min_length=1)]
    """Radii, in um (px in pixel work)."""
    permutations: Count = 199
    """How many times the classes are shuffled."""


@dataclass(frozen=True, slots=True, config=STRICT)
class MeasureFile:
    """A measurement file; every key may be left out."""

    ratios: dict[str, str] = field(default_factory=dict)
    """Ratios of counts by name: ``ki67: positive / (positive + negative)``."""
    low_n: Count = 100
    """A ratio of fewer objects than this has the flag ``low_n``."""
    distances: tuple[DistanceSection, ...] = ()
    """Between classes."""
    bands_um: tuple[float, ...] = ()
    """Edges of bands around the border of each region, in um, ascending: negative ones are inside
    (px in pixel work)."""
    hotspots: tuple[HotspotSection, ...] = ()
    """Windows with most objects."""
    stain: StainSection | None = None
    """Stain of each object; the slides are read for it."""
    spatial: tuple[SpatialSection, ...] = ()
    """Whether classes attract each other."""
    regions_origin: Literal["auto", "slide", "scanned"] = "auto"
    """From which corner regions count where only a part of the slide was scanned (MIRAX): that of
    the slide, or of the scanned part, as in QuPath; ``auto``: as their place tells."""

    def __post_init__(self) -> None:
        edges = self.bands_um
        if edges and (len(edges) < 2 or any(a >= b for a, b in pairwise(edges))):
            raise ValueError(
                f"bands_um is {list(edges)}; it must hold two or more edges, each above the one "
                "before"
            )


def load_measure_file(path: Path) -> MeasureFile:
    """Read and check a measurement file.

    Raises:
        ConfigError: no such file, or what is wrong in it, all at once.
    """
    if not path.is_file():
        raise ConfigError(f"there is no measurement file {path}")
    return checked(read_yaml(path), TypeAdapter(MeasureFile), measure_schema, where=str(path))


def measure_schema() -> dict[str, Any]:
    """The JSON Schema of measurement files."""
    return TypeAdapter(MeasureFile).json_schema()
