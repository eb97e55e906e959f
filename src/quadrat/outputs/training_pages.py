"""What a training leaves to look at: learning curves, and a page of the worst mistakes on validation slides."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from quadrat.geometry import Box
from quadrat.metrics.detection import match_boxes, match_points
from quadrat.metrics.protocol import Answer, Expected, Judging, inside_bounds
from quadrat.outputs import write_whole

Rgb = npt.NDArray[np.uint8]
Read = Callable[[Box], Rgb]
"""The pixels of a box of a slide's grid."""
COLUMNS, ROWS = 8, 2
DETAIL = 96
"""px a side of what is shown around a mistaken object (more for larger ones)."""
SMOOTH = 20
NAME = 22
"""Characters of a slide's name that fit over a panel."""
TITLE = "worst mistakes on validation slides (green: truth, red: found)"
TRUTH, FOUND = "#1b9e77", "#d62728"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the page: pixels, a line of text, and boxes x0, y0, x1, y1 in its px with their colours."""

    rgb: Rgb
    text: str
    boxes: tuple[tuple[tuple[float, float, float, float], str], ...] = ()


def learning_curves(
    path: Path, history: Sequence[Mapping[str, float]], validations: Sequence[Mapping[str, float]], *, main: str, kept: int
) -> None:
    """PNG of the losses (smoothed over ``SMOOTH`` steps) and, if there are any, of the validation's main figure."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, judged = figure.subplots(1, 2)
    for name in [n for n in history[0] if n != "step"] if history else []:
        values = np.array([row.get(name, np.nan) for row in history])
        width = min(SMOOTH, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        losses.plot(np.arange(len(smooth)) + width, smooth, label=name, lw=2.0 if name == "loss" else 1.0)
    losses.set(xlabel="step", ylabel=f"loss (mean of {SMOOTH} steps)", title="training")
    losses.set_yscale("log" if history and min(row["loss"] for row in history) > 0 else "linear")
    losses.legend(fontsize=8)
    if validations:
        judged.plot([row["step"] for row in validations], [row[main] for row in validations], "o-", color=TRUTH)
        judged.axvline(kept, color="grey", ls=":", label=f"kept: step {kept}")
        judged.legend(fontsize=8)
    judged.set(xlabel="step", ylabel=main, title="validation slides" if validations else "no validation slides")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=110)
        write_whole(path, stream.getvalue())


def examples_page(path: Path, slides: Sequence[tuple[str, Read, Answer, Expected]], *, classes: Sequence[str]) -> None:
    """PNG of the worst mistakes: objects found where none is (surest first) and missed ones (largest first); tiles and slides
    of the wrong class (surest first); class maps that agree least with the truth, each beside it."""
    extra: list[tuple[float, Panel]] = []
    missed: list[tuple[float, Panel]] = []
    for name, read, answer, expected in slides:
        if answer.objects is not None and expected.objects is not None:
            false, lost = _object_mistakes(name, read, answer, expected, classes)
            extra, missed = extra + false, missed + lost
        elif answer.labels is not None and expected.regions is not None:
            extra.extend(_map_mistakes(name, read, answer, expected))
        elif answer.tiles is not None and len(answer.tiles.cell):
            extra.extend(_tile_mistakes(name, read, answer, expected, classes))
    rows = [("surest and wrong", extra), ("missed, the largest", missed)]
    _draw(path, [(title, _worst(found)) for title, found in rows if found])


def short(name: str) -> str:
    """A name that fits over a panel: its ends, if it is long."""
    return name if len(name) <= NAME else f"{name[: NAME // 2]}…{name[-NAME // 2 :]}"


def _worst(found: list[tuple[float, Panel]]) -> list[Panel]:
    order = sorted(range(len(found)), key=lambda i: (-found[i][0], i))
    return [found[i][1] for i in order[: COLUMNS * ROWS]]


def _object_mistakes(
    name: str, read: Read, answer: Answer, expected: Expected, classes: Sequence[str]
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
            xy, centres, truth_class=wanted_class, found_class=found_class, mpp=frame.mpp, distance_um=Judging().distance_um
        )
    else:
        wanted, wanted_class = truth.boxes(frame.box, answer.scale)
        matches = match_boxes(wanted, found, table.score, truth_class=wanted_class, found_class=found_class)
    free_found, free_wanted = np.ones(len(found), bool), np.ones(len(wanted), bool)
    free_found[matches.found] = free_wanted[matches.truth] = False
    for free, boxes in ((free_found, found), (free_wanted, wanted)):
        free &= inside_bounds((boxes[:, :2] + boxes[:, 2:]) / 2, expected.bounds, answer, block=2048)
    false, lost = [], []
    for i in np.flatnonzero(free_found)[np.argsort(-table.score[free_found], kind="stable")][: COLUMNS * ROWS]:
        text = f"{short(name)}\n{classes[found_class[i]]} {table.score[i]:.2f}"
        false.append((float(table.score[i]), _detail(read, found[i], text, found=found, wanted=wanted)))
    area = (wanted[:, 2:] - wanted[:, :2]).prod(axis=1)
    for i in np.flatnonzero(free_wanted)[np.argsort(-area[free_wanted], kind="stable")][: COLUMNS * ROWS]:
        text = f"{short(name)}\n{classes[wanted_class[i]]}"
        lost.append((float(area[i]), _detail(read, wanted[i], text, found=found, wanted=wanted)))
    return false, lost


