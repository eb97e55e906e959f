"""How busy the engine keeps a network, and what it costs beside it.

- ``cpu``: the real ``nuclei`` network on CPU workers, slides of mixed size: time in the network
  over wall time and workers, from the first window to the last (aim 0.95).
- ``gpu``: a stand-in network 30 times as fast on one worker that believes to have a GPU, beside one
  CPU worker that plans, stitches and writes: time in the network over wall time (aim 0.85).
- ``free``: a network that costs next to nothing: pixels from the slide to the stitched result by
  the engine in one process, against the same reading, writing and stitching in a plain loop
  (aim: 80 % of its speed).

The last line is one JSON object. --quick takes fewer and smaller slides.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import standin
import tifffile

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline, load_pipeline
from quadrat.core.geometry import Box
from quadrat.core.lattice import ShardIndex
from quadrat.core.numerics import cpu_numerics
from quadrat.engine import steps
from quadrat.engine.batch import Batch
from quadrat.engine.executor import Equipment, Serial
from quadrat.engine.fingerprint import fingerprints
from quadrat.engine.finished import package_folder
from quadrat.engine.journal import Journal
from quadrat.engine.local import local_cluster
from quadrat.engine.opened import opened
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run, run_spec
from quadrat.engine.state import AnyStep, RunSettings, SlideState
from quadrat.engine.view import WorkView, save_part
from quadrat.engine.work import SlideWork
from quadrat.models.device import pick_device
from quadrat.models.inference import predict_cells
from quadrat.slides.identity import slide_identity
from quadrat.slides.source import open_source
from quadrat.tasks import get_task

SIDES = {"full": [512] * 26 + [1024] * 8 + [2048] * 4 + [4096] + [8192],
         "quick": [512] * 3 + [1024]}  # fmt: skip
REAL_S = 0.41
"""What the real network takes for a window on one thread."""
SLIDE = Path("wsi") / "CMU-1-Small-Region.svs"


def main() -> None:
    """Make the slides, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--part", choices=["cpu", "gpu", "free"], help="only this one")
    arguments = parser.parse_args()
    data = os.environ.get("QUADRAT_DATA")
    if not data or not (Path(data) / SLIDE).is_file():
        print(json.dumps({"left_out": "no real slide: set QUADRAT_DATA"}))
        return
    size = "quick" if arguments.quick else "full"
    figures: dict[str, Any] = {"load": os.getloadavg()[0], "slides": len(SIDES[size])}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = make_slides(Path(data) / SLIDE, folder / "slides", SIDES[size])
        for part in [arguments.part] if arguments.part else ["cpu", "gpu", "free"]:
            figures[part] = {"cpu": on_cpus, "gpu": on_gpu, "free": for_free}[part](slides, folder)
    print(json.dumps(figures))


