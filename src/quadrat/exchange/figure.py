"""``quadrat figure``: a part of a slide with its objects and a scale bar, for a paper."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline

from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError
from quadrat.core.geometry import Box, plan_read
from quadrat.core.limits import MPP_MIN
from quadrat.core.unit import PX, length
from quadrat.engine.drivers import slides_asked
from quadrat.outputs.figures import nice_length_um
from quadrat.outputs.objects import outlines_of, read_rows, take_rows
from quadrat.outputs.plots import check_format, save_figure
from quadrat.outputs.results import SlideResult, read_results
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Rgb, Slide
from quadrat.slides.source import SlideSource

MM_PER_INCH = 25.4
MOST_OBJECTS = 50_000
"""More outlines are no figure, and a PDF that no reader opens."""
AROUND = 8.0
"""A figure of one object is so many times as wide as it is long."""
BAR_PT = 2.0
"""Height of the scale bar."""
LEAST_PX = 16
"""Narrower figures (level-0 px) are refused."""
BoxL0 = tuple[float, float, float, float]
"""x0, y0, x1, y1 in level-0 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureOptions:
    """How a figure is drawn.

    Raises:
        ConfigError: a size that no figure can have.
    """

    bbox: BoxL0 | None = None
    """What to show; None: around ``object_id``."""
    object_id: int | None = None
    """The object to show, by its id."""
    scale_bar: bool = False
    """Draw a bar of a round length."""
    outlines: bool = True
    """Draw the objects."""
    dpi: int = 300
    """Pixels of the picture an inch."""
    width_mm: float = 85.0
    """Width of the figure."""
    line_pt: float = 0.6
    """Width of outlines."""
    slide_file: Path | None = None
    """The slide's file; None: where it was."""

    def __post_init__(self) -> None:
        if (self.bbox is None) == (self.object_id is None):
            raise ConfigError("say either --bbox X0,Y0,X1,Y1 or --object ID: what is to be shown?")
        if not 30 <= self.dpi <= 2400:
            raise ConfigError(f"--dpi is {self.dpi}; it must be 30 to 2400")
        if not 10 <= self.width_mm <= 1000:
            raise ConfigError(f"--width-mm is {self.width_mm:g}; it must be 10 to 1000")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a figure shows, for its caption."""

    box: BoxL0
    """The part, in level-0 px."""
    objects: int
    """How many objects are drawn."""
    bar: str
    """Length of the scale bar, "" for none."""


def parse_bbox(text: str) -> BoxL0:
    """``X0,Y0,X1,Y1`` in level-0 px.

    Raises:
        ConfigError: it is none.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x1 - x0 >= LEAST_PX and y1 - y0 >= LEAST_PX) or math.inf in (x1 - x0, y1 - y0):
        raise ConfigError(
            f"--bbox is {text}; it must be X0,Y0,X1,Y1 in level-0 px, at least {LEAST_PX} px wide "
            "and high"
        )
    return x0, y0, x1, y1


def draw_figure(out: Path, name: str, path: Path, *, options: FigureOptions) -> Drawn:
    """Write a figure of a slide of a run as PNG, PDF or SVG (the suffix of ``path``).

    Raises:
        ConfigError: there is no such slide, object, part or format.
        SlideError: the slide cannot be read, or is not the one that was analysed.
        WriteError: the figure cannot be written.
    """
    check_format(path)
    result = read_results(out, named=[name])[name]
    with _opened(out, result, options) as slide:
        box = options.bbox or _around(result, options.object_id or 0)
        width, height = result.size_l0
        if not (box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0):
            raise ConfigError(
                f"the part {','.join(f'{v:g}' for v in box)} is not on the slide '{name}', which "
                f"is {width:.0f} x {height:.0f} px"
            )
        pixels, extent = _read(slide, box, options)
    rows = _within(result, box) if options.outlines else None
    inches = options.width_mm / MM_PER_INCH
    aspect = (box[3] - box[1]) / (box[2] - box[0])
    figure = Figure(figsize=(inches, inches * aspect))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    x0, y0, x1, y1 = extent
    axes.imshow(pixels, extent=(x0, x1, y1, y0), interpolation="bilinear", aspect="auto")
    if rows is not None:
        _outline(axes, rows, result, options)
    axes.set(xlim=(box[0], box[2]), ylim=(box[3], box[1]))
    bar = _scale_bar(axes, box, result, options) if options.scale_bar else ""
    save_figure(figure, path, dpi=options.dpi)
    return Drawn(box, 0 if rows is None else len(rows), bar)


def _opened(out: Path, result: SlideResult, options: FigureOptions) -> Slide:
    """The slide's file.

    Raises:
        ConfigError: nobody knows where it is, or it shows something else.
    """
    ref = slides_asked(out).get(result.name)
    if options.slide_file is not None:
        ref = replace(ref or SlideRef(result.name, ""), path=str(options.slide_file))
    if ref is None:
        raise ConfigError(
            f"{out}: nobody noted where the file of '{result.name}' lies; name it with --slide-file"
        )
    if not Path(ref.path).exists():
        raise ConfigError(
            f"the file of '{result.name}' is gone: {ref.path}; name it with --slide-file"
        )
    slide = open_slide(ref.path, mpp=ref.mpp, scene=ref.scene)
    level, (width, height), frame = slide.levels[0], result.size_l0, result.summary.frame
    if abs(level.width - width) > max(frame.scale_col, 0.01 * width) or abs(
        level.height - height
    ) > max(frame.scale_row, 0.01 * height):
        slide.close()
        raise ConfigError(
            f"{ref.path} is {level.width} x {level.height} px, but {width:.0f} x {height:.0f} px "
            "were analysed: it is another file"
        )
    return slide


