"""Seam mismatch: how much two overlapping windows disagree, for networks that no halo makes
tiling-exact.

Each of two neighbouring cores is answered by its own window. Both windows also see the border of
the other core, inside their halo. What they say there is compared on quantised predictions. A
reader of the result could see a difference in the strip of one stride on either side of the seam;
the whole overlap is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from quadrat.core.lattice import CoreIndex, Lattice
from quadrat.core.predictions import (
    BOX_UNIT,
    SCORE_MAX,
    Candidates,
    MaskCandidates,
    Prediction,
    TileScores,
    quantise_score,
)
from quadrat.metrics.matching import match_boxes
from quadrat.models.inference import forward, read_windows
from quadrat.models.lane import Lane
from quadrat.models.task import Infers, ModelSpec
from quadrat.slides.source import PixelSource
from quadrat.stitching.maps import argmax_classes
from quadrat.stitching.suppression import suppress

PAIRS = 24
"""Pairs of neighbouring windows that are compared, spread evenly over the slides."""
U8 = npt.NDArray[np.uint8]
Pair = tuple[CoreIndex, CoreIndex]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Sums over places that both windows see."""

    values: int = 0
    """How many values were compared."""
    absolute: int = 0
    """Sum of their absolute differences, in quantised units."""
    largest: int = 0
    """The largest difference."""
    decisions: int = 0
    """How many decisions were compared."""
    flipped: int = 0
    """How many of them differ."""

    def __add__(self, other: Disagreement) -> Disagreement:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        return Disagreement(**sums | {"largest": max(self.largest, other.largest)})

    def figures(self, scale: int) -> dict[str, Any]:
        """JSON values; differences on a scale of 0 to 1."""
        return {
            "values": self.values,
            "mean_abs": round(self.absolute / max(1, self.values) / scale, 6),
            "max_abs": round(self.largest / scale, 6),
            "decisions": self.decisions,
            "flipped": self.flipped,
            "flipped_share": round(self.flipped / max(1, self.decisions), 6),
        }


def seam_mismatch(
    model: nn.Module,
    task: Infers,
    spec: ModelSpec,
    slides: Sequence[tuple[PixelSource, Sequence[CoreIndex]]],
    *,
    device: torch.device,
) -> dict[str, Any] | None:
    """Compare up to PAIRS pairs of neighbouring windows of ``slides`` (pixels, analysed cores).

    Returns JSON values: ``pairs``, ``strip_px``, and what :class:`Disagreement` says ``at_seam``
    and ``in_overlap``. None where there is nothing to compare: no two cores are neighbours, the
    halo is 0, or each core has one row of scores.
    """
    if spec.lattice.halo == 0:
        return None
    chosen = _choose(
        [(index, pair) for index, (_, cells) in enumerate(slides) for pair in neighbours(cells)]
    )
    if not chosen:
        return None
    at_seam, overlap, scale = Disagreement(), Disagreement(), SCORE_MAX
    for index, pair in chosen:
        one, other = _whole_windows(model, task, spec, slides[index][0], pair, device=device)
        if isinstance(one, TileScores):
            return None
        if isinstance(one, np.ndarray):
            scale = 255
        below = pair[0][1] == pair[1][1]
        at_seam += _compare(one, other, spec, below=below, strip=spec.lattice.stride)
        overlap += _compare(one, other, spec, below=below, strip=spec.lattice.halo)
    return {
        "pairs": len(chosen),
        "strip_px": spec.lattice.stride,
        "at_seam": at_seam.figures(scale),
        "in_overlap": overlap.figures(scale),
    }


def neighbours(cells: Sequence[CoreIndex]) -> Iterator[Pair]:
    """Pairs of analysed cores with a side in common, in raster order; the first lies left of or
    above the second."""
    known = set(cells)
    for row, col in sorted(known):
        for other in ((row, col + 1), (row + 1, col)):
            if other in known:
                yield CoreIndex((row, col)), CoreIndex(other)


def describe_promise(exactness: Mapping[str, Any]) -> str:
    """One line on what a package's card promises, and what it means at seams."""
    radius, halo = exactness["receptive_radius_px"], exactness["halo_px"]
    if exactness["promise"] == "tiling-exact":
        return f"tiling-exact: receptive radius {radius} px, halo {halo} px"
    why = (
        "the network sees its whole window"
        if radius is None
        else f"receptive radius {radius} px, halo {halo} px"
    )
    line = f"schedule-exact ({why})"
    mismatch = exactness.get("seam_mismatch")
    if mismatch is None:
        return f"{line}; no seam mismatch (no neighbouring windows answer for the same place)"
    seam = mismatch["at_seam"]
    return (
        f"{line}; seam mismatch of {mismatch['pairs']} pairs of windows within "
        f"{mismatch['strip_px']} px of the seam: "
        f"mean {seam['mean_abs']:.4f}, max {seam['max_abs']:.3f} (of 1), "
        f"{100 * seam['flipped_share']:.3f} % of decisions flip"
    )


