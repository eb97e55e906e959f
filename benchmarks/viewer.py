"""Is the viewer fluid with a million objects? First paint and frames per second in headless
Chromium; the last line is one JSON object.

A slide is composed of real tissue (``mosaic.py``), a million outlines of nuclei (pixel stairs, as
quadrat writes them) are planted on it, and ``quadrat view`` serves both from a process of its own.
Chromium (Debian's, driven by Playwright, without a GPU: all is drawn by the CPU that also serves)
opens the page at 1280 x 800 px. Measured in the page:

- first paint: from the start of the navigation to the first frame in which every visible tile of
  objects and at least one of the picture are drawn. The server has just started; it reads the
  object table while the browser starts;
- pan, zoom: a scripted movement, a step in each frame that the browser asks for
  (requestAnimationFrame), first over tiles that were never drawn, then over the same again. Frames
  per second are the frames in which the viewer drew objects, over the time; ``slow`` is the
  longest frame but 5 % of them, in ms.

    python benchmarks/viewer.py --quick            a million objects on 32,768 px a side
    python benchmarks/viewer.py --objects 4000000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mosaic import compose
from samples import REAL_SLIDE, leave_out, sample

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import load_pipeline
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.engine.drivers import note_asked
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
from quadrat.outputs.tables import CountRow

SIDE = 32_768
MPP = 0.25
GRID = 2
"""Level-0 px a grid px."""
CLASSES = (
    ClassInfo("lymphocyte", (0, 114, 178)),
    ClassInfo("tumour", (230, 159, 0)),
    ClassInfo("stroma", (204, 121, 167)),
)
CHUNK = 32_768
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
FRAMES = """async ([from, to, seconds]) => {
  const { viewer, counters } = quadratView, viewport = viewer.viewport, times = [];
  const start = performance.now();
  let before = start, drawn = counters.drawn, frames = 0;
  await new Promise((done) => {
    function step(now) {
      times.push(now - before); before = now;
      frames += counters.drawn > drawn; drawn = counters.drawn;
      const part = Math.min(1, (now - start) / (1000 * seconds));
      const at = from.map((value, i) => value + (to[i] - value) * part);
      viewport.zoomTo(from[2] * (to[2] / from[2]) ** part, null, true);
      viewport.panTo(new OpenSeadragon.Point(at[0], at[1]), true);
      part < 1 ? requestAnimationFrame(step) : done();
    }
    requestAnimationFrame(step);
  });
  const ms = times.slice(1).sort((a, b) => a - b);
  return { fps: 1000 * frames / (performance.now() - start),
           slow: ms[Math.floor(0.95 * (ms.length - 1))], tiles: counters.loaded };
}"""
FIRST = """() => new Promise((done) => {
  function look() {
    const view = window.quadratView;
    const picture = view?.viewer.world.getItemAt(0)?.lastDrawn?.length;
    if (picture && view.counters.loaded && !view.counters.missing)
      requestAnimationFrame(() => done(performance.now()));
    else requestAnimationFrame(look);
  }
  look();
})"""
MOVES = {
    "pan at low zoom": ([0.3, 0.3, 4.0], [0.7, 0.7, 4.0]),
    "pan over outlines": ([0.4, 0.4, 30.0], [0.5, 0.45, 30.0]),
    "zoom from the slide to a cell": ([0.5, 0.5, 1.0], [0.47, 0.46, 100.0]),
}
"""Where each begins and ends: x, y as shares of the width, zoom (1: the slide fills the page)."""


def nuclei(n: int, seed: int) -> tuple[ObjectTable, Polygons]:
    """Outlines along pixel edges of ``n`` ellipses, in the order of shards of 2,048 grid px."""
    rng = np.random.default_rng(seed)
    grid = SIDE // GRID
    corner = rng.integers(0, grid - 24, (n, 2))
    shard = corner // 2048
    corner = corner[np.lexsort((corner[:, 1], corner[:, 0], shard[:, 1], shard[:, 0]))]
    shapes = [stairs(rng.uniform(4, 10), rng.uniform(4, 10)) for _ in range(64)]
    kind = rng.integers(0, len(shapes), n)
    length = np.array([len(one) for one in shapes])[kind]
    starts = np.concatenate([[0], np.cumsum(length)])
    xy = np.concatenate([shapes[k] for k in kind]) + np.repeat(corner[:, ::-1], length, axis=0)
    size = np.array([one.max(axis=0) for one in shapes])[kind][:, ::-1]
    bbox = np.concatenate([corner, corner + size], axis=1).astype(np.float64)
    area = np.array([shoelace(one) for one in shapes])[kind]
    table = ObjectTable(
        anchor=corner.astype(np.int64),
        class_id=rng.integers(0, len(CLASSES), n).astype(np.uint8),
        score=rng.uniform(0.3, 1, n).astype(np.float32),
        bbox=bbox,
        centroid=(bbox[:, :2] + bbox[:, 2:]) / 2,
        area_px=area,
        perimeter_px=4 * np.sqrt(area),
        flags=np.zeros(n, np.uint8),
    )
    return table, Polygons(xy.astype(np.float64), starts, np.arange(n + 1))


def stairs(down: float, across: float) -> npt.NDArray[np.int64]:
    """The outline of an ellipse along pixel edges, closed, from its corner: (m, 2) x, y."""
    rows = np.arange(math.ceil(2 * down))
    half = across * np.sqrt(np.maximum(0.05, 1 - ((rows + 0.5 - down) / down) ** 2))
    left = np.floor(across - half).astype(int)
    right = np.maximum(np.ceil(across + half).astype(int), left + 1)
    side = [(left[r], y) for r in rows for y in (r, r + 1)]
    other = [(right[r], y) for r in rows[::-1] for y in (r + 1, r)]
    ring = np.array([*side, *other, side[0]])
    turn = np.any(ring[2:] - ring[1:-1] != ring[1:-1] - ring[:-2], axis=1)
    same = np.all(ring[1:] == ring[:-1], axis=1)
    keep = np.concatenate([[True], turn, [True]]) & ~np.concatenate([[False], same])
    kept: npt.NDArray[np.int64] = ring[keep]
    return kept


def shoelace(ring: npt.NDArray[np.int64]) -> float:
    """Area inside a ring."""
    x, y = ring.T.astype(np.float64)
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2


def plant(out: Path, slide: Path, objects: int) -> None:
    """A finished run of one slide, as quadrat writes it."""
    frame = Frame(SIDE // GRID, SIDE // GRID, MPP * GRID, GRID, GRID)
    folder = out / "results" / "mosaic"
    with ObjectWriter(
        folder / "objects.parquet", frame=frame, classes=CLASSES, slide="mosaic"
    ) as writer:
        table, polygons = nuclei(objects, 0)
        nearest = np.full((objects, len(CLASSES)), 5, np.float32)
        writer.append(table, polygons, nearest, first_id=1)
    counts = np.bincount(table.class_id, minlength=len(CLASSES)).tolist()
    rows = [
        CountRow(name, n, None, 0.0, None, None)
        for name, n in zip([c.name for c in CLASSES] + ["all"], [*counts, objects], strict=True)
    ]
    area = AreaFigures((SIDE * MPP / 1000) ** 2, {}, ())
    write_summary(
        folder,
        Summary(
            slide="mosaic",
            task="instance",
            fingerprint="0" * 64,
            frame=frame,
            reader=ReaderNote("aperio", "native tiles"),
            slide_mpp=MppNote(MPP, "file"),
            cores=1,
            thresholds={},
            figures=SlideFigures(area, ObjectFigures(tuple(rows), capped_objects=0)),
            provenance=Provenance(PackageNote("0" * 64), CLASSES, "planted", {}, 1, "cpu"),
        ),
    )
    ref = SlideRef(name="mosaic", path=str(slide))
    note_asked(out, load_pipeline("nuclei"), [ref], package=out, until="results")


def measure(url: str, seconds: float) -> dict[str, Any]:
    """What the page does in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        faults: list[str] = []
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        found: dict[str, Any] = {"first_paint_s": page.evaluate(FIRST) / 1000}
        moves = {}
        for name, (begin, end) in MOVES.items():
            for again in ("", ", again"):
                moves[name + again] = page.evaluate(FRAMES, [begin, end, seconds])
                page.wait_for_timeout(300)
        browser.close()
    return found | {"moves": moves, "faults": faults}


