"""Masks: pictures that paint every class, with a number, a grey value or a colour.

What a value means is stated by ``data.mask_colours`` or ``data.mask_threshold``. Where neither is
stated, only what cannot be mistaken is taken: numbers up to that of the last class, and black and
white (or grey in between) where there is one class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.formats.pixels import Pixels, jpeg_refusal
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError

Colour = tuple[int, int, int]
Colours = Mapping[Colour, str]
"""Class by red, green and blue. ``NONE``, and black where it is not in it: what is of no class."""
NONE = "none"
_BLACK: Colour = (0, 0, 0)
_MIDDLE = 127
"""Above it is the lighter half of 8-bit greys."""
_NAMED = 4
"""So many values that are of no class are named."""
_REMEDY = (
    "name them in data.mask_colours (the grey value v is the colour [v, v, v]), or set "
    "data.mask_threshold where all that is above it is the first class"
)


def colours_of(data: DataSection) -> dict[Colour, str]:
    """The table of ``data.mask_colours``."""
    return {(one.color[0], one.color[1], one.color[2]): one.name for one in data.mask_colours}


@dataclass(frozen=True, slots=True)
class Mask:
    """Which pixels are of which class."""

    numbers: npt.NDArray[np.int32]
    """(h, w): class index + 1, 0 for none."""
    meaning: str
    """What each value was taken for, with its pixels: "value 2 is 'Stroma' (200 px)"."""
    foreground: bool
    """It tells the first class from the rest, and no numbers or colours of classes."""


def mask_of(
    pixels: Pixels,
    *,
    classes: Sequence[str],
    threshold: int | None,
    colours: Colours,
    path: Path,
) -> Mask:
    """The classes that a picture paints. ``path``: for messages.

    ``threshold``: what is above it is the first class. ``colours``: counts before it; empty for
    none.

    Raises:
        AnnotationError: nothing above the threshold; values or colours that are of no class; or
            JPEG, unless there is a threshold.
    """
    if colours:
        return _by_colour(pixels, classes, colours, path)
    if pixels.values.ndim == 3:
        found, counts = np.unique(_codes(pixels.values[..., :3]), return_counts=True)
        listed = _listed([f"({_text(code)})" for code in found.tolist()], counts)
        raise AnnotationError(
            f"{path}: a picture of {len(found)} colours ({listed}); say in data.mask_colours which "
            "is which class"
        )
    values = _grey(pixels)
    if threshold is None:
        threshold = _implied(values, pixels, classes, path)
    return (
        _by_number(values, classes, path)
        if threshold is None
        else _above(values, threshold, classes, path)
    )


def colours_in(pixels: Pixels, path: Path) -> dict[Colour, int]:
    """How many pixels each colour has that is not transparent. ``path``: for messages.

    Raises:
        AnnotationError: JPEG, more than 8 bits, or half transparent.
    """
    if pixels.jpeg:
        raise AnnotationError(jpeg_refusal(path))
    rgb, clear = _as_rgb(pixels, path)
    codes, counts = np.unique(_codes(rgb)[~clear], return_counts=True)
    colours = ((code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF) for code in codes.tolist())
    return dict(zip(colours, counts.tolist(), strict=True))


def _implied(
    values: npt.NDArray[np.integer], pixels: Pixels, classes: Sequence[str], path: Path
) -> int | None:
    """The threshold that the values themselves show; None if they are class numbers.

    Raises:
        AnnotationError: they show neither.
    """
    highest = int(values.max(initial=0))
    if pixels.values.dtype == np.bool_:
        return 0
    if highest == 0 or (highest <= len(classes) and not pixels.jpeg):
        return None
    if pixels.jpeg and len(classes) > 1:
        raise AnnotationError(jpeg_refusal(path))
    grey = highest > _MIDDLE if values.dtype == np.uint8 else highest in _whites(values)
    if len(classes) <= 1 and grey:
        between = values[(values > 0) & (values < highest)]
        # 1 and 255 alone: in some sets 255 is what nobody knows
        if pixels.jpeg or not len(between) or between.max() > len(classes):
            return _MIDDLE if highest <= 255 else highest // 2
    raise AnnotationError(_no_class(values, pixels.palette, classes, path))


def _whites(values: npt.NDArray[np.integer]) -> tuple[int, int]:
    """What may be white in more than 8 bits: the white of 8, and the highest value there is."""
    return 255, int(np.iinfo(values.dtype).max)


def _no_class(
    values: npt.NDArray[np.integer],
    palette: npt.NDArray[np.uint8] | None,
    classes: Sequence[str],
    path: Path,
) -> str:
    """The sentence on values that are no numbers of classes."""
    found, counts = np.unique(values[values > len(classes)], return_counts=True)
    shown = [
        f"{v} (colour {', '.join(map(str, palette[v].tolist()))})"
        if palette is not None and v < len(palette)
        else str(v)
        for v in found.tolist()
    ]
    return (
        f"{path}: values that are of no class ({_listed(shown, counts)}); the classes are numbered "
        f"1 to {len(classes)} ({', '.join(classes)}); {_REMEDY}"
    )


def _above(
    values: npt.NDArray[np.integer], threshold: int, classes: Sequence[str], path: Path
) -> Mask:
    highest = int(values.max(initial=0))
    if 0 < highest <= threshold:
        raise AnnotationError(
            f"{path}: the highest value of this mask is {highest}, so nothing lies above "
            f"data.mask_threshold ({threshold}); set it to 0 where all that is not 0 is "
            "foreground, or to null where values are class numbers"
        )
    numbers = (values > threshold).astype(np.int32)
    name = f"'{classes[0]}'" if classes else "foreground"
    return Mask(numbers, f"what is above {threshold} is {name} ({numbers.sum()} px)", True)


def _by_number(values: npt.NDArray[np.integer], classes: Sequence[str], path: Path) -> Mask:
    counts = np.bincount(values.ravel(), minlength=len(classes) + 1)
    meaning = [f"value {k} is '{name}' ({counts[k]} px)" for k, name in enumerate(classes, start=1)]
    return Mask(values.astype(np.int32), ", ".join(meaning), False)


def _by_colour(pixels: Pixels, classes: Sequence[str], colours: Colours, path: Path) -> Mask:
    if pixels.jpeg:
        raise AnnotationError(jpeg_refusal(path))
    rgb, clear = _as_rgb(pixels, path)
    codes = _codes(rgb)
    numbers = np.full(codes.shape, -1, np.int32)
    meaning = []
    for colour, name in {_BLACK: NONE, **colours}.items():
        here = (codes == _code(colour)) & ~clear
        numbers[here] = 0 if name not in classes else list(classes).index(name) + 1
        meaning.append(f"colour {', '.join(map(str, colour))} is '{name}' ({here.sum()} px)")
    numbers[clear] = 0
    unknown, counts = np.unique(codes[numbers < 0], return_counts=True)
    if len(unknown):
        listed = _listed([f"({_text(code)})" for code in unknown.tolist()], counts)
        raise AnnotationError(
            f"{path}: colours that are not in data.mask_colours ({listed}); add them, as '{NONE}' "
            "where they are of no class"
        )
    return Mask(numbers, ", ".join(meaning), False)


def _grey(pixels: Pixels) -> npt.NDArray[np.integer]:
    """One channel: numbers; of a palette the indices, but black and white where it shows nothing
    else."""
    values = pixels.values
    if pixels.palette is not None:
        shown = pixels.palette[np.unique(values)]
        if len(shown) == 2 and {tuple(c) for c in shown.tolist()} == {_BLACK, (255, 255, 255)}:
            white: npt.NDArray[np.integer] = pixels.palette[values][..., 0]
            return white
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _as_rgb(pixels: Pixels, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Red, green and blue (h, w, 3), and where the picture is transparent (h, w)."""
    values = pixels.values
    clear = np.zeros(values.shape[:2], np.bool_)
    if pixels.palette is not None:
        return pixels.palette[values], clear
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    if values.dtype != np.uint8:
        raise AnnotationError(
            f"{path}: {values.dtype} is more than 8 bits a channel, and data.mask_colours names "
            "colours of 8; export it with 8"
        )
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2), clear
    if values.shape[2] == 4:
        clear = values[..., 3] == 0
        if not (clear | (values[..., 3] == 255)).all():
            raise AnnotationError(
                f"{path}: half transparent pixels, which are of no one colour; export it without "
                "transparency"
            )
    return values[..., :3], clear


def _codes(rgb: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Red, green and blue as one number."""
    wide = rgb.astype(np.int64)
    codes: npt.NDArray[np.int64] = (wide[..., 0] << 32) | (wide[..., 1] << 16) | wide[..., 2]
    return codes


def _code(colour: Colour) -> int:
    return (colour[0] << 32) | (colour[1] << 16) | colour[2]


def _text(code: int) -> str:
    return f"{code >> 32}, {code >> 16 & 0xFFFF}, {code & 0xFFFF}"


def _listed(names: Sequence[str], counts: npt.NDArray[np.integer]) -> str:
    """The most frequent ones with their pixels."""
    often = np.argsort(-counts, kind="stable")[:_NAMED].tolist()
    more = ", ..." if len(names) > _NAMED else ""
    return ", ".join(f"{names[k]}: {counts[k]} px" for k in often) + more
