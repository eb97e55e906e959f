"""Finished runs with planted objects, as files of a run: what commands on results read."""

from dataclasses import replace

import numpy as np

from helpers import answers
from helpers.summaries import CLASSES, summary_of
from quadrat.core.objects import Frame, Polygons
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import AreaFigures, ObjectFigures, SlideFigures, write_summary
from quadrat.outputs.tables import count_rows, write_counts
from quadrat.stitching.features import nearest_distances

FRAME = Frame(300, 400, 0.5, 2.0, 2.0)
"""800 x 600 px of 0.25 um at level 0, analysed at 0.5 um/px."""
TISSUE_MM2 = 0.02


def write_slide(
    out, name, boxes, class_id=None, score=None, *, frame=FRAME, classes=CLASSES, task="instance"
):
    """The results of a slide with boxes x0, y0, x1, y1 in grid px."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    n = len(boxes)
    table = answers.table(
        boxes,
        np.zeros(n) if class_id is None else class_id,
        np.full(n, 0.75) if score is None else score,
    )
    folder = out / "results" / name
    nearest = nearest_distances(table.centroid * frame.mpp, table.class_id, len(classes))
    with ObjectWriter(
        folder / "objects.parquet", frame=frame, classes=classes, slide=name
    ) as writer:
        writer.append(table, Polygons.boxes(table.bbox), nearest, first_id=1)
    rows = count_rows(table, nearest, classes=classes, frame=frame, tissue_mm2=TISSUE_MM2)
    write_counts(folder / "counts.csv", rows, unit=frame.unit)
    summary = summary_of(frame, task=task)
    figures = SlideFigures(
        AreaFigures(TISSUE_MM2, {"glass": 0.01}, (), 0.0), ObjectFigures(tuple(rows), 0)
    )
    provenance = replace(summary.provenance, classes=tuple(classes))
    write_summary(folder, replace(summary, slide=name, figures=figures, provenance=provenance))
    return folder


def random_boxes(n, seed, *, frame=FRAME):
    """(n, 4) whole boxes of 4 to 12 grid px, anywhere on the slide."""
    rng = np.random.default_rng(seed)
    size = rng.integers(4, 13, (n, 2))
    corner = np.floor(rng.random((n, 2)) * (np.array([frame.width, frame.height]) - size))
    return np.concatenate([corner, corner + size], axis=1)
