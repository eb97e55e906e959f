"""``quadrat diff``: the differences of two runs as a table, as JSON and CSV, and as GeoJSON for
QuPath; one slide after the other is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from quadrat.core.files import write_file
from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.text import aligned, csv_text
from quadrat.evaluation.difference import (
    CAME,
    CLASS,
    SHAPE,
    WENT,
    Difference,
    Same,
    Tally,
    difference,
    shared_slides,
)
from quadrat.outputs.geojson import GeoJSONWriter, append_rows
from quadrat.outputs.objects import object_columns, take_rows
from quadrat.outputs.palette import BLUE, GREEN, ORANGE, VERMILION
from quadrat.outputs.results import read_results
from quadrat.outputs.tables import ALL

COLOURS = {CAME: GREEN, WENT: VERMILION, CLASS: BLUE, SHAPE: ORANGE}
"""Of what differs, in QuPath; safe for readers without all cones (M. Okabe and K. Ito)."""
DIFF_JSON, DIFF_CSV = "diff.json", "diff.csv"
_HEAD = ("slide", "class", *(field.name for field in fields(Tally)))


@dataclass(frozen=True, slots=True)
class SlideTally:
    """The table of one slide."""

    slide: str
    """Its name."""
    rows: dict[str, Tally]
    """Of each class in its order, then of all."""


@dataclass(frozen=True, slots=True)
class RunDifference:
    """How two runs differ."""

    slides: tuple[SlideTally, ...]
    """Those in both."""
    only_before: tuple[str, ...]
    """Slides of the first alone."""
    only_after: tuple[str, ...]
    """Slides of the second alone."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        alike = all(one.rows[ALL].equal for one in self.slides)
        return alike and not self.only_before and not self.only_after


def compare_runs(
    before: Path,
    after: Path,
    *,
    same: Same,
    named: Sequence[str] = (),
    folder: Path | None = None,
) -> RunDifference:
    """The differences of all slides that two runs have in common; with a ``folder``, written there
    as well.

    Raises:
        ConfigError: there are no results, or they cannot be compared.
        WriteError: a file cannot be written.
    """
    runs = read_results(before, named=named), read_results(after, named=named)
    both = shared_slides(*runs, outs=(before, after))
    tallies = []
    for name in both:
        one, other = runs[0][name], runs[1][name]
        found = difference(one, other, same=same)
        classes = dict.fromkeys(c.name for c in (*one.classes, *other.classes))
        rows = {c: found.tally(c) for c in classes} | {ALL: found.tally(None)}
        tallies.append(SlideTally(name, rows))
        if folder is not None:
            frame = one.summary.frame, other.summary.frame
            write_differences(folder / f"{name}.geojson", found, frames=frame, slide=name)
    result = RunDifference(
        tuple(tallies),
        tuple(name for name in runs[0] if name not in both),
        tuple(name for name in runs[1] if name not in both),
    )
    if folder is not None:
        write_file(folder / DIFF_CSV, csv_text(_HEAD, _rows(result)))
        text = json.dumps(difference_json(result), indent=2) + "\n"
        write_file(folder / DIFF_JSON, text)
    return result


def difference_json(result: RunDifference) -> dict[str, Any]:
    """diff.json."""
    return {
        "equal": result.equal,
        "only_before": list(result.only_before),
        "only_after": list(result.only_after),
        "slides": [
            {"slide": one.slide, "classes": {c: asdict(row) for c, row in one.rows.items()}}
            for one in result.slides
        ],
    }


def difference_text(result: RunDifference) -> list[str]:
    """The table for people, and a verdict."""
    lines = aligned([[name.replace("_", " ") for name in _HEAD], *_rows(result)])
    for names, where in ((result.only_before, "first"), (result.only_after, "second")):
        lines += [f"{name}: only in the {where} run" for name in names]
    return [*lines, "equal" if result.equal else "different"]


def write_differences(
    path: Path, found: Difference, *, frames: tuple[Frame, Frame], slide: str
) -> None:
    """What differs as detections for QuPath, with a class that says how: objects that went as they
    were, the others as they are.

    Raises:
        WriteError: it cannot be written.
    """
    old, new, pairs = found.before, found.after, found.changed
    turns = [
        f"{CLASS}: {a} to {b}" if other else SHAPE
        for a, b, other in zip(
            old.names[pairs.truth].tolist(),
            new.names[pairs.found].tolist(),
            found.of_class.tolist(),
            strict=True,
        )
    ]
    parts = (
        (old.path, frames[0], found.went, [WENT] * len(found.went)),
        (new.path, frames[1], found.came, [CAME] * len(found.came)),
        (new.path, frames[1], pairs.found, turns),
    )
    names = sorted({name for *_, kinds in parts for name in kinds})
    classes = [ClassInfo(name, COLOURS[name.partition(":")[0]]) for name in names]
    level0 = _level0(frames[0])
    done = 0
    with GeoJSONWriter(path, frame=level0, classes=classes, slide=f"{slide} diff") as writer:
        for source, frame, index, kinds in parts:
            order = np.argsort(index)
            class_id = np.array([names.index(kind) for kind in kinds], np.uint8)[order]
            rows = take_rows(source, [*object_columns(frame), "geometry"], index[order])
            append_rows(writer, rows, level0, first_id=done + 1, class_id=class_id)
            done += len(index)


def _level0(frame: Frame) -> Frame:
    """Level-0 px as a grid."""
    return replace(frame, mpp=frame.mpp_l0, scale_row=1.0, scale_col=1.0)


def _rows(result: RunDifference) -> Iterator[list[str]]:
    for one in result.slides:
        for name, row in one.rows.items():
            yield [one.slide, name, *(str(value) for value in asdict(row).values())]
