"""A slide's answer read back from its result files, in grid px: evaluation compares it with the
truth.

docs/artifacts.md describes the files. No code of inference or stitching is used, so that a fault
there cannot hide itself here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import QuadratError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame, ObjectTable
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.metrics.protocol import Answer, Labels
from quadrat.outputs.objects import object_columns, object_table, read_rows
from quadrat.outputs.summary import SUMMARY, Summary, read_summary
from quadrat.outputs.tables import read_tiles
from quadrat.store.array import ShardedArray

OBJECTS, TILES, IMAGE = "objects.parquet", "tiles.csv", "slide.ome.zarr"


def finished_summary(folder: Path) -> Summary:
    """summary.json of a slide's results.

    Raises:
        QuadratError: there is none (the slide is not finished), or it is damaged.
    """
    try:
        return read_summary(folder)
    except (OSError, ValueError) as error:
        raise QuadratError(
            f"{folder / SUMMARY}: no finished result can be read there ({error}); run the slide "
            "first"
        ) from error


def read_answer(folder: Path, *, classes: Sequence[str], label_image: str | None) -> Answer:
    """The answer of one slide. ``label_image``: name of the task's label image ("objects",
    "classes") or None.

    Raises:
        QuadratError: files are missing or damaged, or their classes are not ``classes``.
    """
    frame = finished_summary(folder).frame
    objects = (
        read_objects(folder / OBJECTS, frame, classes=classes)
        if (folder / OBJECTS).is_file()
        else None
    )
    tiles, core = (
        read_scores(folder / TILES, frame, classes=classes)
        if (folder / TILES).is_file()
        else (None, 0)
    )
    if objects is None and tiles is None:
        raise QuadratError(
            f"{folder}: there is neither {OBJECTS} nor {TILES}; run the slide again with "
            "--overwrite"
        )
    labels = (
        None
        if label_image is None
        else _labels(folder / IMAGE / "labels" / label_image / "0", frame)
    )
    return Answer(frame, objects, labels, tiles, core)


def read_objects(path: Path, frame: Frame, *, classes: Sequence[str]) -> ObjectTable:
    """objects.parquet in grid px, by ascending id.

    Raises:
        QuadratError: it cannot be read, ids are not 1 to n, or its classes are not ``classes``.
    """
    rows = read_rows(path, object_columns(frame)).sort_by("id")
    if not np.array_equal(rows["id"].to_numpy(), np.arange(1, len(rows) + 1)):
        raise QuadratError(
            f"{path}: ids are not 1 to {len(rows)}; run the slide again with --overwrite"
        )
    class_id = rows["class_id"].to_numpy().tolist()
    for k, name in set(zip(class_id, rows["class"].to_pylist(), strict=True)):
        if k >= len(classes) or classes[k] != name:
            raise QuadratError(
                f"{path}: class {k} is '{name}', but the pipeline's classes are "
                f"{', '.join(classes)}"
            )
    return object_table(rows, frame)


def read_scores(path: Path, frame: Frame, *, classes: Sequence[str]) -> tuple[TileScores, int]:
    """tiles.csv as tile scores (without embeddings), and the side of a core in grid px (0 if there
    is no tile).

    Raises:
        QuadratError: it cannot be read, or its classes are not ``classes``.
    """
    try:
        rows = read_tiles(path)
    except (OSError, ValueError, IndexError) as error:
        raise QuadratError(f"{path}: cannot be read ({error})") from error
    if rows.class_names != tuple(classes):
        raise QuadratError(
            f"{path}: holds the classes {', '.join(rows.class_names)}, not {', '.join(classes)}"
        )
    probability = np.rint(rows.probability * SCORE_MAX).astype(np.uint16)
    scores = TileScores(
        rows.cell, probability.reshape(-1, len(classes)), np.zeros((len(rows.cell), 0), np.float16)
    )
    return scores, _core(rows.cell, rows.box_l0, frame)


def _core(cell: npt.NDArray[np.int32], box_l0: npt.NDArray[np.float64], frame: Frame) -> int:
    """Side of a core: from the place of a core that is not the first, else the side of the only one
    (it is the whole slide)."""
    if not len(cell):
        return 0
    box = frame.scale.from_l0(box_l0)
    row, axis = np.unravel_index(np.argmax(cell), cell.shape)
    if cell[row, axis] > 0:
        return round(float(box[row, 1 - axis] / cell[row, axis]))
    sides = box[0, 2:] - box[0, :2]
    return math.ceil(float(sides.max()) - 0.01)  # two decimals are written


def _labels(path: Path, frame: Frame) -> Labels:
    """The label image as a function of a box.

    Raises:
        QuadratError: there is none, or its size is not that of the frame.
    """
    array = ShardedArray.open(path, mode="r")
    if tuple(array.shape[-2:]) != (frame.height, frame.width):
        raise QuadratError(
            f"{path}: is {tuple(array.shape[-2:])} px, but {SUMMARY} states "
            f"{(frame.height, frame.width)}"
        )

    def read(box: Box) -> npt.NDArray[Any]:
        return array.read(box).reshape(box.shape)

    return read
