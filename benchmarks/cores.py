"""What the size of cores costs: a network's time per mm2 of core on one thread, and its memory.

A window is its core and a halo around it that the network sees for nothing. Larger cores have less
of it, but need more memory and look at more glass around tissue; a core just above the side of
usual fields (1,000 px) or half of it serves these best.

    python benchmarks/cores.py pipelines/packages/nuclei --cores 640 1056 1280

``--write CORE`` puts a core (and ``--shard``, ``--inference``) into the package's card: the weights
stay, and what the card promises is measured anew. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from quadrat.core.native import keep_freed_memory
from quadrat.core.numerics import BF16, Inference, computes_bf16
from quadrat.models.card import CARD
from quadrat.models.inference import forward
from quadrat.models.package import Package, exactness, load_package, write_card
from quadrat.models.task import ModelSpec
from quadrat.tasks import build_network

CPU = torch.device("cpu")
OF_CARD = ("schema", "spec", "weights_sha256", "intended_use", "exactness")
"""What :func:`write_card` states itself."""


def with_core(spec: ModelSpec, core: int, shard: int = 0) -> ModelSpec:
    """A specification with other cores; ``shard``: 0: one core."""
    return replace(spec, lattice=replace(spec.lattice, core=core, shard=shard or core))


def seconds_of(package: Package, specs: Sequence[ModelSpec], *, rounds: int) -> list[float]:
    """CPU seconds of a window of each specification on one thread: the least of interleaved
    rounds."""
    torch.set_num_threads(1)
    model = package.model.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    best = [float("inf")] * len(specs)
    with torch.inference_mode():
        for _ in range(rounds):
            for index, spec in enumerate(specs):
                side = spec.lattice.window
                window = rng.integers(0, 256, (1, side, side, 3), np.uint8)
                start = time.process_time()
                forward(model, torch.from_numpy(window), spec)
                best[index] = min(best[index], time.process_time() - start)
    return best


def rewrite(folder: Path, spec: ModelSpec) -> None:
    """Put a specification into a package's card, with what is measured of the network under it."""
    package = load_package(folder, build_network)
    about = {name: value for name, value in package.card.items() if name not in OF_CARD}
    write_card(folder, spec, about=about | {"exactness": exactness(package.model, spec)})
    load_package(folder, build_network)  # is the promise kept?


def measure(folder: Path, cores: Sequence[int], *, rounds: int) -> dict[str, float]:
    """Print a table; s per mm2 by core and precision, and the peak of memory in MB."""
    package = load_package(folder, build_network)
    precisions: list[Inference] = ["fp32", *([BF16] if computes_bf16("cpu") else [])]
    specs = [
        replace(with_core(package.spec, core), inference=name)
        for core in cores
        for name in precisions
    ]
    figures = {}
    for spec, seconds in zip(specs, seconds_of(package, specs, rounds=rounds), strict=True):
        core, window = spec.lattice.core, spec.lattice.window
        per_mm2 = seconds / (core * spec.mpp / 1000) ** 2
        share = (window / core) ** 2
        print(f"core {core}, window {window} ({share:.2f}), {spec.inference}: {seconds:.3f} s, "
              f"{per_mm2:.2f} s per mm2")  # fmt: skip
        figures[f"{core} {spec.inference}"] = round(per_mm2, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures | {"peak_mb": round(peak)}


def main() -> None:
    """Measure, or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[], help="px; also one alone")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", type=int, metavar="CORE", help="put it into the card")
    parser.add_argument("--shard", type=int, default=0, help="with --write: side of a shard, px")
    parser.add_argument("--inference", choices=["fp32", "bf16"], help="with --write")
    options = parser.parse_args()
    keep_freed_memory()
    if options.write:
        spec = load_package(options.package, build_network).spec
        spec = with_core(spec, options.write, options.shard)
        rewrite(options.package, replace(spec, inference=options.inference or spec.inference))
        card = json.loads((options.package / CARD).read_text())
        print(json.dumps(card["exactness"]))
        return
    print(json.dumps(measure(options.package, options.cores, rounds=options.rounds)))


if __name__ == "__main__":
    main()
