"""Pictures of a training: learning curves, and a page of the worst mistakes on validation
slides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box
from quadrat.core.predictions import SCORE_MAX
from quadrat.metrics.matching import match_boxes, match_points
from quadrat.metrics.protocol import Answer, blocks, inside_bounds, point_distance
from quadrat.outputs.plots import save_figure

Rgb = npt.NDArray[np.uint8]
Read = Callable[[Box], Rgb]
"""The pixels of a box of a slide's grid."""
COLUMNS, ROWS = 8, 2
"""Panels of a section of objects or tiles."""
DETAIL = 96
"""px per side of what is shown around a mistaken object (more for larger ones)."""
DPI = 110
SMOOTH = 20
"""Steps over which losses are averaged."""
NAME = 22
"""Characters of a slide's name that fit over a panel."""
TRUTH, FOUND = "#1b9e77", "#d62728"
"""Colours of boxes."""
WIDE, TALL = 3, 4
"""Columns and rows of a page of class maps; a panel there is three pictures wide."""
PLACE = 512
"""px per side, at most, of what is shown of a class map."""
PLACES = 16
"""Places of a slide that are compared; the one that agrees least is shown."""
LOOKED_AT = 64
"""The surest tiles of a slide that are compared with its regions."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the page."""

    rgb: Rgb
    """Its pixels."""
    text: str
    """Lines above it."""
    boxes: tuple[tuple[tuple[float, float, float, float], str], ...] = ()
    """x0, y0, x1, y1 in px of the picture, each with its colour."""
    meant: int = -1
    """Index of the box that the panel is about; -1: none."""


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one title."""

    title: str
    """In one line."""
    panels: Sequence[Panel]
    """The worst mistake first."""
    columns: int = COLUMNS
    """Panels next to each other."""


def learning_curves(
    path: Path,
    history: Sequence[Mapping[str, float]],
    validations: Sequence[Mapping[str, float]],
    *,
    main: str,
    kept: int,
) -> None:
    """PNG of the losses (smoothed over ``SMOOTH`` steps) and, if there are any, of the validation's
    main figure."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, figures = figure.subplots(1, 2)
    for name in [n for n in history[0] if n != "step"] if history else []:
        values = np.array([row.get(name, np.nan) for row in history])
        width = min(SMOOTH, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        losses.plot(
            np.arange(len(smooth)) + width, smooth, label=name, lw=2.0 if name == "loss" else 1.0
        )
    losses.set(xlabel="step", ylabel=f"loss (mean of {SMOOTH} steps)", title="training")
    losses.set_yscale("log" if history and min(row["loss"] for row in history) > 0 else "linear")
    if history:
        losses.legend(fontsize=8)
    if validations:
        figures.plot(
            [row["step"] for row in validations],
            [row[main] for row in validations],
            "o-",
            color=TRUTH,
        )
        figures.axvline(kept, color="grey", ls=":", label=f"kept: step {kept}")
        figures.legend(fontsize=8)
    figures.set(
        xlabel="step",
        ylabel=main,
        title="validation slides" if validations else "no validation slides",
    )
    save_figure(figure, path, dpi=DPI)


def examples_page(
    path: Path, slides: Sequence[tuple[str, Read, Answer, SlideTruth]], *, classes: Sequence[str]
) -> Sequence[Section]:
    """PNG of the worst mistakes: objects found where none is (surest first) and missed ones
    (largest first); tiles and slides of the wrong class (surest first); class maps that agree least
    with the truth, each next to it. Returns what is on the page."""
    extra: list[tuple[float, Panel]] = []
    missed: list[tuple[float, Panel]] = []
    maps: list[tuple[float, Panel]] = []
    tiles: list[tuple[float, Panel]] = []
    for name, read, answer, expected in slides:
        if answer.objects is not None and expected.objects is not None:
            false, lost = _object_mistakes(name, read, answer, expected, classes)
            extra, missed = extra + false, missed + lost
        elif answer.labels is not None and expected.regions is not None:
            maps.extend(_map_mistakes(name, read, answer, expected))
        elif answer.tiles is not None and len(answer.tiles.cell):
            tiles.extend(_tile_mistakes(name, read, answer, expected, classes))
    possible = (
        Section(
            "found where none is, the surest (thick red; thin red: found, green: truth)",
            _worst(extra),
        ),
        Section("missed, the largest (thick green; thin red: found, green: truth)", _worst(missed)),
        Section(
            "least agreement: image, truth, found (grey: not annotated)",
            _worst(maps, most=WIDE * TALL),
            WIDE,
        ),
        Section("taken for another class, the surest", _worst(tiles)),
    )
    sections = [section for section in possible if section.panels]
    _draw(path, sections, classes=classes if maps else ())
    return sections


def short(name: str) -> str:
    """A name that fits over a panel: its ends, if it is long."""
    return name if len(name) <= NAME else f"{name[: NAME // 2]}…{name[-NAME // 2 :]}"


def _worst(found: list[tuple[float, Panel]], *, most: int = COLUMNS * ROWS) -> list[Panel]:
    order = sorted(range(len(found)), key=lambda i: (-found[i][0], i))
    return [found[i][1] for i in order[:most]]


def _object_mistakes(
    name: str, read: Read, answer: Answer, expected: SlideTruth, classes: Sequence[str]
) -> tuple[list[tuple[float, Panel]], list[tuple[float, Panel]]]:
    table, truth, frame = answer.objects, expected.objects, answer.frame
    assert table is not None
    assert truth is not None
    found = table.bbox[:, [1, 0, 3, 2]]
    found_class = table.class_id.astype(np.int64)
    if expected.point_diameter_um > 0:
        xy, wanted_class = truth.points(frame.box, answer.scale)
        radius = expected.point_diameter_um / frame.mpp / 2
        wanted = np.concatenate([xy - radius, xy + radius], axis=1)
        centres = (found[:, :2] + found[:, 2:]) / 2
        matches = match_points(
            xy,
            centres,
            truth_class=wanted_class,
            found_class=found_class,
            mpp=frame.mpp,
            distance_um=point_distance(frame.unit, expected.point_diameter_um),
        )
    else:
        wanted, wanted_class = truth.boxes(frame.box, answer.scale)
        matches = match_boxes(
            wanted, found, table.score, truth_class=wanted_class, found_class=found_class
        )
    free_found, free_wanted = np.ones(len(found), bool), np.ones(len(wanted), bool)
    free_found[matches.found] = free_wanted[matches.truth] = False
    for free, boxes in ((free_found, found), (free_wanted, wanted)):
        free &= inside_bounds(
            (boxes[:, :2] + boxes[:, 2:]) / 2, expected.bounds, answer, block=2048
        )
    false, lost = [], []
    for i in np.flatnonzero(free_found)[np.argsort(-table.score[free_found], kind="stable")][
        : COLUMNS * ROWS
    ]:
        text = f"{short(name)}\n{classes[found_class[i]]} {table.score[i]:.2f}"
        false.append(
            (
                float(table.score[i]),
                _detail(read, found[i], text, found=found, wanted=wanted, colour_of=FOUND),
            )
        )
    area = (wanted[:, 2:] - wanted[:, :2]).prod(axis=1)
    for i in np.flatnonzero(free_wanted)[np.argsort(-area[free_wanted], kind="stable")][
        : COLUMNS * ROWS
    ]:
        text = f"{short(name)}\n{classes[wanted_class[i]]}"
        lost.append(
            (
                float(area[i]),
                _detail(read, wanted[i], text, found=found, wanted=wanted, colour_of=TRUTH),
            )
        )
    return false, lost


def _detail(read: Read, xyxy: Any, text: str, *, found: Any, wanted: Any, colour_of: str) -> Panel:
    """The surroundings of an object (found: red, annotated: green), with everything
    found and wanted there."""
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    half = int(max(DETAIL, 1.6 * max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))) // 2
    box = Box(int(y) - half, int(x) - half, int(y) + half, int(x) + half)
    drawn = []
    for boxes, colour in ((wanted, TRUTH), (found, FOUND)):
        near = (
            (boxes[:, 0] < box.col1)
            & (boxes[:, 2] > box.col0)
            & (boxes[:, 1] < box.row1)
            & (boxes[:, 3] > box.row0)
        )
        moved = boxes[near] - [box.col0, box.row0, box.col0, box.row0]
        drawn += [((b[0], b[1], b[2], b[3]), colour) for b in moved.tolist()]
    itself = tuple(xyxy - [box.col0, box.row0, box.col0, box.row0]), colour_of
    return Panel(read(box), text, tuple(drawn), meant=drawn.index(itself))


