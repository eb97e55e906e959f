"""Are phantoms like a real slide, and are they too easy? Prints a table; the last line is one JSON
object.

Realism: nuclei of the phantoms and of CMU-1-Small-Region.svs are found by the same classical
recipe, in tiles of 256 px that are at least half tissue. A phantom figure (the median over its
tiles) passes if it lies between the 5 % and 95 % quantiles of the real slide's tiles. Optical
densities are skimage's `rgb2hed` channels, of colours held at DARKEST or more.

Difficulty: the classical recipe (Otsu on haematoxylin inside tissue, opening, watershed of the
distance transform) is scored against the truth, F1 at IoU 0.5; it must stay at or below 0.80.

    QUADRAT_DATA=<folder with wsi/CMU-1-Small-Region.svs> python benchmarks/phantom_realism.py
    [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from samples import REAL_SLIDE, sample
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import disk, opening
from skimage.segmentation import watershed

from quadrat.phantom import REGION_NAMES, PhantomSpec, write_phantom

TILE_PX = 256
MIN_TISSUE = 0.5
MIN_AREA_PX = 50  # 4 µm across: smaller finds are fragments of fibres and of nuclei, on both sides
MAX_F1 = 0.80
DARKEST = 8  # the real scan clips to 0, whose logarithm would rule every stain statistic
FIGURES = (
    "nucleus_diameter_um",
    "nuclei_per_mm2",
    "haematoxylin_mean",
    "haematoxylin_sd",
    "eosin_mean",
    "eosin_sd",
    "red_mean",
    "green_mean",
    "blue_mean",
    "red_sd",
    "green_sd",
    "blue_sd",
)


def find_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels (h, w) whose smoothed green is well below glass."""
    return np.asarray(ndimage.uniform_filter(rgb[..., 1], 9) < 215)