def _read(slide: Slide, box: BoxL0, options: FigureOptions) -> tuple[Rgb, BoxL0]:
    """The pixels of a part, at most as fine as the figure needs, and what they cover."""
    wanted = options.width_mm / MM_PER_INCH * options.dpi
    factor = max(1.0, (box[2] - box[0]) / wanted)
    # the mpp of the slide does not matter here: only the factor does
    plan = plan_read(slide.levels, slide_mpp=MPP_MIN, mpp=MPP_MIN * factor, slide=slide.name)
    source = SlideSource(slide, plan, damaged="mark")
    scale = source.frame.scale
    ends = scale.from_l0(np.array([box[:2], box[2:]], np.float64))
    (col0, row0), (col1, row1) = np.floor(ends[0]).astype(int), np.ceil(ends[1]).astype(int)
    part = Box(int(row0), int(col0), int(row1), int(col1))
    return source.read(part), scale.box_l0(part)


def _around(result: SlideResult, number: int) -> BoxL0:
    """The part around an object.

    Raises:
        ConfigError: there is no such object.
    """
    total = result.counts[-1].count if result.counts else 0
    if not 1 <= number <= total:
        raise ConfigError(
            f"--object is {number}; the objects of '{result.name}' have the ids 1 to {total}"
        )
    columns = ["id", "x0_l0", "y0_l0", "x1_l0", "y1_l0"]
    row = take_rows(result.objects, columns, np.array([number - 1])).to_pylist()[0]
    if row["id"] != number:
        raise ConfigError(f"{result.objects}: row {number} has the id {row['id']}")
    x0, y0, x1, y1 = (float(row[name]) for name in columns[1:])
    half = max(AROUND * max(x1 - x0, y1 - y0), LEAST_PX) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def _within(result: SlideResult, box: BoxL0) -> pa.Table:
    """Class and outline of the objects that a part shows.

    Raises:
        ConfigError: there are too many.
    """
    columns = ["x0_l0", "y0_l0", "x1_l0", "y1_l0"]
    rows = read_rows(result.objects, columns)
    x0, y0, x1, y1 = (rows[name].to_numpy() for name in columns)
    met = np.flatnonzero((x0 < box[2]) & (x1 > box[0]) & (y0 < box[3]) & (y1 > box[1]))
    if len(met) > MOST_OBJECTS:
        raise ConfigError(
            f"there are {len(met)} objects in this part; a figure shows at most {MOST_OBJECTS}: "
            "choose a smaller one, or say --no-outlines"
        )
    return take_rows(result.objects, ["class_id", "geometry"], met)


def _outline(axes: Axes, rows: pa.Table, result: SlideResult, options: FigureOptions) -> None:
    shapes = outlines_of(rows)
    colours = np.array([c.color for c in result.classes], np.float64) / 255
    class_id: npt.NDArray[np.uint8] = rows["class_id"].to_numpy()
    paths = [
        Outline.make_compound_path(
            *(Outline(shapely.get_coordinates(ring), closed=True) for ring in _rings(shape))
        )
        for shape in shapes
    ]
    axes.add_collection(
        PathCollection(
            paths, facecolors="none", edgecolors=colours[class_id], linewidths=options.line_pt
        ),
        autolim=False,
    )


def _rings(shape: shapely.Polygon) -> list[shapely.LinearRing]:
    return [shape.exterior, *shape.interiors]


def _scale_bar(axes: Axes, box: BoxL0, result: SlideResult, options: FigureOptions) -> str:
    """A bar of a round length, at most a quarter of the width; its length as text."""
    frame = result.summary.frame
    um_per_l0 = frame.mpp / frame.scale_col
    wide, high = box[2] - box[0], box[3] - box[1]
    long = nice_length_um(wide * um_per_l0 / 4)
    in_mm = frame.unit != PX and long >= 1000
    text = f"{long / 1000:g} mm" if in_mm else f"{long:g} {length(frame.unit)}"
    left, bottom = box[0] + 0.03 * wide, box[3] - 0.04 * min(wide, high)
    thick = BAR_PT / 72 * MM_PER_INCH / options.width_mm * wide
    pad, long_l0 = thick / 3, long / um_per_l0
    rim = ((left - pad, bottom - thick - pad), long_l0 + 2 * pad, thick + 2 * pad)
    axes.add_patch(Rectangle(*rim, facecolor="white", alpha=0.8, lw=0))  # seen on dark tissue
    axes.add_patch(Rectangle((left, bottom - thick), long_l0, thick, facecolor="black", lw=0))
    back = {"facecolor": "white", "alpha": 0.8, "pad": 1.5, "lw": 0}
    axes.text(
        left + long_l0 / 2,
        bottom - 2.2 * thick,
        text,
        ha="center",
        va="bottom",
        fontsize=7,
        color="black",
        bbox=back,
    )
    return text
