"""How long ``quadrat measure`` takes, and how much memory: one slide with 1,000,000 objects of two
classes (outlines of 24 corners) and 50 regions of 60 corners, nested and overlapping.

    python benchmarks/measure.py [--quick] [--slides N]

The results are made up and written as a run writes them. Each figure is of a process of its own; a
copy of the slide under other names shows that memory does not grow with their number.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from quadrat.core.files import write_file
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import (
    AreaFigures,
    MppNote,
    ObjectFigures,
    PackageNote,
    Provenance,
    ReaderNote,
    SlideFigures,
    Summary,
    write_summary,
)
from quadrat.outputs.tissue import write_tissue

CLASSES = (ClassInfo("a", (228, 26, 28)), ClassInfo("b", (55, 126, 184)))
MASK = 16
"""Grid px a pixel of the tissue mask."""
YAML = """\
ratios: {index: a / (a + b)}
distances: [{of: a, to: b, within_um: [20]}]
bands_um: [0, 50, 100]
hotspots: [{of: a, preset: mitoses}]
"""
CORNERS = 24


def objects(n: int, frame: Frame) -> tuple[ObjectTable, Polygons]:
    """Outlines of like size, scattered evenly; one in a hundred of class a."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(0, 1, (n, 2)) * (frame.height, frame.width)
    turn = np.linspace(0, 2 * np.pi, CORNERS + 1)[None]
    radius = rng.uniform(5, 9, (n, 1))
    x, y = centre[:, 1:] + radius * np.cos(turn), centre[:, :1] + radius * np.sin(turn)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    starts = np.arange(n + 1)
    table = ObjectTable(
        anchor=np.floor(centre).astype(np.int64),
        class_id=(rng.uniform(size=n) > 0.01).astype(np.uint8),
        score=np.full(n, 0.9, np.float32),
        bbox=np.concatenate([centre - radius, centre + radius], axis=1),
        centroid=centre,
        area_px=np.pi * radius[:, 0] ** 2,
        perimeter_px=2 * np.pi * radius[:, 0],
        flags=np.zeros(n, np.uint8),
    )
    return table, Polygons(xy, starts * (CORNERS + 1), starts)


def write_slide(folder: Path, table: ObjectTable, polygons: Polygons, frame: Frame) -> None:
    """The results of one slide: a tenth of the tissue is filled, an eighth is glass."""
    nearest = np.full((len(table), 2), 5, np.float32)
    with ObjectWriter(
        folder / "objects.parquet", frame=frame, classes=CLASSES, slide=folder.name
    ) as writer:
        writer.append(table, polygons, nearest, first_id=1)
    side, scale = frame.height // MASK, frame.scale_row * MASK
    random = np.random.default_rng(1).uniform(size=(side, side))
    codes = np.where(random < 0.9, 0, 6).astype(np.uint8)
    codes[:, : side // 8] = 1
    write_tissue(folder, codes, Frame(side, side, frame.mpp * MASK, scale, scale))
    figures = SlideFigures(AreaFigures(1.0, {}, ()), ObjectFigures((), 0))
    summary = Summary(
        slide=folder.name,
        task="instance",
        fingerprint="f" * 64,
        frame=frame,
        reader=ReaderNote("made up", "none"),
        slide_mpp=MppNote(0.25, "made up"),
        cores=1,
        thresholds={},
        figures=figures,
        provenance=Provenance(PackageNote("0" * 64), CLASSES, "made up", {}, 1, "cpu"),
    )
    write_summary(folder, summary)


def write_regions(path: Path, side_l0: float) -> None:
    """50 regions of 60 corners each."""
    rng, turn, features = np.random.default_rng(2), np.linspace(0, 2 * np.pi, 61), []
    for j in range(50):
        x, y = rng.uniform(0.2, 0.8, 2) * side_l0
        radius = rng.uniform(0.02, 0.15) * side_l0 * (1 + 0.2 * np.sin(5 * turn))
        ring = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1).tolist()
        ring[-1] = ring[0]
        properties = {
            "objectType": "annotation",
            "name": f"region {j}",
            "classification": {"name": "tumour" if j % 2 else "stroma"},
        }
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    write_file(path, json.dumps({"type": "FeatureCollection", "features": features}))


def make(folder: Path, *, n: int, side: int, slides: int) -> None:
    """The results, and a file of regions a slide."""
    frame = Frame(side, side, 0.5, 2.0, 2.0)
    table, polygons = objects(n, frame)
    for k in range(slides):
        place = folder / "out" / "results" / f"s{k:03}"
        if k == 0:
            write_slide(place, table, polygons, frame)
        else:
            shutil.copytree(place.with_name("s000"), place)
            _rename(place)
        write_regions(folder / "rois" / f"{place.name}.geojson", 2.0 * side)
    write_file(folder / "m.yaml", YAML)


def _rename(place: Path) -> None:
    """Let a copy say its own name."""
    summary = json.loads((place / "summary.json").read_text())
    write_file(place / "summary.json", json.dumps(summary | {"slide": place.name}))


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds on the wall, and MiB at most, of a process."""
    before = time.perf_counter()
    command = [sys.executable, "-m", "quadrat", "measure", str(folder / "out"), "--quiet", *words]
    subprocess.run([*command, "--rois", str(folder / "rois")], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - before, peak


def main() -> int:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="50,000 objects")
    parser.add_argument("--slides", type=int, default=1, help="copies of the slide (1)")
    options = parser.parse_args()
    n, side = (50_000, 8_000) if options.quick else (1_000_000, 36_000)
    folder = Path(tempfile.mkdtemp(prefix="measure-"))
    try:
        make(folder, n=n, side=side, slides=options.slides)
        timed(folder, "--no-shapes")  # compiles what is compiled once
        counts_s, _ = timed(folder, "--no-shapes")
        shapes_s, peak = timed(folder)
        all_s, all_peak = timed(folder, "--pipeline", str(folder / "m.yaml"))
    finally:
        shutil.rmtree(folder)
    figures = {
        "objects": n,
        "regions": 50,
        "slides": options.slides,
        "counts_s": round(counts_s, 2),
        "with_shapes_s": round(shapes_s, 2),
        "with_distances_bands_hotspots_s": round(all_s, 2),
        "peak_mb": round(max(peak, all_peak)),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
