"""How fast 512 px tissue tiles are read from a JPEG-tiled slide: OpenSlide, quadrat, peers if
installed, the bare decoder.

The slide is a mosaic of real tissue (CMU-1-Small-Region of QUADRAT_DATA, mirrored), 256 px JPEG
tiles, YCbCr 4:2:2 as Aperio's scanners write it, with mpp. Every reader starts with a cold tile
cache and reads each place once, on one thread and on two; rounds alternate between readers and the
median of each reader is taken. *Aligned* tiles touch each source tile once. *Unaligned* ones
(shifted by 100, 77 px) touch nine source tiles each and share them with their neighbours:
`decoded_tiles` counts the source tiles that the reads need, each once, and the bare decoder decodes
just those. CPU seconds are of the process, all threads; they are what to compare on a machine with
other work. *Resampled* tiles are of 512 px at twice the slide's mpp, next to the least that it
takes: pread, the bare decoder, and OpenCV's area filter.

    python benchmarks/reading.py [--quick] [--keep SLIDE]
    peers: pip install tiffslide fastslide opencv-python-headless
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import simplejpeg
import tifffile
from samples import REAL_SLIDE, sample

from quadrat.core.geometry import Box
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import TileGrid
from quadrat.slides.source import believable_mpp, open_source

TILE_PX, READ_PX = 256, 512
SHIFT = 100, 77
THREADS = 1, 2
Read = Callable[[Box], np.ndarray]


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall and CPU seconds for all tiles."""

    wall_s: float
    cpu_s: float


def compose(path: Path, source: Path, *, times: int) -> None:
    """Write the mosaic: the source's level 0 mirrored ``times`` x ``times``, and a level of a
    quarter."""
    with openslide.OpenSlide(str(source)) as slide:
        piece = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    rows, cols = (side // 4 * 4 for side in piece.shape[:2])
    piece = piece[:rows, :cols]
    band = np.concatenate([piece[:, :: -1 if index % 2 else 1] for index in range(times)], axis=1)
    whole = np.concatenate([band[:: -1 if index % 2 else 1] for index in range(times)], axis=0)
    height, width = whole.shape[:2]
    note = (
        f"Aperio Image Library v11.2.1\n{width}x{height} [0,0 {width}x{height}] (256x256)|AppMag = "
        "20|MPP = 0.499"
    )
    tiles: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "compression": "jpeg",
        "compressionargs": {"level": 75},
        "subsampling": (2, 1),
    }
    common: dict[str, Any] = {"photometric": "rgb", "description": note, "metadata": None}
    with tifffile.TiffWriter(path) as out:
        out.write(whole, **tiles, **common)
        out.write(np.ascontiguousarray(whole[::16, ::16]), **common)
        out.write(np.ascontiguousarray(whole[::4, ::4]), **tiles, **common)


