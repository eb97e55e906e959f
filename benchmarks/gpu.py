"""A slide of real tissue from file to results with the shipped ``nuclei`` on a GPU: seconds per
mm2, how much of the time the GPU is busy, and where the time goes.

The slide is a mosaic at 0.25 um/px (JPEG tiles of real tissue), so reading at the model's 0.5 um/px
reduces as it does in practice. Whole commands: ``quadrat run`` with one GPU worker and as many
others as there are CPUs. *Busy* is the driver's own figure (``nvidia-smi``, sampled each 0.1 s from
the first window to the last). *Network* is the same network alone on windows that lie on the device
already, in the same batch: what no pipeline can be faster than. Without a GPU the same script runs
a small slide on the CPU, and says so.

    python benchmarks/gpu.py [--quick] [--mm2 25] [--threads 4]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mosaic import Mosaic, compose
from samples import REAL_SLIDE, sample

from quadrat.config.pipeline import load_pipeline
from quadrat.core.allocation import cpus
from quadrat.engine.finished import package_folder
from quadrat.engine.run import run_spec
from quadrat.models.inference import batch_of, forward
from quadrat.models.package import load_package
from quadrat.tasks import build_network

MPP = 0.25
BLOCK_MM = 4096 * MPP / 1000
"""Side of a mosaic's block."""


@dataclass(slots=True)
class Busy:
    """Share of time in which the first GPU does something, as its driver says."""

    samples: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Busy:
        if shutil.which("nvidia-smi") is not None:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        words = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu",
                 "--format=csv,noheader,nounits", "-lms", "100"]  # fmt: skip
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.samples.append(float(line) / 100)
                if self._stop.is_set():
                    break
            process.kill()

    @property
    def share(self) -> float | None:
        """Between the first and the last moment in which it was busy; None: not known."""
        at = [index for index, value in enumerate(self.samples) if value > 0]
        return round(statistics.fmean(self.samples[at[0] : at[-1] + 1]), 3) if at else None


def network_alone(device: str, *, seconds: float) -> dict[str, Any]:
    """The network on windows that lie on the device, in the batch that a run takes."""
    pipeline = load_pipeline("nuclei")
    spec, _ = run_spec(pipeline, package_folder(pipeline))
    model = load_package(package_folder(pipeline), build_network).model
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    size, side = batch_of(device, spec.lattice), spec.lattice.window
    torch.set_num_threads(1)
    windows = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    ).to(device)

    def once() -> None:
        forward(model, windows, spec)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        once()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            once()
            count += 1
        each = (time.perf_counter() - start) / (count * size)
    core_mm2 = (spec.lattice.core * spec.mpp / 1000) ** 2
    return {
        "batch": size,
        "window_px": side,
        "inference": spec.inference,
        "s_per_window": round(each, 5),
        "s_per_mm2": round(each / core_mm2, 4),
    }


def whole_run(slide: Mosaic, out: Path, *, device: str, threads: int) -> dict[str, Any]:
    """``quadrat run`` as a process of its own."""
    workers = max(2, cpus().value - threads + 1) if device == "cuda" else cpus().value
    words = [
        sys.executable, "-m", "quadrat", "run", "nuclei", str(slide.path), "--out", str(out),
        "-j", str(workers), "--device", device, "--set", f"run.threads={threads}",
        "--set", "slide.tissue=all", "--quiet",
    ]  # fmt: skip
    with Busy() as busy:
        start = time.perf_counter()
        subprocess.run(words, check=True)
        wall = time.perf_counter() - start
    (timing,) = [json.loads(line) for line in (out / "run" / "timings.jsonl").open()]
    return {
        "workers": workers,
        "threads": threads,
        "wall_s": round(wall, 2),
        "slide_s": timing["wall_s"],
        "mm2": round(timing["tissue_mm2"], 2),
        "s_per_mm2": round(timing["wall_s"] / timing["tissue_mm2"], 4),
        "gpu_busy": busy.share,
        "worker_seconds": timing["seconds"],
    }


def main() -> None:
    """Compose, measure, print a JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: one block")
    parser.add_argument("--mm2", type=float, default=25, help="tissue of the slide")
    parser.add_argument("--threads", type=int, default=4, help="that read for the GPU")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = args.quick or device == "cpu"
    blocks = 1 if small else max(1, round((args.mm2 / BLOCK_MM**2) ** 0.5))
    side = 4096 * blocks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = compose(
            folder / "mosaic.svs", height=side, width=side, mpp=MPP, tissue=1,
            source=sample(REAL_SLIDE),
        )  # fmt: skip
        alone = network_alone(device, seconds=2 if small else 10)
        found = whole_run(
            slide, folder / "out", device=device, threads=args.threads if not small else 1
        )
    figures = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "load": os.getloadavg()[0],
        "network": alone,
        "run": found,
        "run_over_network": round(found["s_per_mm2"] / alone["s_per_mm2"], 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
