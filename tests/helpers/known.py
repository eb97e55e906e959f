"""A slide of which the left half is annotated, or all, or what is drawn: what is known of it can be
told apart from what is not."""

import numpy as np

from helpers import fields
from helpers.trainings import Planted
from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.training.truth import TrainingSlide

SLIDE = (96, 96)
HALF = 48
CELLS = [(r, c) for r in range(3) for c in range(3)]


class Rectangle:
    """A region truth that covers the left half of the slide."""

    classes = ("ROI",)

    def regions(self, box, scale):
        out = np.zeros(box.shape, np.uint8)
        inside = box.intersect(Box(0, 0, SLIDE[0], HALF))
        if not inside.empty:
            out[inside.slices_in(box)] = 1
        return out


def labels_of(seed):
    """Objects that all lie whole on one side of the middle, in the way that nothing touches across
    it."""
    labels = fields.disjoint_ellipses(np.random.default_rng(seed), SLIDE, n=60)
    crossing = np.unique(labels[:, HALF - 2 : HALF + 2])
    labels[np.isin(labels, crossing)] = 0
    return _numbered(labels)


def _numbered(labels):
    present = np.unique(labels[labels > 0])
    rename = np.zeros(labels.max() + 1, labels.dtype)
    rename[present] = np.arange(1, len(present) + 1)
    return rename[labels]


def joined(left, right):
    """The left half of one field and the right half of another, each object with its own number."""
    out = left.copy()
    out[:, HALF:] = np.where(right[:, HALF:] > 0, right[:, HALF:] + left.max(), 0)
    return _numbered(out)


class Truth(Planted):
    """Classes by place, so that the same object has the same class whatever else is drawn."""

    def __init__(self, labels):
        super().__init__(labels)
        first = [np.flatnonzero(labels == i + 1)[0] for i in range(labels.max())]
        self.class_id = np.array([index % 2 for index in first], np.int64)


def slide_of(labels, *, bounds=True, **options):
    rgb = np.random.default_rng(1).integers(0, 255, (*SLIDE, 3)).astype(np.uint8)
    truth = Truth(labels)
    source = source_of(ArraySlide(rgb, mpp=0.5), mpp=0.5)
    return TrainingSlide(
        "s", source, CELLS, SlideTruth(truth, truth, Rectangle() if bounds else None, **options)
    )


LEFT, RIGHT = labels_of(0), labels_of(1)
