"""Is exact stitching cheap? CPU seconds and memory, each case in a process of its own; the last
line is one JSON object.

The predictions are written by an oracle (``planted.py``: lobed outlines, soft borders, half of the
nuclei touching), so the number of objects is known; reading them back and stitching is what is
timed. CPU seconds are user + system of the process, memory is its peak resident size above that
after imports, compilation and a small warm-up.

    python benchmarks/stitching.py --quick     under a minute
    python benchmarks/stitching.py --full      the figures of docs/exactness.md, about half an hour
                                               and 10 GB of disk
    --peers FOLDER    where sahi is installed (pip install --no-deps --target FOLDER sahi);
                      else it is left out

The exit code is 1 if a count or a pixel is wrong, or a written file cannot be read back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from planted import plant, render

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, SlideSection
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice, ShardIndex
from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.predictions import Candidates
from quadrat.engine.tables import MergeJob, merge_slide
from quadrat.engine.view import WorkView, save_part
from quadrat.engine.work import SlidePlan, SlideWork
from quadrat.models.task import ModelSpec
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import ObjectFigures
from quadrat.slides.tissue.mask import whole_slide
from quadrat.stitching.parts import load_table
from quadrat.stitching.suppression import suppress
from quadrat.store.ome_zarr import create_label_image, open_label_image
from quadrat.store.predictions import Layout, MapStorage
from quadrat.tasks import get_task

LATTICE = Lattice(core=512, halo=48, stride=8, shard=2048)
PER_MPX = 100_000 / 16_384**2 * 1e6
"""100,000 nuclei on a map of 16,384 px a side."""
CLASSES = (ClassInfo("nucleus", (200, 30, 60)),)
IOU = 0.4
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    nms: tuple[int, ...]
    """Numbers of boxes for quadrat."""
    nms_shapely: int
    nms_torchvision: int
    """Less than for the others: its time grows with the square of the number."""
    nms_sahi: int
    map_px: int
    """Side of the map that is compared with scipy's labelling and skimage's watershed."""
    slides: tuple[tuple[int, int], ...]
    """Heights and widths (px) of the slides that are stitched, painted and written."""
    written: int
    """Objects in one file."""


QUICK = Size((100_000,), 20_000, 20_000, 20_000, 2048, ((2048, 2048), (4096, 2048)), 20_000)
FULL = Size(
    (1_000_000, 5_000_000),
    1_000_000,
    100_000,
    1_000_000,
    16_384,
    ((25_000, 20_000), (50_000, 40_000), (100_000, 80_000)),
    1_000_000,
)


def cpu_s() -> float:
    """User and system seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    """Peak resident size of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(work: Callable[[], Figures]) -> Figures:
    """Figures of a piece of work with its CPU seconds and growth of the peak."""
    before, start = peak_mib(), cpu_s()
    figures = work()
    return figures | {
        "cpu_s": round(cpu_s() - start, 3),
        "growth_mib": round(peak_mib() - before, 1),
    }


def slide_work(folder: Path, shape: tuple[int, int]) -> SlideWork:
    """A working folder as a run has it, with its plan; predictions are still to be written."""
    task = get_task("instance")
    spec = ModelSpec("instance", CLASSES, 0.5, LATTICE, (8,), dict(task.default_thresholds))
    ref = SlideRef("planted", "planted")
    work = SlideWork(ref, str(folder), spec, SlideSection(), "instance", identity="")
    work.result.mkdir(parents=True, exist_ok=True)
    frame = Frame(*shape, 0.5, 1.0, 1.0)
    area = shape[0] * shape[1] * 0.25e-6
    tissue = whole_slide(frame)
    plan = SlidePlan(
        name="planted",
        frame=frame,
        cells=tuple(LATTICE.cores(frame.box)),
        tissue_mm2=area,
        tissue_frame=tissue.frame,
        reader="oracle",
        format="oracle",
        slide_mpp=0.5,
        mpp_source="file",
    )
    work.save_plan(plan, tissue)
    return work


def write_predictions(folder: Path, shape: tuple[int, int], large: float) -> Figures:
    """The oracle's predictions of a whole slide."""
    work, nuclei = slide_work(folder, shape), plant(shape, per_mpx=PER_MPX, seed=1, large=large)
    frame = work.load_plan().frame
    shards = LATTICE.by_shard(LATTICE.cores(frame.box))
    store = MapStorage(3).create(work.predictions, Layout(frame, LATTICE, tuple(shards)))
    for shard, cells in shards.items():
        box = LATTICE.shard_box(shard)
        maps = render(nuclei, box)
        store.write(
            shard,
            {cell: maps[(slice(None), *LATTICE.core_box(cell).slices_in(box))] for cell in cells},
        )
    return {"planted": len(nuclei)}


