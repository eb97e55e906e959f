"""A network of somebody else over a whole slide to its mask: what a run costs beside the network,
and how much memory it takes.

A U-Net of 0.57 M parameters (random weights; three classes) is written as TorchScript, imported
(windows of 512 px, halo of 32), and run over slides of tissue of two sizes at its own resolution,
in one process. *Pure* is the same TorchScript file called on as many windows that lie in memory.
Rounds of both alternate; CPU seconds are of whole processes, with start, planning,
stitching, pictures and tables included. ``in_process`` leaves starting out: ``quadrat.engine.run``
called where torch is loaded. Memory is the largest resident size of the command, less that of a
process that loads the file and calls it once.

    QUADRAT_DATA=<folder with wsi/> python benchmarks/imported.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from samples import REAL_SLIDE, sample

from quadrat.config.import_card import import_card
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.core.geometry import Box
from quadrat.core.native import keep_freed_memory
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run
from quadrat.models.foreign.importing import import_model
from quadrat.models.unet import UNet
from quadrat.slides.source import open_source
from quadrat.tasks import get_task

MPP, WINDOW, HALO = 0.5, 512, 32
WIDTHS = (32, 56, 72, 104)
CARD = {
    "decoder": "argmax",
    "classes": [
        {"name": name, "color": [40 * i, 200 - 40 * i, 90]} for i, name in enumerate("abc")
    ],
    "mpp": MPP,
    "license": "Apache-2.0",
    "window": WINDOW,
    "core": WINDOW - 2 * HALO,
}
ONCE = """
import resource, sys, time, torch
from quadrat.core.native import keep_freed_memory
keep_freed_memory()
torch.set_num_threads(1)
model = torch.jit.load(sys.argv[1]).eval()
window = torch.rand(1, 3, 512, 512).to(memory_format=torch.channels_last)
count = int(sys.argv[2])
with torch.inference_mode():
    model(window)
    start = time.process_time(), time.perf_counter()
    for _ in range(count):
        model(window)
print(time.process_time() - start[0], time.perf_counter() - start[1],
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
"""Calls the file on windows in memory: CPU and wall seconds, largest size in MiB."""


def write_slide(path: Path, side: int) -> None:
    """Tissue of the real slide, mirrored, JPEG tiles at the network's resolution."""
    with open_source(str(sample(REAL_SLIDE)), mpp=MPP) as source:
        tissue = source.read(Box(100, 100, 1124, 1124))
    pair = np.concatenate([tissue, tissue[:, ::-1]], axis=1)
    period = np.concatenate([pair, pair[::-1]], axis=0)
    times = -(-side // period.shape[0])
    tifffile.imwrite(
        path, np.tile(period, (times, times, 1))[:side, :side], tile=(256, 256),
        photometric="rgb", compression="jpeg", resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip


def pure(file: Path, windows: int) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and memory of the file alone."""
    words = [sys.executable, "-c", ONCE, str(file), str(windows)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    cpu, wall, size = (float(word) for word in done.stdout.split())
    return cpu, wall, size


def command(package: Path, slide: Path, out: Path) -> dict[str, float]:
    """``quadrat run`` as a process."""
    words = [
        sys.executable, "-m", "quadrat", "run", str(package), str(slide), "--out", str(out),
        "--cluster", "serial", "--quiet", "--set", "slide.tissue=all",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"the run ended with {status}"
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "size_mb": usage.ru_maxrss / 1024,
    }


def in_process(package: Path, slide: Path, out: Path) -> float:
    """CPU seconds of the run itself."""
    pipeline = load_pipeline(str(package), ["slide.tissue=all"])
    start = time.process_time()
    with Reporter(quiet=True) as reporter:
        report = run(pipeline, slides_from_paths([str(slide)], mpp=None), out, reporter=reporter)
    assert report.exit_code == 0, report.rows
    return time.process_time() - start


def measure(package: Path, file: Path, folder: Path, side: int, *, rounds: int) -> dict[str, Any]:
    """One size of slide."""
    slide = folder / f"{side}.tif"
    write_slide(slide, side)
    windows = (-(-side // (WINDOW - 2 * HALO))) ** 2
    rows = []
    for number in range(rounds):
        alone = pure(file, windows)
        whole = command(package, slide, folder / f"out{side}-{number}")
        inside = in_process(package, slide, folder / f"in{side}-{number}")
        again = pure(file, windows)
        cpu, wall = ((alone[i] + again[i]) / 2 for i in (0, 1))
        rows.append(
            {
                "cpu_over_pure": whole["cpu_s"] / cpu,
                "wall_over_pure": whole["wall_s"] / wall,
                "in_process_over_pure": inside / cpu,
                "pure_cpu_s": cpu,
                "memory_beyond_mb": whole["size_mb"] - max(alone[2], again[2]),
                "size_mb": whole["size_mb"],
            }
        )
    return {"windows": windows} | {
        name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]
    }


def main() -> None:
    """Import, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: a small slide")
    quick = parser.parse_args().quick
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UNet(WIDTHS, outputs=4, out_stride=1).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, package = folder / "unet.pt", folder / "package"
        torch.jit.trace(network, torch.rand(1, 3, 256, 256)).save(str(file))  # type: ignore[no-untyped-call]
        card = import_card(CARD, where="benchmarks/imported.py")
        import_model(file, card, package, task_named=get_task)
        about = json.loads((package / "card.json").read_text())
        figures: dict[str, Any] = {
            "load": os.getloadavg()[0],
            "parameters": sum(p.numel() for p in network.parameters()),
            "promise": about["exactness"]["promise"],
            "reach": about["exactness"]["receptive_radius_px"],
        }
        for side in [1024] if quick else [4096, 16384]:
            figures[str(side)] = measure(
                package, file, folder, side, rounds=1 if quick or side > 4096 else 3
            )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
