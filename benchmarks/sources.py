"""Inference reads its windows from the slide, from moved tiles, or from a zstd store: what each
costs, same windows.

``python benchmarks/sources.py [--quick]`` needs QUADRAT_DATA; the last line is one JSON object. CPU
seconds of this process, filling the store included; bytes on disk beside the slide's own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mosaic import compose

from quadrat.core.lattice import Lattice
from quadrat.slides.source import open_source
from quadrat.slides.tissue.mask import find_tissue, tissue_cells
from quadrat.store.tiles import TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles

LATTICE = Lattice(core=512, halo=48, stride=8, shard=2048)
MPP = 0.25


def measure(folder: Path, *, side: int, downscale: float) -> dict[str, Any]:
    """Seconds of CPU for all windows of a slide of ``side`` px, by source, at ``downscale`` times
    the slide's mpp."""
    slide = compose(folder / "slide.svs", height=side, width=side, mpp=MPP, tissue=0.5).path
    with open_source(slide, mpp=MPP * downscale) as source:
        tissue = find_tissue(source.slide, slide_mpp=MPP)
        cells = tissue_cells(tissue, lattice=LATTICE, frame=source.frame)
    cells = [
        cell for group in LATTICE.by_shard(cells).values() for cell in group
    ]  # as inference goes through them
    boxes = [LATTICE.window_box(cell) for cell in cells]
    out: dict[str, Any] = {"windows": len(boxes), "slide_mb": round(slide.stat().st_size / 1e6, 1)}
    sums = set()
    for kind in ("streamed", "moved", "zstd"):
        with open_source(slide, mpp=MPP * downscale) as source:
            start, total = time.process_time(), 0
            if kind == "streamed":
                total = sum(int(source.read(box).sum(dtype=np.int64)) for box in boxes)
                filled = start
            else:
                tiles = movable_tiles(source) if kind == "moved" else None
                if kind == "moved" and tiles is None:
                    continue
                plan = plan_tiles(boxes, frame=source.frame, tiles=tiles)
                store = TileStore.create(
                    folder / kind, frame=source.frame, slide="slide", plan=plan
                )
                for cell in store.shards:
                    fill_shard(source, store, cell)
                filled = time.process_time()
                total = sum(int(store.read(box).sum(dtype=np.int64)) for box in boxes)
            end = time.process_time()
        size = (
            sum(f.stat().st_size for f in (folder / kind).rglob("*") if f.is_file())
            if kind != "streamed"
            else 0
        )
        sums.add(total)
        out[kind] = {
            "fill_s": round(filled - start, 2),
            "read_s": round(end - filled, 2),
            "disk_mb": round(size / 1e6, 1),
        }
        shutil.rmtree(folder / kind, ignore_errors=True)
    assert len(sums) == 1, "the sources differ"
    return out


def main() -> None:
    """Measure at the slide's own mpp and at one that is resampled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    side = 8192 if parser.parse_args().quick else 24_576
    found = {}
    for name, downscale in (("own mpp", 1.0), ("resampled 1.3", 1.3)):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder), side=side, downscale=downscale)
        print(name, found[name])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
