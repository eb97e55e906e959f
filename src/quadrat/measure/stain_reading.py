"""Stain of each object of a slide: its pixels are read window by window, and a table of all objects
is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quadrat.config.manifest import SlideRef
from quadrat.config.measure import StainSection
from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.files import new_file
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame, Polygons
from quadrat.measure.results import read_outlines
from quadrat.measure.stain import Stains, add_pixels, estimated, means_and_deviations
from quadrat.outputs.objects import row_groups
from quadrat.outputs.results import SlideResult
from quadrat.slides.source import SlideSource, open_source

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
WINDOW = 1024
"""Grid px a side; windows lie on the lattice from the slide's corner."""
LOOKED_AT = 24
"""Windows from which stains are estimated, evenly spaced among those with objects."""
FOLDER = "stain"


def stains_of_objects(
    result: SlideResult, ref: SlideRef | None, section: StainSection, to: Path
) -> dict[str, F64]:
    """Mean and deviation of the densities of each object, (n,) each; they are written to
    ``to/stain/SLIDE.parquet`` as well, with the stains.

    Raises:
        ConfigError: nobody knows the slide's file.
        SlideError: it cannot be read, or is not the slide of the results.
    """
    if ref is None or not ref.path:
        raise ConfigError(
            f"{result.name}: stain is measured on the slide's pixels, and nothing in the run says "
            "where its file is; give --rois a manifest with the column 'slide'"
        )
    frame, mpp = result.summary.frame, result.summary.slide_mpp.value
    with open_source(
        ref.path,
        mpp=frame.mpp,
        slide_mpp=ref.mpp or mpp,
        scene=ref.scene,
        allow_upsampling=True,
        damaged="mark",
        unit=frame.unit,
    ) as source:
        _check_frame(result, source.frame, ref.path)
        stains = _stains(result, source, section)
        parts = [_sums(result, source, stains, k) for k in range(_groups(result))]
    found = means_and_deviations(np.concatenate([np.zeros((0, 5)), *parts]))
    _write(to / FOLDER / f"{result.name}.parquet", found, stains)
    return found


def _groups(result: SlideResult) -> int:
    return row_groups(result.objects)


def _check_frame(result: SlideResult, found: Frame, path: str) -> None:
    wanted = result.summary.frame
    if (found.height, found.width) != (wanted.height, wanted.width):
        raise SlideError(
            f"{path}: {found.width} x {found.height} px at {found.mpp:g} um/px, but the results of "
            f"{result.name} are of {wanted.width} x {wanted.height} px; it is another file"
        )


def _stains(result: SlideResult, source: SlideSource, section: StainSection) -> Stains:
    if section.vectors == "given":
        return Stains(section.hematoxylin, section.dab, section.white)
    windows = sorted({box for k in range(_groups(result)) for box in _windows(result, k)})
    step = max(1, len(windows) // LOOKED_AT)
    pixels = [source.read(box.intersect(source.frame.box)) for box in windows[::step]]
    flat = np.concatenate([np.zeros((0, 3), np.uint8), *(p.reshape(-1, 3) for p in pixels)])
    return estimated(flat, slide=result.name, white=section.white)


def _boxes(outlines: Polygons, frame: Frame) -> Ids:
    """(n, 4) row0, col0, row1, col1 of outlines in grid px, rounded outwards."""
    first = outlines.ring_starts[outlines.polygon_starts[:-1]]
    low, high = (how.reduceat(outlines.xy, first, axis=0) for how in (np.minimum, np.maximum))
    scale = np.array([frame.scale_col, frame.scale_row])
    corners = np.concatenate([np.floor(low / scale), np.ceil(high / scale)], axis=1)
    boxes: Ids = corners[:, [1, 0, 3, 2]].astype(np.int64)
    return boxes


def _cells(boxes: Ids) -> Iterator[tuple[Box, Ids]]:
    """The windows that boxes meet, in raster order, each with the boxes that meet it."""
    first, last = boxes[:, :2] // WINDOW, (boxes[:, 2:] - 1) // WINDOW
    met: dict[tuple[int, int], list[int]] = {}
    for k, (a, b) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for row in range(a[0], b[0] + 1):
            for col in range(a[1], b[1] + 1):
                met.setdefault((row, col), []).append(k)
    for (row, col), index in sorted(met.items()):
        corner = row * WINDOW, col * WINDOW
        yield Box(*corner, corner[0] + WINDOW, corner[1] + WINDOW), np.array(index, np.int64)


def _windows(result: SlideResult, group: int) -> list[Box]:
    outlines = read_outlines(result, group=group)
    return [box for box, _ in _cells(_boxes(outlines, result.summary.frame))]


def _sums(result: SlideResult, source: SlideSource, stains: Stains, group: int) -> F64:
    """(n, 5) sums of the objects of a row group."""
    outlines = read_outlines(result, group=group)
    boxes = _boxes(outlines, source.frame)
    sums = np.zeros((len(boxes), 5))
    for window, index in _cells(boxes):
        box = window.intersect(source.frame.box)
        if box.empty:
            continue
        densities = stains.densities(source.read(box))
        add_pixels(
            sums, densities, (box.row0, box.col0), source.frame, outlines.xy,
            outlines.ring_starts, outlines.polygon_starts, boxes, index,
        )  # fmt: skip
    return sums


def _write(path: Path, columns: dict[str, F64], stains: Stains) -> None:
    n = len(next(iter(columns.values())))
    arrays = {"id": pa.array(np.arange(1, n + 1))}
    arrays |= {name: pa.array(values.astype(np.float32)) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata(
        {"hematoxylin": str(stains.hematoxylin), "dab": str(stains.dab)}
    )
    with new_file(path) as stream:
        pq.write_table(table, stream, compression="zstd")