def segment(hed: NDArray[np.float64], tissue: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Nuclei by the usual classical recipe: labels (h, w), 0 elsewhere."""
    stain = ndimage.gaussian_filter(hed[..., 0], 1.0)
    mask = opening((stain > threshold_otsu(stain[tissue])) & tissue, disk(2))
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0])
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, seeds, mask=mask)
    small = np.bincount(labels.ravel()) < MIN_AREA_PX
    labels[small[labels]] = 0
    return np.asarray(labels, np.int32)


def f1_score(found: NDArray[np.int32], truth: NDArray[np.uint32]) -> float:
    """F1 of objects matched one to one at IoU above 0.5."""
    sizes_found, sizes_truth = np.bincount(found.ravel()), np.bincount(truth.ravel())
    both = (found > 0) & (truth > 0)
    pairs, shared = np.unique(np.stack([found[both], truth[both]]), axis=1, return_counts=True)
    union = sizes_found[pairs[0]] + sizes_truth[pairs[1]] - shared
    hits = int(np.count_nonzero(2 * shared > union))
    objects = np.count_nonzero(sizes_found[1:]) + np.count_nonzero(sizes_truth[1:])
    return 2 * hits / max(1, int(objects))


def measure_tiles(
    rgb: NDArray[np.uint8],
    hed: NDArray[np.float64],
    tissue: NDArray[np.bool_],
    labels: NDArray[np.int32],
    mpp: float,
) -> NDArray[np.float64]:
    """FIGURES of each tile that is mostly tissue: (tiles, figures)."""
    areas = np.bincount(labels.ravel())
    kept = np.flatnonzero(areas[1:]) + 1
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, kept))
    rows = []
    for y in range(0, rgb.shape[0] - TILE_PX + 1, TILE_PX):
        for x in range(0, rgb.shape[1] - TILE_PX + 1, TILE_PX):
            window = np.s_[y : y + TILE_PX, x : x + TILE_PX]
            inside = tissue[window]
            if inside.mean() < MIN_TISSUE:
                continue
            here = ((centres >= (y, x)) & (centres < (y + TILE_PX, x + TILE_PX))).all(axis=1)
            diameters = np.sqrt(4 / np.pi * areas[kept[here]]) * mpp
            stains, colours = hed[window][inside], rgb[window][inside].astype(float)
            rows.append(
                [
                    float(np.median(diameters)) if here.any() else np.nan,
                    here.sum() / (inside.sum() * (mpp / 1000) ** 2),
                    *(
                        stains[:, 0].mean(),
                        stains[:, 0].std(),
                        stains[:, 1].mean(),
                        stains[:, 1].std(),
                    ),
                    *colours.mean(axis=0),
                    *colours.std(axis=0),
                ]
            )
    return np.array(rows)


def analyse(path: Path, truth: Path | None) -> tuple[NDArray[np.float64], float]:
    """Tile figures of a slide, and the classical recipe's F1 (nan without truth)."""
    with openslide.OpenSlide(path) as slide:
        rgb = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        mpp = float(slide.properties["openslide.mpp-x"])
    tissue = find_tissue(rgb)
    labels = segment(rgb2hed(rgb), tissue)
    hed = rgb2hed(np.maximum(rgb, DARKEST))
    score = f1_score(labels, tifffile.imread(truth)) if truth else float("nan")
    return measure_tiles(rgb, hed, tissue, labels, mpp), score


def measure_phantoms(count: int) -> tuple[NDArray[np.float64], list[float], float]:
    """Tile figures of `count` phantoms of 2,048 px, the classical F1 of each, and the best writing
    speed in Mpx/s."""
    tiles, scores, seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            spec = PhantomSpec(
                name=f"p{seed}", width=2048, height=2048, seed=seed, dominant=REGION_NAMES[seed % 3]
            )
            start = time.perf_counter()
            files = write_phantom(Path(folder), spec=spec)
            seconds.append(time.perf_counter() - start)
            figures, score = analyse(files.slide, files.nuclei)
            tiles.append(figures)
            scores.append(score)
    return np.concatenate(tiles), scores, 2048**2 / 1e6 / min(seconds)


def main() -> int:
    """Make phantoms, measure them and the real slide, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three phantoms of 2,048 px, not nine")
    options = parser.parse_args()
    real_path = sample(REAL_SLIDE)
    tiles, scores, speed = measure_phantoms(3 if options.quick else 9)
    real, _ = analyse(real_path, None)
    low, high = np.nanpercentile(real, [5, 95], axis=0)
    median = np.nanmedian(tiles, axis=0)
    passed = (median >= low) & (median <= high)
    print(
        f"{'figure':<22}{'phantom':>10}{'real 5 %':>10}{'real 95 %':>10}  pass   ({len(real)} real "
        "tiles)"
    )
    for name, value, lo, hi, ok in zip(FIGURES, median, low, high, passed, strict=True):
        print(f"{name:<22}{value:>10.4g}{lo:>10.4g}{hi:>10.4g}  {'yes' if ok else 'NO'}")
    print(
        f"classical recipe F1: mean {np.mean(scores):.3f} (limit {MAX_F1}), each "
        f"{np.round(scores, 3).tolist()}"
    )
    print(f"writing: {speed:.1f} Mpx/s")
    result = {
        "benchmark": "phantom_realism",
        "phantoms": len(scores),
        "figures": {
            name: {
                "phantom": round(float(v), 5),
                "real_p5": round(float(a), 5),
                "real_p95": round(float(b), 5),
                "pass": bool(ok),
            }
            for name, v, a, b, ok in zip(FIGURES, median, low, high, passed, strict=True)
        },
        "classical_f1_mean": round(float(np.mean(scores)), 4),
        "classical_f1_limit": MAX_F1,
        "write_mpx_per_s": round(speed, 2),
        "pass": bool(passed.all() and np.mean(scores) <= MAX_F1),
    }
    print(json.dumps(result))
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
