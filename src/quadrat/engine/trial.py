"""A model tried on a slide: a few windows, what it answers there, how fast, and what is seen at
seams."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex
from quadrat.core.objects import Frame
from quadrat.core.predictions import BOX_UNIT, Candidates, MaskCandidates, Prediction, TileScores
from quadrat.core.unit import PX
from quadrat.models.device import pick_device
from quadrat.models.inference import forward, pass_size, predict_cells, read_windows
from quadrat.models.mismatch import kept_boxes, seam_mismatch
from quadrat.models.package import Package
from quadrat.models.task import ModelSpec
from quadrat.outputs.figures import save_png
from quadrat.outputs.overlay import Rgb, blend_classes
from quadrat.slides.source import SlideSource, believable_mpp, open_source
from quadrat.slides.tissue.mask import find_tissue, fullest_cells, whole_slide
from quadrat.stitching.maps import argmax_classes
from quadrat.tasks import get_task

WINDOWS = 3
GAP = 8
"""px between the two halves of a picture."""
Mib = 2**20


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    cells: tuple[CoreIndex, ...]
    """The cores that were looked at."""
    found: tuple[str, ...]
    """What the model says of each, in words."""
    pictures: tuple[str, ...]
    """Files that show a core, and the answer to it."""
    seconds: float
    """Of the network alone, per window."""
    seconds_per_mm2: float | None
    """The same per mm2 of tissue; None where pictures have no scale."""
    device: str
    """What computed it."""
    peak_mb: int
    """Most memory of this process in MiB."""
    moved: tuple[int, int] | None
    """Of the values that are kept of a window, how many differ if the window lies elsewhere, and
    how many were compared: 0 where an answer is tiling-exact. None: the model gives no maps."""
    mismatch: dict[str, Any] | None
    """By how much neighbouring windows differ within a stride of their seam, where one of them sees
    less than it needs (see :func:`quadrat.models.mismatch.seam_mismatch`); None: no two of them
    answer for the same place."""


def try_model(
    package: Package,
    slide: str,
    out: Path,
    *,
    mpp: float | None = None,
    scene: str = "",
    device: str = "auto",
    threads: int = 1,
) -> Trial:
    """Run a model on the windows of a slide with most tissue, and write pictures into ``out``.

    Raises:
        SlideError: the slide cannot be read, has no mpp, or no tissue.
        WriteError: a picture cannot be written.
    """
    spec, task = package.spec, get_task(package.spec.task)
    torch.set_num_threads(threads)
    where = pick_device(device)
    with open_source(slide, mpp=spec.mpp, slide_mpp=mpp, scene=scene, unit=spec.unit) as source:
        cells = _fullest(source, spec)
        found = dict(predict_cells(package.model, task, spec, source, cells, device=where))
        seconds = _seconds(package, source, cells, where)
        pictures = []
        for number, cell in enumerate(cells, 1):
            path = out / f"window_{number}.png"
            save_png(_picture(source, cell, found[cell], spec), path)
            pictures.append(str(path))
        moved = _moved(package, source, cells, found, where)
        around = [*cells, *(CoreIndex((row, col + 1)) for row, col in cells)]
        mismatch = seam_mismatch(package.model, task, spec, [(source, around)], device=where)
    mm2 = None if spec.unit == PX else (spec.lattice.core * spec.mpp) ** 2 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Trial(
        cells=tuple(cells),
        found=tuple(_in_words(found[cell], spec) for cell in cells),
        pictures=tuple(pictures),
        seconds=seconds,
        seconds_per_mm2=None if mm2 is None else seconds / mm2,
        device=str(where),
        peak_mb=round(peak * (1 if sys.platform == "darwin" else 1024) / Mib),
        moved=moved,
        mismatch=mismatch,
    )


@dataclass(frozen=True, slots=True)
class _Moved:
    """A slide whose lattice lies ``by`` px further down and to the right."""

    source: SlideSource
    by: int

    @property
    def frame(self) -> Frame:
        return self.source.frame

    def read(self, box: Box) -> Rgb:
        row, col = box.row0 + self.by, box.col0 + self.by
        return self.source.read(Box(row, col, row + box.height, col + box.width))


def _moved(
    package: Package,
    source: SlideSource,
    cells: Sequence[CoreIndex],
    found: Mapping[CoreIndex, Prediction],
    device: torch.device,
) -> tuple[int, int] | None:
    """Stored values that differ, and all that were compared, between windows and such that lie half
    a core further."""
    spec, task = package.spec, get_task(package.spec.task)
    by = spec.lattice.core // 2 // spec.lattice.stride * spec.lattice.stride
    if by == 0 or not isinstance(found[cells[0]], np.ndarray):
        return None
    differ = compared = 0
    moved = _Moved(source, by)
    for cell, other in predict_cells(package.model, task, spec, moved, cells, device=device):
        one = found[cell]
        assert isinstance(one, np.ndarray)
        assert isinstance(other, np.ndarray)
        step = by * one.shape[-1] // spec.lattice.core
        gap = one[:, step:, step:] != other[:, : one.shape[1] - step, : one.shape[2] - step]
        differ, compared = differ + int(gap.sum()), compared + gap.size
    return differ, compared


def _fullest(source: SlideSource, spec: ModelSpec) -> list[CoreIndex]:
    frame = source.frame
    if spec.unit == PX:
        tissue = whole_slide(frame)
    else:
        tissue = find_tissue(source.slide, slide_mpp=believable_mpp(source.slide))
    cells = fullest_cells(tissue, lattice=spec.lattice, frame=frame, most=WINDOWS)
    if not cells:
        raise SlideError(f"{source.slide.name}: no tissue was found ({tissue.account()})")
    return cells


def _seconds(
    package: Package, source: SlideSource, cells: Sequence[CoreIndex], device: torch.device
) -> float:
    """Of the network per window, in a full batch, after it has run once."""
    spec = package.spec
    size = pass_size(package.model, device, spec)
    full = [cells[i % len(cells)] for i in range(size)]
    windows = torch.from_numpy(read_windows(source, full, spec)).to(device)
    with torch.inference_mode():
        start = time.perf_counter()
        forward(package.model, windows, spec)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / size


def _picture(source: SlideSource, cell: CoreIndex, answer: Prediction, spec: ModelSpec) -> Rgb:
    """A core, and next to it the same with what was found."""
    box = spec.lattice.core_box(cell)
    rgb = source.read(box)
    gap = np.full((rgb.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([rgb, gap, _drawn(rgb, answer, (box.row0, box.col0), spec)], axis=1)


def _drawn(rgb: Rgb, answer: Prediction, corner: tuple[int, int], spec: ModelSpec) -> Rgb:
    colors = np.array([c.color for c in spec.classes], np.uint8)
    if isinstance(answer, TileScores):
        shown = np.full(rgb.shape[:2], int(answer.probability[0].argmax()), np.uint8)
        return blend_classes(rgb, shown, colors, alpha=0.3)
    if isinstance(answer, np.ndarray):
        return blend_classes(rgb, _classes(answer, spec), colors)
    boxes = kept_boxes(answer, spec)
    out = rgb.copy()
    low = np.array([corner[1], corner[0]] * 2)
    for (x0, y0, x1, y1), kind in zip(boxes.box // BOX_UNIT - low, boxes.class_id, strict=True):
        side = out.shape[0] - 1
        y0, x0, y1, x1 = (int(np.clip(v, 0, side)) for v in (y0, x0, y1, x1))
        out[[y0, y1], x0 : x1 + 1] = colors[kind]
        out[y0 : y1 + 1, [x0, x1]] = colors[kind]
    return out


def _classes(maps: np.ndarray[Any, np.dtype[np.uint8]], spec: ModelSpec) -> Any:
    """Class of each pixel, 255 for none."""
    if "foreground" not in spec.thresholds:
        return argmax_classes(maps) - np.uint8(1)  # 0 is background, and wraps to 255
    inside = maps[0] >= round(spec.thresholds["foreground"] * 255)
    return np.where(inside, maps[2:].argmax(axis=0), 255).astype(np.uint8)


def _in_words(answer: Prediction, spec: ModelSpec) -> str:
    names = spec.class_names
    if isinstance(answer, TileScores):
        shares = answer.probability[0] / 65535
        return ", ".join(f"{name} {share:.2f}" for name, share in zip(names, shares, strict=True))
    if isinstance(answer, Candidates | MaskCandidates):
        kept = kept_boxes(answer, spec)
        counts = np.bincount(kept.class_id, minlength=len(names))
        return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
    classes = _classes(answer, spec)
    shares = [100 * float((classes == i).mean()) for i in range(len(names))]
    return ", ".join(f"{name} {share:.1f} %" for name, share in zip(names, shares, strict=True))
