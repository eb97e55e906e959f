"""Small slides, and the command line on them: what the benchmarks of whole runs have in common.

The package is one of those that the tests use (four shards of 512 px for a slide of 1,024 px at 0.5
um/px): it was trained for a few steps, and finds little, fast.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

PACKAGE = Path(__file__).parents[1] / "tests" / "fixed" / "packages" / "instance"
PIPELINE = "demo_instance"
MPP = 0.5
SETTINGS = (
    f'model.package="{PACKAGE}"',
    "outputs.overlay=false",
    "run.device=cpu",
    "slide.tissue=all",
)


def slides_of(folder: Path, number: int, *, side: int) -> list[Path]:
    """Slides ``s000.tiff`` and so on: dark discs on a pink ground, and copies of it."""
    rng = np.random.default_rng(5)
    pixels = rng.normal((228, 190, 215), 6, (side, side, 3))
    rows, cols = np.mgrid[:side, :side]
    for _ in range(side * side // 2500):
        row, col, radius = rng.uniform((0, 0, 6), (side, side, 12))
        pixels[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = (90, 60, 140)
    folder.mkdir(parents=True, exist_ok=True)
    slides = [folder / f"s{i:03}.tiff" for i in range(number)]
    tifffile.imwrite(
        slides[0],
        pixels.clip(0, 255).astype(np.uint8),
        photometric="rgb",
        tile=(256, 256),
        compression="deflate",
        resolution=(10_000 / MPP, 10_000 / MPP),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    for path in slides[1:]:
        shutil.copyfile(slides[0], path)
    return slides


def words(slides: Sequence[Path], out: Path, *more: str) -> list[str]:
    """``quadrat run`` as a process."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "quadrat", "run", PIPELINE, *map(str, slides)]
    return [*command, "--out", str(out), *settings, *more]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a session of its own; what it says is added to ``log``."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def difference(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The paths in which two :func:`contents` differ."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
