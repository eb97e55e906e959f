"""Write a phantom slide and its truth in one stream: memory grows with the slide's side, not with
its area."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from quadrat.core.files import new_file, remove, write_file
from quadrat.core.text import csv_text
from quadrat.phantom.block import BLOCK_PX, Layout, make_layout, make_picture
from quadrat.phantom.features import nucleus_line, region_lines
from quadrat.phantom.field import Plan, make_plan, region_map
from quadrat.phantom.render import Palette, make_palette
from quadrat.phantom.spec import NUCLEUS_NAMES, REGION_NAMES, PhantomFiles, PhantomSpec
from quadrat.phantom.tiff import TiffLevel, TiledTiff

_STEP: Final = 4  # from one pyramid level to the next
_TOP_PX: Final = 1024
_TILE: Final = 256


def write_phantom(folder: Path, *, spec: PhantomSpec) -> PhantomFiles:
    """Write the phantom slide `spec` and its exact truth into `folder`, and return the paths.

    The same spec and library versions give the same bytes. Files that exist are replaced. The file
    of facts is removed first and written last: a phantom that has one is complete.

    Raises:
        WriteError: a file cannot be written.
    """
    files = PhantomFiles.of(folder, spec.name)
    remove(files.facts)
    plan, look = make_plan(spec), make_palette(spec.seed)
    reduction = spec.region_reduction
    regions = region_map(plan, reduction, -(-spec.height // reduction), -(-spec.width // reduction))
    counts = _write_blocks(files, spec, plan, look, regions)
    _write_region_map(files.regions, spec, regions)
    areas = _areas_mm2(spec, regions)
    _write_table(files.table, areas, counts)
    _write_facts(files.facts, spec, areas, int(counts.sum()))
    return files


@dataclass(frozen=True, slots=True)
class _Ids:
    """Ids of the nuclei that a block owns."""

    keys: NDArray[np.uint64]
    """(n,) keys of the nuclei, ascending."""
    first: int
    """Id of the first one; the others count up."""


class _Pyramid:
    """Feeds the blocks of level 0, row by row, to all levels of a slide file."""

    def __init__(self, tiff: TiledTiff, sizes: list[tuple[int, int]]) -> None:
        self._tiff, self._sizes = tiff, sizes
        self._bands = [np.zeros((_TILE, width, 3), np.uint8) for width, _ in sizes[1:]]

    def add(self, row: int, col: int, picture: NDArray[np.uint8]) -> None:
        """Write block (row, col) to level 0 and lay its reduction into the next level's band."""
        many = BLOCK_PX // _TILE
        self._tiff.write(0, row * many, col * many, picture)
        if self._bands:
            small = _shrink(picture)
            self._bands[0][: small.shape[0], col * _TILE : col * _TILE + small.shape[1]] = small

    def end_row(self, row: int) -> None:
        """After the last block of a block row: write the bands that are full, or at their end."""
        for level, (_, height) in enumerate(self._sizes[1:], start=1):
            top = row * _TILE
            used = min(_TILE, height - top)
            if used <= 0:
                return
            band = self._bands[level - 1]
            self._tiff.write(level, row, 0, band[:used])
            if level == len(self._bands):
                return
            small = _shrink(band[:used])
            offset = row % _STEP * (_TILE // _STEP)
            self._bands[level][offset : offset + small.shape[0]] = small
            row, last = divmod(row, _STEP)
            if last != _STEP - 1 and top + used < height:
                return


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each 4 x 4 px; what is left over at the right and the bottom is dropped."""
    h, w = picture.shape[0] // _STEP, picture.shape[1] // _STEP
    cells = picture[: h * _STEP, : w * _STEP].reshape(h, _STEP, w, _STEP, 3)
    total = cells.sum(axis=1, dtype=np.uint16).sum(axis=2, dtype=np.uint16)
    half = _STEP * _STEP // 2
    return np.asarray((total + half) // (_STEP * _STEP), np.uint8)


def _level_sizes(spec: PhantomSpec) -> list[tuple[int, int]]:
    sizes = [(spec.width, spec.height)]
    while max(sizes[-1]) > _TOP_PX:
        sizes.append((sizes[-1][0] // _STEP, sizes[-1][1] // _STEP))
    return sizes


def _write_blocks(
    files: PhantomFiles, spec: PhantomSpec, plan: Plan, look: Palette, regions: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Write slide, label image and GeoJSON; returns nuclei by (region code, nuclear class)."""
    sizes = _level_sizes(spec)
    levels = [TiffLevel(w, h, spec.mpp * spec.width / w) for w, h in sizes]
    counts = np.zeros((len(REGION_NAMES) + 1, len(NUCLEUS_NAMES)), np.int64)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(new_file(path))
            for path in (files.slide, files.nuclei, files.geojson)
        ]
        slide = stack.enter_context(TiledTiff(streams[0], levels, kind="rgb", tile=_TILE))
        nuclei = stack.enter_context(TiledTiff(streams[1], levels[:1], kind="uint32", tile=_TILE))
        pyramid = _Pyramid(slide, sizes)
        lines = _Lines(streams[2])
        for row, col, layout, ids in _blocks_with_ids(spec, plan):
            own = ids[row, col]
            for k, index in enumerate(layout.owned):
                ring = layout.rings[layout.starts[index] : layout.starts[index + 1]]
                lines.add(
                    nucleus_line(spec.seed, own.first + k, int(layout.table["kind"][index]), ring)
                )
            _count(counts, layout, regions, spec.region_reduction)
            many = BLOCK_PX // _TILE
            nuclei.write(0, row * many, col * many, _global_labels(layout, ids))
            pyramid.add(row, col, make_picture(plan, look, layout, row, col))
            if (col + 1) * BLOCK_PX >= spec.width:
                pyramid.end_row(row)
        number = int(counts.sum()) + 1
        for line in region_lines(
            spec.seed, number, regions, spec.region_reduction, (spec.width, spec.height)
        ):
            lines.add(line)
        lines.end()
    return counts


