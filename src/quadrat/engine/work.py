"""A slide's working folder: its plan, stores and parts, and the fingerprints that say which of them
are still valid.

::

    run/work/<slide>/
        plan.json       frame, cores, analysed area (written last: a plan is complete or absent)
        tissue.npy      the tissue mask, as codes that say why not
        journal.jsonl   receipts of finished shards
        tiles.zarr      the tile store, if the run has one
        predictions/    quantised predictions
        parts/          what stitching work units hand on
        result/         becomes results/<slide>/ by one rename
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.annotations.regions import inside
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline, SlideSection
from quadrat.core.errors import QuadratError, SlideError, StoreError
from quadrat.core.files import write_durably
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.core.objects import Frame
from quadrat.core.predictions import Candidates, MaskCandidates, TileScores
from quadrat.models.task import Array, Arrays, ModelSpec
from quadrat.slides.tissue.mask import TissueMap
from quadrat.store.predictions import PredictionStore

RESULT_SCHEMA = 3
END_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Hashes over everything that decides the content: of the tile store, of the predictions, of
    the results."""

    tile: str
    predict: str
    result: str


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """What is to be read and analysed of a slide. ``cells``: analysed cores; ``tissue_mm2``:
    analysed tissue; ``tissue_frame``: where the mask lies; ``excluded``: (reason, mm2) of what is
    left out."""

    name: str
    frame: Frame
    cells: tuple[Cell, ...]
    tissue_mm2: float
    tissue_frame: Frame
    reader: str
    format: str
    slide_mpp: float
    mpp_source: str
    excluded: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SlideWork:
    """The working folder of one slide in one run, and what every work unit needs to know of it
    (picklable, small).

    ``identity``: of the slide file when the run began (see ``slide_identity``). ``margin``: px
    stored around every window beyond the halo (training cuts its patches there).
    """

    ref: SlideRef
    folder: str
    spec: ModelSpec
    slide: SlideSection
    task: str
    identity: str
    margin: int = 0

    @property
    def path(self) -> Path:
        return Path(self.folder)

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

    def part(self, shard: Cell) -> Path:
        return self.parts / f"{shard[0]}.{shard[1]}.npz"

    def save_plan(self, plan: SlidePlan, tissue: TissueMap) -> None:
        """Write the plan, complete or not at all. Raises StoreError where the disk is full."""
        stream = io.BytesIO()
        np.save(
            stream, tissue.codes
        )  # not to a path: what numpy says of a full disk names neither the file nor the reason
        try:
            write_durably(self.path / "tissue.npy", stream.getvalue())
            write_durably(self.path / "plan.json", json.dumps(asdict(plan)).encode())
        except OSError as error:
            raise StoreError(
                f"{self.path}: the plan of the slide cannot be written ({error.strerror}); make "
                "room and run again"
            ) from error

    def load_plan(self) -> SlidePlan:
        values = json.loads((self.path / "plan.json").read_text())
        cells = tuple((r, c) for r, c in values["cells"])
        excluded = tuple((reason, mm2) for reason, mm2 in values["excluded"])
        frames = {name: Frame(**values[name]) for name in ("frame", "tissue_frame")}
        return SlidePlan(**values | frames | {"cells": cells, "excluded": excluded})

    def load_tissue(self) -> TissueMap:
        return TissueMap.of_codes(
            np.load(self.path / "tissue.npy"), frame=self.load_plan().tissue_frame
        )


