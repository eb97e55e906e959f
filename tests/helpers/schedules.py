"""One slide's work done in any order: shuffled, interleaved between workers, tried again, done
twice; in memory or on disk.

The work itself is the shipped code: ``predict_cells``, the task's methods, and the work units of
``quadrat.engine.steps``.
"""

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers import oracle
from helpers.runs import contents
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, SlideSection
from quadrat.core.lattice import work_units
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.outlines import concatenate_polygons, take_polygons
from quadrat.core.predictions import TileScores
from quadrat.core.records import to_json
from quadrat.engine import images, steps, tables
from quadrat.engine.opened import Opened, open_work_source
from quadrat.engine.work import SlideWork
from quadrat.models import inference
from quadrat.slides.array import ArraySlide
from quadrat.slides.identity import slide_identity
from quadrat.slides.source import source_of
from quadrat.store.predictions import MapStorage
from quadrat.tasks import get_task

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Schedule:
    """How the work is cut and ordered: shards a unit, workers, and a seed for everything that
    chance decides.

    Of the units some are done twice, and some fail half-way and are done again from the start.
    """

    per_unit: int = 1
    workers: int = 1
    seed: int | None = None

    def units(self, shards):
        """Lists of shards in the order in which they are worked on; a shard may come up more than
        once."""
        planned = work_units(shards, per_unit=self.per_unit)
        if self.seed is None:
            return planned
        rng = np.random.default_rng(self.seed)
        rng.shuffle(planned)
        tried = []
        for unit in planned:
            fate = rng.integers(6)
            if fate == 0 and len(unit) > 1:
                tried.append(unit[: int(rng.integers(1, len(unit)))])  # it failed after these
            tried += [unit] * (2 if fate == 1 else 1)
        queues = [tried[i :: self.workers] for i in range(self.workers)]
        order = []
        while any(queues):  # the workers take steps in turns that nobody foresees
            queue = queues[int(rng.integers(self.workers))]
            if queue:
                order.append(queue.pop(0))
        return order


IN_ORDER = Schedule()
AT_ONCE = Schedule(per_unit=10**6)


@dataclass(frozen=True)
class Case:
    """A slide (uint8 (h, w, 3)), a network, and the specification it is used with."""

    rgb: np.ndarray
    model: torch.nn.Module
    spec: object

    @property
    def source(self):
        return source_of(ArraySlide(self.rgb, mpp=self.spec.mpp), mpp=self.spec.mpp)

    @property
    def cells(self):
        return self.source.frame.box.cells(self.spec.lattice.core)


@dataclass
class MemoryMaps:
    """Maps of a slide, held in memory, that are read as a store of maps is."""

    frame: object
    whole: np.ndarray

    def read(self, box):
        assert self.frame.box.intersect(box) == box, f"{box} leaves the slide"
        return self.whole[(slice(None), *box.slices_in(self.frame.box))]


@dataclass
class MemoryRows:
    """Rows of a slide by shard, held in memory, that are read as a store of rows is."""

    kind: type
    stored: dict

    def read(self, shard):
        found = self.stored[shard]
        return self.kind.concatenate([found[cell] for cell in sorted(found)])


@dataclass
class MemoryView:
    """A slide as stitching sees it, held in memory: predictions by shard, ``parts`` as they
    come."""

    spec: object
    frame: object
    stored: dict
    parts: dict = field(default_factory=dict)

    @property
    def shards(self):
        return sorted(self.stored)

    @cached_property
    def predictions(self):
        storage = get_task(self.spec.task).storage(self.spec)
        if isinstance(storage, MapStorage):
            return MemoryMaps(self.frame, self.whole)
        return MemoryRows(storage.kind, self.stored)

    @cached_property
    def whole(self):
        lattice = self.spec.lattice
        channels = get_task(self.spec.task).storage(self.spec).channels
        out = np.zeros((channels, *self.frame.box.shape), np.uint8)
        for found in self.stored.values():
            for cell, maps in found.items():
                core = lattice.core_box(cell)
                part = core.intersect(self.frame.box)
                out[(slice(None), *part.slices_in(self.frame.box))] = maps[
                    (slice(None), *part.slices_in(core))
                ]
        return out

    def allows(self, rows, cols):
        return np.ones(np.broadcast_shapes(rows.shape, cols.shape), bool)

    def part(self, shard):
        return self.parts[shard]

    @property
    def first_id(self):
        first, out = 1, {}
        for shard in self.shards:
            out[shard] = first
            first += len(self.parts[shard]["class_id"])
        return out


@dataclass(frozen=True)
class Answer:
    """All that is said of a slide: objects in order of their ids, outlines, the label image, or the
    rows of tiles."""

    table: ObjectTable | None = None
    polygons: Polygons | None = None
    image: np.ndarray | None = None
    tiles: TileScores | None = None

    def __len__(self):
        return len(self.table) if self.table is not None else len(self.tiles.cell)