def warm_up() -> None:
    """Compile and load everything once, on a slide of one small shard."""
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder), (600, 700), 0.0)
        stitch(Path(folder), paint_to="store")
        tables(Path(folder))


def stitch(folder: Path, *, paint_to: str) -> Figures:
    """Objects of every shard, then ids and painting of every shard; the label image is handed over
    or stored."""
    plan_shape = json.loads((folder / "plan.json").read_text())["frame"]
    work = slide_work(folder, (plan_shape["height"], plan_shape["width"]))
    task, view, found = get_task("instance"), WorkView(work), 0
    start = cpu_s()
    for shard in view.shards:
        assert task.parts is not None
        part = task.parts.stitch(view, shard)
        save_part(work.part(shard), part)
        found += len(part["class_id"])
    objects_s, start = cpu_s() - start, cpu_s()
    first_id = view.first_id
    if paint_to == "store":
        create_label_image(
            work.image,
            "objects",
            frame=view.frame,
            dtype="uint32",
            chunk=LATTICE.core,
            shard=LATTICE.shard,
        )
        image = open_label_image(work.image, "objects")
    for shard in view.shards:
        assert task.label_image is not None
        painted = task.label_image.paint(view, shard, first_id)
        if paint_to == "store":
            image.write_shard(shard, painted)
    return {
        "found": found,
        "objects_s": round(objects_s, 3),
        "painting_s": round(cpu_s() - start, 3),
    }


def tables(folder: Path) -> Figures:
    """objects.parquet, objects.geojson and counts.csv of the stitched slide."""
    plan_shape = json.loads((folder / "plan.json").read_text())["frame"]
    work = slide_work(folder, (plan_shape["height"], plan_shape["width"]))
    answer = merge_slide(MergeJob(work, OutputsSection())).answer
    assert isinstance(answer, ObjectFigures)
    return {"counted": answer.counts[-1].count, "capped": answer.capped_objects}


def scipy_label(shape: tuple[int, int], large: float) -> Figures:
    """What is compared with: ``scipy.ndimage.label`` of the whole foreground, which is in memory
    already."""
    from scipy import ndimage

    nuclei = plant(shape, per_mpx=PER_MPX, seed=1, large=large)
    foreground = np.zeros(shape, bool)
    for box in (
        LATTICE.shard_box(s).intersect(Box(0, 0, *shape)) for s in LATTICE.shards(Box(0, 0, *shape))
    ):
        foreground[box.slices_in(Box(0, 0, *shape))] = render(nuclei, box)[0] >= 128
    return measured(lambda: {"components": ndimage.label(foreground)[1]})


