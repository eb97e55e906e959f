"""Do real networks keep the two promises? Prints what was compared; the last line is one JSON
object.

Untiled: a crop of a real slide or a phantom goes through the network in one forward pass, and
window by window through the lattice. Counted: stored values and decisions of the maps that differ
(flips), and objects that differ, each listed. Kernels differ by shape, so a value may lie on the
other side of a rounding step; the goal is at most one flip in 10^6 px.

Schedules: a mosaic of the real slides is tiled, inferred and stitched four times into empty
folders: in order, shuffled with units done twice, and by two numbers of dask workers (twice with
--quick). All files of the result must be the same bytes.

    QUADRAT_DATA=<folder with wsi/> python benchmarks/exactness.py [--quick] [--packages FOLDER]
    [--only NAME ...]

``--packages``: model packages (one a subfolder) to test beside the shipped one, e.g. those of
``quadrat demo``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from samples import sample

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, SlideSection, shipped_pipelines
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, Lattice, ShardIndex, work_units
from quadrat.core.objects import Frame, ObjectTable
from quadrat.core.predictions import Candidates
from quadrat.engine import images, steps
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import run_all
from quadrat.engine.tables import MergeJob, merge_slide
from quadrat.engine.work import SlideWork
from quadrat.models.inference import normalise, predict_cells
from quadrat.models.package import Package, load_package
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import ObjectFigures, ScoreFigures
from quadrat.phantom import PhantomSpec, write_phantom
from quadrat.slides.array import ArraySlide
from quadrat.slides.identity import slide_identity
from quadrat.slides.source import SlideSource, open_source, source_of
from quadrat.stitching.maps import argmax_classes
from quadrat.store.predictions import MapStorage
from quadrat.tasks import build_network, get_task

SLIDES = {"CMU-1-Small-Region.svs": None, "TCGA-CR-7395-01A-01-TS1.svs": 0.25}
"""Real slides, and the mpp that stands in where the file states none."""
MAX_FLIPS_PER_MPX = 1.0
LISTED = 20
CPU = torch.device("cpu")
Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """How one of the runs is cut and ordered; ``again``: every how manieth unit is done twice
    (0: none)."""

    name: str
    executor: str
    workers: int
    per_unit: int
    seed: int | None
    again: int

    def units(self, shards: Sequence[ShardIndex]) -> list[tuple[ShardIndex, ...]]:
        planned = work_units(shards, per_unit=self.per_unit)
        if self.seed is not None:
            random.Random(self.seed).shuffle(planned)
        return planned + (planned[:: self.again] if self.again else [])


SCHEDULES = (
    ScheduleSpec("serial, one shard a unit, in order", "serial", 1, 1, None, 0),
    ScheduleSpec("serial, three shards a unit, shuffled, some twice", "serial", 1, 3, 1, 3),
    ScheduleSpec("dask, two workers, one shard a unit, shuffled", "dask", 2, 1, 2, 0),
    ScheduleSpec("dask, four workers, two shards a unit, shuffled, some twice", "dask", 4, 2, 3, 4),
)


@dataclass(frozen=True, slots=True)
class Held:
    """A slide's predictions in memory, as stitching sees them: one shard that holds everything."""

    spec: ModelSpec
    frame: Frame
    whole: NDArray[np.uint8] | None = None
    found: Candidates | None = None
    parts: dict[ShardIndex, Any] = field(default_factory=dict)

    @property
    def shards(self) -> list[ShardIndex]:
        return [ShardIndex((0, 0))]

    def allows(self, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[np.bool_]:
        """No regions are drawn."""
        return np.ones(np.broadcast_shapes(rows.shape, cols.shape), np.bool_)

    @property
    def predictions(self) -> Held:
        return self

    def read(self, place: Any) -> Any:
        """The maps of a box, or the candidates of the one shard."""
        if self.whole is None:
            return self.found
        return self.whole[(slice(None), *place.slices_in(self.frame.box))]

    def part(self, shard: ShardIndex) -> Any:
        return self.parts[shard]

    def objects(self) -> ObjectTable:
        task = get_task(self.spec.task)
        if task.parts is not None:
            whole = ShardIndex((0, 0))
            self.parts[whole] = task.parts.stitch(self, whole)  # type: ignore[arg-type]
        merged = task.merge(self)  # type: ignore[arg-type]
        return ObjectTable.concatenate([part()[0] for part in merged.objects or ()])


def one_core(spec: ModelSpec, shape: tuple[int, int]) -> ModelSpec:
    """The specification with a lattice of a single core that covers ``shape``."""
    side = -(-max(shape) // spec.lattice.core) * spec.lattice.core
    return replace(
        spec,
        lattice=Lattice(core=side, halo=spec.lattice.halo, stride=spec.lattice.stride, shard=side),
    )


def hold(
    spec: ModelSpec, source: SlideSource, predictions: dict[CoreIndex, Any], lattice: Lattice
) -> Held:
    """Predictions of cores of ``lattice`` put together, to be stitched as one shard."""
    frame, whole_spec = source.frame, one_core(spec, source.frame.box.shape)
    storage = get_task(spec.task).storage(spec)
    if isinstance(storage, MapStorage):
        whole = np.zeros((storage.channels, *frame.box.shape), np.uint8)
        for cell, maps in predictions.items():
            core = lattice.core_box(cell)
            part = core.intersect(frame.box)
            whole[(slice(None), *part.slices_in(frame.box))] = maps[
                (slice(None), *part.slices_in(core))
            ]
        return Held(whole_spec, frame, whole=whole)
    found = Candidates.concatenate([predictions[cell] for cell in sorted(predictions)])
    return Held(whole_spec, frame, found=found)


def tiled(package: Package, source: SlideSource) -> Held:
    """Every window of the lattice, each on its own; in fp32, since one window as large as the
    slide rounds otherwise in bf16."""
    spec, task = replace(package.spec, inference="fp32"), get_task(package.spec.task)
    cells = spec.lattice.cores(source.frame.box)
    found = dict(predict_cells(package.model, task, spec, source, cells, device=CPU))
    return hold(spec, source, found, spec.lattice)


def untiled(package: Package, source: SlideSource) -> Held:
    """One forward pass over everything, a halo of white around it."""
    spec = one_core(package.spec, source.frame.box.shape)
    core = CoreIndex((0, 0))
    window = spec.lattice.window_box(core)
    model = package.model.to(CPU, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with torch.inference_mode():
        output = model(normalise(torch.from_numpy(source.read(window)[None]), spec))
    task = get_task(spec.task)
    prediction = task.decode(task.answer(output, spec), [core], spec)[0]
    return hold(package.spec, source, {core: prediction}, spec.lattice)


def decisions(held: Held) -> NDArray[np.uint8]:
    """(k, h, w) what is decided of each pixel alone: the class, or foreground, seed and class."""
    assert held.whole is not None
    if held.spec.task == "semantic":
        return argmax_classes(held.whole)[None]
    limits = [round(held.spec.thresholds[name] * 255) for name in ("foreground", "seed")]
    inside, seed = held.whole[0] >= limits[0], held.whole[1] >= limits[1]
    return np.stack([inside, seed & inside, argmax_classes(held.whole[2:]) * inside]).astype(
        np.uint8
    )


def rows_of(table: ObjectTable) -> set[tuple[Any, ...]]:
    """(anchor row, column, class, bounding box, area) of each object; scores follow float rounding
    and are left out."""
    columns = (table.anchor, table.class_id, table.bbox, table.area_px)
    return {
        (*map(float, anchor), int(k), *map(float, box), float(area))
        for anchor, k, box, area in zip(*columns, strict=True)
    }


def candidate_rows(found: Candidates) -> set[tuple[int, ...]]:
    """(cell row, column, class, box, score) of each candidate."""
    return set(
        map(
            tuple,
            np.column_stack([found.cell, found.class_id, found.box, found.score])
            .astype(int)
            .tolist(),
        )
    )


def compare(package: Package, source: SlideSource) -> dict[str, Any]:
    """Flips and object differences between windows and one pass."""
    a, b = tiled(package, source), untiled(package, source)
    pixels = source.frame.box.area
    if a.whole is not None and b.whole is not None:
        off = np.abs(a.whole.astype(np.int16) - b.whole)
        values, largest = int((off > 0).sum()), int(off.max())
        flips = int((decisions(a) != decisions(b)).any(axis=0).sum())
    else:
        assert a.found is not None
        assert b.found is not None
        values = len(candidate_rows(a.found) ^ candidate_rows(b.found))
        largest, flips = (
            0,
            len(
                {row[:3] for row in candidate_rows(a.found)}
                ^ {row[:3] for row in candidate_rows(b.found)}
            ),
        )
    ours, theirs = rows_of(a.objects()), rows_of(b.objects())
    return {
        "height": source.frame.height,
        "width": source.frame.width,
        "cores": len(source.frame.box.cells(package.spec.lattice.core)),
        "values_off": values,
        "largest_step": largest,
        "flips": flips,
        "flips_per_mpx": round(flips / pixels * 1e6, 3),
        "objects": len(ours),
        "count_difference": len(ours) - len(theirs),
        "only_tiled": sorted(ours - theirs)[:LISTED],
        "only_untiled": sorted(theirs - ours)[:LISTED],
        "object_differences": len(ours ^ theirs),
    }


def pictures(
    folder: Path, data: Path, *, mpp: float, side: int, quick: bool
) -> Iterator[tuple[str, SlideSource]]:
    """Crops of real slides and a phantom at ``mpp``, at most ``side`` px a side."""
    names = list(SLIDES)[: 1 if quick else None]
    paths: list[tuple[Path, float | None]] = [(data / "wsi" / name, SLIDES[name]) for name in names]
    for seed in (21,) if quick else (21, 22):
        name, px = f"phantom-{seed}", max(2048, round(side * mpp / 0.5))
        spec = PhantomSpec(
            name=name, height=px, width=px, seed=seed, dominant="tumour", tissue_fraction=0.6
        )
        paths.append((write_phantom(folder, spec=spec).slide, None))
    for path, stated in paths:
        with open_source(path, mpp=mpp, slide_mpp=stated) as whole:
            height, width = min(side, whole.frame.height), min(side, whole.frame.width)
            rgb = darkest(whole, height, width)
        yield path.name, source_of(ArraySlide(rgb, mpp=mpp), mpp=mpp)


def darkest(slide: SlideSource, height: int, width: int) -> Rgb:
    """The crop of height x width px with the most stain, of those that begin at multiples of 256 px
    or end at the border."""
    rgb = slide.read(slide.frame.box)
    places = [
        sorted({*range(0, whole - part, 256), whole - part})
        for whole, part in zip(rgb.shape, (height, width), strict=False)
    ]
    crops = [rgb[row : row + height, col : col + width] for row in places[0] for col in places[1]]
    return np.ascontiguousarray(min(crops, key=lambda crop: float(crop[::8, ::8, 1].mean())))


def write_mosaic(path: Path, data: Path, *, mpp: float, side: int) -> None:
    """A TIFF of side x side px at ``mpp``: the real slides again and again, turned and mirrored by
    turns."""
    blocks = []
    for name, stated in SLIDES.items():
        with open_source(data / "wsi" / name, mpp=mpp, slide_mpp=stated) as slide:
            edge = min(slide.frame.box.shape) // 16 * 16
            square = slide.read(Box(0, 0, edge, edge))
        blocks += [np.rot90(square, turn) for turn in range(4)] + [np.fliplr(square)]
    out = np.empty((side, side, 3), np.uint8)
    row, number = 0, 0
    while row < side:
        col, height = 0, min(block.shape[0] for block in blocks)
        while col < side:
            block = blocks[number * 3 % len(blocks)][:height]
            part = out[row : row + height, col : col + block.shape[1]]
            part[:] = block[: part.shape[0], : part.shape[1]]
            col, number = col + block.shape[1], number + 1
        row += height
    tifffile.imwrite(
        path,
        out,
        tile=(512, 512),
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 1},
    )


def run_schedule(
    work: SlideWork, package: Path, schedule: ScheduleSpec
) -> tuple[dict[str, str], ObjectFigures | ScoreFigures]:
    """sha256 of every file of the result, and the figures of the merge."""
    task = get_task(work.task)
    work.path.mkdir(parents=True)
    shards = steps.plan_slide(work).shards
    workers = schedule.workers if schedule.executor == "dask" else 0
    with open_executor(workers=workers, threads=1) as executor:

        def do(fn: Any, cut: list[tuple[ShardIndex, ...]], make: Any) -> None:
            jobs = {f"{fn.__name__}/{i}": make(unit) for i, unit in enumerate(cut)}
            for outcome in run_all(executor, fn, jobs):
                if outcome.failure is not None:
                    raise RuntimeError(
                        f"{schedule.name}: {outcome.failure.message}\n{outcome.failure.trace}"
                    )

        def job(unit: tuple[ShardIndex, ...]) -> steps.ShardJob:
            return steps.ShardJob(work, unit)

        def predict_job(unit: tuple[ShardIndex, ...]) -> steps.PredictJob:
            return steps.PredictJob(work, unit, package=str(package), device="cpu", threads=1)

        steps.create_predictions(work)
        do(steps.predict_shards, schedule.units(shards), predict_job)
        if task.parts is not None:
            do(steps.stitch_shards, schedule.units(shards), job)
        figures = merge_slide(MergeJob(work, OutputsSection(overlay=False)))
        if task.label_image is not None:
            images.create_labels(work)
            do(images.paint_shards, schedule.units(shards), job)
    files = [path for path in sorted(work.result.rglob("*")) if path.is_file()]
    return {
        str(p.relative_to(work.result)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }, figures.answer


def compare_schedules(
    folder: Path,
    data: Path,
    place: Path,
    package: Package,
    *,
    side: int,
    schedules: Sequence[ScheduleSpec],
) -> dict[str, Any]:
    """Whether the schedules of one package write the same bytes; many shards, whatever the
    package's shard is."""
    spec = package.spec
    cores = side // 4 // spec.lattice.core
    spec = replace(
        spec,
        lattice=replace(
            spec.lattice, shard=min(spec.lattice.shard, max(1, cores) * spec.lattice.core)
        ),
    )
    mosaic = folder / f"mosaic-{spec.mpp}.tiff"
    if not mosaic.exists():
        write_mosaic(mosaic, data, mpp=spec.mpp, side=side)
    ref = SlideRef(name="mosaic", path=str(mosaic), mpp=spec.mpp)
    want: dict[str, str] = {}
    differing: dict[str, list[str]] = {}
    seconds = []
    for number, schedule in enumerate(schedules):
        start = time.perf_counter()
        at = folder / f"{place.name}-{number}"
        work = SlideWork(
            ref=ref,
            folder=str(at),
            spec=spec,
            slide=SlideSection(tissue="all"),
            task=spec.task,
            identity=slide_identity(ref.path),
        )
        found, answer = run_schedule(work, place, schedule)
        shutil.rmtree(at)
        want = want or found
        differing[schedule.name] = sorted(
            p for p in want.keys() | found.keys() if want.get(p) != found.get(p)
        )[:LISTED]
        seconds.append(round(time.perf_counter() - start, 1))
    counts = (
        {row.class_name: row.count for row in answer.counts}
        if isinstance(answer, ObjectFigures)
        else dict(answer.tile_votes)
    )
    return {
        "side_px": side,
        "shards": len(Box(0, 0, side, side).cells(spec.lattice.shard)),
        "files": len(want),
        "counts": counts,
        "identical": not any(differing.values()),
        "differing": differing,
        "seconds": seconds,
    }


def packages(extra: Path | None, only: list[str]) -> Iterator[tuple[str, Path]]:
    """Name and place of the shipped package and of those in the folder ``extra``."""
    places = [shipped_pipelines() / "packages" / "nuclei"]
    if extra is not None:
        places += sorted(path.parent for path in extra.glob("*/card.json"))
    for number, place in enumerate(places):
        name = f"{'shipped' if number == 0 else 'given'}/{place.name}"
        if not only or place.name in only:
            yield name, place


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two crops of 768 px; a mosaic of 1,280 px, two schedules",
    )
    parser.add_argument("--packages", type=Path, help="folder of more model packages")
    parser.add_argument("--only", nargs="*", default=[], help="names of packages")
    parser.add_argument("--skip-schedules", action="store_true", help="only the untiled comparison")
    options = parser.parse_args()
    data = sample("wsi").parent
    torch.set_num_threads(1)
    report: dict[str, Any] = {"quick": options.quick, "untiled": [], "schedules": []}
    with tempfile.TemporaryDirectory() as scratch:
        for name, place in packages(options.packages, options.only):
            package = load_package(place, build_network)
            spec, promise = package.spec, package.card["exactness"]["promise"]
            if promise == "tiling-exact":
                side = 1536 if options.quick else 2048
                side = side if spec.mpp <= 1 else max(4 * spec.lattice.core, side // 2)
                for slide, source in pictures(
                    Path(scratch), data, mpp=spec.mpp, side=side, quick=options.quick
                ):
                    row = {"package": name, "slide": slide} | compare(package, source)
                    report["untiled"].append(row)
                    print(f"untiled    {name:24s} {slide:32s} {row['height']} x {row['width']} px, "
                          f"{row['cores']} cores: "
                          f"{row['values_off']} values off by at most {row['largest_step']}, "
                          f"{row['flips']} flips "
                          f"({row['flips_per_mpx']} / Mpx), {row['objects']} objects, "
                          f"{row['object_differences']} differ", flush=True)  # fmt: skip
                    for where in ("only_tiled", "only_untiled"):
                        for found in row[where]:
                            print(f"             {where}: {found}")
            else:
                print(f"untiled    {name:24s} not compared: {promise}")
            if not options.skip_schedules:
                side = 1280 if options.quick else 8192
                side = side if spec.mpp <= 1 else side // 2
                row = {"package": name} | compare_schedules(
                    Path(scratch),
                    data,
                    place,
                    package,
                    side=side,
                    schedules=SCHEDULES[::2] if options.quick else SCHEDULES,
                )
                report["schedules"].append(row)
                print(f"schedules  {name:24s} {side} x {side} px, {row['shards']} shards, "
                      f"{row['counts']}: "
                      f"{'identical' if row['identical'] else row['differing']} ({row['seconds']} "
                      "s)", flush=True)  # fmt: skip
    report["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    pixels = sum(row["height"] * row["width"] for row in report["untiled"])
    flips = sum(row["flips"] for row in report["untiled"])
    report["flips_per_mpx"] = round(flips / max(1, pixels) * 1e6, 3)
    report["object_differences"] = sum(row["object_differences"] for row in report["untiled"])
    report["identical"] = all(row["identical"] for row in report["schedules"])
    good = report["identical"] and report["flips_per_mpx"] <= MAX_FLIPS_PER_MPX
    report["ok"] = good
    print(json.dumps(report))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
