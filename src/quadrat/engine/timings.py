"""What each finished slide took: one line per slide in ``run/timings.jsonl``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from quadrat.core.files import open_append
from quadrat.core.unit import Unit, in_um, named

TIMINGS = "timings.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A slide that is done."""

    slide: str
    """Its name."""
    seconds: Mapping[str, float]
    """What its steps took, in seconds of workers: by step, and of it by what it went into
    ("predict: network")."""
    time: float = 0.0
    """When it was done, in seconds since 1970; 0: an older version wrote it."""
    wall_s: float = 0.0
    """From its first step to its end."""
    tissue_mm2: float = 0.0
    """Analysed tissue."""
    file_bytes: int = 0
    """Size of all files of the slide."""
    peak_mb: float = 0.0
    """Largest size of a process that worked on it, in MiB."""
    driver: str = ""
    """The driver (see :mod:`quadrat.engine.drivers`)."""
    machine: str = ""
    """Of what it was inferred with (``Fingerprints.machine``)."""
    unit: Unit = "um"
    """In px the tissue is in megapixels."""

    @property
    def worker_s(self) -> float:
        """Seconds of workers, all together."""
        return sum(s for what, s in self.seconds.items() if ":" not in what)


_FIELDS = frozenset(one.name for one in fields(Timing))


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of workers went, in seconds."""

    by_step: Mapping[str, float] = field(default_factory=dict)
    """Of each step, most first."""
    by_part: Mapping[str, float] = field(default_factory=dict)
    """Of each part of the steps ("read", "network", "stitch", "write"), and "other"."""


def note_timing(out: Path, timing: Timing) -> None:
    """Add a line.

    Raises:
        WriteError: it cannot be written.
    """
    values = {named(name, timing.unit): getattr(timing, name) for name in sorted(_FIELDS)}
    with open_append(out / "run" / TIMINGS) as stream:
        stream.write(json.dumps(values | {"seconds": dict(timing.seconds)}).encode() + b"\n")


def read_timings(out: Path) -> dict[str, Timing]:
    """The last line of each slide, in the order of the lines. A line that two hosts wrote over each
    other, or that was torn by a crash, is left out."""
    found: dict[str, Timing] = {}
    try:
        lines = (out / "run" / TIMINGS).read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            values = json.loads(line)
            values = {in_um(name, values.get("unit", "um")): v for name, v in values.items()}
            timing = Timing(**{name: values[name] for name in _FIELDS & values.keys()})
            sum(timing.seconds.values())
        except (ValueError, TypeError, AttributeError):
            continue
        found.pop(timing.slide, None)
        found[timing.slide] = timing
    return found


def spent(timings: Iterable[Timing]) -> Spent:
    """Where the time of these slides went."""
    steps, parts = defaultdict[str, float](float), defaultdict[str, float](float)
    for timing in timings:
        for what, seconds in timing.seconds.items():
            step, _, part = what.partition(": ")
            (parts if part else steps)[part or step] += seconds
    other = sum(steps.values()) - sum(parts.values())
    if steps:
        parts["other"] = max(0.0, other)
    return Spent(_rounded(steps), _rounded(parts))


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {what: round(seconds[what], 3) for what in sorted(seconds, key=lambda w: -seconds[w])}