class WorkView:
    """A slide as stitching sees it (see :class:`quadrat.models.task.SlideView`)."""

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

    def permits(self, rows: Array, cols: Array) -> npt.NDArray[np.bool_]:
        if self._tissue is None:
            return np.ones(np.broadcast_shapes(rows.shape, cols.shape), np.bool_)
        return inside(self._tissue, rows, cols, frame=self.frame)

    @cached_property
    def _tissue(self) -> TissueMap | None:
        """The mask, if the user drew regions."""
        return self.work.load_tissue() if self.work.ref.regions else None

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
        ids = (
            load_part(self.work.first_ids)["first_id"]
            if self.work.first_ids.exists()
            else self._count_ids()
        )
        return dict(zip(self.shards, ids.tolist(), strict=True))

    def keep_first_ids(self) -> None:
        """Count the parts as they are now and write the file that ``first_id`` reads; all shards
        must be stitched."""
        save_part(
            self.work.first_ids, {"first_id": self._count_ids(), "class_id": np.zeros(0, np.uint8)}
        )

    def _count_ids(self) -> npt.NDArray[np.int64]:
        counts = [len(self.part(shard)["class_id"]) for shard in self.shards]
        return 1 + np.cumsum([0, *counts], dtype=np.int64)[:-1]


def save_part(path: Path, arrays: Arrays) -> dict[str, Any]:
    """Write arrays as an uncompressed npz (no pickles), complete or not at all; returns the
    receipt."""
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


def slide_identity(path: str) -> str:
    """Total size, and sha256 of the first and last MiB, of a slide's files; not the mtime, which
    staging changes.

    Raises:
        SlideError: the file does not exist or cannot be read.
    """
    place = Path(path)
    try:
        if not place.exists():
            raise SlideError(f"there is no slide {path}")
        stats = [(str(file), file.stat()) for file in slide_files(place)]
        return _identity(tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats))
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}") from error


def regions_digest(path: str) -> str:
    """sha256 of the user's regions file; "" where there is none.

    Raises:
        SlideError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError as error:
        raise SlideError(f"{path}: the regions cannot be read ({error.strerror})") from error


def slide_files(path: Path) -> list[Path]:
    """The files that a slide may consist of: a folder's; itself and the folder beside it (MIRAX);
    or all that lie beside it and belong to its kind (the instances of a DICOM series, the pictures
    of a VMS index)."""
    kind, beside = path.suffix.lower(), path.with_suffix("")
    if path.is_dir():
        found: Iterable[Path] = path.rglob("*")
    elif kind == ".mrxs" and beside.is_dir():
        found = [path, *beside.rglob("*")]
    elif kind in (".vms", ".vmu"):
        found = [path, *path.parent.glob(f"{glob.escape(path.stem)}*")]
    else:
        found = [path, *(path.parent.glob("*.dcm") if kind == ".dcm" else ())]
    return sorted({p for p in found if p.is_file()} | (set() if path.is_dir() else {path}))


@lru_cache(maxsize=64)
def _identity(files: tuple[tuple[str, int, int, int], ...]) -> str:
    """The hash over files given as (path, size, mtime, inode); looked up only while all of these
    stay the same."""
    digest = hashlib.sha256(str(sum(size for _, size, _, _ in files)).encode())
    for name, size, _, _ in files:
        with open(name, "rb") as stream:
            digest.update(stream.read(END_BYTES))
            stream.seek(max(0, size - END_BYTES))
            digest.update(stream.read(END_BYTES))
    return digest.hexdigest()


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
        raise SlideError(
            f"{work.ref.path}: the file was replaced or changed while the run was reading it; "
            "run again when it is complete (the slide is then begun anew)"
        )


def fingerprints(
    work: SlideWork, pipeline: Pipeline, *, weights_sha256: str, device: str
) -> Fingerprints:
    """The three fingerprints of a slide in this run."""
    spec, lattice = work.spec, work.spec.lattice
    tile = _digest(
        work.identity,
        work.ref.mpp,
        regions_digest(work.ref.regions),
        asdict(work.slide),
        spec.mpp,
        asdict(lattice),
        work.margin,
        schema=RESULT_SCHEMA,
    )
    frozen = {k: v for k, v in asdict(spec).items() if k != "thresholds"}
    predict = _digest(tile, frozen, weights_sha256, pipeline.run.threads, device)
    result = _digest(predict, dict(spec.thresholds), asdict(pipeline.outputs))
    return Fingerprints(tile=tile, predict=predict, result=result)


def _digest(*values: Any, schema: int = 0) -> str:
    text = json.dumps([*values, schema], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
