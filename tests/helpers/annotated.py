"""Small annotated flat images on disk, result files that say what the truth says, and packages of
random weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from helpers import answers
from helpers.summaries import summary_of
from quadrat.config.manifest import read_manifest
from quadrat.config.pipeline import DataSection
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo, Polygons
from quadrat.evaluation.pooling import ResultFolder, measure_slides, read_truths
from quadrat.metrics.protocol import Answer
from quadrat.models.package import save_package
from quadrat.models.task import ModelSpec
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import write_summary
from quadrat.outputs.tables import write_tiles
from quadrat.store.ome_zarr import create_label_image
from quadrat.tasks import get_task

CLASSES = (ClassInfo("a", (200, 40, 40)), ClassInfo("b", (40, 40, 200)))
NAMES = tuple(c.name for c in CLASSES)
SIDE = 96
ANNOTATIONS = {
    "instance": "objects",
    "detection": "objects",
    "semantic": "regions",
    "classification": "none",
}
SLIDES = ["s0", "s1", "s2", "s3"]
CASES = ["p", "p", "q", "r"]
ABOUT = {"slides": ["elsewhere"], "validation_slides": [], "cases": ["elsewhere"]}


def write_result(folder, answer, *, task, thresholds=None, weights="0" * 64):
    """The result files of one slide, through the writers of a run."""
    folder.mkdir(parents=True)
    frame = answer.frame
    if answer.objects is not None:
        n = len(answer.objects)
        with ObjectWriter(
            folder / "objects.parquet", frame=frame, classes=CLASSES, slide=folder.name
        ) as writer:
            nearest = np.full((n, len(CLASSES)), np.nan, np.float32)
            writer.append(answer.objects, Polygons.boxes(answer.objects.bbox), nearest, first_id=1)
    if answer.tiles is not None:
        write_tiles(
            folder / "tiles.csv", answer.tiles, classes=CLASSES, frame=frame, core=answer.core
        )
    if answer.labels is not None:
        kind = get_task(task).label_image
        array = create_label_image(
            folder / "slide.ome.zarr", kind.name, frame=frame, dtype=kind.dtype, chunk=32, shard=64
        )
        for cell in array.box.cells(array.shard):
            array.write_shard(
                cell, answer.labels(array.shard_box(cell).intersect(frame.box)).astype(kind.dtype)
            )
    summary = summary_of(frame, task=task, thresholds=thresholds, weights=weights)
    write_summary(folder, summary)


def feature(box, name, kind):
    x0, y0, x1, y1 = box
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": kind, "classification": {"name": name}},
    }


def write_geojson(path, boxes, class_id, *, kind):
    """Boxes as QuPath features."""
    features = [
        feature(b, NAMES[k], kind) for b, k in zip(boxes.tolist(), class_id.tolist(), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def boxes_of(seed):
    """Boxes x0, y0, x1, y1 on a lattice, so that none overlap, and their classes."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(16)[: rng.integers(3, 9)]
    corner = np.stack([places % 4 * 24 + 2, places // 4 * 24 + 3], axis=1)
    return np.concatenate(
        [corner, corner + rng.integers(8, 18, (len(places), 2))], axis=1
    ), rng.integers(0, 2, len(places))


def write_images(folder, names, *, task, cases=None, split="test", annotated="all"):
    """Flat images with truth and their manifest; object classes and places follow from the position
    in ``names``."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "detection" if ANNOTATIONS[task] == "objects" else "annotation"
    lines = ["slide,annotation,mpp,label,case,split,annotated"]
    for i, name in enumerate(names):
        boxes, class_id = boxes_of(i)
        rgb = np.full((SIDE, SIDE, 3), 235, np.uint8)
        for (x0, y0, x1, y1), k in zip(boxes.tolist(), class_id.tolist(), strict=True):
            rgb[y0:y1, x0:x1] = CLASSES[k].color
        Image.fromarray(rgb).save(folder / f"{name}.png")
        write_geojson(folder / f"{name}.geojson", boxes, class_id, kind=kind)
        drawn = "" if ANNOTATIONS[task] == "none" else f"{name}.geojson"
        label = NAMES[i % 2] if ANNOTATIONS[task] == "none" else ""
        lines.append(
            f"{name}.png,{drawn},0.5,{label},"
            f"{'' if cases is None else cases[i]},{split},{annotated}"
        )
    path = folder / "slides.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_package(folder, task, *, training=None, seed=0):
    """A package of random weights whose answers spread; ``training``: what its card says of it."""
    spec = ModelSpec(
        task=task,
        classes=CLASSES,
        mpp=0.5,
        lattice=Lattice(core=64, halo=0 if task == "classification" else 48, stride=8, shard=64),
        widths=(8, 12, 16),
        thresholds=dict(get_task(task).default_thresholds),
    )
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = get_task(task).build(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    with torch.no_grad():
        model.head.weight *= 6
        model.head.bias.zero_()
    save_package(
        Path(folder), model.eval(), spec, about={} if training is None else {"training": training}
    )
    return Path(folder)


def write_pipeline(path, task, package, manifest, *, thresholds=None):
    content = {
        "task": task,
        "classes": [{"name": c.name, "color": list(c.color)} for c in CLASSES],
        "model": {
            "package": str(package),
            "mpp": 0.5,
            "core": 64,
            "halo": 48,
            "shard": 64,
            "widths": [8, 12, 16],
        },
        "data": {"manifest": str(manifest), "annotations": ANNOTATIONS[task], "tissue": "all"},
        "run": {"cluster": "serial", "device": "cpu"},
        "thresholds": thresholds or {},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def whole(frame):
    return Box(0, 0, frame.height, frame.width)


def painted(boxes, values):
    image = np.zeros((SIDE, SIDE), np.int32)
    for (x0, y0, x1, y1), value in zip(boxes, values, strict=True):
        image[y0:y1, x0:x1] = value
    return image


def right_answer(i, task):
    """What the truth of image ``i`` says, as an answer."""
    boxes, class_id = boxes_of(i)
    frame = answers.frame(SIDE, SIDE)
    score = 0.4 + 0.05 * np.arange(len(boxes))
    if task == "classification":
        return Answer(
            frame, tiles=answers.tile_scores([(0, 0), (0, 1)], [np.eye(2)[i % 2]] * 2), core=64
        )
    objects = answers.table(boxes, class_id, score)
    if task == "detection":
        return Answer(frame, objects=objects)
    values = class_id + 1 if task == "semantic" else np.arange(1, len(boxes) + 1)
    return Answer(frame, objects=objects, labels=answers.reader(painted(boxes, values)))


def finished(folder, task, change=lambda answer, i: answer, **kept):
    """Images, truth and results of ``SLIDES``; the manifest's slides and the results folder."""
    manifest = write_images(folder / "images", SLIDES, task=task, cases=CASES)
    for i, name in enumerate(SLIDES):
        write_result(folder / "results" / name, change(right_answer(i, task), i), task=task, **kept)
    return read_manifest(manifest), folder / "results"


def without_first(answer, i):
    """Image 0 lacks its first object, in the table and in the label image."""
    if i:
        return answer
    rest = answer.objects.take(np.arange(1, len(answer.objects)))
    boxes, _ = boxes_of(0)
    return replace(
        answer, objects=rest, labels=answers.reader(painted(boxes, np.arange(len(boxes))))
    )


def measured(folder, task, change=lambda answer, i: answer):
    """The slides of :func:`finished`, compared with their truth."""
    refs, results = finished(folder, task, change)
    truths = read_truths(refs, DataSection(annotations=ANNOTATIONS[task]), NAMES)
    folders = [ResultFolder(tuple(refs), results)]
    return measure_slides(folders, truths, task=get_task(task), classes=NAMES)
