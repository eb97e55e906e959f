"""What is annotated around a window of a training slide, and how often classes are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box, Scale
from quadrat.core.lattice import CoreIndex
from quadrat.models.task import ModelSpec, TruthWindow
from quadrat.slides.source import PixelSource


@dataclass(frozen=True, slots=True)
class TrainingSlide:
    """A slide to learn from, or to evaluate on while training."""

    name: str
    """As the manifest has it."""
    source: PixelSource
    """Its pixels at the model's mpp."""
    cells: Sequence[CoreIndex]
    """The cores with tissue; a window lies around each."""
    truth: SlideTruth
    """What is annotated."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the annotations, or understood otherwise than it stands there; with
        the slide's name."""
        return self.truth.told(self.name)

    @property
    def scale(self) -> Scale:
        """Level-0 px per grid px."""
        return self.source.frame.scale


def truth_window(slide: TrainingSlide, box: Box) -> TruthWindow:
    """Everything annotated in a box of the slide's grid."""
    truth, scale = slide.truth, slide.scale
    labels, label_class = np.zeros(box.shape, np.int32), np.zeros(0, np.int64)
    boxes, box_class = np.zeros((0, 4)), np.zeros(0, np.int64)
    if truth.objects is not None:
        labels, label_class = truth.objects.instances(box, scale)
        xyxy, box_class = boxes_of(slide, box)
        boxes = xyxy[:, [1, 0, 3, 2]] - np.array([box.row0, box.col0, box.row0, box.col0])
    regions = np.zeros(box.shape, np.uint8)
    if truth.regions is not None:
        regions = truth.regions.regions(box, scale)
    if truth.bounds is not None:
        known = truth.bounds.regions(box, scale) > 0
    elif truth.complete:
        known = np.ones(box.shape, np.bool_)
    else:
        known = (regions > 0) | (labels > 0)
    return TruthWindow(
        labels=labels,
        label_class=label_class.astype(np.uint8),
        regions=regions,
        boxes=boxes,
        box_class=box_class.astype(np.uint8),
        label=truth.label,
        known=known,
    )


def boxes_of(
    slide: TrainingSlide, box: Box
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Boxes (n, 4) x0, y0, x1, y1 in grid px and classes (n,) of the objects annotated in a box."""
    objects = slide.truth.objects
    if objects is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    if slide.truth.point_diameter_um == 0:
        return objects.boxes(box, slide.scale)
    xy, class_id = objects.points(box, slide.scale)
    radius = slide.truth.point_diameter_um / slide.source.frame.mpp / 2
    return np.concatenate([xy - radius, xy + radius], axis=1), class_id


def shows_known(slide: TrainingSlide, box: Box) -> bool:
    """Whether anything in a box is known."""
    truth = slide.truth
    if truth.label >= 0 or (truth.bounds is None and truth.complete):
        return True
    if truth.bounds is not None:
        return bool(truth.bounds.regions(box, slide.scale).any())
    return len(boxes_of(slide, box)[0]) > 0 or (
        truth.regions is not None and bool(truth.regions.regions(box, slide.scale).any())
    )


def class_shares(
    windows: Sequence[tuple[TrainingSlide, CoreIndex]], spec: ModelSpec
) -> npt.NDArray[np.float64]:
    """How often each window (a slide and a core's cell) is to be drawn, (windows,) summing to 1, so
    that classes come equally often.

    A window's share is the mean, over the classes in it, of one over the number of windows with
    that class (class-aware sampling, Shen et al., ECCV 2016, for windows with several classes);
    windows without any count as one more class.
    """
    present = [_classes_in(slide, spec.lattice.window_box(cell)) for slide, cell in windows]
    shown = Counter(c for classes in present for c in classes)
    share = np.array([np.mean([1 / shown[c] for c in classes]) for classes in present], np.float64)
    share /= share.sum()
    return share


def _classes_in(slide: TrainingSlide, box: Box) -> tuple[int, ...]:
    """The classes that a window shows; (-1,) if it shows none."""
    truth = slide.truth
    if truth.label >= 0:
        return (truth.label,)
    found = set(boxes_of(slide, box)[1].tolist())
    if truth.regions is not None:
        painted = np.unique(truth.regions.regions(box, slide.scale)).astype(int)
        found |= set((painted - 1).tolist()) - {-1}
    return tuple(sorted(found)) or (-1,)
