"""A slide's working folder: its plan, stores and parts, and the fingerprints that say which of them are still valid.

::

    run/work/<slide>/plan.json          frame, cores, analysed area (written last: a plan is complete or absent)
                     tissue.npy         the tissue mask
                     journal.jsonl      receipts of finished shards
                     predictions/       quantised predictions
                     parts/             what stitching work units hand on
                     result/            becomes results/<slide>/ by one rename
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.config import Pipeline, SlideSection
from quadrat.errors import SlideError, StoreError
from quadrat.geometry import Box
from quadrat.grid import Cell, Lattice
from quadrat.manifest import SlideRef
from quadrat.prediction_store import PredictionStore
from quadrat.predictions import Candidates, MaskCandidates, TileScores
from quadrat.results import Frame
from quadrat.task import Array, Arrays, ModelSpec

RESULT_SCHEMA = 1
END_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Hashes over everything that decides the content: of the tile store, of the predictions, of the results."""

    tile: str
    predict: str
    result: str


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """What is to be read and analysed of a slide. ``cells``: analysed cores; ``tissue_mm2``: analysed tissue."""

    name: str
    frame: Frame
    cells: tuple[Cell, ...]
    tissue_mm2: float
    tissue_um_per_px: float
    reader: str
    format: str
    slide_mpp: float
    mpp_source: str


@dataclass(frozen=True, slots=True)
class SlideWork:
    """The working folder of one slide in one run, and what every work unit needs to know of it (picklable, small).

    ``margin``: px stored around every window beyond the halo (training cuts its patches there).
    """

    ref: SlideRef
    folder: str
    spec: ModelSpec
    slide: SlideSection
    task: str
    margin: int = 0

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def result(self) -> Path:
        return self.path / "result"

    @property
    def tiles(self) -> Path:
        """The tile store: also the OME-Zarr image that is delivered with the results."""
        return self.result / "slide.ome.zarr"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def selection(self) -> Path:
        return self.path / "parts" / "selection.npz"

    def part(self, shard: Cell) -> Path:
        return self.path / "parts" / f"{shard[0]}.{shard[1]}.npz"

    @property
    def first_ids(self) -> Path:
        return self.path / "parts" / "first_ids.npz"

    def save_plan(self, plan: SlidePlan, tissue: npt.NDArray[np.bool_]) -> None:
        np.save(self.path / "tissue.npy", tissue)
        temporary = self.path / "plan.json.partial"
        temporary.write_text(json.dumps(asdict(plan)))
        os.replace(temporary, self.path / "plan.json")

    def load_plan(self) -> SlidePlan:
        values = json.loads((self.path / "plan.json").read_text())
        cells = tuple((r, c) for r, c in values["cells"])
        return SlidePlan(**values | {"frame": Frame(**values["frame"]), "cells": cells})

    def load_tissue(self) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = np.load(self.path / "tissue.npy")
        return mask


class WorkView:
    """A slide as stitching sees it (see :class:`quadrat.task.SlideView`)."""

    def __init__(self, work: SlideWork) -> None:
        self.work = work
        self.store = PredictionStore(work.predictions)

    @property
    def spec(self) -> ModelSpec:
        return self.work.spec

    @property
    def frame(self) -> Frame:
        return self.store.frame

    @property
    def shards(self) -> Sequence[Cell]:
        return self.store.shards

    def maps(self, box: Box) -> npt.NDArray[np.uint8]:
        return self.store.maps(box)

    def candidates(self, shard: Cell) -> Candidates:
        return self.store.candidates(shard)

    def masks(self, shard: Cell, *, pixels: bool = True) -> MaskCandidates:
        return self.store.masks(shard, pixels=pixels)

    def tiles(self, shard: Cell) -> TileScores:
        return self.store.tiles(shard)

    def selection(self) -> Mapping[str, Array]:
        return load_part(self.work.selection)

    def part(self, shard: Cell) -> Mapping[str, Array]:
        return load_part(self.work.part(shard))

    @cached_property
    def first_id(self) -> dict[Cell, int]:
        """The id of each shard's first object: ids count from 1 through the shards in raster order.

        Merging keeps it in a file, or every unit that paints would open every part.
        """
        ids = load_part(self.work.first_ids)["first_id"] if self.work.first_ids.exists() else self._count_ids()
        return dict(zip(self.shards, ids.tolist(), strict=True))

    def keep_first_ids(self) -> None:
        """Count the parts as they are now and write the file that ``first_id`` reads; all shards must be stitched."""
        save_part(self.work.first_ids, {"first_id": self._count_ids(), "class_id": np.zeros(0, np.uint8)})

    def _count_ids(self) -> npt.NDArray[np.int64]:
        counts = [len(self.part(shard)["class_id"]) for shard in self.shards]
        return 1 + np.cumsum([0, *counts], dtype=np.int64)[:-1]


def save_part(path: Path, arrays: Arrays) -> dict[str, Any]:
    """Write arrays as an uncompressed npz (no pickles), complete or not at all; returns the receipt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    return {"objects": len(arrays["class_id"])}


def load_part(path: Path) -> Mapping[str, Array]:
    """The arrays of :func:`save_part`, each read when it is asked for."""
    try:
        part: Mapping[str, Array] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run again to stitch it") from error
    return part


def slide_identity(path: str) -> dict[str, Any]:
    """Size, and sha256 of the first and last MiB, of a slide file (a folder: of all its files); not the mtime, which
    staging changes.

    Raises:
        SlideError: the file does not exist or cannot be read.
    """
    place = Path(path)
    if not place.exists():
        raise SlideError(f"there is no slide {path}")
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    digest, size = hashlib.sha256(), 0
    try:
        for file in files:
            length = file.stat().st_size
            size += length
            with file.open("rb") as stream:
                digest.update(stream.read(END_BYTES))
                stream.seek(max(0, length - END_BYTES))
                digest.update(stream.read(END_BYTES))
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}") from error
    return {"bytes": size, "sha256_ends": digest.hexdigest()}


def fingerprints(
    ref: SlideRef, pipeline: Pipeline, spec: ModelSpec, *, weights_sha256: str, device: str, margin: int = 0
) -> Fingerprints:
    """The three fingerprints of a slide in this run."""
    lattice: Lattice = spec.lattice
    tile = _digest(
        slide_identity(ref.path),
        ref.mpp,
        asdict(pipeline.slide),
        spec.mpp,
        asdict(lattice),
        margin,
        schema=RESULT_SCHEMA,
    )
    frozen = {k: v for k, v in asdict(spec).items() if k != "thresholds"}
    predict = _digest(tile, frozen, weights_sha256, pipeline.run.threads, device)
    result = _digest(predict, dict(spec.thresholds), asdict(pipeline.outputs))
    return Fingerprints(tile=tile, predict=predict, result=result)


def _digest(*values: Any, schema: int = 0) -> str:
    text = json.dumps([*values, schema], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
