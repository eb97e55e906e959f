"""A slide's working folder: its plan, stores and parts.

::

    run/work/<slide>/
        plan.json       frame, analysed area (written last: a plan is complete or absent)
        cells.npy       the analysed cores, int32 (n, 2)
        tissue.npy      the tissue mask, as codes that say why not
        journal.jsonl   receipts of finished shards
        tiles.zarr      the tile store, if the run has one
        predictions/    quantised predictions
        parts/          what stitching work units hand on
        result/         becomes results/<slide>/ by one rename
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import SlideSection
from quadrat.core.errors import QuadratError, SlideChangedError, StoreError
from quadrat.core.files import write_file
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.objects import Frame
from quadrat.core.records import from_json, to_json
from quadrat.engine.journal import JOURNAL
from quadrat.models.task import ModelSpec
from quadrat.slides.identity import slide_identity

if TYPE_CHECKING:
    from quadrat.slides.tissue.mask import TissueMap

PLAN, CELLS = "plan.json", "cells.npy"


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """What is to be read and analysed of a slide."""

    name: str
    """As in the manifest (``SlideRef.name``)."""
    frame: Frame
    """The slide's grid at the model's mpp."""
    cells: tuple[CoreIndex, ...]
    """Analysed cores."""
    tissue_mm2: float
    """Analysed tissue."""
    tissue_frame: Frame
    """Where the tissue mask lies."""
    reader: str
    """What decodes the pixels (``SlideInfo.reader``)."""
    format: str
    """Vendor or file format (``SlideInfo.format``)."""
    slide_mpp: float | None
    """um per level-0 px; None in pixel work."""
    mpp_source: str
    """Where the file states it, "override", or that it is not used."""
    excluded: tuple[tuple[str, float], ...] = ()
    """(reason, mm2) of what is left out."""
    filled_mm2: float = 0.0
    """How much of the tissue is gaps and holes that were filled."""
    task: str = ""
    """What the task that planned it calls itself."""
    notes: tuple[str, ...] = ()
    """How the user's regions were understood otherwise than they stand in their file."""


@dataclass(frozen=True, slots=True)
class SlideWork:
    """The working folder of one slide in one run, and what every work unit needs to know of it
    (picklable, small)."""

    ref: SlideRef
    """Name, file, mpp and region file of the slide, as in the manifest."""
    folder: str
    """Path of the working folder, as text; use ``path``."""
    spec: ModelSpec
    """The model, with the thresholds that hold in this run."""
    slide: SlideSection
    """How the slide is read, and which part of it is analysed."""
    task: str
    """Name of the task in the pipeline file."""
    identity: str
    """Of the slide file when the run began (see ``slide_identity``)."""
    margin: int = 0
    """px stored around every window beyond the halo; training cuts its patches there."""

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    @property
    def result(self) -> Path:
        return self.path / "result"

    @property
    def tiles(self) -> Path:
        """The tile store: the working copy of the slide's tissue, if the run has one."""
        return self.path / "tiles.zarr"

    @property
    def image(self) -> Path:
        """The OME-Zarr image (with its label image) that is delivered with the results."""
        return self.result / "slide.ome.zarr"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def parts(self) -> Path:
        return self.path / "parts"

    @property
    def selection(self) -> Path:
        return self.parts / "selection.npz"

    @property
    def first_ids(self) -> Path:
        return self.parts / "first_ids.npz"

    def part(self, shard: ShardIndex) -> Path:
        return self.parts / f"{shard[0]}.{shard[1]}.npz"

    def save_plan(self, plan: SlidePlan, tissue: TissueMap) -> None:
        """Write the plan, complete or not at all. Raises WriteError where it cannot be written."""
        stream = io.BytesIO()  # numpy writes to a file without naming the reason of a failure
        np.save(stream, tissue.codes)
        write_file(self.path / "tissue.npy", stream.getvalue())
        stream = io.BytesIO()
        np.save(stream, np.array(plan.cells, np.int32).reshape(-1, 2))
        write_file(self.path / CELLS, stream.getvalue())
        write_file(
            self.path / PLAN, json.dumps(to_json(replace(plan, cells=()), unit=plan.frame.unit))
        )

    @property
    def has_plan(self) -> bool:
        """Whether the slide is planned."""
        return (self.path / PLAN).exists()

    def load_plan(self) -> SlidePlan:
        """The plan.

        Raises:
            StoreError: there is none that can be read.
        """
        plan = read_plan(self.path)
        if plan is None:
            raise StoreError(f"{self.path} has no plan that can be read; run again to make it")
        return plan

    def load_tissue(self) -> TissueMap:
        from quadrat.slides.tissue.mask import TissueMap  # here: who only plans a run needs none

        return TissueMap.of_codes(
            np.load(self.path / "tissue.npy"), frame=self.load_plan().tissue_frame
        )


def read_plan(folder: Path) -> SlidePlan | None:
    """The plan in a working folder; None: there is none that can be read."""
    try:
        cells = np.load(folder / CELLS, allow_pickle=False).tolist()
        values = json.loads((folder / PLAN).read_text()) | {"cells": ()}
        plan = from_json(SlidePlan, values)
    except (OSError, ValueError, TypeError):
        return None
    return replace(plan, cells=tuple(CoreIndex((row, col)) for row, col in cells))


def work_folder(out: Path, name: str) -> Path:
    """Where the work on a slide lies in a run's folder (a :class:`SlideRef` sees to its name)."""
    return out / "run" / "work" / name


def results_folder(out: Path, name: str) -> Path:
    """Where a finished slide's results lie."""
    return out / "results" / name


@contextmanager
def unchanged(work: SlideWork) -> Iterator[None]:
    """Around every reading of the slide: the file must be the one that was planned, before and
    after.

    Raises:
        SlideError: it was replaced or written to; nothing that was read since is to be used.
    """
    _check_identity(work)
    try:
        yield
    except QuadratError:
        _check_identity(work)  # if so, that is the reason, and not what was made of half a file
        raise
    _check_identity(work)


def _check_identity(work: SlideWork) -> None:
    if slide_identity(work.ref.path) != work.identity:
        raise SlideChangedError(
            f"{work.ref.path}: the file was replaced or changed while the run was reading it; "
            "run again when it is complete (the slide is then begun anew)"
        )
