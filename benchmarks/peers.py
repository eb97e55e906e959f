"""Does the count depend on the tiles? One answer of a network, cut into tiles of three sizes at two
origins, merged by rules.

The shipped nuclei model's maps of CMU-1-Small-Region are computed once. Every rule then gets the
objects that each tile shows by itself (same thresholds, same watershed), with a quarter of overlap
where the rule expects one, and says how many there are:

    naive         tiles side by side, counts added
    torchvision   batched_nms of overlapping tiles' boxes, IoU 0.5
    sahi nms      sahi's NMS, IoU 0.5;
                  sahi greedy nmm: its default, greedy merging by intersection over smaller, 0.5
    dask-image    ndmeasure.label of the thresholded map over chunks
                  (components: touching nuclei are one)
    quadrat       decode_shard, with shards of that size (origin 0: the lattice is the slide's)

    QUADRAT_DATA=<folder with wsi/> python benchmarks/peers.py [--quick] [--peers FOLDER]

``--peers``: where sahi and dask-image are installed
(pip install --no-deps --target FOLDER sahi opencv-python-headless dask-image pims slicerator);
rules that cannot be imported are left out and named. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from samples import REAL_SLIDE, sample

from quadrat.config.pipeline import shipped_pipelines
from quadrat.core.geometry import Box
from quadrat.models.inference import predict_cells
from quadrat.models.package import load_package
from quadrat.slides.source import open_source
from quadrat.stitching.ownership import Decoded, SeedRule, decode_shard
from quadrat.store.predictions import MapStorage
from quadrat.tasks import build_network, get_task

TILES, OVERLAP = (512, 768, 1024), 0.25
ORIGINS = ((0, 0), (137, 211))
F64 = NDArray[np.float64]


class Maps:
    """The network's answer: uint8 (channels, h, w), and the rule by which objects are decided on
    it."""

    def __init__(self, values: NDArray[np.uint8], rule: SeedRule) -> None:
        self.values, self.rule = values, rule
        self.box = Box(0, 0, *values.shape[1:])

    def read(self, box: Box) -> NDArray[np.uint8]:
        return self.values[(slice(None), *box.slices_in(self.box))]

    def tiles(self, side: int, origin: tuple[int, int], overlap: float) -> Iterator[Box]:
        step = round(side * (1 - overlap))
        for row in range(-origin[0], self.box.row1, step):
            for col in range(-origin[1], self.box.col1, step):
                tile = Box(row, col, row + side, col + side).intersect(self.box)
                if not tile.empty:
                    yield tile

    def alone(self, tile: Box) -> Decoded:
        """What a tile shows by itself."""
        return decode_shard(self.read, tile, slide=tile, rule=self.rule)

    def boxes(self, side: int, origin: tuple[int, int]) -> tuple[F64, F64]:
        """(n, 4) x0, y0, x1, y1 and scores of the objects of all overlapping tiles."""
        rows, scores = [], []
        for tile in self.tiles(side, origin, OVERLAP):
            runs = self.alone(tile).runs
            n = int(runs.object.max(initial=-1)) + 1
            box = np.stack(
                [np.full(n, np.inf), np.full(n, np.inf), np.zeros(n), np.zeros(n)], axis=1
            )
            np.minimum.at(box[:, 0], runs.object, runs.col0)
            np.minimum.at(box[:, 1], runs.object, runs.row)
            np.maximum.at(box[:, 2], runs.object, runs.col1)
            np.maximum.at(box[:, 3], runs.object, runs.row + 1)
            rows.append(box)
            scores.append((box[:, 2:] - box[:, :2]).prod(axis=1))
        merged, area = np.concatenate(rows), np.concatenate(scores)
        return (
            merged,
            0.5 + 0.4 * area / area.max(),
        )  # whole objects before their halves, which favours the rules


def answer(slide: Path) -> Maps:
    """The shipped nuclei model on the real slide."""
    package = load_package(shipped_pipelines() / "packages" / "nuclei", build_network)
    spec, task = package.spec, get_task("instance")
    with open_source(str(slide), mpp=spec.mpp) as source:
        frame = source.frame
        storage = task.storage(spec)
        assert isinstance(storage, MapStorage)
        out = np.zeros((storage.channels, *frame.box.shape), np.uint8)
        cells = spec.lattice.cores(frame.box)
        for cell, maps in predict_cells(
            package.model, task, spec, source, cells, device=torch.device("cpu")
        ):
            core = spec.lattice.core_box(cell)
            part = core.intersect(frame.box)
            assert isinstance(maps, np.ndarray)
            out[(slice(None), *part.slices_in(frame.box))] = maps[
                (slice(None), *part.slices_in(core))
            ]
    limits = spec.thresholds
    rule = SeedRule(
        foreground=round(limits["foreground"] * 255),
        seed=round(limits["seed"] * 255),
        min_area_px=max(1, round(limits["min_area_um2"] / frame.mpp**2)),
        cap_px=round(limits["cap_um"] / frame.mpp),
    )
    return Maps(out, rule)


def naive(maps: Maps, side: int, origin: tuple[int, int]) -> int:
    """Tiles side by side."""
    return sum(len(maps.alone(tile).anchors) for tile in maps.tiles(side, origin, 0))


def by_torchvision(maps: Maps, side: int, origin: tuple[int, int]) -> int:
    """Suppression of boxes that overlap."""
    from torchvision.ops import batched_nms

    boxes, score = (torch.from_numpy(a) for a in maps.boxes(side, origin))
    return len(batched_nms(boxes, score, torch.zeros(len(boxes), dtype=torch.int64), 0.5))


def by_sahi(rule: str, metric: str) -> Callable[[Maps, int, tuple[int, int]], int]:
    """One of sahi's ways to combine the predictions of slices."""

    def count(maps: Maps, side: int, origin: tuple[int, int]) -> int:
        from sahi.postprocess import combine

        boxes, score = maps.boxes(side, origin)
        rows = np.column_stack([boxes, score, np.zeros(len(boxes))])
        return len(getattr(combine, rule)(rows, metric, 0.5))

    return count


