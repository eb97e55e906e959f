"""Local OME-Zarr images (0.4 on zarr v2, 0.5 on zarr v3) as slides: uint8 RGB or grey, in levels.

Format: https://ngff.openmicroscopy.org/0.5/ . A chunk without a file is read as the fill value of
the array, as zarr defines it. So a chunk that was lost cannot be told from one that was never
written.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, Level, pyramid_levels
from quadrat.slides.blocks import from_blocks
from quadrat.slides.cache import BlockCache
from quadrat.slides.ome_xml import colours_are_rgb
from quadrat.slides.protocol import Reopened, Rgb, SlideInfo, damaged_tile, on_canvas
from quadrat.slides.recognise import Found
from quadrat.slides.tiff_pictures import LIKE
from quadrat.slides.units import micrometres
from quadrat.slides.zarr_files import DurableStore

BLOCK_PX = 128
"""Smaller chunks are read together, up to this side: zarr needs about 1 ms per call. If one is
damaged, the whole block is lost."""
MAX_CHUNK_BYTES = 1 << 30
_VERSIONS = ("0.4", "0.5")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Image:
    """The metadata of one image group."""

    folder: Path
    """Where the levels lie."""
    version: str
    """Version of OME-Zarr."""
    axes: tuple[str, ...]
    """Names of the axes, in the order of the arrays."""
    datasets: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    """(path, scale, translation) of each level."""
    units: tuple[str | None, ...]
    """Unit of each axis, or None."""
    colours: tuple[str, ...]
    """RRGGBB of each channel that states a colour."""
    others: tuple[str, ...]
    """Names of the other images of the collection."""
    notes: tuple[str, ...]
    """Sentences for the user."""


class ZarrSlide(Reopened):
    """An OME-Zarr image. Safe to read from several threads; pickles as path and mpp.

    Raises:
        SlideError: not an image of uint8 RGB or grey, neither version 0.4 nor 0.5, or its levels do
            not fit each other.
    """

    def __init__(self, found: Found, *, mpp: tuple[float, float] | None = None) -> None:
        self._found, self._override = found, mpp
        self.name = found.name
        self.path = str(found.path)
        image = _read_image(found.path, found.scene)
        self._axes = image.axes
        self._arrays = [_open_array(found.path, image, dataset[0]) for dataset in image.datasets]
        y, x = (image.axes.index(axis) for axis in "yx")
        sizes = tuple((int(array.shape[y]), int(array.shape[x])) for array in self._arrays)
        _check_levels(found.path, image, sizes)
        self.levels: tuple[Level, ...] = pyramid_levels(sizes)
        self.mpp = mpp or _mpp(image)
        self.info = SlideInfo(
            format=f"OME-Zarr {image.version}",
            reader=f"zarr {zarr.__version__}",
            objective=None,
            associated=image.others,
            bounds=None,
            mpp_source="" if mpp or _mpp(image) is None else "OME-Zarr scale",
            notes=image.notes,
        )
        self._grids = [(_block(array.chunks[y]), _block(array.chunks[x])) for array in self._arrays]
        self._cache = BlockCache()

    def read(self, level: int, box: Box) -> Rgb:
        """Pixels of ``box`` of that level, uint8 (h, w, 3); white outside; see ``Slide.read``."""

        def block(row: int, col: int) -> Rgb:
            return self._cache.get((level, row, col), partial(self._decode, level, row, col))

        read = partial(from_blocks, side=self._grids[level], block=block)
        return on_canvas(box, self.levels[level].box, read)

    def tiles(self, level: int) -> None:
        """None: compressed tiles are not handed out."""

    def _decode(self, level: int, row: int, col: int) -> Rgb:
        """One block of chunks, cut at the edge of the level.

        Raises:
            DamagedTileError: it cannot be decoded.
        """
        block = Box(row, col, row + 1, col + 1).scale_out(*self._grids[level])
        place = block.intersect(self.levels[level].box)
        where = {
            "y": slice(place.row0, place.row1),
            "x": slice(place.col0, place.col1),
            "c": slice(None),
        }
        index = tuple(where.get(axis, 0) for axis in self._axes)
        kept = [axis for axis in self._axes if axis in where]
        try:
            pixels = np.asarray(self._arrays[level][index])
        except Exception as error:  # codecs raise a class each; whatever it is, this block is lost
            reason = f"{type(error).__name__}: {error}"
            raise damaged_tile(self.path, level=level, box=place, reason=reason) from error
        if "c" not in kept:
            return np.repeat(pixels.transpose([kept.index(a) for a in "yx"])[..., None], 3, axis=2)
        pixels = pixels.transpose([kept.index(axis) for axis in "yxc"])
        return np.ascontiguousarray(np.broadcast_to(pixels, (*place.shape, 3)))


def _attributes(folder: Path) -> Json:
    """A group's OME attributes, where 0.5 ("ome") and 0.4 (at the top) keep them; empty if there
    are none."""
    try:
        if (folder / "zarr.json").is_file():
            attributes = json.loads((folder / "zarr.json").read_bytes()).get("attributes", {})
            return dict(attributes.get("ome", {}), quadrat=attributes.get("quadrat"))
        if (folder / ".zattrs").is_file():
            return dict(json.loads((folder / ".zattrs").read_bytes()))
    except PermissionError:
        raise SlideError(f"{folder}: permission to read the folder is denied") from None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise SlideError(f"{folder}: the OME-Zarr metadata cannot be read ({error})") from error
    return {}


def _read_image(path: Path, scene: str) -> _Image:
    """The image at a path. Of a bioformats2raw collection, the slide is the image called ``scene``,
    else the largest one, and the others are listed."""
    folder, attributes, others = path, _attributes(path), list[str]()
    if "bioformats2raw.layout" in attributes and (path / "0").is_dir():
        images = sorted(sub.name for sub in path.iterdir() if sub.name.isdigit())
        chosen = _choose(path, images, scene)
        others = [name for name in images if name != chosen]
        folder, attributes = path / chosen, _attributes(path / chosen)
    elif scene:
        raise SlideError(
            f"{path}: holds one image, so it has no scene '{scene}'; leave the scene out"
        )
    if "multiscales" not in attributes:
        kind = "a plate" if "plate" in attributes else "a zarr group or array"
        raise SlideError(
            f"{path}: {kind} without an OME-Zarr image (multiscales); give the folder of one image"
        )
    try:
        scales = attributes["multiscales"][0]
        version = str(attributes.get("version") or scales.get("version") or "unstated")
        if version not in _VERSIONS:
            raise SlideError(
                f"{path}: OME-Zarr version {version}; {' and '.join(_VERSIONS)} are read, so "
                "convert it"
            )
        axes = tuple(str(axis["name"]) for axis in scales["axes"])
        units = tuple(axis.get("unit") for axis in scales["axes"])
        common = _transform(scales, len(axes))
        datasets = [
            (str(d["path"]), *_compose(_transform(d, len(axes)), common))
            for d in scales["datasets"]
        ]
        channels = (attributes.get("omero") or {}).get("channels", [])
        colours = tuple(str(channel["color"]) for channel in channels if "color" in channel)
        own = attributes.get("quadrat")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SlideError(
            f"{path}: the OME-Zarr metadata makes no sense ({type(error).__name__}: {error})"
        ) from error
    if not {"y", "x"} <= set(axes) or not datasets:
        raise SlideError(
            f"{path}: an OME-Zarr image of axes {', '.join(axes)} with {len(datasets)} levels; y "
            "and x are needed"
        )
    partial = isinstance(own, dict) and "stored" in own
    notes = ("quadrat stored only the tissue in it; the rest is white",) if partial else ()
    return _Image(folder, version, axes, tuple(datasets), units, colours, tuple(others), notes)


def _choose(path: Path, names: list[str], scene: str) -> str:
    """The image of a collection that is the slide."""
    if scene:
        if scene not in names:
            raise SlideError(f"{path}: no image is called '{scene}'; it holds {', '.join(names)}")
        return scene
    sizes = {name: _size(path / name) for name in names}
    areas = {name: math.prod(size) for name, size in sizes.items()}
    largest = max(names, key=lambda name: areas[name])
    like = [name for name in names if areas[name] * LIKE > areas[largest]]
    if len(like) > 1:
        listed = ", ".join(f"{name} ({sizes[name][1]} x {sizes[name][0]} px)" for name in like)
        raise SlideError(
            f"{path}: holds {len(like)} images of like size: {listed}; choose one with --scene "
            "(or the manifest's column 'scene'), or give the folder of one"
        )
    return largest


def _size(folder: Path) -> tuple[int, int]:
    """(height, width) of an image of a collection; (0, 0) if it is none."""
    try:
        scales = _attributes(folder)["multiscales"][0]
        names = [axis["name"] for axis in scales["axes"]]
        first = DurableStore(folder / scales["datasets"][0]["path"], read_only=True)
        shape = zarr.open_array(first, mode="r").shape
        return shape[names.index("y")], shape[names.index("x")]
    except Exception:  # zarr and JSON raise many; if it is needed, opening it says what is wrong
        return 0, 0


def _transform(entry: Json, axes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and translation of a list of coordinateTransformations."""
    scale, shift = (1.0,) * axes, (0.0,) * axes
    for step in entry.get("coordinateTransformations", ()):
        if step["type"] == "scale":
            scale = tuple(float(value) for value in step["scale"])
        elif step["type"] == "translation":
            shift = tuple(float(value) for value in step["translation"])
        elif step["type"] != "identity":
            raise ValueError(f"coordinate transformation {step['type']}")
    if len(scale) != axes or len(shift) != axes:
        raise ValueError(f"a coordinate transformation that has not {axes} values")
    return scale, shift