def _choose(pairs: Sequence[tuple[int, Pair]]) -> list[tuple[int, Pair]]:
    """PAIRS of them, evenly spread (all if there are no more)."""
    if len(pairs) <= PAIRS:
        return list(pairs)
    return [pairs[i * len(pairs) // PAIRS] for i in range(PAIRS)]


def _whole_windows(
    model: nn.Module,
    task: Infers,
    spec: ModelSpec,
    source: PixelSource,
    pair: Pair,
    *,
    device: torch.device,
) -> list[Prediction]:
    """What two windows say of all they see, halo included; boxes relative to their
    window's corner.
    """
    side = spec.lattice.window
    whole = replace(
        spec, lattice=Lattice(core=side, halo=0, stride=spec.lattice.stride, shard=side)
    )
    network = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    lane = Lane(device)
    found: list[Prediction] = []
    for cell in pair:
        with torch.inference_mode():
            windows = lane.up(read_windows(source, [cell], spec))
            answer = lane.down(task.answer(forward(network, windows, spec), whole))
        found.extend(task.decode(answer.wait(), [CoreIndex((0, 0))], whole))
    return found


def _compare(
    one: Prediction, other: Prediction, spec: ModelSpec, *, below: bool, strip: int
) -> Disagreement:
    """Compare what both windows say within ``strip`` px of their seam; ``below``: the second lies
    below, not to the right."""
    core, halo = spec.lattice.core, spec.lattice.halo
    across = (
        (halo + core - strip, halo + core + strip),
        (halo - strip, halo + strip),
    )  # the seam in either window
    along = halo, halo + core
    boxes = [(band, along) if below else (along, band) for band in across]
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        first, second = (
            maps[:, rows[0] : rows[1], cols[0] : cols[1]]
            for maps, (rows, cols) in zip((one, other), boxes, strict=True)
        )
        return compare_maps(first, second, spec)
    objects = [kept_boxes(found, spec) for found in (one, other)]
    shift = np.array(
        [boxes[0][1][0] - boxes[1][1][0], boxes[0][0][0] - boxes[1][0][0]] * 2, np.float64
    )  # x, y, x, y
    objects[1] = replace(objects[1], box=(objects[1].box + shift * BOX_UNIT).astype(np.int32))
    return compare_objects(objects[0], objects[1], *boxes[0])


def kept_boxes(found: Prediction, spec: ModelSpec) -> Candidates:
    """The objects that suppression leaves of one window's candidates at the working thresholds."""
    assert isinstance(found, Candidates)
    thresholds = spec.thresholds
    enough = np.flatnonzero(found.score >= quantise_score(np.array([thresholds["score"]]))[0])
    good = found.take(enough)
    kept = suppress(
        good,
        iou=thresholds["iou"],
        class_aware=thresholds.get("class_aware", 0.0) > 0,
        by_mask=thresholds.get("by_mask", 0.0) > 0,
    )
    boxes = good.boxes if isinstance(good, MaskCandidates) else good
    return boxes.take(kept)


def compare_maps(one: U8, other: U8, spec: ModelSpec) -> Disagreement:
    """Two windows' uint8 maps (channels, h, w) of the same place; decisions are those of
    :func:`decisions`."""
    gap = np.abs(one.astype(np.int16) - other.astype(np.int16))
    flips = decisions(one, spec) != decisions(other, spec)
    return Disagreement(
        values=gap.size,
        absolute=int(gap.sum(dtype=np.int64)),
        largest=int(gap.max(initial=0)),
        decisions=flips.size,
        flipped=int(flips.sum()),
    )


def decisions(maps: U8, spec: ModelSpec) -> U8:
    """What the stitcher decides of a pixel, (h, w): foreground or not where there is such a
    threshold, else the class."""
    if "foreground" in spec.thresholds:
        return np.asarray(maps[0] >= round(spec.thresholds["foreground"] * 255), np.uint8)
    return argmax_classes(maps)


def compare_objects(
    one: Candidates, other: Candidates, rows: tuple[int, int], cols: tuple[int, int]
) -> Disagreement:
    """Two windows' objects, in the frame of the first; those with the centre of their box in
    ``rows`` and ``cols`` (px) count.

    A decision is an object of either window. It flips if the other window has no object of the
    class at an IoU of 0.5 or more, wherever its centre lies. The values are the scores of objects
    that both have.
    """
    boxes = [found.box.astype(np.float64) for found in (one, other)]
    matches = match_boxes(
        boxes[0],
        boxes[1],
        other.score.astype(np.float64),
        truth_class=one.class_id.astype(np.int64),
        found_class=other.class_id.astype(np.int64),
    )
    inside = [_centred(found, rows, cols) for found in (one, other)]
    counted = inside[0][matches.truth] | inside[1][matches.found]
    gap = np.abs(
        one.score[matches.truth].astype(np.int64) - other.score[matches.found].astype(np.int64)
    )[counted]
    alone = [own.copy() for own in inside]
    alone[0][matches.truth] = False
    alone[1][matches.found] = False
    flipped = int(alone[0].sum() + alone[1].sum())
    return Disagreement(
        values=len(gap),
        absolute=int(gap.sum()),
        largest=int(gap.max(initial=0)),
        decisions=len(gap) + flipped,
        flipped=flipped,
    )


def _centred(
    found: Candidates, rows: tuple[int, int], cols: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    x, y = (found.box[:, :2].astype(np.float64) + found.box[:, 2:]).T / (2 * BOX_UNIT)
    return np.asarray((y >= rows[0]) & (y < rows[1]) & (x >= cols[0]) & (x < cols[1]))
