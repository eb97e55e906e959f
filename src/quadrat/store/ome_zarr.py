"""OME-Zarr 0.5 groups: images and label images, their metadata, and pyramids over a complete level
0.

Format: https://ngff.openmicroscopy.org/0.5/ . Bytes depend only on pixels and options: there are no
timestamps, and the order of writing does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.core.objects import Frame
from quadrat.core.unit import PX, Unit
from quadrat.slides.zarr_files import DurableStore
from quadrat.store.array import UNREADABLE, ShardedArray
from quadrat.store.pyramid import Reduce, halve, pyramid_depth
from quadrat.store.shard import ShardReceipt

VERSION = "0.5"
Rgb = tuple[int, int, int]
_RGB_CHANNELS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def create_image_group(
    group: Path,
    *,
    frame: Frame,
    dtype: npt.DTypeLike,
    channels: int | None,
    chunk: int,
    shard: int,
    name: str,
    fill: int | float = 0,
    finest_mpp: float | None = None,
    own: Mapping[str, Any] | None = None,
    ome: Mapping[str, Any] | None = None,
) -> ShardedArray:
    """Make an OME-Zarr image of one level, axes (c,) y, x, at the mpp of the frame. Returns its
    level 0 to write to.

    ``finest_mpp``: mpp of a finer image or label image that has the same corner, if there is one.
    ``own`` is stored as the attribute "quadrat", ``ome`` next to the multiscales.

    Raises:
        StoreError: another image is already at ``group``.
    """
    axes = ("c", "y", "x") if channels is not None else ("y", "x")
    leading = (channels,) if channels is not None else ()
    level = ShardedArray.create(
        group / "0",
        shape=(*leading, frame.height, frame.width),
        chunk=chunk,
        shard=shard,
        dtype=dtype,
        fill=fill,
        dimension_names=axes,
    )
    attributes: dict[str, Any] = {
        "ome": {
            "version": VERSION,
            "multiscales": [
                multiscale(
                    name,
                    axes=axes,
                    mpp=frame.mpp,
                    finest_mpp=finest_mpp or frame.mpp,
                    levels=1,
                    unit=frame.unit,
                )
            ],
            **(ome or {}),
        }
    }
    if channels == len(_RGB_CHANNELS):
        attributes["ome"]["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": color,
                    "active": True,
                    "window": {"min": 0, "max": 255, "start": 0, "end": 255},
                }
                for label, color in _RGB_CHANNELS
            ],
            "rdefs": {"model": "color"},
        }
    if own is not None:
        attributes["quadrat"] = dict(own)
    write_group(group, attributes)
    return level


def multiscale(
    name: str,
    *,
    axes: tuple[str, ...],
    mpp: float,
    finest_mpp: float,
    levels: int,
    method: str | None = None,
    unit: Unit = "um",
) -> dict[str, Any]:
    """The multiscales entry of ``levels`` levels, each half of the one before. The corners of all
    levels coincide.

    OME-Zarr places pixel *centres* at index * scale + translation. The origin is the centre of the
    first pixel of ``finest_mpp``, so every coarser level has a translation. The format knows no
    unit of px: axes without a unit are in px.
    """
    spatial = {"type": "space"} if unit == PX else {"type": "space", "unit": "micrometer"}
    leading = len(axes) - 2
    datasets = []
    for level in range(levels):
        scale, shift = mpp * 2**level, (mpp * 2**level - finest_mpp) / 2
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [*[1.0] * leading, scale, scale]}
        ]
        if shift:
            transforms.append(
                {"type": "translation", "translation": [*[0.0] * leading, shift, shift]}
            )
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    entry: dict[str, Any] = {
        "name": name,
        "axes": [
            {"name": axis, **(spatial if axis in "yx" else {"type": "channel"})} for axis in axes
        ],
        "datasets": datasets,
    }
    return entry if method is None else {**entry, "type": method}


def create_label_image(
    group: Path,
    name: str,
    *,
    frame: Frame,
    dtype: npt.DTypeLike,
    chunk: int = 512,
    shard: int = 2048,
    colors: Mapping[int, Rgb] | None = None,
) -> ShardedArray:
    """Make ``labels/<name>`` in an image group (or in an empty folder) and list it. Returns its
    level 0.

    ``dtype`` is an integer type, 0 is background. ``colors`` maps label values to red, green, blue
    (0-255). One process creates the label images of a group.

    Raises:
        StoreError: another label image is already there, or ``dtype`` is not an integer type.
    """
    if np.dtype(dtype).kind not in "ui":
        raise StoreError(f"{group}: label image {name} of {np.dtype(dtype)}; labels are integers")
    if not (group / "zarr.json").exists():
        write_group(group, {})
    table = [
        {"label-value": value, "rgba": [*rgb, 255]} for value, rgb in sorted((colors or {}).items())
    ]
    label: dict[str, Any] = {"version": VERSION, "source": {"image": "../../"}}
    if table:
        label["colors"] = table
    level = create_image_group(
        group / "labels" / name,
        frame=frame,
        dtype=dtype,
        channels=None,
        chunk=chunk,
        shard=shard,
        name=name,
        ome={"image-label": label},
    )
    listing = group / "labels"
    listed = group_attributes(listing)["ome"]["labels"] if (listing / "zarr.json").exists() else []
    write_group(listing, {"ome": {"version": VERSION, "labels": sorted({*listed, name})}})
    return level


def open_label_image(group: Path, name: str) -> ShardedArray:
    """Level 0 of ``labels/<name>`` in an image group, to read and to write.

    Raises:
        StoreError: there is none.
    """
    return ShardedArray.open(group / "labels" / name / "0", "r+")


def group_attributes(group: Path) -> dict[str, Any]:
    """The attributes of a zarr group.

    Raises:
        StoreError: there is none.
    """
    try:
        return zarr.open_group(
            DurableStore(group, read_only=True), mode="r", zarr_format=3
        ).attrs.asdict()
    except UNREADABLE as error:
        raise StoreError(f"{group}: there is no zarr group that can be opened ({error})") from error


def write_group(group: Path, attributes: Mapping[str, Any]) -> None:
    """Write a zarr v3 group's metadata, whole or not at all; what is below the group stays.

    Raises:
        StoreError: something else is at ``group``, or the disk refuses.
    """
    store = DurableStore(group)
    try:
        if (group / "zarr.json").exists():
            zarr.open_group(store, mode="r+", zarr_format=3).attrs.put(dict(attributes))
        else:
            zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    except UNREADABLE as error:
        raise StoreError(f"{group}: zarr.json cannot be written ({error})") from error


def create_level(group: Path, level: int, *, chunk: int, shard: int) -> ShardedArray:
    """Make the empty array of level ``level`` (>= 1) next to the finer one. If it is already there,
    it is opened.

    Raises:
        StoreError: the finer level is missing.
    """
    above = ShardedArray.open(group / str(level - 1))
    place = group / str(level)
    if (place / "zarr.json").exists():
        return ShardedArray.open(place, "r+")
    names = group_attributes(group)["ome"]["multiscales"][0]["axes"]
    return ShardedArray.create(
        place,
        shape=(*above.shape[:-2], -(-above.shape[-2] // 2), -(-above.shape[-1] // 2)),
        chunk=chunk,
        shard=shard,
        dtype=above.dtype,
        fill=above.fill,
        dimension_names=tuple(axis["name"] for axis in names),
    )


def level_shards(above: ShardedArray, below: ShardedArray) -> list[Cell]:
    """Shards of ``below`` over which something was written in ``above``; raster order."""
    reach = [
        cell
        for cell in below.box.cells(below.shard)
        if any(
            above.has(source)
            for source in _above(below.shard_box(cell), above.box).cells(above.shard)
        )
    ]
    return sorted(reach)


def build_shard(group: Path, level: int, cell: Cell, *, reduce: Reduce) -> ShardReceipt:
    """Write one shard of level ``level`` from the finer level: one task of a pyramid."""
    above, below = (
        ShardedArray.open(group / str(level - 1)),
        ShardedArray.open(group / str(level), "r+"),
    )
    return _build_shard(above, below, cell, reduce=reduce)


def _build_shard(
    above: ShardedArray, below: ShardedArray, cell: Cell, *, reduce: Reduce
) -> ShardReceipt:
    pixels = above.read(_above(below.shard_box(cell), above.box))
    return below.write_shard(cell, halve(pixels, reduce))


def finish_pyramid(group: Path, *, levels: int, reduce: Reduce) -> None:
    """List ``levels`` (> 1) levels in the multiscales of the group. This is the last step, so
    nobody sees a level that is not complete."""
    attributes = group_attributes(group)
    entry = attributes["ome"]["multiscales"][0]
    scale, *shift = entry["datasets"][0]["coordinateTransformations"]
    mpp = scale["scale"][-1]
    finest_mpp = mpp - 2 * shift[0]["translation"][-1] if shift else mpp
    attributes["ome"]["multiscales"] = [
        multiscale(
            entry["name"],
            axes=tuple(axis["name"] for axis in entry["axes"]),
            mpp=mpp,
            finest_mpp=finest_mpp,
            levels=levels,
            method=reduce,
            unit="um" if "unit" in entry["axes"][-1] else "px",
        )
    ]
    write_group(group, attributes)


def build_pyramid(
    group: Path,
    *,
    reduce: Reduce,
    chunk: int = 512,
    shard: int = 2048,
    min_size: int = 512,
    levels: int | None = None,
) -> int:
    """Build all levels in this process and list them. Returns how many there are (``levels``, or
    until ``min_size`` px).

    Memory: four shards of one level. What was not written in level 0 stays unwritten in the others.

    Raises:
        StoreError: there is no image, or it is damaged.
    """
    above = ShardedArray.open(group / "0")
    levels = levels or pyramid_depth(*above.box.shape, min_size=min_size)
    for level in range(1, levels):
        below = create_level(group, level, chunk=chunk, shard=shard)
        for cell in level_shards(above, below):
            _build_shard(above, below, cell, reduce=reduce)
        above = below
    if levels > 1:
        finish_pyramid(group, levels=levels, reduce=reduce)
    return levels


def _above(box: Box, whole: Box) -> Box:
    """The pixels of the finer level that make ``box``."""
    return Box(2 * box.row0, 2 * box.col0, 2 * box.row1, 2 * box.col1).intersect(whole)