def _compose(
    inner: tuple[tuple[float, ...], tuple[float, ...]],
    outer: tuple[tuple[float, ...], tuple[float, ...]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The transformation of a level followed by the transformation of all levels."""
    scale = tuple(a * b for a, b in zip(inner[0], outer[0], strict=True))
    return scale, tuple(a * b + c for a, b, c in zip(inner[1], outer[0], outer[1], strict=True))


def _open_array(path: Path, image: _Image, name: str) -> zarr.Array[Any]:
    place = image.folder / name
    if not place.resolve().is_relative_to(image.folder.resolve()):
        raise SlideError(f"{path}: level {name} lies outside the image")
    try:
        array = zarr.open_array(DurableStore(place, read_only=True), mode="r")
    except Exception as error:  # zarr, its codecs and JSON raise many; none of them names the slide
        raise SlideError(
            f"{path}: level {name} cannot be opened ({type(error).__name__}: {error})"
        ) from error
    sizes = dict(zip(image.axes, array.shape, strict=False))
    stack = [axis for axis in image.axes if axis not in "cyx" and sizes.get(axis) != 1]
    if (
        len(array.shape) != len(image.axes)
        or array.dtype != np.uint8
        or stack
        or sizes.get("c", 1) not in (1, 3)
    ):
        raise SlideError(
            f"{path}: level {name} of {array.dtype}{array.shape} with axes {', '.join(image.axes)} "
            "is not one picture of 8-bit RGB or grey; convert it first"
        )
    if sizes.get("c", 1) == 3 and not colours_are_rgb(image.colours):
        raise SlideError(
            f"{path}: its channels have the colours {', '.join(image.colours)}, not red, green and "
            "blue: fluorescence, not a picture in natural colours; render it to RGB first"
        )
    if min(array.shape) < 1 or math.prod(array.chunks) > MAX_CHUNK_BYTES:
        raise SlideError(
            f"{path}: level {name} of {array.shape} px in chunks of {array.chunks}; at most "
            f"{MAX_CHUNK_BYTES} bytes each"
        )
    return array


def _check_levels(path: Path, image: _Image, sizes: tuple[tuple[int, int], ...]) -> None:
    """Refuse levels that do not show the same rectangle: one is larger than the level before it, or
    is shifted by more than one of its pixels."""
    for (name, scale, shift), size, above in zip(
        image.datasets[1:], sizes[1:], sizes[:-1], strict=True
    ):
        if any(side > upper for side, upper in zip(size, above, strict=True)):
            raise SlideError(
                f"{path}: level {name} of {size[1]} x {size[0]} px is larger than the one before it"
            )
        for axis in "yx":
            at = image.axes.index(axis)
            moved = shift[at] - image.datasets[0][2][at]
            if abs(moved) > scale[at]:
                raise SlideError(
                    f"{path}: level {name} is shifted along {axis} by {moved / scale[at]:.2g} of "
                    "its px"
                )


def _mpp(image: _Image) -> tuple[float, float] | None:
    """um/px of (rows, columns) of level 0; None without a unit of length, because a bare number may
    mean anything."""
    values = []
    for axis in "yx":
        at = image.axes.index(axis)
        factor = micrometres(image.units[at])
        if factor is None:
            return None
        values.append(image.datasets[0][1][at] * factor)
    return values[0], values[1]


def _block(chunk: int) -> int:
    """The side of a block: whole chunks, or about 128 px if chunks are smaller."""
    return chunk * max(1, BLOCK_PX // chunk)
