"""Answers and truths made in memory: label images, boxes and points, for tests of metrics and of
evaluation."""

import numpy as np

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.formats.label_image import LabelImage
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.predictions import TileScores
from quadrat.metrics.protocol import Answer


def frame(height, width, *, mpp=0.5, scale=1.0):
    return Frame(height, width, mpp, scale, scale)


def table(xyxy, class_id, score):
    """An object table from boxes x0, y0, x1, y1, its centroids their centres."""
    xyxy = np.asarray(xyxy, np.float64).reshape(-1, 4)
    bbox = xyxy[:, [1, 0, 3, 2]]
    centroid = (bbox[:, :2] + bbox[:, 2:]) / 2
    side = bbox[:, 2:] - bbox[:, :2]
    return ObjectTable(
        anchor=np.floor(centroid).astype(np.int64),
        class_id=np.asarray(class_id, np.uint8).reshape(-1),
        score=np.asarray(score, np.float32).reshape(-1),
        bbox=bbox,
        centroid=centroid,
        area_px=side.prod(axis=1),
        perimeter_px=2 * side.sum(axis=1),
        flags=np.zeros(len(xyxy), np.uint8),
    )


def reader(image):
    """The label image as a function of a box."""
    return lambda box: image[box.row0 : box.row1, box.col0 : box.col1]


def of_label_image(image, class_id, score=None, *, mpp=0.5):
    """An answer of instance segmentation: ids 1..n of ``image`` are the rows of its table."""
    boxes, centres = [], []
    for k in range(1, len(class_id) + 1):
        row, col = np.nonzero(image == k)
        boxes.append(
            (col.min(), row.min(), col.max() + 1, row.max() + 1) if len(row) else (0, 0, 1, 1)
        )
        centres.append((row.mean() + 0.5, col.mean() + 0.5) if len(row) else (0.5, 0.5))
    objects = table(boxes, class_id, np.ones(len(class_id)) if score is None else score)
    objects.centroid[:] = np.asarray(centres, np.float64).reshape(-1, 2)
    return Answer(frame(*image.shape, mpp=mpp), objects=objects, labels=reader(image))


def label_truth(image, class_id, classes):
    """Objects painted at level 0; ids of ``image`` are 1..n, all present."""
    extents, centres = [], []
    for k in range(1, len(class_id) + 1):
        row, col = np.nonzero(image == k)
        extents.append((col.min(), row.min(), col.max() + 1, row.max() + 1))
        centres.append((col.mean() + 0.5, row.mean() + 0.5))
    return LabelImage(
        np.asarray(image, np.int32),
        tuple(classes),
        "object",
        np.asarray(class_id, np.int64),
        np.asarray(extents, np.float64).reshape(-1, 4),
        np.asarray(centres, np.float64).reshape(-1, 2),
        np.arange(1, len(class_id) + 1),
    )


def region_truth(image, classes):
    """Regions painted at level 0: class + 1."""
    none = np.zeros(0, np.int64)
    return LabelImage(
        np.asarray(image, np.int32),
        tuple(classes),
        "region",
        none,
        np.zeros((0, 4)),
        np.zeros((0, 2)),
        none,
    )


def box_truth(xyxy, class_id, classes):
    """Rectangles as annotations."""
    xyxy = np.asarray(xyxy, np.float64).reshape(-1, 4)
    outlines = Polygons.boxes(xyxy[:, [1, 0, 3, 2]])
    return Annotations.of(
        outlines, np.asarray(class_id, np.int64).reshape(-1), classes=classes, kind="object"
    )


def point_truth(xy, class_id, classes):
    """Drawn points as annotations."""
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    n = len(xy)
    none = Polygons(
        xy=np.zeros((0, 2)),
        ring_starts=np.zeros(1, np.int64),
        polygon_starts=np.zeros(n + 1, np.int64),
    )
    return Annotations.of(
        none,
        np.asarray(class_id, np.int64).reshape(-1),
        classes=classes,
        kind="object",
        points_l0=xy,
    )


def tile_scores(cells, probability):
    """Tile rows of probabilities in 0-1."""
    rows = np.floor(np.asarray(probability, np.float64) * 65535 + 0.5).astype(np.uint16)
    return TileScores(
        np.asarray(cells, np.int32).reshape(-1, 2), rows, np.zeros((len(rows), 0), np.float16)
    )