def tissue_boxes(path: Path, *, most: int) -> list[Box]:
    """Aligned 512 px boxes of which at least half is tissue (the least channel below 210), in
    raster order."""
    with open_slide(path) as slide:
        level = slide.levels[1]
        dark = slide.read(1, level.box).min(axis=2) < 210
        whole, side = slide.levels[0].box, READ_PX // 4
    found = [
        Box(row, col, row + READ_PX, col + READ_PX)
        for row in range(0, whole.height - READ_PX - SHIFT[0], READ_PX)
        for col in range(0, whole.width - READ_PX - SHIFT[1], READ_PX)
        if dark[row // 4 : row // 4 + side, col // 4 : col // 4 + side].mean() >= 0.5
    ]
    return found[:most]


@contextmanager
def quadrat_reader(path: Path) -> Iterator[Read]:
    """Yield Slide.read of level 0."""
    with open_slide(path) as slide:
        yield lambda box: slide.read(0, box)


@contextmanager
def openslide_reader(path: Path) -> Iterator[Read]:
    """Yield OpenSlide's read_region, its alpha dropped."""
    with openslide.OpenSlide(str(path)) as slide:
        yield lambda box: np.asarray(
            slide.read_region((box.col0, box.row0), 0, (box.width, box.height))
        )[..., :3]


@contextmanager
def tiffslide_reader(path: Path) -> Iterator[Read]:
    """Yield tiffslide's read_region as an array."""
    import tiffslide

    with tiffslide.TiffSlide(str(path)) as slide:
        yield lambda box: slide.read_region(
            (box.col0, box.row0), 0, (box.width, box.height), as_array=True
        )


@contextmanager
def fastslide_reader(path: Path) -> Iterator[Read]:
    """Yield fastslide's read_region."""
    import fastslide

    with fastslide.FastSlide.from_file_path(str(path)) as slide:
        yield lambda box: slide.read_region(
            (box.col0, box.row0), 0, (box.width, box.height)
        ).numpy()


READERS = {
    "openslide": openslide_reader,
    "quadrat": quadrat_reader,
    "tiffslide": tiffslide_reader,
    "fastslide": fastslide_reader,
}


def streams(path: Path, boxes: list[Box]) -> list[bytes]:
    """The JPEG streams of the source tiles that the boxes touch, each once, in order."""
    with open_slide(path) as slide:
        grid = slide.tiles(0)
        if grid is None:
            raise SystemExit(
                f"{path}: read by {slide.info.reader}, not by native tiles; nothing to compare"
            )
        places = dict.fromkeys(place for box in boxes for place in box.cells(TILE_PX))
        return [grid.data(row, col) for row, col in places]


def spread(work: list[Box] | list[bytes], do: Callable[..., object], threads: int) -> Timing:
    """Do all items, each thread a contiguous share of them."""

    def share(part: list[Box] | list[bytes]) -> None:
        for item in part:
            do(item)

    size = -(-len(work) // threads)
    parts = [work[start : start + size] for start in range(0, len(work), size)]
    with ThreadPoolExecutor(threads) as pool:
        wall, cpu = time.perf_counter(), time.process_time()
        list(pool.map(share, parts))
        return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def one_round(
    path: Path, boxes: list[Box], data: list[bytes], names: list[str], threads: int
) -> dict[str, Timing]:
    """Every reader once, each freshly opened; opening is not timed."""
    found = {}
    for name in names:
        with READERS[name](path) as read:
            found[name] = spread(boxes, read, threads)
    found["bare decoder"] = spread(data, simplejpeg.decode_jpeg, threads)
    return found


def measure(path: Path, boxes: list[Box], names: list[str], *, rounds: int) -> dict[str, object]:
    """Medians and ratios for one set of boxes, on one thread and on two."""
    data = streams(path, boxes)
    result: dict[str, object] = {
        "tiles": len(boxes),
        "decoded_tiles": len(data),
        "source_px_ratio": pixel_ratio(boxes, data),
    }
    for threads in THREADS:
        runs = [one_round(path, boxes, data, names, threads) for _ in range(rounds + 1)][
            1:
        ]  # the first one warms up
        rows = {}
        for name in runs[0]:
            wall, cpu = (
                statistics.median(getattr(run[name], field) for run in runs)
                for field in ("wall_s", "cpu_s")
            )
            rows[name] = {
                "wall_s": round(wall, 3),
                "cpu_s": round(cpu, 3),
                "tiles_per_s": round(len(boxes) / wall, 1),
            }
        for name, row in rows.items():
            for other, key in (("openslide", "times_openslide"), ("bare decoder", "share_of_bare")):
                ratios = [
                    (run[other].cpu_s / run[name].cpu_s, run[other].wall_s / run[name].wall_s)
                    for run in runs
                ]
                for kind, values in zip(("cpu", "wall"), zip(*ratios, strict=True), strict=True):
                    row[f"{key}_{kind}"] = round(statistics.median(values), 2)
            print(
                f"  {threads} thread(s)  {name:13}",
                *(f"{key} {value:<7}" for key, value in row.items()),
            )
        result[f"threads_{threads}"] = rows
    return result


def at_least(grid: TileGrid, box: Box) -> np.ndarray:
    """A box at half the resolution by pread, the bare decoder and OpenCV's area filter."""
    import cv2

    canvas = np.empty((2 * READ_PX, 2 * READ_PX, 3), np.uint8)
    for row, col in box.scale_out(2, 2).cells(TILE_PX):
        top, left = row * TILE_PX - 2 * box.row0, col * TILE_PX - 2 * box.col0
        canvas[top : top + TILE_PX, left : left + TILE_PX] = grid.codec.decode(grid.data(row, col))
    return np.asarray(cv2.resize(canvas, (READ_PX, READ_PX), interpolation=cv2.INTER_AREA))


def measure_resampled(path: Path, boxes: list[Box], *, rounds: int) -> dict[str, object]:
    """CPU seconds for tiles at twice the mpp, of quadrat and of the least that it takes, and the
    largest difference of their pixels."""
    whole = sorted({(box.row0 // 1024, box.col0 // 1024) for box in boxes})
    half = [Box(r * 512, c * 512, (r + 1) * 512, (c + 1) * 512) for r, c in whole][1:-1]
    ours, least = [], []
    with open_slide(path) as slide:
        mpp, grid = 2 * believable_mpp(slide), slide.tiles(0)
        assert grid is not None
        for _ in range(rounds + 1):
            with open_source(path, mpp=mpp) as source:
                ours.append(spread(half, source.read, 1).cpu_s)
            least.append(spread(half, partial(at_least, grid), 1).cpu_s)
        with open_source(path, mpp=mpp) as source:
            difference = max(
                int(np.abs(source.read(box).astype(int) - at_least(grid, box)).max())
                for box in half
            )
    ratios = [one / other for one, other in zip(ours[1:], least[1:], strict=True)]
    return {
        "tiles": len(half),
        "cpu_s": round(statistics.median(ours[1:]), 3),
        "least_cpu_s": round(statistics.median(least[1:]), 3),
        "cpu_over_least": round(statistics.median(ratios), 3),
        "largest_difference": difference,
    }


def pixel_ratio(boxes: list[Box], data: list[bytes]) -> float:
    """Source pixels decoded for one pixel read."""
    return round(len(data) * TILE_PX**2 / sum(box.area for box in boxes), 3)


def same_pixels(path: Path, boxes: list[Box], names: list[str]) -> dict[str, bool]:
    """Whether each reader gives OpenSlide's pixels in all boxes."""
    same = dict.fromkeys(names, True)
    for name in names:
        with READERS[name](path) as read, openslide_reader(path) as reference:
            same[name] = all(np.array_equal(read(box), reference(box)) for box in boxes)
    return same


def main() -> None:
    """Compose, measure, print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under a minute: 150 tiles, two rounds (else 1,000 and seven)",
    )
    parser.add_argument("--keep", type=Path, help="write the composed slide here and keep it")
    args = parser.parse_args()
    real = sample(REAL_SLIDE)
    most, rounds, times = (150, 2, 4) if args.quick else (1000, 7, 7)
    names = [name for name in READERS if name == "quadrat" or find_spec(name) is not None]
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or Path(folder) / "mosaic.svs"
        compose(path, real, times=times)
        boxes = tissue_boxes(path, most=most)
        summary: dict[str, object] = {
            "read_px": READ_PX,
            "readers": names,
            "same_pixels": same_pixels(path, boxes[:60], names),
        }
        for label, chosen in (
            ("aligned", boxes),
            ("unaligned", [box.shift(*SHIFT) for box in boxes]),
        ):
            print(f"{label}: {len(chosen)} tissue tiles of {READ_PX} px")
            summary[label] = measure(path, chosen, names, rounds=rounds)
        if find_spec("cv2") is not None:
            summary["resampled"] = measure_resampled(path, boxes, rounds=4 * rounds)
            print("resampled:", summary["resampled"])
        with open_slide(path) as slide:
            summary["info"] = slide.info.reader
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