def by_dask_image(maps: Maps, side: int, origin: tuple[int, int]) -> int:
    """Connected components over chunks, those under the least area left out."""
    import dask.array
    from dask_image import ndmeasure

    chunks = tuple(_chunks(n, side, at) for n, at in zip(maps.box.shape, origin, strict=True))
    labels, _ = ndmeasure.label(
        dask.array.from_array(maps.values[0] >= maps.rule.foreground, chunks=chunks)
    )
    return int((np.bincount(labels.compute().ravel())[1:] >= maps.rule.min_area_px).sum())


def _chunks(length: int, side: int, at: int) -> tuple[int, ...]:
    first = side - at % side
    rest = length - first
    return (first, *([side] * (rest // side)), *([rest % side] if rest % side else []))


def quadrat(maps: Maps, side: int, origin: tuple[int, int]) -> int:
    """Objects owned by the tile that holds their anchor."""
    owned = [
        decode_shard(maps.read, tile, slide=maps.box, rule=maps.rule)
        for tile in maps.tiles(side, origin, 0)
    ]
    return sum(len(found.anchors) for found in owned)


RULES: dict[str, Callable[[Maps, int, tuple[int, int]], int]] = {
    "naive": naive,
    "torchvision": by_torchvision,
    "sahi nms": by_sahi("nms", "IOU"),
    "sahi greedy nmm": by_sahi("greedy_nmm", "IOS"),
    "dask-image": by_dask_image,
    "quadrat": quadrat,
}


def main() -> None:
    """Count by every rule and tiling."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one origin")
    parser.add_argument("--peers", type=Path, help="folder of installed peers")
    given = parser.parse_args()
    slide = sample(REAL_SLIDE)
    if given.peers is not None:
        sys.path.append(str(given.peers))
    torch.set_num_threads(1)
    maps = answer(slide)
    whole = len(maps.alone(maps.box).anchors)
    print(f"the whole slide at once: {whole} nuclei on {maps.box.shape} px")
    figures: dict[str, Any] = {"whole": whole, "counts": {}}
    for name, rule in RULES.items():
        counts = {}
        try:
            for side in TILES:
                for origin in ORIGINS[: 1 if given.quick else 2]:
                    counts[f"{side} at {origin[0]},{origin[1]}"] = rule(maps, side, origin)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        low, high = min(counts.values()), max(counts.values())
        errors = f"{(low - whole) / whole:+.2%} to {(high - whole) / whole:+.2%}"
        print(f"{name:16} {low:5} to {high:5}  ({errors})  {list(counts.values())}")
        figures["counts"][name] = counts
    versions = {}
    for library in ("torchvision", "sahi", "dask-image"):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = ""
    print(json.dumps(figures | {"versions": versions}))


if __name__ == "__main__":
    main()
