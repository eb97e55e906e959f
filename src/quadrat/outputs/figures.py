"""Pages of pictures: a slide next to a detail or a map of it, with legend, colour bar and scale
bars (Pillow only)."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from quadrat.core.files import write_file
from quadrat.core.unit import PX, Unit, length
from quadrat.outputs.overlay import BLANK, Rgb, colorize

PANEL = 720
"""Height of a panel in px. A detail of PANEL x PANEL px is shown as it is."""
_WIDEST = 1_080
_MARGIN, _GAP = 28, 24
_INK, _PALE = (32, 33, 36), (110, 113, 118)
_TITLE, _TEXT, _SMALL = 24, 18, 15


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of a legend."""

    name: str
    """Name of the class."""
    color: tuple[int, int, int]
    """Red, green, blue (0-255)."""
    value: str = ""
    """What is stated about the class, such as a count."""


def nice_length_um(longest_um: float) -> float:
    """The greatest of 1, 2, 5 times a power of ten that is not longer than ``longest_um`` (for
    scale bars)."""
    power: float = 10.0 ** math.floor(math.log10(longest_um))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= longest_um * (1 + 1e-9))


def compose_overlay(
    overview: Rgb,
    detail: Rgb,
    *,
    legend: Sequence[LegendEntry],
    overview_mpp: float,
    detail_mpp: float,
    detail_box: tuple[float, float, float, float],
    title: str,
    subtitle: str = "",
    unit: Unit = "um",
) -> Rgb:
    """The whole slide on the left with a frame around the detail, the detail on the right, the
    legend below.

    Args:
        overview: uint8 (h, w, 3), the slide with dots or class tint.
        detail: uint8 (h, w, 3), a crop with outlines.
        legend: the classes.
        overview_mpp: um per px of ``overview``.
        detail_mpp: um per px of ``detail``.
        detail_box: (x0, y0, x1, y1) of the detail in px of ``overview``.
        title: first line of the page.
        subtitle: small text next to it.
        unit: of lengths, for the scale bars.
    """
    left, scale = _fit(overview, (_WIDEST, PANEL))
    right, detail_scale = _fit(detail, (_WIDEST, PANEL))
    _scale_bar(left, overview_mpp / scale, unit)
    _scale_bar(right, detail_mpp / detail_scale, unit)
    _locate(left, [v * scale for v in detail_box])
    ImageDraw.Draw(right).rectangle(
        (0, 0, right.width - 1, right.height - 1), outline=_INK, width=3
    )
    page, top = _page(
        [left, right],
        title=title,
        subtitle=subtitle,
        footer=_legend_rows(legend, _width([left, right])),
    )
    _draw_legend(page, legend, top)
    return np.asarray(page)


def compose_map(
    overview: Rgb,
    values: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
    *,
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = None,
    low: float,
    high: float,
    label: str,
    cell_um: float,
    overview_mpp: float,
    title: str,
    subtitle: str = "",
    unit: Unit = "um",
) -> Rgb:
    """The slide on the left, a map of it on the right (a density or a heatmap of tiles), a colour
    bar below.

    Args:
        overview: uint8 (h, w, 3).
        values: float (rows, cols) in square cells from the corner of ``overview``; the last ones
            may reach beyond its edge.
        mask: bool (rows, cols), the cells to show; None shows all.
        low: the value of the darkest colour.
        high: the value of the lightest colour.
        label: what the values are, with their unit.
        cell_um: side of a cell.
        overview_mpp: um per px of ``overview``.
        title: first line of the page.
        subtitle: small text next to it.
        unit: of lengths, for the scale bars.
    """
    left, scale = _fit(overview, (_WIDEST, PANEL))
    rows, cols = (
        np.minimum((np.arange(n) + 0.5) * overview_mpp / scale // cell_um, cells - 1).astype(
            np.int64
        )
        for n, cells in zip((left.height, left.width), values.shape, strict=True)
    )
    right = Image.fromarray(colorize(values, low=low, high=high, mask=mask)[np.ix_(rows, cols)])
    ImageDraw.Draw(right).rectangle(
        (0, 0, right.width - 1, right.height - 1), outline=(205, 207, 210)
    )
    _scale_bar(left, overview_mpp / scale, unit)
    page, top = _page([left, right], title=title, subtitle=subtitle, footer=2)
    _draw_color_bar(page, low=low, high=high, label=label, top=top)
    return np.asarray(page)