class _Lines:
    """A FeatureCollection, one feature a line, written as it comes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._before = out, '{"type":"FeatureCollection","features":[\n'

    def add(self, line: str) -> None:
        self._out.write((self._before + line).encode())
        self._before = ",\n"

    def end(self) -> None:
        self._out.write(b"\n]}\n")


def _blocks_with_ids(
    spec: PhantomSpec, plan: Plan
) -> Iterator[tuple[int, int, Layout, dict[tuple[int, int], _Ids]]]:
    """Blocks in raster order, each with the ids of its own and its neighbours' nuclei.

    A nucleus may reach into the block above its own, so ids run one block row ahead of the pixels;
    a layout is made twice rather than held.
    """
    rows, cols = -(-spec.height // BLOCK_PX), -(-spec.width // BLOCK_PX)
    ids: dict[tuple[int, int], _Ids] = {}
    number, ahead = 1, 0
    for row in range(rows):
        while ahead <= min(row + 1, rows - 1):
            for col in range(cols):
                layout = make_layout(plan, ahead, col)
                ids[ahead, col] = _Ids(layout.table["key"][layout.owned], number)
                number += len(layout.owned)
            ahead += 1
        for col in range(cols):
            yield row, col, make_layout(plan, row, col), ids
        ids = {place: ids[place] for place in ids if place[0] >= row}


def _global_labels(layout: Layout, ids: dict[tuple[int, int], _Ids]) -> NDArray[np.uint32]:
    """The block's labels with table indices replaced by ids, (h, w) uint32."""
    change = np.zeros(len(layout.table) + 1, np.uint32)
    for index in np.unique(layout.labels)[1:] - 1 if layout.labels.any() else ():
        nucleus = layout.table[index]
        owner = ids[int(nucleus["y"]) // BLOCK_PX, int(nucleus["x"]) // BLOCK_PX]
        change[index + 1] = owner.first + np.searchsorted(owner.keys, nucleus["key"])
    return change[layout.labels]


def _count(
    counts: NDArray[np.int64], layout: Layout, regions: NDArray[np.uint8], reduction: int
) -> None:
    owned = layout.table[layout.owned]
    place = regions[
        owned["y"].astype(np.int64) // reduction, owned["x"].astype(np.int64) // reduction
    ]
    np.add.at(counts, (place, owned["kind"]), 1)


def _write_region_map(path: Path, spec: PhantomSpec, regions: NDArray[np.uint8]) -> None:
    height, width = regions.shape
    level = TiffLevel(width, height, spec.mpp * spec.region_reduction)
    with new_file(path) as stream, TiledTiff(stream, [level], kind="uint8") as tiff:
        tiff.write(0, 0, 0, regions)


def _areas_mm2(spec: PhantomSpec, regions: NDArray[np.uint8]) -> list[float]:
    """Area of each region class; cells that the slide's edge cuts count with the part inside."""
    step = spec.region_reduction
    rows = np.minimum(step, spec.height - step * np.arange(regions.shape[0]))
    cols = np.minimum(step, spec.width - step * np.arange(regions.shape[1]))
    pixels = [int(rows @ ((regions == code) @ cols)) for code in range(1, len(REGION_NAMES) + 1)]
    return [count * (spec.mpp / 1000.0) ** 2 for count in pixels]


def _write_table(path: Path, areas: list[float], counts: NDArray[np.int64]) -> None:
    """Rows of nuclei (area: all tissue) and of regions (count: nuclei centred there)."""
    tissue = sum(areas)
    rows = [
        ("nucleus", name, int(counts[:, k].sum()), tissue) for k, name in enumerate(NUCLEUS_NAMES)
    ]
    rows += [
        ("region", name, int(counts[k + 1].sum()), areas[k]) for k, name in enumerate(REGION_NAMES)
    ]
    lines = [
        (kind, name, count, f"{area:.6f}", f"{count / area if area else 0.0:.3f}")
        for kind, name, count, area in rows
    ]
    head = ("kind", "class", "count", "area_mm2", "density_per_mm2")
    write_file(path, csv_text(head, lines))


def _write_facts(path: Path, spec: PhantomSpec, areas: list[float], nuclei: int) -> None:
    codes: dict[str, int] = {name: code for code, name in enumerate(REGION_NAMES, start=1)}
    facts = {
        "name": spec.name,
        "width": spec.width,
        "height": spec.height,
        "mpp": spec.mpp,
        "seed": spec.seed,
        "slide_label": REGION_NAMES[int(np.argmax(areas))],
        "tissue_area_mm2": round(sum(areas), 6),
        "nuclei": nuclei,
        "nucleus_classes": list(NUCLEUS_NAMES),
        "region_classes": list(REGION_NAMES),
        "region_codes": {"glass": 0, **codes},
        "region_map_reduction": spec.region_reduction,
    }
    write_file(path, json.dumps(facts, indent=2) + "\n")
