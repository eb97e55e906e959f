"""The unit of lengths: um, or px where pictures have no scale (``model.mpp: px``).

In pixel work every slide is opened as if a px of level 0 were 1 um wide, so all code runs as ever,
and the numbers are px, square px and, for mm2, megapixels. Only their names differ. This module
gives the names; whoever writes a file asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

Value = TypeVar("Value")
Unit = Literal["um", "px"]
Mpp = float | Literal["px"]
"""um per level-0 px; "px" where lengths are px and nothing is known of um."""
PX: Final = "px"
MPP_OF_PX = 1.0
"""The mpp that stands for level-0 px in pixel work."""
_NAMES = (("um2", "px2"), ("mm2", "mpx"), ("um", "px"))
"""Ends of names in um, and in px."""


def named(name: str, unit: Unit) -> str:
    """What a column or key that is called ``name`` in um is called in ``unit``: ``area_um2`` is
    ``area_px2``, ``per_mm2`` is ``per_mpx``, ``near_um`` is ``near_px``. Others keep their name."""
    if unit == PX:
        for um, px in _NAMES:
            if name == um or name.endswith(f"_{um}"):
                return name.removesuffix(um) + px
    return name


def renamed(values: Mapping[str, Value], unit: Unit) -> dict[str, Value]:
    """A mapping with its keys named in ``unit``."""
    return {named(name, unit): value for name, value in values.items()}


def in_um(name: str, unit: Unit) -> str:
    """The inverse of :func:`named`, for names that it has changed."""
    if unit == PX:
        for um, px in _NAMES:
            if name == px or name.endswith(f"_{px}"):
                return name.removesuffix(px) + um
    return name


def length(unit: Unit) -> str:
    """The sign of a length."""
    return "px" if unit == PX else "µm"


def small_area(unit: Unit) -> str:
    """The sign of the area of an object, as QuPath writes it."""
    return "px^2" if unit == PX else "µm^2"


def large_area(unit: Unit) -> str:
    """The sign of the area of tissue."""
    return "Mpx" if unit == PX else "mm²"


def plain_area(unit: Unit) -> str:
    """The same in plain letters, for tables in a terminal."""
    return "Mpx" if unit == PX else "mm2"


def um_or_none(mpp: Mpp | None) -> float | None:
    """um per level-0 px, where there are um."""
    return None if mpp == PX else mpp