def _map_mistakes(
    name: str, read: Read, answer: Answer, expected: SlideTruth
) -> list[tuple[float, Panel]]:
    """The place of a slide that agrees least with what is annotated there: image, truth and answer
    side by side."""
    every = list(blocks(answer.frame.box, PLACE))
    places = every[:: -(-len(every) // PLACES)]
    compared = [(_disagreement(*_maps(box, answer, expected)), -i) for i, box in enumerate(places)]
    wrong, index = max(compared, default=(-1.0, 0))
    if wrong < 0:
        return []
    box = places[-index]
    truth, found, known = _maps(box, answer, expected)
    rgb = read(box)
    tinted = [
        (0.5 * rgb + 0.5 * _PALETTE[m % len(_PALETTE)]).astype(np.uint8) for m in (truth, found)
    ]
    painted = [
        np.where((m > 0)[..., None], tint, rgb)
        for m, tint in zip((truth, found), tinted, strict=True)
    ]
    painted[0] = np.where(known[..., None], painted[0], np.uint8(160))
    gap = np.full((rgb.shape[0], max(1, rgb.shape[1] // 64), 3), 255, np.uint8)
    text = f"{short(name)}: {wrong:.1%} of px differ"
    return [(wrong, Panel(np.concatenate([rgb, gap, painted[0], gap, painted[1]], axis=1), text))]


def _maps(box: Box, answer: Answer, expected: SlideTruth) -> tuple[Any, Any, npt.NDArray[np.bool_]]:
    """Truth and answer (class + 1) of a box, and where the truth is known."""
    assert answer.labels is not None
    assert expected.regions is not None
    truth = expected.regions.regions(box, answer.scale)
    if expected.bounds is not None:
        known = expected.bounds.regions(box, answer.scale) > 0
    else:
        known = np.ones(box.shape, np.bool_) if expected.complete else truth > 0
    return truth, answer.labels(box), known


def _disagreement(truth: Any, found: Any, known: npt.NDArray[np.bool_]) -> float:
    """Share of the known pixels that differ; -1 where none is known."""
    return float((truth != found)[known].mean()) if known.any() else -1.0


_COLOURS = (
    (0, 0, 0),
    (228, 26, 28),
    (55, 126, 184),
    (77, 175, 74),
    (152, 78, 163),
    (255, 127, 0),
    (166, 86, 40),
)
_PALETTE = np.array(_COLOURS, np.uint8)


def _tile_mistakes(
    name: str, read: Read, answer: Answer, expected: SlideTruth, classes: Sequence[str]
) -> list[tuple[float, Panel]]:
    """The slide's surest tile of a class that is not the slide's own, if the slide as a whole was
    taken for another; of slides with regions, the surest tile of a class that does not cover most
    of what is annotated in it."""
    tiles, frame = answer.tiles, answer.frame
    assert tiles is not None
    share = tiles.probability.astype(np.float64) / SCORE_MAX
    if expected.label >= 0:
        if int(np.argmax(share.mean(axis=0))) == expected.label:
            return []
        share[:, expected.label] = -1
    for tile in np.argsort(-share.max(axis=1), kind="stable")[:LOOKED_AT]:
        row, col = (int(v) * answer.core for v in tiles.cell[tile])
        box = Box(row, col, row + answer.core, col + answer.core).intersect(frame.box)
        guess, is_class = int(np.argmax(share[tile])), expected.label
        if is_class < 0 and expected.regions is not None:
            cover = np.bincount(
                expected.regions.regions(box, answer.scale).ravel(), minlength=len(classes) + 1
            )[1:]
            is_class = int(np.argmax(cover)) if cover.any() else -1
        if is_class >= 0 and guess != is_class:
            text = (
                f"{short(name)}\n{classes[guess]} {share[tile, guess]:.2f}, is {classes[is_class]}"
            )
            return [(float(share[tile, guess]), Panel(read(box), text))]
    return []


def _draw(path: Path, sections: Sequence[Section], *, classes: Sequence[str]) -> None:
    """``classes``: named in the colours of the maps."""
    lines = [-(-len(section.panels) // section.columns) for section in sections]
    width = 2.2 * COLUMNS
    tall = {COLUMNS: 2.6, WIDE: width / WIDE / 3 + 0.5}
    heights = [n * tall[section.columns] + 0.4 for n, section in zip(lines, sections, strict=True)]
    figure = Figure(figsize=(width, max(1.0, sum(heights) + 0.7)), layout="constrained")
    figure.suptitle(
        "worst mistakes on validation slides" if sections else "no mistake on validation slides"
    )
    if classes:
        shown = [
            Patch(color=_PALETTE[(i + 1) % len(_PALETTE)] / 255, label=name)
            for i, name in enumerate(classes)
        ]
        figure.legend(handles=shown, loc="upper right", ncols=len(shown), fontsize=9)
    parts: Any = (
        figure.subfigures(len(sections), 1, height_ratios=heights, squeeze=False)[:, 0]
        if sections
        else ()
    )
    for part, section, n in zip(parts, sections, lines, strict=True):
        part.suptitle(section.title, x=0.005, ha="left", fontsize=10, fontweight="bold")
        part.subplots(n, section.columns, squeeze=False)
        for axes in part.axes:
            axes.set_axis_off()
        for axes, panel in zip(part.axes, section.panels, strict=False):
            _draw_panel(axes, panel)
    save_figure(figure, path, dpi=DPI)


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.imshow(panel.rgb)
    axes.set_title(panel.text, fontsize=7, loc="left")
    for i, ((x0, y0, x1, y1), colour) in enumerate(panel.boxes):
        width, order = (2.6, 3) if i == panel.meant else (0.7, 2)
        corner = (x0 - 0.5, y0 - 0.5)
        axes.add_patch(
            Rectangle(
                corner, x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=width, zorder=order
            )
        )
    axes.set(xlim=(-0.5, panel.rgb.shape[1] - 0.5), ylim=(panel.rgb.shape[0] - 0.5, -0.5))