def make_slides(real: Path, folder: Path, sides: Sequence[int]) -> list[SlideRef]:
    """Slides of tissue from one real slide, JPEG tiles at 0.5 um/px, the large ones in between."""
    folder.mkdir()
    with open_source(str(real), mpp=0.5) as source:
        tissue = source.read(Box(0, 0, *source.frame.box.shape))
    refs = []
    for number, side in enumerate(np.random.default_rng(0).permutation(sides).tolist()):
        times = [-(-side // length) for length in tissue.shape[:2]]
        shift = 137 * number
        pixels = np.roll(np.tile(tissue, (*times, 1)), (shift, shift), (0, 1))[:side, :side]
        path = folder / f"{number:02d}_{side}.tif"
        tifffile.imwrite(
            path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg",
            resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
        refs.append(SlideRef(path=str(path), name=path.stem, mpp=0.5))
    return refs


def pipeline_of(*more: str) -> Pipeline:
    """The shipped pipeline, all of each slide analysed."""
    return load_pipeline("nuclei", ["slide.tissue=all", *more])


def on_cpus(slides: Sequence[SlideRef], folder: Path) -> dict[str, Any]:
    """The real network on two CPU workers."""
    return utilisation(slides, folder / "cpu", workers=2, network=2)


def on_gpu(slides: Sequence[SlideRef], folder: Path) -> dict[str, Any]:
    """A fast stand-in on one worker with a GPU, beside one without."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(standin.SITE)
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), here, *sys.path])
    os.environ |= {standin.SECONDS: str(REAL_S / 30), standin.GPU: "1"}
    try:
        return utilisation(slides, folder / "gpu", workers=2, network=1)
    finally:
        for name in (standin.SECONDS, standin.GPU, "PYTHONPATH"):
            os.environ.pop(name, None)


def utilisation(
    slides: Sequence[SlideRef], out: Path, *, workers: int, network: int
) -> dict[str, Any]:
    """Time in the network over wall time and ``network`` workers."""
    logs = out / "workers"
    logs.mkdir(parents=True)
    with (
        Reporter(quiet=True) as reporter,
        local_cluster(workers=workers, equipment=Equipment(), logs=str(logs)) as executor,
    ):
        start = time.perf_counter()
        report = run(pipeline_of(), slides, out, reporter=reporter, executor=executor)
        wall = time.perf_counter() - start
    assert report.exit_code == 0, report.rows
    spent: dict[str, float] = {}
    for line in (out / "run" / "timings.jsonl").read_text().splitlines():
        for step, seconds in json.loads(line)["seconds"].items():
            spent[step] = spent.get(step, 0.0) + seconds
    began, ended = span(logs)
    return {
        "utilisation": round(spent["predict: network"] / ((ended - began) * network), 3),
        "first_to_last_window_s": round(ended - began, 1),
        "wall_s": round(wall, 1),
        "worker_s": {step: round(s, 1) for step, s in sorted(spent.items()) if s > 0.05},
    }


def span(logs: Path) -> tuple[float, float]:
    """When the first job of inference began, and when the last one ended."""
    times = []
    for log in logs.glob("*.jsonl"):
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if "/predict/" in str(event.get("job")):
                times.append(event["time"])
    return min(times), max(times)


def for_free(slides: Sequence[SlideRef], folder: Path) -> dict[str, Any]:
    """The engine against a plain loop, in this process, with a network that costs little."""
    os.environ[standin.SECONDS] = "0"
    real = steps._package
    standin.put_in()
    try:
        warm = slides[:1]
        for name in ("bare", "engine"):
            way = {"bare": bare, "engine": by_engine}[name]
            way(warm, folder / f"warm-{name}")
        seconds: dict[str, list[float]] = {"bare": [], "engine": []}
        for turn in range(3):
            for name, way in (("bare", bare), ("engine", by_engine)):
                out = folder / f"{name}-{turn}"
                start = time.perf_counter()
                way(slides, out)
                seconds[name].append(time.perf_counter() - start)
                shutil.rmtree(out)
    finally:
        steps._package = real
        del os.environ[standin.SECONDS]
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "speed_of_bare": round(best["bare"] / best["engine"], 3),
        "seconds": {name: [round(s, 2) for s in times] for name, times in seconds.items()},
    }


def works(slides: Sequence[SlideRef], out: Path) -> tuple[Pipeline, Path, list[SlideWork]]:
    """The working folders of slides."""
    pipeline = pipeline_of()
    package = package_folder(pipeline)
    spec, _ = run_spec(pipeline, package)
    found = [
        SlideWork(
            ref, str(out / ref.name), spec, pipeline.slide, pipeline.task, slide_identity(ref.path)
        )
        for ref in slides
    ]
    return pipeline, package, found


def bare(slides: Sequence[SlideRef], out: Path) -> None:
    """Read, infer, write and stitch, one after the other, with nothing around it."""
    _, package, todo = works(slides, out)
    model = standin.package(str(package), "").model
    for work in todo:
        steps.plan_slide(work)
        steps.create_predictions(work)
        task, plan, view = get_task(work.task), work.load_plan(), WorkView(work)
        cells = work.spec.lattice.by_shard(plan.cells)
        parts = task.parts
        assert parts is not None
        with opened(work) as at_hand:
            for shard in cells:
                found = predict_cells(
                    model, task, work.spec, at_hand.source, cells[shard], device=pick_device("cpu")
                )
                view.predictions.write(shard, dict(found))
        for shard in map(ShardIndex, cells):
            save_part(work.part(shard), parts.stitch(view, shard))


def by_engine(slides: Sequence[SlideRef], out: Path) -> None:
    """The same by the engine: flow, journal, checks that no file changed, retries, receipts."""
    pipeline, package, todo = works(slides, out)
    pipeline = replace(pipeline, run=replace(pipeline.run, device="cpu"))
    numerics = cpu_numerics(1).text
    states = [
        SlideState(
            work,
            fingerprints(work, pipeline, weights_sha256="").on(numerics),
            Journal(work.journal),
        )
        for work in todo
    ]
    source = iter(states)
    with Reporter(quiet=True) as reporter:
        batch = Batch(RunSettings(pipeline, str(package)), Serial(), reporter)
        way: list[AnyStep] = [steps.PLAN, steps.LAYOUT, steps.PREDICT, steps.STITCH]
        batch.drive(lambda: next(source, None), way, total=len(states))
    assert all(state.failure is None for state in states), [s.failure for s in states]


if __name__ == "__main__":
    main()
