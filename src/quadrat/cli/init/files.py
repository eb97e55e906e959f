"""The text of the manifest and of the pipeline that ``quadrat init`` writes (pure)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quadrat.annotations.types import F64
from quadrat.cli.init.proposal import Proposal, colours
from quadrat.config.manifest import COLUMNS, SlideRef, slide_name
from quadrat.core.unit import PX, Mpp


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the ``model`` and ``train`` sections, in px at the model's mpp."""

    core: int
    """Side of the square that a window answers for (``model.core``); a multiple of ``stride``."""
    halo: int
    """What a window sees around its core on each side (``model.halo``)."""
    shard: int
    """Side of a storage unit (``model.shard``); a multiple of ``core``."""
    patch: int
    """Side of a training sample (``train.patch``)."""
    batch: int
    """Samples per training step, a number and not px (``train.batch``)."""
    stride: int = 8
    """Stride of the network: 2 to the power of the number of ``widths``."""
    widths: tuple[int, ...] = (24, 48, 96)
    """Channels of the network's levels, the finest level first."""


SHAPES = {
    "semantic": Shape(core=256, halo=48, shard=512, patch=256, batch=8),
    "classification": Shape(core=128, halo=0, shard=1024, patch=128, batch=32),
    "detection": Shape(core=512, halo=48, shard=2048, patch=256, batch=8),
    "instance": Shape(core=512, halo=48, shard=2048, patch=192, batch=8),
    "instance_masks": Shape(
        core=512, halo=96, shard=2048, patch=384, batch=4, stride=32, widths=(24, 48, 96, 128, 128)
    ),
}
LEAST_SHARE = 10
"""What is smaller than this part of the median area is left out, in pixel work."""
LEAST_PX2 = 100
"""The same where no area is known."""
CAP_TIMES, LEAST_CAP_PX = 4, 500
"""``thresholds.cap_um`` in pixel work: so many times the largest diameter, and at least."""
FLAT_CORE_PX = 512  # a flat image up to this size is one window of a classifier


