"""summary.json, the last file of a slide's results: one writer, one reader, typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.core.files import write_file
from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.records import from_json, to_json
from quadrat.core.seams import SeamFigures
from quadrat.core.unit import in_um, renamed
from quadrat.outputs.tables import CountRow

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class AreaFigures:
    """What of the slide was analysed, and what was not."""

    tissue_mm2: float
    """Analysed tissue."""
    excluded_mm2: Mapping[str, float]
    """The rest, by reason."""
    damaged_tiles_l0: tuple[tuple[float, float, float, float], ...]
    """x0, y0, x1, y1 in level-0 px of tiles that could not be decoded."""
    tissue_filled_mm2: float | None = None
    """Gaps and holes that were filled, within ``tissue_mm2``; None: an older version wrote it."""


@dataclass(frozen=True, slots=True)
class ObjectFigures:
    """The answer of a task that finds objects."""

    counts: tuple[CountRow, ...]
    """One row per class, then the row of all."""
    capped_objects: int
    """Objects with a shape that is not certain."""
    seams: SeamFigures | None = None
    """None: an older version wrote the summary."""


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """The answer of a task that classifies the slide."""

    top_class: str
    """The most probable class; the key in the file is ``class``."""
    probability: Mapping[str, float]
    """Of each class, the mean over the slide's tiles."""
    tile_votes: Mapping[str, int]
    """How many tiles each class won."""


@dataclass(frozen=True, slots=True)
class SlideFigures:
    """What was measured of a slide."""

    area: AreaFigures
    """What was analysed: every figure per mm² refers to it."""
    answer: ObjectFigures | ScoreFigures
    """Counts if the task finds objects or regions, scores if it classifies slides."""


@dataclass(frozen=True, slots=True)
class PackageNote:
    """The model package that made a result."""

    weights_sha256: str
    """Hash of ``weights.safetensors``, as the card states it."""
    exactness: Mapping[str, Any] | None = None
    """As the package's card states it (docs/artifacts.md, "card.json: exactness")."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a result."""

    package: PackageNote
    """Which model it was."""
    classes: tuple[ClassInfo, ...]
    """The model's classes with their colours; a class id is an index into them."""
    pipeline: str
    """Its name."""
    versions: Mapping[str, str]
    """Of the libraries that numbers depend on."""
    threads: int
    """Of torch, per forward pass."""
    device: str
    """Its type: "cpu" or "cuda"."""
    inference: str = "fp32"
    """Precision of the network: "fp32" or "bf16"."""


@dataclass(frozen=True, slots=True)
class ReaderNote:
    """What read the slide."""

    format: str
    """Vendor or file format (``SlideInfo.format``)."""
    reader: str
    """What decoded the pixels (``SlideInfo.reader``)."""


@dataclass(frozen=True, slots=True)
class MppNote:
    """The slide's mpp and where it comes from."""

    value: float | None
    """um per level-0 px; None in pixel work."""
    source: str
    """Where the file states it (such as "OME PhysicalSize"), "override", or that it is not used."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished slide."""

    slide: str
    """Its name, which is that of its results folder."""
    task: str
    """Name of the task, as in the pipeline file."""
    fingerprint: str
    """Decides whether a later run takes the slide for finished."""
    frame: Frame
    """The grid at the model's mpp, and where it lies on level 0."""
    reader: ReaderNote
    """How the file was read."""
    slide_mpp: MppNote
    """Scale of level 0, before any resampling."""
    cores: int
    """How many were analysed."""
    thresholds: Mapping[str, float]
    """The task's decisions in this run: of the package, or of the pipeline if it sets them."""
    figures: SlideFigures
    """Areas and the answer; in the file they are not nested."""
    provenance: Provenance
    """Package, versions and settings; in the file they are not nested."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the slide was analysed; not in the file if there is none."""
    made_by: str = ""
    """What other tool's file the objects were imported from; not in the file if quadrat found
    them."""

    @property
    def damaged(self) -> int:
        """How many damaged tiles were read as white."""
        return len(self.figures.area.damaged_tiles_l0)


def write_summary(folder: Path, summary: Summary) -> None:
    """Write summary.json of a slide; keys are sorted, and named in the unit of its frame.

    Raises:
        WriteError: it cannot be written.
    """
    unit = summary.frame.unit
    values = to_json(summary, unit=unit) | {"thresholds": renamed(summary.thresholds, unit)}
    figures, provenance = values.pop("figures"), values.pop("provenance")
    for name in ("notes", "made_by"):
        if not values[name]:
            del values[name]
    answer = figures["answer"]
    if isinstance(summary.figures.answer, ScoreFigures):
        answer["class"] = answer.pop("top_class")
    elif summary.figures.answer.seams is None:
        del answer["seams"]
    flat = values | figures["area"] | answer | provenance
    write_file(folder / SUMMARY, json.dumps(flat, indent=2, sort_keys=True) + "\n")


def read_summary(folder: Path) -> Summary:
    """summary.json of a slide.

    Raises:
        OSError: there is none, so the slide is not finished.
        ValueError: it is damaged, or not a summary.
    """
    values = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"it holds no keys and values, but a {type(values).__name__}")
    area = from_json(AreaFigures, values)
    answer: ObjectFigures | ScoreFigures
    if "counts" in values:
        answer = from_json(ObjectFigures, values)
    else:
        answer = from_json(ScoreFigures, values | {"top_class": values.get("class")})
    groups = {
        "figures": SlideFigures(area, answer),
        "provenance": from_json(Provenance, values),
    }
    found = from_json(Summary, values | groups)
    thresholds = {in_um(name, found.frame.unit): v for name, v in found.thresholds.items()}
    return replace(found, thresholds=thresholds)