def save_png(image: Rgb, path: Path) -> None:
    """Write a PNG without time or text chunks, whole or not at all. Of photographs, one filter and
    runs alone come to the same size as all of zlib at its level 6, in a fifth of the time."""
    png = imagecodecs.PNG
    encoded = imagecodecs.png_encode(
        np.ascontiguousarray(image), level=1, strategy=png.STRATEGY.RLE, filter=png.FILTER.PAETH
    )
    write_file(path, bytes(encoded))


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _pieces(text: str) -> list[str]:
    """Text cut at the two signs that are drawn by hand. Pillow's own font is ASCII, so letters lose
    their accents."""
    parts = re.split("([µ²])", text)
    return [
        p if p in "µ²" else unicodedata.normalize("NFKD", p).encode("ascii", "ignore").decode()
        for p in parts
        if p
    ]


def _advance(piece: str, size: int) -> float:
    if piece == "²":
        return _font(size * 0.62).getlength("2")
    return _font(size).getlength("u" if piece == "µ" else piece)


def _length(text: str, size: int) -> float:
    return sum(_advance(piece, size) for piece in _pieces(text))


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int,
    fill: tuple[int, int, int] = _INK,
    align: float = 0.0,
) -> None:
    """Write a line of text on the baseline ``at`` (x, y). ``align``: 0 begins there, 0.5 is
    centred, 1 ends there."""
    x, y = at[0] - align * _length(text, size), at[1]
    for piece in _pieces(text):
        if piece == "²":
            draw.text((x, y - 0.3 * size), "2", fill=fill, font=_font(size * 0.62), anchor="ls")
        else:
            draw.text(
                (x, y), "u" if piece == "µ" else piece, fill=fill, font=_font(size), anchor="ls"
            )
        if piece == "µ":
            stem = x + 0.085 * size
            draw.rectangle((stem, y - 0.2 * size, stem + 0.06 * size, y + 0.2 * size), fill=fill)
        x += _advance(piece, size)


def _fit(image: Rgb, room: tuple[int, int]) -> tuple[Image.Image, float]:
    """The image scaled to fit (width, height), and the factor."""
    scale = min(room[0] / image.shape[1], room[1] / image.shape[0])
    if scale == 1:
        return Image.fromarray(image), 1.0
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return Image.fromarray(image).resize(size, method), scale


def _width(panels: Sequence[Image.Image]) -> int:
    return sum(p.width for p in panels) + _GAP * (len(panels) - 1)


