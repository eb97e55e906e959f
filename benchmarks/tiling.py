"""What filling and reading a TileStore costs: tiles moved against pixels encoded, against
OpenSlide's reading alone.

On a composed slide of real tissue (see mosaic.py), 100,000 x 80,000 px. Each shard is filled once,
from a slide opened for it alone, so that no cache has its tiles. CPU seconds are of the measured
process, system time included. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import openslide
from mosaic import BLOCK_PX, Mosaic, compose

from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.slides.source import SlideSource, open_source
from quadrat.store.tiles import TilePlan, TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles

MPP = 0.25
WINDOW_PX, CORE_PX = 608, 512
HEIGHT, WIDTH = 80_000, 100_000
Cost = tuple[float, float]
P = ParamSpec("P")
T = TypeVar("T")


def main() -> None:
    """Compose the slide, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer shards")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the slide and the stores are written (default: a temporary one)",
    )
    arguments = parser.parse_args()
    shards = 12 if arguments.quick else 60
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report(measure(Path(folder), shards=shards))


def measure(folder: Path, *, shards: int) -> dict[str, Any]:
    """All figures."""
    start = time.perf_counter()
    slide = compose(folder / "mosaic.svs", height=HEIGHT, width=WIDTH, mpp=MPP)
    composed = time.perf_counter() - start
    cells = spread(slide, shards)
    figures: dict[str, Any] = {
        "slide_px": [HEIGHT, WIDTH],
        "slide_bytes": slide.path.stat().st_size,
        "compose_s": round(composed, 1),
        "shards": len(cells),
        "load": os.getloadavg()[0],
    }
    costs, disk = filling(slide, cells, folder)
    figures["ms_a_shard"] = {
        name: {"cpu": ms(c[0], cells), "wall": ms(c[1], cells)} for name, c in costs.items()
    }
    figures["store_bytes_a_shard"] = {name: round(n / len(cells)) for name, n in disk.items()}
    figures["zstd_over_moved"] = ratio(costs["zstd"], costs["moved"])
    figures["zstd_over_moved_decoded"] = ratio(costs["zstd"], costs["moved, every tile decoded"])
    figures["zstd_over_openslide"] = ratio(costs["zstd"], costs["openslide reading"])
    figures["window_608_ms_cpu"] = reading(slide, cells, folder)
    one, two = (workers(slide, cells, folder, count=n) for n in (1, 2))
    figures["two_workers_over_one"] = round(one / two, 2)
    figures["two_counting_loops_over_one"] = round(
        2 * counting(1) / counting(2), 2
    )  # what this machine gives at all
    small = compose(folder / "small.svs", height=HEIGHT // 5, width=WIDTH // 5, mpp=MPP)
    figures["peak_rss_mib_small_slide"] = round(
        peak_rss(small, spread(small, shards), folder, moved=False)
    )
    figures["peak_rss_mib"] = {
        kind: round(peak_rss(slide, cells, folder, moved=kind == "moved"))
        for kind in ("zstd", "moved")
    }
    return figures


def spread(slide: Mosaic, shards: int) -> list[Cell]:
    """Shards (2,048 px) of tissue from everywhere on the slide."""
    across = BLOCK_PX // 2048
    tissue = [
        (r * across + i, c * across + j)
        for r, c in slide.blocks
        for i in range(across)
        for j in range(across)
    ]
    whole = [
        at
        for at in tissue
        if (at[0] + 1) * 2048 <= slide.height and (at[1] + 1) * 2048 <= slide.width
    ]
    return [whole[i] for i in np.linspace(0, len(whole) - 1, shards).astype(int)]


def boxes(cells: Sequence[Cell]) -> list[Box]:
    """The pixels of shards."""
    return [Box(r * 2048, c * 2048, (r + 1) * 2048, (c + 1) * 2048) for r, c in cells]


def layout(slide: Mosaic, cells: Sequence[Cell], *, moved: bool) -> tuple[SlideSource, TilePlan]:
    """The slide opened anew, and the plan of a store of these shards."""
    source = open_source(slide.path, mpp=MPP)
    return source, plan_tiles(
        boxes(cells), frame=source.frame, tiles=movable_tiles(source) if moved else None
    )


def timed(work: Callable[P, T], *given: P.args, **options: P.kwargs) -> tuple[Cost, T]:
    """CPU and wall seconds of a call, and what it returned."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work(*given, **options)
    return (time.process_time() - cpu, time.perf_counter() - wall), found


def filling(
    slide: Mosaic, cells: Sequence[Cell], folder: Path
) -> tuple[dict[str, Cost], dict[str, int]]:
    """Seconds to fill these shards by every path, taking turns shard by shard, and
    bytes on disk.
    """
    names = ("openslide reading", "zstd", "moved", "moved, every tile decoded")
    stores: dict[str, TileStore] = {}
    for name in names[1:]:
        source, plan = layout(slide, cells, moved=name != "zstd")
        stores[name] = TileStore.create(
            folder / name.replace(" ", "_"), frame=source.frame, slide="mosaic", plan=plan
        )
        source.close()
    spent: dict[str, list[Cost]] = {name: [] for name in names}
    nbytes = dict.fromkeys(names[1:], 0)
    warm_up = cells[0]
    for cell in (warm_up, *cells):
        with openslide.OpenSlide(str(slide.path)) as handle:
            spent[names[0]].append(timed(read_by_openslide, handle, cell)[0])
        for name in names[1:]:
            opened = open_source(slide.path, mpp=MPP)
            damaged: Literal["mark", "fail"] = "mark" if name == names[3] else "fail"
            with SlideSource(opened.slide, opened.plan, damaged=damaged) as source:
                cost, receipt = timed(fill_shard, source, stores[name], cell)
            spent[name].append(cost)
            nbytes[name] += receipt.nbytes if len(spent[name]) > 1 else 0
    return {name: total(costs[1:]) for name, costs in spent.items()}, nbytes


def read_by_openslide(handle: openslide.OpenSlide, cell: Cell) -> None:
    """A shard in its chunks of 512 px, as RGB."""
    for box in boxes([cell]):
        for row in range(box.row0, box.row1, 512):
            for col in range(box.col0, box.col1, 512):
                np.ascontiguousarray(
                    np.asarray(handle.read_region((col, row), 0, (512, 512)))[..., :3]
                )


def reading(slide: Mosaic, cells: Sequence[Cell], folder: Path) -> dict[str, dict[str, float]]:
    """CPU ms a window of 608 px: single ones with an empty cache, and neighbours in raster order
    (16 a shard)."""
    single = [Box(b.row0 + 720, b.col0 + 720, b.row0 + 1328, b.col0 + 1328) for b in boxes(cells)]
    halo = (WINDOW_PX - CORE_PX) // 2
    lattice = range(halo, 2048 - WINDOW_PX + halo + 1, CORE_PX)
    rows = [
        Box(
            b.row0 + r - halo,
            b.col0 + c - halo,
            b.row0 + r + CORE_PX + halo,
            b.col0 + c + CORE_PX + halo,
        )
        for b in boxes(cells)
        for r in lattice
        for c in lattice
    ]
    found: dict[str, dict[str, float]] = {}
    with open_source(slide.path, mpp=MPP) as source:
        stores = {"slide": source} | {
            name: TileStore.open(folder / name) for name in ("zstd", "moved")
        }
        for name, store in stores.items():
            found[name] = {
                "single": ms(read_all(store.read, single), single),
                "neighbours": ms(read_all(store.read, rows), rows),
            }
        for box in single:
            wanted = source.read(box)
            assert all((store.read(box) == wanted).all() for store in stores.values()), (
                "pixels differ"
            )
    for name in ("zstd", "moved"):
        by_zarr = partial(read_by_zarr, folder / name / "0", planar=name == "zstd")
        found[name]["single, by zarr"] = ms(read_all(by_zarr, single), single)
    return found


def read_all(read: Callable[[Box], np.ndarray], wanted: Sequence[Box]) -> float:
    """CPU seconds to read these boxes."""
    return timed(lambda: [read(box) for box in wanted])[0][0]


def read_by_zarr(path: Path, box: Box, *, planar: bool) -> np.ndarray:
    """A window through the zarr library alone."""
    import zarr

    array = zarr.open_array(path, mode="r")
    rows, cols = slice(box.row0, box.row1), slice(box.col0, box.col1)
    return np.asarray(array[:, rows, cols] if planar else array[rows, cols])


def workers(slide: Mosaic, cells: Sequence[Cell], folder: Path, *, count: int) -> float:
    """Wall seconds in which so many processes fill the shards of a zstd store, their start not
    counted."""
    source, plan = layout(slide, cells, moved=False)
    source.close()
    place = folder / f"workers_{count}"
    TileStore.create(place, frame=source.frame, slide="mosaic", plan=plan)
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(count + 1), context.Barrier(count + 1)
    repeated = [cell for cell in plan.shards for _ in range(3)]
    started = [
        context.Process(
            target=fill_in_turn, args=(slide.path, place, repeated[i::count], ready, go)
        )
        for i in range(count)
    ]
    for process in started:
        process.start()
    ready.wait()
    begin = time.perf_counter()
    go.wait()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise SystemExit("a worker failed")
    return time.perf_counter() - begin


def fill_in_turn(slide: Path, place: Path, cells: Sequence[Cell], ready: Any, go: Any) -> None:
    """One worker: each shard from a slide opened anew."""
    store = TileStore.open(place)
    with open_source(slide, mpp=MPP) as source:
        source.read(Box(0, 0, 64, 64))
    ready.wait()
    go.wait()
    for cell in cells:
        with open_source(slide, mpp=MPP) as source:
            fill_shard(source, store, cell)
    os._exit(0)  # what it takes to end the interpreter is not tiling


def counting(count: int) -> float:
    """Wall seconds in which so many processes count to 30 million each."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(count + 1), context.Barrier(count + 1)
    started = [context.Process(target=count_up, args=(ready, go)) for _ in range(count)]
    for process in started:
        process.start()
    ready.wait()
    begin = time.perf_counter()
    go.wait()
    for process in started:
        process.join()
    return time.perf_counter() - begin


def count_up(ready: Any, go: Any) -> None:
    """Work that shares nothing with another process."""
    ready.wait()
    go.wait()
    for _ in range(30_000_000):
        pass
    os._exit(0)


def peak_rss(slide: Mosaic, cells: Sequence[Cell], folder: Path, *, moved: bool) -> float:
    """Peak resident MiB of a process that fills all these shards from one open slide."""
    source, plan = layout(slide, cells, moved=moved)
    source.close()
    place = folder / f"rss_{moved}"
    TileStore.create(place, frame=source.frame, slide="mosaic", plan=plan)
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=fill_and_tell, args=(slide.path, place, plan.shards, queue))
    process.start()
    peak = float(queue.get())
    process.join()
    shutil.rmtree(place)
    return peak


def fill_and_tell(slide: Path, place: Path, cells: Sequence[Cell], queue: Any) -> None:
    """Fill, then put the peak resident size in MiB."""
    store = TileStore.open(place)
    with open_source(slide, mpp=MPP) as source:
        for cell in cells:
            fill_shard(source, store, cell)
    status = Path(
        "/proc/self/status"
    ).read_text()  # ru_maxrss would be the parent's, had that one been larger
    queue.put(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def total(costs: Sequence[Cost]) -> Cost:
    """The median shard, times their number: another process's second does not spoil the figure."""
    cpu, wall = zip(*costs, strict=True)
    return statistics.median(cpu) * len(costs), statistics.median(wall) * len(costs)


def ms(seconds: float, parts: Sequence[object]) -> float:
    """Milliseconds for each shard or box."""
    return round(1e3 * seconds / len(parts), 2)


def ratio(one: Cost, other: Cost) -> dict[str, float]:
    """How many times as long, in CPU and on the wall."""
    return {"cpu": round(one[0] / other[0], 2), "wall": round(one[1] / other[1], 2)}


def report(figures: dict[str, Any]) -> None:
    """A line a figure, and all as JSON."""
    for name, value in figures.items():
        print(f"{name:26} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
