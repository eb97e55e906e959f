"""Finished runs to look at: slides with planted objects, regions or tiles, as files of a run."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import answers
from helpers.summaries import summary_of
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import ClassSection, ModelSection, Pipeline
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.engine.drivers import note_asked
from quadrat.engine.failures import FailedSlide, write_failure
from quadrat.outputs.figures import save_png
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import (
    AreaFigures,
    ObjectFigures,
    ScoreFigures,
    SlideFigures,
    write_summary,
)
from quadrat.outputs.tables import CountRow, write_tiles

MARKUP = "a <b>bold & \"quoted\" 'x'"
"""A slide's name that would be markup if nobody escaped it."""
CLASSES = (ClassInfo("tumour", (213, 94, 0)), ClassInfo("<i>stroma</i>", (0, 114, 178)))
SCALE = 2.0
"""Level-0 px a grid px."""
HEIGHT, WIDTH = 600, 800
"""Of a slide, in level-0 px."""


def frame(height=HEIGHT, width=WIDTH):
    return Frame(int(height / SCALE), int(width / SCALE), 0.5, SCALE, SCALE)


@dataclass(frozen=True)
class Planted:
    """Objects of a slide in grid px."""

    table: ObjectTable
    polygons: Polygons


def planted(n, seed, *, height=HEIGHT, width=WIDTH):
    """``n`` rectangles of 4 to 12 grid px, anywhere on the slide."""
    rng = np.random.default_rng(seed)
    grid = frame(height, width)
    size = rng.integers(4, 13, (n, 2))
    corner = np.floor(rng.random((n, 2)) * (np.array([grid.height, grid.width]) - size))
    bbox = np.concatenate([corner, corner + size], axis=1)
    table = answers.table(bbox[:, [1, 0, 3, 2]], rng.integers(0, 2, n), rng.uniform(0.3, 1, n))
    return Planted(table, Polygons.boxes(bbox))


def write_objects(folder, plants, *, task="instance", tissue_mm2=0.02):
    """objects.parquet and summary.json of a slide."""
    table = plants.table
    with ObjectWriter(
        folder / "objects.parquet", frame=frame(), classes=CLASSES, slide=folder.name
    ) as writer:
        nearest = np.full((len(table), len(CLASSES)), np.nan, np.float32)
        writer.append(table, plants.polygons, nearest, first_id=1)
    counts = np.bincount(table.class_id, minlength=len(CLASSES)).tolist()
    rows = [
        CountRow(name, n, n / tissue_mm2, 0.001, 0.05, 8.0)
        for name, n in zip([c.name for c in CLASSES] + ["all"], [*counts, sum(counts)], strict=True)
    ]
    _summarise(folder, ObjectFigures(tuple(rows), capped_objects=0), task, tissue_mm2)


def write_scores(folder, core=50):
    """tiles.csv and summary.json of a classified slide."""
    grid = frame()
    cells = [(r, c) for r in range(grid.height // core) for c in range(grid.width // core)]
    first = np.linspace(0.05, 0.95, len(cells))
    tiles = answers.tile_scores(cells, np.stack([first, 1 - first], axis=1))
    folder.mkdir(parents=True, exist_ok=True)
    write_tiles(folder / "tiles.csv", tiles, classes=CLASSES, frame=grid, core=core)
    share = {c.name: 0.5 for c in CLASSES}
    scores = ScoreFigures(CLASSES[0].name, share, {c.name: len(cells) // 2 for c in CLASSES})
    _summarise(folder, scores, "classification", 0.02)


def _summarise(folder, answer, task, tissue_mm2):
    summary = summary_of(frame(), task=task, answer=answer)
    area = AreaFigures(tissue_mm2, {"glass": 0.01, "pen": 0.002}, (), 0.001)
    write_summary(
        folder,
        replace(
            summary,
            slide=folder.name,
            figures=SlideFigures(area, answer),
            provenance=replace(summary.provenance, classes=CLASSES),
        ),
    )


def picture(plants, *, height=HEIGHT, width=WIDTH):
    """A slide on which the objects can be seen."""
    rgb = np.full((height, width, 3), 236, np.uint8)
    rgb[:, : width // 2] = (225, 190, 210)
    for row0, col0, row1, col1 in (plants.table.bbox * SCALE).astype(int).tolist():
        rgb[row0:row1, col0:col1] = (110, 60, 130)
    return rgb


def write_slide(path, plants):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(plants)).save(path, compress_level=1)


def make_run(folder, names=("one", "two", MARKUP, "gone"), *, task="instance", objects=120):
    """A run with results of all names. The file of the slide "gone" is gone, and another slide has
    failed."""
    out, refs = Path(folder) / "out", list[SlideRef]()
    for seed, name in enumerate(names):
        plants, path = planted(objects, seed), Path(folder) / "slides" / f"{seed}.png"
        results = out / "results" / name
        if task == "classification":
            write_scores(results)
        else:
            write_objects(results, plants, task=task)
        if name != "gone":
            write_slide(path, plants)
        save_png(picture(plants), results / "overlay.png")
        refs.append(SlideRef(name=name, path=str(path), mpp=0.25))
    note(out, refs, task)
    reason = "the file <b>ends</b> early"
    write_failure(out, FailedSlide("failed", "open", reason, task, remedy="fetch it again"))
    return out


def note(out, refs, task="instance"):
    """What a command was asked for, as it notes it."""
    pipeline = Pipeline(
        name="planted",
        task=task,
        classes=tuple(ClassSection(name=c.name, color=c.color) for c in CLASSES),
        model=ModelSection(package=str(out / "package"), mpp=0.5, core=64, halo=16, shard=128),
    )
    note_asked(out, pipeline, refs, package=out / "package", until="results")
