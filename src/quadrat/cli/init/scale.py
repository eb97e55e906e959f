"""The scale of pictures that state none: as the user says (``--mpp``), or from the size of what is
annotated (``--mpp-from``); pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quadrat.annotations.types import F64
from quadrat.cli.init.finding import AnnotationFound, SlideFound
from quadrat.core.errors import ConfigError
from quadrat.core.limits import MPP_MAX, MPP_MIN
from quadrat.core.unit import PX, Mpp

OBJECTS = "objects"
"""The name that stands for the objects of all classes."""
Slides = dict[Path, SlideFound]
_MEASURE = re.compile(r"(.+?)\s*=\s*(\d+\.?\d*|\.\d+)\s*(um|\u00b5m|\u03bcm)?")
_UNEVEN = 2.0
"""Slides with medians that differ by more are hardly of one scale."""
_SURE = 5
"""Of fewer objects, the median of a slide says little."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How large the median object of a class is."""

    name: str
    """The class, or ``OBJECTS``."""
    um: float
    """Its diameter."""


def measure_of(text: str) -> Measure:
    """The value of ``--mpp-from``.

    Raises:
        ConfigError: it is not a name and a size.
    """
    found = _MEASURE.fullmatch(text.strip())
    if found is None or float(found[2]) <= 0:
        raise ConfigError(
            f"--mpp-from '{text}': want a name and a diameter, such as {OBJECTS}=7um (the median "
            "of all that is annotated) or RBC=7um (of one class)"
        )
    return Measure(found[1], float(found[2]))


def need_possible(mpp: float, where: str) -> None:
    """Refuse a scale that no slide can have.

    Raises:
        ConfigError: it is outside the limits of ``core.geometry.check_mpp``. ``where`` names the
            option and the value.
    """
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise ConfigError(f"{where}: slides of {MPP_MIN:g} to {MPP_MAX:g} um/px can be analysed")


def stated(slides: Slides, mpp: Mpp) -> tuple[Slides, list[str]]:
    """The slides, of the scale ``mpp`` where they state none, and a note; "px": whatever they
    state."""
    if mpp == PX:
        own = sum(one.mpp is not None for one in slides.values())
        note = f"; the scale that {own} of {len(slides)} slides state is not used" if own else ""
        return _given(slides, list(slides), PX), [f"mpp: work is in pixels{note}"]
    without = [path for path, one in slides.items() if one.mpp is None]
    own = len(slides) - len(without)
    return _given(slides, without, mpp), [
        f"mpp: --mpp {mpp:g} is that of {len(without)} slides; {own} state their own"
    ]


def measured(
    task: str, slides: Slides, drawn: Mapping[Path, AnnotationFound], measure: Measure
) -> tuple[Slides, list[str]]:
    """The slides, where they state no scale of that which their annotated objects show, and a note.
    A mask of areas shows no objects.

    Raises:
        ConfigError: see ``mpp_of_objects``.
    """
    without = [path for path, one in slides.items() if one.mpp is None]
    if not without:
        return slides, ["mpp: all slides state theirs, so --mpp-from is not used"]
    areas = task in ("semantic", "classification")
    objects = {
        path: drawn[path]
        for path in without
        if path in drawn and not (areas and drawn[path].form == "picture")
    }
    mpp, note = mpp_of_objects(measure, objects)
    return _given(slides, without, mpp), [note]


def _given(slides: Slides, paths: Sequence[Path], mpp: Mpp) -> Slides:
    return slides | {path: replace(slides[path], mpp=mpp) for path in paths}


def mpp_of_objects(measure: Measure, drawn: Mapping[Path, AnnotationFound]) -> tuple[float, str]:
    """um/px from the median diameter of the annotated objects, to four digits, and what to check.

    ``drawn``: the annotations of the slides that state no mpp.

    Raises:
        ConfigError: nothing with a size is annotated that is called so, or its size gives an
            impossible scale.
    """
    by_slide = [own for own in (_sizes(measure.name, one) for one in drawn.values()) if len(own)]
    if not by_slide:
        known = sorted({sort[2] for one in drawn.values() for sort in one.sizes if sort[2]})
        raise ConfigError(
            f"--mpp-from {measure.name}: no outline or box of that name is annotated (classes with "
            f"outlines: {', '.join(known) or 'none'}); points and masks of areas have no objects "
            "with a size, so say --mpp"
        )
    sizes = np.concatenate(by_slide)
    median = float(np.median(sizes))
    mpp = float(f"{measure.um / median:.4g}")
    need_possible(mpp, f"--mpp-from {measure.name}={measure.um:g}um: {median:.4g} px make {mpp:g}")
    what = "objects" if measure.name == OBJECTS else f"objects of '{measure.name}'"
    note = (
        f"mpp: {mpp:g} um/px, from the median of {len(sizes)} {what} on {len(by_slide)} slides, "
        f"{median:.4g} px, which --mpp-from says is {measure.um:g} um"
    )
    return mpp, note + _uneven(by_slide)


def _sizes(name: str, one: AnnotationFound) -> F64:
    """Diameters of the objects of a slide. Outlines of regions count only where a class is named,
    or where there are no others."""
    named = {s: own for s, own in one.sizes.items() if name in (OBJECTS, s[2])}
    objects = {s: own for s, own in named.items() if s[0] != "region"}
    chosen: Sequence[F64] = [*(objects if name == OBJECTS and objects else named).values()]
    return np.concatenate(chosen) if chosen else np.zeros(0)


def _uneven(by_slide: Sequence[F64]) -> str:
    medians = [float(np.median(own)) for own in by_slide if len(own) >= _SURE]
    if not medians or max(medians) <= _UNEVEN * min(medians):
        return ""
    return (
        f"; the medians of the slides are {min(medians):.3g} to {max(medians):.3g} px: if they are "
        "of different magnification, fill the manifest's column mpp"
    )