def exact_shapes(folder: Path) -> Figures:
    """Pixels by which the stored label image differs from skimage's watershed of the whole array at
    once."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    store, image = (
        MapStorage(3).open(folder / "predictions"),
        open_label_image(folder / "result" / "slide.ome.zarr", "objects"),
    )
    box = store.layout.frame.box
    maps = store.read(box)
    mask = maps[0] >= 128
    seeds, count = ndimage.label((maps[1] >= 128) & mask)
    depth = 255 - maps[1].astype(np.float32)
    depth[seeds > 0] = np.arange(-np.count_nonzero(seeds), 0)
    del maps
    want = watershed(depth, seeds, mask=mask)
    del depth, mask, seeds
    got = np.asarray(image.read(box))
    inside = want > 0
    seen = np.zeros(count + 1, np.int64)
    seen[want[inside]] = got[inside]
    different = int((seen[want] != got).sum())
    return {
        "reference": count,
        "different_px": different,
        "ids_once": len(np.unique(seen[1:])) == count,
    }


def boxes(n: int, seed: int = 0) -> Candidates:
    """About five jittered boxes of 16 to 28 px for each of n / 5 objects, 40 px apart on average,
    with scores."""
    rng = np.random.default_rng(seed)
    objects = n // 5
    centre = np.repeat(rng.integers(0, int(np.sqrt(objects) * 40 * 16), (objects, 2)), 5, axis=0)
    centre = centre + rng.integers(-48, 49, centre.shape)
    half = rng.integers(8 * 16, 14 * 16, centre.shape)
    return Candidates(
        box=np.concatenate([centre - half, centre + half], axis=1).astype(np.int32),
        score=rng.permutation(len(centre)).astype(np.uint16),
        class_id=np.zeros(len(centre), np.uint8),
        cell=(centre[:, ::-1] // 64 * 4).astype(np.int32),
    )


def nms(n: int, rule: str, peers: str) -> Figures:
    """Suppression of n boxes by a rule: quadrat, shapely (STRtree and a greedy loop), torchvision
    or sahi."""
    found = boxes(n)
    xyxy, score = found.box.astype(np.float32) / 16, found.score.astype(np.float32) / 65535
    if rule == "quadrat":
        suppress(boxes(1000), iou=IOU)
        work: Callable[[], int] = lambda: len(suppress(found, iou=IOU))  # noqa: E731 - one of four alike
    elif rule == "torchvision":
        import torch
        from torchvision.ops import batched_nms

        torch.set_num_threads(1)
        tensors = (
            torch.from_numpy(xyxy),
            torch.from_numpy(score),
            torch.zeros(len(score), dtype=torch.int64),
        )
        work = lambda: len(batched_nms(*tensors, IOU))  # noqa: E731
    elif rule == "shapely":
        work = lambda: shapely_nms(xyxy, score)  # noqa: E731
    else:
        sys.path.append(peers)
        from sahi.postprocess.combine import nms as sahi_nms

        rows = np.concatenate([xyxy, score[:, None], np.zeros((len(score), 1), np.float32)], axis=1)
        sahi_nms(rows[:1000], "IOU", IOU)
        work = lambda: len(sahi_nms(rows, "IOU", IOU))  # noqa: E731
    input_mib = sum(getattr(found, name).nbytes for name in Candidates.__slots__) / 2**20
    return measured(lambda: {"kept": work()}) | {
        "boxes": len(found),
        "input_mib": round(input_mib, 1),
    }


def shapely_nms(xyxy: np.ndarray[Any, Any], score: np.ndarray[Any, Any]) -> int:
    """The usual recipe: an STRtree of all boxes, then greedily by score; returns how many stay."""
    import shapely

    shapes = shapely.box(*xyxy.T)
    first, second = shapely.STRtree(shapes).query(shapes)
    one_way = first < second
    first, second = first[one_way], second[one_way]
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    area = shapely.area(shapes)
    conflict = shared > IOU * (area[first] + area[second] - shared)
    first, second = first[conflict], second[conflict]
    order = np.argsort(np.concatenate([first, second]), kind="stable")
    others = np.concatenate([second, first])[order]
    starts = np.searchsorted(np.concatenate([first, second])[order], np.arange(len(score) + 1))
    gone = np.zeros(len(score), bool)
    for i in np.argsort(-score, kind="stable"):
        if not gone[i]:
            gone[others[starts[i] : starts[i + 1]]] = True
    return int((~gone).sum())


def writing(folder: Path, n: int, kind: str) -> Figures:
    """n polygons of stitched nuclei, shard after shard, into one file."""
    write_predictions(folder, (2048, 2048), 0.0)
    stitch(folder, paint_to="nothing")
    work = slide_work(folder, (2048, 2048))
    table, polygons = load_table(WorkView(work).part(ShardIndex((0, 0))))
    nearest = np.ones((len(table), 1), np.float32)
    frame = Frame(100_000, 80_000, 0.5, 1.0, 1.0)
    path = folder / f"objects.{kind}"

    def write() -> Figures:
        written = 0
        make = ObjectWriter if kind == "parquet" else GeoJSONWriter
        with make(path, frame=frame, classes=CLASSES, slide="planted") as writer:
            while written < n:
                moved = replace(
                    polygons, xy=polygons.xy + np.array([written % 77_000, written // 77 % 97_000])
                )
                writer.append(table, moved, nearest, first_id=written + 1)
                written += len(table)
        return {"objects": written}

    start = time.perf_counter()
    figures = measured(write)
    figures |= {
        "wall_s": round(time.perf_counter() - start, 2),
        "vertices": round(len(polygons.xy) / len(table), 1),
    }
    return figures | {
        "mib": round(path.stat().st_size / 2**20),
        "readable": readable(path, kind, figures["objects"]),
    }


def readable(path: Path, kind: str, n: int) -> bool:
    """geopandas reads all rows without a CRS and finds them valid; GeoJSON is one collection with a
    feature a line."""
    if kind == "parquet":
        import geopandas

        read = geopandas.read_parquet(path)
        return bool(len(read) == n and read.crs is None and read.geometry.is_valid.all())
    with path.open(encoding="utf-8") as file:
        head, *features, tail = file
    collection = json.loads(head + tail)
    kinds = {json.loads(line.rstrip(",\n"))["type"] for line in features}
    commas = all(line.endswith(",\n") for line in features[:-1]) and not features[-1].endswith(
        ",\n"
    )
    return (
        collection == {"type": "FeatureCollection", "features": []}
        and kinds == {"Feature"}
        and commas
        and len(features) == n
    )


def case(name: str, options: Figures) -> Figures:
    """One measurement, in this process."""
    shape = tuple(options.get("shape", (0, 0)))
    folder = Path(options.get("folder", "."))
    if name in ("stitch", "tables", "writing"):
        warm_up()
    match name:
        case "predictions":
            return measured(
                lambda: write_predictions(folder, (shape[0], shape[1]), options["large"])
            )
        case "stitch":
            return measured(lambda: stitch(folder, paint_to=options["paint_to"]))
        case "tables":
            return measured(lambda: tables(folder))
        case "label":
            return scipy_label((shape[0], shape[1]), options["large"])
        case "exact":
            return exact_shapes(folder)
        case "nms":
            return nms(options["n"], options["rule"], options.get("peers", ""))
        case _:
            return writing(folder, options["n"], options["kind"])


def apart(name: str, **options: Any) -> Figures:
    """One measurement in a process of its own, which is forked so that it need not import
    anything.

    Raises:
        SystemExit: the measurement failed. A benchmark that goes on without it would hide that.
    """
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(name, options, send))
    process.start()
    send.close()
    try:
        figures: Figures = receive.recv()
    except EOFError:
        process.join()
        sys.exit(f"{name} {options} failed with exit code {process.exitcode}")
    process.join()
    shown = {k: v for k, v in options.items() if k != "folder"}
    print(name, json.dumps(shown), json.dumps(figures), flush=True)
    return figures


def _measure(name: str, options: Figures, send: Connection) -> None:
    send.send(case(name, options))


def one_map(side: int, large: float, *, exact: bool) -> Figures:
    """Objects, ids and painting of a map, against scipy's labelling of the whole."""
    with tempfile.TemporaryDirectory() as place:
        planted = apart("predictions", folder=place, shape=(side, side), large=large)
        label = apart("label", shape=(side, side), large=large)
        found = apart("stitch", folder=place, paint_to="nothing")
        stored = apart("stitch", folder=place, paint_to="store")
        shapes = apart("exact", folder=place) if exact else {}
    return {
        "side_px": side,
        "planted": planted["planted"],
        "count_error": found["found"] - planted["planted"],
        "cpu_s": found["cpu_s"],
        "cpu_s_stored": stored["cpu_s"],
        "scipy_label_cpu_s": label["cpu_s"],
        "cpu_ratio": round(found["cpu_s"] / label["cpu_s"], 2),
        "growth_mib": found["growth_mib"],
        "memory_ratio": round(found["growth_mib"] / label["growth_mib"], 3),
        **shapes,
    }