def main() -> int:
    """Plant, serve, measure; 1 if the page reported an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter movements")
    parser.add_argument("--objects", type=int, default=1_000_000)
    given = parser.parse_args()
    sample(REAL_SLIDE)
    try:
        import playwright  # noqa: F401
    except ImportError:
        leave_out("playwright is not installed (pip install playwright)")
    if not Path(CHROMIUM).exists():
        leave_out(f"{CHROMIUM} is missing (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        out, slide = Path(folder) / "out", Path(folder) / "mosaic.svs"
        compose(slide, height=SIDE, width=SIDE, mpp=MPP, tissue=0.3)
        plant(out, slide, given.objects)
        command = [sys.executable, "-m", "quadrat", "view", str(out), "mosaic"]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = re.search(r"http\S+", server.stdout.readline())
            if address is None:
                raise SystemExit("quadrat view did not start")
            print(f"server up after {time.perf_counter() - start:.1f} s", flush=True)
            try:
                found = measure(address[0], 2.0 if given.quick else 5.0)
                peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{server.pid}/status").read_text())
            finally:
                server.terminate()
    print(
        f"first paint {found['first_paint_s']:.2f} s; load of the machine {os.getloadavg()[0]:.1f}"
    )
    for name, one in found["moves"].items():
        print(f"{name:40} {one['fps']:5.1f} frames/s, 95 % within {one['slow']:.0f} ms")
    for fault in found["faults"]:
        print(f"the page reported: {fault}")
    print(
        json.dumps(
            {
                "objects": given.objects,
                "first_paint_s": round(found["first_paint_s"], 3),
                "frames_per_s": {n: round(m["fps"], 1) for n, m in found["moves"].items()},
                "least_frames_per_s": round(min(m["fps"] for m in found["moves"].values()), 1),
                "median_frames_per_s": round(
                    statistics.median(m["fps"] for m in found["moves"].values()), 1
                ),
                "server_peak_mb": 0 if peak is None else int(peak[1]) // 1024,
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