def shape_for(task: str, *, flat: bool, largest_px: float) -> Shape:
    """The sizes of a task; a classifier of flat images sees each as a whole. ``largest_px``: their
    longest side, model px."""
    if task == "classification" and flat and 0 < largest_px <= FLAT_CORE_PX:
        core = max(32, -(-round(largest_px) // 8) * 8)
        return Shape(core=core, halo=0, shard=4 * core, patch=core, batch=32)
    return SHAPES[task]


def manifest_text(slides: Sequence[SlideRef], folder: Path, *, in_px: bool = False) -> str:
    """The manifest as CSV, paths relative to ``folder``, where it will lie; columns that are empty
    throughout are left out, except those that are to be filled (``in_px``: not the mpp)."""
    rows = []
    for ref in slides:
        rows.append({
            "slide": relative(ref.path, folder),
            "annotation": relative(ref.annotation, folder),
            "mpp": "" if ref.mpp is None else repr(ref.mpp),
            "label": ref.label,
            "case": ref.case,
            "split": ref.split,
            "annotated": ref.annotated,
            "name": "" if ref.name == slide_name(Path(ref.path)) else ref.name,
        })  # fmt: skip
    always = (
        "slide",
        *(() if in_px else ("mpp",)),
        "case",
        "split",
        *(["annotated"] if any(ref.annotation for ref in slides) else []),
    )
    columns = [c for c in COLUMNS if c in always or any(row.get(c) for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def relative(path: str, folder: Path) -> str:
    """A path as seen from ``folder``, with forward slashes; absolute where there is no way (another
    drive); "" stays."""
    if not path:
        return ""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).resolve().as_posix()


def names_for(task: str, out: Path, here: Path) -> tuple[str, str]:
    """What the pipeline in the folder ``out`` is called, and where its package goes, seen from the
    working folder ``here``.

    No two folders share a package, nor do two tasks in one folder.
    """
    seen, name = relative(str(out), here), Path(os.path.abspath(out)).name
    if seen == ".":
        return task, f"packages/{task}"
    if seen.startswith("..") or Path(seen).is_absolute():
        seen = f"{name}-{hashlib.sha256(os.path.abspath(out).encode()).hexdigest()[:8]}"
    return name or task, f"packages/{seen}-{task}"


def pipeline_text(
    task: str,
    proposal: Proposal,
    *,
    name: str,
    package: str,
    mpp: Mpp,
    shape: Shape,
    flat: bool,
    slides_state_mpp: bool,
    sizes: F64,
    notes: Sequence[str],
) -> str:
    """The pipeline as YAML, with comments on what to check. ``sizes``: diameters in px of what is
    annotated, for the thresholds of pixel work."""
    lines = [
        f"# Made by `quadrat init {task}` from what it found. See to the lines with CHECK before "
        "you train.",
        *(f"# CHECK {note}" for note in notes),
        f"name: {_quoted(name)}",
        f"description: {_quoted(f'{task} of ' + ', '.join(proposal.classes))}",
        f"task: {task}",
        "classes:",
        *_class_lines(proposal.classes),
        "model:",
        f"  package: {_quoted(package)}  # where the trained model goes, seen from where quadrat "
        "is run",
        _mpp_line(mpp, slides_state_mpp),
        f"  core: {shape.core}",
        f"  halo: {shape.halo}",
        f"  stride: {shape.stride}",
        f"  shard: {shape.shard}",
        f"  widths: {list(shape.widths)}",
        '  license: "not stated"  # CHECK: of the model; what the data allow',
        "data:",
        "  manifest: manifest.csv",
        *_data_lines(proposal, mpp),
        *_tissue_lines(mpp, flat),
        '  source: "not stated"  # CHECK: whose slides and annotations these are; it stands in the '
        "model card",
        '  license: "not stated"',
        "train:",
        f"  batch: {shape.batch}",
        f"  patch: {shape.patch}  # px a side at model.mpp; it should hold several objects",
    ]
    if task == "classification" and not flat:
        lines += ["slide:", "  min_tissue: 0.25  # a tile that is mostly glass has no say"]
    elif flat and mpp != PX:
        lines += ["slide:", "  tissue: all"]
    if mpp == PX:
        lines += _threshold_lines(task, sizes)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _mpp_line(mpp: Mpp, slides_state_mpp: bool) -> str:
    if mpp == PX:
        return (
            "  mpp: px  # the pixels as they are, without a scale: keys in _um are pixels, _um2 "
            "square pixels, _mm2 megapixels"
        )
    remark = (
        "The slides state theirs"
        if slides_state_mpp
        else "CHECK: slides state none; fill the manifest's column mpp"
    )
    return f"  mpp: {mpp:g}  # um/px to learn at; coarser is faster, finer shows more. {remark}"


def _tissue_lines(mpp: Mpp, flat: bool) -> list[str]:
    """In pixel work there is no choice, and no key."""
    if mpp == PX:
        return []
    return [f"  tissue: {'all  # small pictures without glass' if flat else 'auto'}"]


def _threshold_lines(task: str, sizes: F64) -> list[str]:
    """The thresholds that have no default in pixel work, from what is annotated."""
    median, largest = (float(np.quantile(sizes, q)) if len(sizes) else 0.0 for q in (0.5, 1))
    area = math.pi * median**2 / 4
    least = max(1, round(area / LEAST_SHARE)) if area else LEAST_PX2
    seen = f"what is annotated is {median:.3g} px wide" if area else "no outline tells a size"
    lines = [f"  min_area_um2: {least}  # CHECK: square pixels; smaller ones are left out ({seen})"]
    if task == "instance":
        cap = max(LEAST_CAP_PX, CAP_TIMES * math.ceil(largest))
        lines.append(f"  cap_um: {cap}  # pixels; larger objects have no certain shape")
    return ["thresholds:", *lines] if task in ("semantic", "instance", "instance_masks") else []


def _class_lines(classes: Sequence[str]) -> list[str]:
    return [
        f"  - {{name: {_quoted(name)}, color: {list(color)}}}"
        for name, color in zip(classes, colours(len(classes)), strict=True)
    ]


def _data_lines(proposal: Proposal, mpp: Mpp) -> list[str]:
    lines = [f"  annotations: {proposal.annotations}"]
    if proposal.annotations == "objects":
        lines.append(f"  objects_as: {proposal.objects_as}")
    if proposal.annotations == "mask":
        threshold = (
            "null  # the values are class numbers, or mask_colours says what they are"
            if proposal.mask_threshold is None
            else f"{proposal.mask_threshold}"
        )
        lines.append(f"  mask_threshold: {threshold}")
    if proposal.mask_colours:
        lines.append("  mask_colours:  # CHECK: what each colour is; black is of no class")
        lines += [
            f"    - {{name: {_quoted(name)}, color: {list(colour)}}}"
            for name, colour in proposal.mask_colours
        ]
    if proposal.annotations == "points":
        size, unit = ("20.0", " in pixels") if mpp == PX else ("10.0", "")
        lines.append(
            f"  point_diameter_um: {size}  # CHECK: points are learnt as discs of this size{unit}, "
            "about that of the cells"
        )
        lines.append(f"  point_layout: {proposal.point_layout}")
    if proposal.first_class is not None:
        lines.append(
            f"  point_first_class: {proposal.first_class}  # the number that means the first class"
        )
    return lines