def _page(
    panels: Sequence[Image.Image], *, title: str, subtitle: str, footer: int
) -> tuple[Image.Image, int]:
    """A white page with title and panels, and the y at which the ``footer`` rows of text begin."""
    head = _MARGIN + _TITLE + 18
    body = max(p.height for p in panels)
    top = head + body + 18
    page = Image.new(
        "RGB", (_width(panels) + 2 * _MARGIN, top + footer * (_TEXT + 14) + _MARGIN - 10), "white"
    )
    draw = ImageDraw.Draw(page)
    baseline = _MARGIN + _TITLE - 7
    _write(draw, (_MARGIN, baseline), title, size=_TITLE)
    _write(
        draw, (_MARGIN + _length(title, _TITLE) + 16, baseline), subtitle, size=_TEXT, fill=_PALE
    )
    left = _MARGIN
    for panel in panels:
        page.paste(panel, (left, head + (body - panel.height) // 2))
        left += panel.width + _GAP
    return page, top


def _scale_bar(panel: Image.Image, mpp: float, unit: Unit) -> None:
    """A labelled bar of a round length in the lower left corner of a panel with pixels of ``mpp``
    um (px of the slide in pixel work)."""
    length_um = nice_length_um(panel.width * mpp / 4)
    in_mm = unit != PX and length_um >= 1000
    text = f"{length_um / 1000:g} mm" if in_mm else f"{length_um:,.10g} {length(unit)}"
    bar = length_um / mpp
    draw = ImageDraw.Draw(panel, "RGBA")
    wide = max(bar, _length(text, _SMALL))
    left, bottom = 14, panel.height - 14
    draw.rounded_rectangle(
        (left, bottom - 40, left + wide + 20, bottom), radius=5, fill=(255, 255, 255, 215)
    )
    middle = left + 10 + wide / 2
    _write(draw, (middle, bottom - 19), text, size=_SMALL, align=0.5)
    draw.rectangle((middle - bar / 2, bottom - 11, middle + bar / 2, bottom - 8), fill=_INK)


def _locate(panel: Image.Image, box: Sequence[float]) -> None:
    """Frame a box, at least 8 px wide so that it is visible, in dark with a pale rim."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_x, half_y = max(box[2] - box[0], 8) / 2, max(box[3] - box[1], 8) / 2
    draw = ImageDraw.Draw(panel)
    for grow, color, line in ((3, (255, 255, 255), 5), (2, _INK, 3)):
        draw.rectangle(
            (x - half_x - grow, y - half_y - grow, x + half_x + grow, y + half_y + grow),
            outline=color,
            width=line,
        )


def _legend_places(legend: Sequence[LegendEntry], width: int) -> list[tuple[float, int]]:
    """(x, row) of each entry, set like words in lines of ``width`` px."""
    places: list[tuple[float, int]] = []
    x, row = 0.0, 0
    for entry in legend:
        wide = 36 + _length(entry.name, _TEXT) + _length(entry.value, _TEXT)
        if x > 0 and x + wide > width:
            x, row = 0.0, row + 1
        places.append((x, row))
        x += wide + 28
    return places


def _legend_rows(legend: Sequence[LegendEntry], width: int) -> int:
    return 1 + max((row for _, row in _legend_places(legend, width)), default=-1)


def _draw_legend(page: Image.Image, legend: Sequence[LegendEntry], top: int) -> None:
    draw = ImageDraw.Draw(page)
    for entry, (x, row) in zip(
        legend, _legend_places(legend, page.width - 2 * _MARGIN), strict=True
    ):
        left, middle = _MARGIN + x, top + row * (_TEXT + 14) + _TEXT / 2 + 2
        draw.rounded_rectangle(
            (left, middle - 8, left + 18, middle + 8), radius=4, fill=entry.color
        )
        _write(draw, (left + 28, middle + 6), entry.name, size=_TEXT)
        _write(
            draw,
            (left + 36 + _length(entry.name, _TEXT), middle + 6),
            entry.value,
            size=_TEXT,
            fill=_PALE,
        )


def _draw_color_bar(page: Image.Image, *, low: float, high: float, label: str, top: int) -> None:
    draw = ImageDraw.Draw(page)
    wide = min(420, page.width - 2 * _MARGIN)
    ramp = Image.fromarray(
        colorize(np.tile(np.linspace(low, high, wide), (16, 1)), low=low, high=high)
    )
    page.paste(ramp, (_MARGIN, top))
    for share in (0.0, 0.5, 1.0):
        x = _MARGIN + share * (wide - 1)
        draw.line((x, top + 16, x, top + 20), fill=_INK)
        _write(draw, (x, top + 35), f"{low + share * (high - low):,.4g}", size=_SMALL, align=share)
    after = _MARGIN + wide + 20
    _write(draw, (after, top + 14), label, size=_TEXT)
    draw.rectangle((after, top + 25, after + 14, top + 37), fill=BLANK, outline=_PALE)
    _write(draw, (after + 22, top + 36), "not analysed", size=_SMALL, fill=_PALE)
