"""How fast the shipped models infer on a CPU, and what whole commands cost beside the network.

- ``network``: s per window and per mm2 of core on one thread, for cores as they were before and as
  they are, in fp32 and bf16.
- ``padding``: a shard of five windows, each alone, and as batches of four of which the last is
  padded: CPU time of the second over that of the first.
- ``slide``, ``fields``, ``large`` (not with --quick): ``quadrat run`` as a process, for a slide of
  2,048 px, a folder of fields of 1,000 px, and a slide of 8,192 px: CPU time of the command over
  that of the network alone on as many windows (``over_network``), seconds before
  the first job (``start_s``) and after the last window (``after_s``), and what each field costs
  beside its windows (``beside_s``).

Times are CPU seconds where other processes would disturb; ``start_s`` and ``after_s`` are seconds
on the wall and mean something on an idle machine only. The last line is one JSON object.

    QUADRAT_DATA=<folder with wsi/> python benchmarks/inference.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cores import CPU, seconds_of, with_core
from PIL import Image
from samples import REAL_SLIDE, sample

from quadrat.config.pipeline import shipped_pipelines
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex
from quadrat.core.native import keep_freed_memory
from quadrat.core.numerics import BF16, Inference, computes_bf16
from quadrat.models.inference import predict_groups
from quadrat.models.package import Package, load_package
from quadrat.slides.source import open_source
from quadrat.tasks import build_network, get_task

MPP = 0.5
BEFORE = {"nuclei": 640, "cells": 512}
"""Cores of the shipped packages before they were chosen by measurement."""
SLIDE, FIELD, LARGE = 2048, 1000, 8192
"""Sides in px."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a command took."""

    cpu_s: float
    """Of the process and all that it waited for."""
    wall_s: float
    """From its start to its end."""
    start_s: float
    """Until the first job was begun."""
    after_s: float
    """From the last window to the end."""
    windows: int
    """How many were inferred."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    quick = parser.parse_args().quick
    keep_freed_memory()
    with open_source(str(sample(REAL_SLIDE)), mpp=MPP) as source:
        tissue = source.read(Box(0, 0, *source.frame.box.shape))
    packages = {name: shipped(name) for name in BEFORE}
    figures: dict[str, Any] = {"load": os.getloadavg()[0]}
    figures["network"] = {
        name: network(package, BEFORE[name], rounds=1 if quick else 5)
        for name, package in packages.items()
    }
    figures["padding"] = padding(packages["cells"], tissue, rounds=1 if quick else 5)
    nuclei = packages["nuclei"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = {"slide": [SLIDE], "fields": [FIELD] * (4 if quick else 40)}
        if not quick:
            slides["large"] = [LARGE]
        for kind, sides in slides.items():
            place = write(tissue, folder / kind, sides)
            figures[kind] = commands(nuclei, place, folder, fields=len(sides))
    print(json.dumps(figures))


def shipped(name: str) -> Package:
    """A package of the ready-made pipelines."""
    return load_package(shipped_pipelines() / "packages" / name, build_network)


def network(package: Package, before: int, *, rounds: int) -> dict[str, dict[str, float]]:
    """s per window and per mm2 by core and precision."""
    precisions: list[Inference] = ["fp32", *([BF16] if computes_bf16("cpu") else [])]
    specs = [
        replace(spec, inference=precision)
        for spec in (with_core(package.spec, before), package.spec)
        for precision in precisions
    ]
    return {
        f"{spec.lattice.core} {spec.inference}": {
            "window_s": round(seconds, 4),
            "mm2_s": round(seconds / (spec.lattice.core * spec.mpp / 1000) ** 2, 3),
        }
        for spec, seconds in zip(specs, seconds_of(package, specs, rounds=rounds), strict=True)
    }


class _Pixels:
    """An array as a source of windows; what lies outside repeats the edge."""

    def __init__(self, rgb: npt.NDArray[np.uint8]) -> None:
        self._rgb = rgb

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """uint8 (h, w, 3) of a box."""
        rows, cols = (
            np.clip(np.arange(*ends), 0, side - 1)
            for ends, side in zip(
                ((box.row0, box.row1), (box.col0, box.col1)), self._rgb.shape[:2], strict=True
            )
        )
        return self._rgb[np.ix_(rows, cols)]


def padding(package: Package, rgb: npt.NDArray[np.uint8], *, rounds: int) -> dict[str, float]:
    """CPU seconds of five windows in either way."""
    task, spec = get_task(package.spec.task), with_core(package.spec, 256)
    cells = [CoreIndex((0, col)) for col in range(5)]
    source: Any = _Pixels(rgb)
    best = {"alone": float("inf"), "padded": float("inf")}
    for _ in range(rounds):
        for name, batch in (("alone", 1), ("padded", 4)):
            start = time.process_time()
            list(
                predict_groups(package.model, task, spec, source, [cells], device=CPU, batch=batch)
            )
            best[name] = min(best[name], time.process_time() - start)
    return {"padded_over_alone": round(best["padded"] / best["alone"], 3)}


def write(rgb: npt.NDArray[np.uint8], folder: Path, sides: Sequence[int]) -> Path:
    """Pictures of tissue as PNG files of a folder."""
    folder.mkdir()
    for number, side in enumerate(sides):
        shift = 137 * number
        times = [-(-side // length) for length in rgb.shape[:2]]
        pixels = np.roll(np.tile(rgb, (*times, 1)), (shift, shift), (0, 1))[:side, :side]
        Image.fromarray(pixels).save(folder / f"{number:03}.png", compress_level=1)
    return folder


def commands(package: Package, slides: Path, folder: Path, *, fields: int) -> dict[str, float]:
    """The command, between two measurements of the network alone."""
    before = seconds_of(package, [package.spec], rounds=2)[0]
    ran = run(slides, folder / f"{slides.name}-out")
    window_s = (before + seconds_of(package, [package.spec], rounds=2)[0]) / 2
    alone = ran.windows * window_s
    return {
        "windows": ran.windows,
        "wall_s": round(ran.wall_s, 2),
        "start_s": round(ran.start_s, 2),
        "after_s": round(ran.after_s, 2),
        "over_network": round(ran.cpu_s / alone, 3),
        "beside_s": round((ran.cpu_s - alone) / fields, 3),
    }


def run(slides: Path, out: Path) -> Command:
    """``quadrat run nuclei`` on all of each slide, in one process."""
    words = ["run", "nuclei", str(slides), "--mpp", str(MPP), "--out", str(out), "--quiet"]
    words += ["--set", "slide.tissue=all", "--cluster", "serial"]
    used, start, clock = children_cpu(), time.time(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "quadrat", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - clock
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    works = [event for event in log if event["event"] == "work"]
    windows = sum(
        json.loads(path.read_text())["cores"] for path in out.glob("results/*/summary.json")
    )
    last = max(event["time"] for event in works if event["step"] == "predict")
    return Command(
        cpu_s=children_cpu() - used,
        wall_s=wall,
        start_s=works[0]["time"] - works[0]["seconds"] - start,
        after_s=start + wall - last,
        windows=windows,
    )


def children_cpu() -> float:
    """CPU seconds of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