def inferred(case, schedule=IN_ORDER):
    """A view of the predictions, made in the order of the schedule."""
    spec, task, source, stored = case.spec, get_task(case.spec.task), case.source, {}
    groups = spec.lattice.by_shard(case.cells)
    for unit in schedule.units(groups):
        cells = [cell for shard in unit for cell in groups[shard]]
        found = dict(inference.predict_cells(case.model, task, spec, source, cells, device=CPU))
        stored |= {shard: {cell: found[cell] for cell in groups[shard]} for shard in unit}
    return MemoryView(spec, source.frame, stored)


def stitched(view, schedule=IN_ORDER):
    """The answer from a view, its shards stitched and painted in the order of the schedule."""
    task = get_task(view.spec.task)
    order = [shard for unit in schedule.units(view.shards) for shard in unit]
    if task.parts is not None:
        view.parts.clear()
        for shard in order:
            view.parts[shard] = task.parts.stitch(view, shard)
    merged = task.merge(view)
    if merged.objects is None:
        return Answer(tiles=merged.tiles)
    pieces = [part() for part in merged.objects]
    table = ObjectTable.concatenate([piece[0] for piece in pieces])
    polygons = concatenate_polygons([piece[1] for piece in pieces])
    return Answer(table, polygons, painted(view, order) if task.label_image is not None else None)


def painted(view, order):
    task, first = get_task(view.spec.task), view.first_id
    image = np.zeros(view.frame.box.shape, task.label_image.dtype)
    for shard in order:
        box = view.spec.lattice.shard_box(shard).intersect(view.frame.box)
        image[box.slices_in(view.frame.box)] = task.label_image.paint(view, shard, first)
    return image


def from_one_pass(case):
    """The answer of one forward pass over the whole slide, with the ids that the package's shards
    give."""
    prediction, whole = oracle.one_pass(case.model, case.spec, case.rgb)
    view = MemoryView(whole, case.source.frame, {(0, 0): {(0, 0): prediction}})
    return view, renumbered(stitched(view), side=case.spec.lattice.shard)


def renumbered(answer, *, side):
    """An answer of one shard with the ids that shards of ``side`` px would give."""
    row, col = answer.table.anchor.T
    order = np.lexsort((col, row, col // side, row // side))
    image = answer.image
    if image is not None and image.dtype == np.uint32:
        image = np.concatenate([[0], np.argsort(order) + 1]).astype(np.uint32)[image]
    return Answer(answer.table.take(order), take_polygons(answer.polygons, order), image)


def differences(one, other):
    """Where two answers differ, in words; nothing where they are the same bytes."""
    found = []
    for part in ("table", "polygons", "tiles"):
        a, b = getattr(one, part), getattr(other, part)
        if (a is None) != (b is None):
            found.append(f"only one has {part}")
        elif a is not None:
            found += [f"{part}.{n}: {_unlike(getattr(a, n), getattr(b, n))}" for n in a.__slots__
                      if _unlike(getattr(a, n), getattr(b, n))]  # fmt: skip
    if one.image is not None and _unlike(one.image, other.image):
        found.append(f"label image: {_unlike(one.image, other.image)}")
    return found


def _unlike(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{a.shape} and {b.dtype}{b.shape}"
    if a.tobytes() == b.tobytes():
        return ""
    return f"{int((a != b).sum())} of {a.size} values differ" if a.size else ""


@dataclass(frozen=True)
class OnDisk:
    """A slide file and a folder for its work: the same work units as a run's, each schedule in an
    empty folder."""

    folder: Path
    case: Case

    def work(self, name):
        path = self.folder / "slide.png"
        if not path.exists():
            Image.fromarray(self.case.rgb).save(path, compress_level=1)
        return SlideWork(
            ref=SlideRef(path=str(path), name="slide", mpp=self.case.spec.mpp),
            folder=str(self.folder / name),
            spec=self.case.spec,
            slide=SlideSection(tissue="all"),
            task=self.case.spec.task,
            identity=slide_identity(str(path)),
        )

    def results(self, name, schedule):
        """sha256 of every file of the slide's results but its picture, made in the order of the
        schedule."""
        work, task = self.work(name), get_task(self.case.spec.task)
        work.path.mkdir(parents=True)
        planned = steps.plan_slide(work).shards
        steps.create_predictions(work)
        for unit in schedule.units(planned):
            with open_work_source(work) as source:
                steps.infer_shards(work, self.case.model, unit, source, Opened(work), device=CPU)
        if task.parts is not None:
            again = replace(schedule, seed=None if schedule.seed is None else schedule.seed + 1)
            for unit in again.units(planned):
                steps.stitch_shards(steps.ShardJob(work, tuple(unit)))
        figures = tables.merge_slide(tables.MergeJob(work, OutputsSection(overlay=False)))
        if task.label_image is not None:
            images.create_labels(work)
            for unit in schedule.units(planned):
                images.paint_shards(steps.ShardJob(work, tuple(unit)))
        (work.result / "figures.json").write_text(json.dumps(to_json(figures), sort_keys=True))
        found = contents(work.result)
        shutil.rmtree(work.path)
        return found
