"""Random truths and answers of every kind, and both compared by the METRICS."""

import numpy as np

from helpers import answers
from quadrat.annotations.types import SlideTruth
from quadrat.metrics import detection, instance
from quadrat.metrics.protocol import Answer, MetricSettings

CLASSES = ("a", "b", "c")


def class_maps(rng, shape=(40, 50)):
    truth = rng.integers(0, 4, shape)
    found = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, 4, shape))
    return truth.astype(np.uint8), found.astype(np.uint8)


def of_map(found, truth, **expected):
    answer = Answer(answers.frame(*found.shape), labels=answers.reader(found))
    return answer, SlideTruth(regions=answers.region_truth(truth, CLASSES), **expected)


def crowded(rng, n=60, classes=3, side=120):
    """Boxes in one crowd with integer corners, and scores of few values, so that ties and near
    misses abound."""
    low = rng.integers(0, side, (n, 2))
    size = rng.integers(6, 22, (n, 2))
    return (
        np.concatenate([low, low + size], axis=1),
        rng.integers(0, classes, n),
        rng.integers(1, 8, n) / 8,
    )


def moved(rng, boxes):
    out = boxes + rng.integers(-3, 4, boxes.shape)
    out[:, 2:] = np.maximum(out[:, 2:], out[:, :2] + 2)
    return out


def images(seed, n_images=4):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n_images):
        boxes, class_id, _ = crowded(rng, n=int(rng.integers(1, 60)))
        found = np.concatenate([moved(rng, boxes), moved(rng, boxes)[::2], crowded(rng, n=15)[0]])
        found_class = np.concatenate([class_id, class_id[::2], crowded(rng, n=15)[1]])
        out.append((boxes, class_id, found, found_class, rng.integers(1, 8, len(found)) / 8))
    return out


def measure_boxes(image, **settings):
    boxes, class_id, found, found_class, score = image
    answer = Answer(answers.frame(200, 200), objects=answers.table(found, found_class, score))
    return detection.METRICS.measure(
        answer,
        SlideTruth(objects=answers.box_truth(boxes, class_id, CLASSES)),
        classes=CLASSES,
        settings=MetricSettings(**settings),
    )


def compact(image, n=6, rng=None):
    present = np.unique(image[image > 0])
    return np.searchsorted(present, image) * (image > 0) + (image > 0), np.arange(
        len(present)
    ) % len(CLASSES)


def instances(truth, found, *, block=2048, score=None, bounds=None):
    (truth, truth_class), (found, found_class) = compact(truth), compact(found)
    answer = answers.of_label_image(found, found_class, score)
    expected = SlideTruth(objects=answers.label_truth(truth, truth_class, CLASSES), bounds=bounds)
    return instance.METRICS.measure(
        answer, expected, classes=CLASSES, settings=MetricSettings(block=block)
    )


def blobs(rng, shape=(96, 96), n=25):
    image = np.zeros(shape, np.int32)
    for k in range(1, n + 1):
        row, col = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 12)
        image[row : row + rng.integers(4, 12), col : col + rng.integers(4, 12)] = k
    return image


def assert_same(one, other):
    """Two values of one dataclass hold the same numbers, in nested dataclasses as well."""
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if hasattr(a, "__dataclass_fields__"):
            assert_same(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12)