def _detail(read: Read, xyxy: Any, text: str, *, found: Any, wanted: Any) -> Panel:
    """The surroundings of an object, with everything found and wanted there."""
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    half = int(max(DETAIL, 1.6 * max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))) // 2
    box = Box(int(y) - half, int(x) - half, int(y) + half, int(x) + half)
    drawn = []
    for boxes, colour in ((wanted, TRUTH), (found, FOUND)):
        near = (boxes[:, 0] < box.col1) & (boxes[:, 2] > box.col0) & (boxes[:, 1] < box.row1) & (boxes[:, 3] > box.row0)
        moved = boxes[near] - [box.col0, box.row0, box.col0, box.row0]
        drawn += [((b[0], b[1], b[2], b[3]), colour) for b in moved.tolist()]
    return Panel(read(box), text, tuple(drawn))


def _map_mistakes(name: str, read: Read, answer: Answer, expected: Expected) -> list[tuple[float, Panel]]:
    """The middle of a slide (at most 512 px a side), image, truth and answer side by side."""
    assert answer.labels is not None
    assert expected.regions is not None
    frame = answer.frame
    side = 512
    row, col = max(0, (frame.height - side) // 2), max(0, (frame.width - side) // 2)
    box = Box(row, col, min(frame.height, row + side), min(frame.width, col + side))
    truth, found = expected.regions.regions(box, answer.scale), answer.labels(box)
    wrong = float((truth != found).mean())
    rgb = read(box)
    tinted = [(0.5 * rgb + 0.5 * _PALETTE[m % len(_PALETTE)]).astype(np.uint8) for m in (truth, found)]
    painted = [np.where((m > 0)[..., None], tint, rgb) for m, tint in zip((truth, found), tinted, strict=True)]
    text = f"{short(name)}: image, truth, found\n{wrong:.1%} of px differ"
    return [(wrong, Panel(np.concatenate([rgb, *painted], axis=1), text))]


_COLOURS = ((0, 0, 0), (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0), (166, 86, 40))
_PALETTE = np.array(_COLOURS, np.uint8)


def _tile_mistakes(
    name: str, read: Read, answer: Answer, expected: Expected, classes: Sequence[str]
) -> list[tuple[float, Panel]]:
    """The slide's surest tile of a class that is not the slide's own."""
    assert answer.tiles is not None
    if expected.label < 0:
        return []
    share = answer.tiles.probability.astype(np.float64) / 65535
    if int(np.argmax(share.mean(axis=0))) == expected.label:
        return []
    tile, guess = np.unravel_index(int(np.argmax(np.where(np.arange(share.shape[1]) == expected.label, -1, share))), share.shape)
    row, col = (int(v) for v in answer.tiles.cell[tile])
    core = answer.core
    box = Box(row * core, col * core, (row + 1) * core, (col + 1) * core).intersect(answer.frame.box)
    text = f"{short(name)}\n{classes[int(guess)]} {share[tile, guess]:.2f}, is {classes[expected.label]}"
    return [(float(share[tile, guess]), Panel(read(box), text))]


def _draw(path: Path, rows: Sequence[tuple[str, Sequence[Panel]]]) -> None:
    lines = sum(-(-len(panels) // COLUMNS) for _, panels in rows)
    figure = Figure(figsize=(2.2 * COLUMNS, max(2.0, 2.6 * lines) + 0.6), layout="constrained")
    figure.suptitle(TITLE if rows else "no mistake on validation slides")
    grid = figure.subplots(max(1, lines), COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    line = 0
    for title, panels in rows:
        for i, panel in enumerate(panels):
            axes = grid[line + i // COLUMNS, i % COLUMNS]
            axes.imshow(panel.rgb)
            heading = f"{title}\n" if i == 0 else ""
            axes.set_title(heading + panel.text, fontsize=7, loc="left")
            for (x0, y0, x1, y1), colour in panel.boxes:
                axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=1))
            axes.set(xlim=(-0.5, panel.rgb.shape[1] - 0.5), ylim=(panel.rgb.shape[0] - 0.5, -0.5))
        line += -(-len(panels) // COLUMNS)
    save_figure(figure, path)