def one_slide(shape: tuple[int, int]) -> Figures:
    """Stitching, painting and tables of a slide."""
    with tempfile.TemporaryDirectory() as place:
        planted = apart("predictions", folder=place, shape=shape, large=0.0)["planted"]
        found = apart("stitch", folder=place, paint_to="store")
        table = apart("tables", folder=place)
    total = found["cpu_s"] + table["cpu_s"]
    return {
        "shape": shape,
        "planted": planted,
        "count_error": table["counted"] - planted,
        "stitch_and_paint_s": found["cpu_s"],
        "tables_s": table["cpu_s"],
        "cpu_s_per_million": round(total / planted * 1e6, 2),
        "growth_mib": max(found["growth_mib"], table["growth_mib"]),
    }


def main() -> int:
    """Measure, print a line a case, and all of them as JSON at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--peers", default="")
    given = parser.parse_args()
    size = FULL if given.full and not given.quick else QUICK
    peers = {"shapely": size.nms_shapely, "torchvision": size.nms_torchvision}
    if given.peers or find_spec("sahi"):
        peers["sahi"] = size.nms_sahi
    report: Figures = {
        "nms": {str(n): apart("nms", n=n, rule="quadrat") for n in size.nms},
        "nms_peers": {
            rule: apart("nms", n=n, rule=rule, peers=given.peers) for rule, n in peers.items()
        },
        "map": [one_map(size.map_px, large, exact=True) for large in (0.0, 0.01)],
        "slide": [one_slide(shape) for shape in size.slides],
        "writing": {},
    }
    for kind in ("parquet", "geojson"):
        with tempfile.TemporaryDirectory() as place:
            report["writing"][kind] = apart("writing", folder=place, n=size.written, kind=kind)
    report["exact"] = (
        all(row["count_error"] == 0 for row in report["map"] + report["slide"])
        and all(row["different_px"] == 0 and row["ids_once"] for row in report["map"])
        and all(row["readable"] for row in report["writing"].values())
    )
    print(json.dumps(report))
    return 0 if report["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
