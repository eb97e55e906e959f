"""Slides and their truth -> training samples. A sample is a pure function of (seed, step, index),
so a resumed training sees what the uninterrupted one would have seen."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from quadrat.annotations.types import SlideTruth
from quadrat.config.pipeline import Augmentation
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex
from quadrat.core.predictions import Arrays
from quadrat.models.task import Crop, ModelSpec, Task, TruthWindow
from quadrat.slides.source import PixelSource
from quadrat.training.augment import augment_colour, random_patch

CONTEXT = 32
"""px of truth around a window, so that objects cut by its border keep their whole shape while
targets are made."""
Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TrainingSlide:
    """A slide to learn from, or to be judged on while training. ``cells``: the cores to sample
    around."""

    name: str
    source: PixelSource
    cells: Sequence[CoreIndex]
    truth: SlideTruth

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the annotations, or taken otherwise than it stands there; with the
        slide's name."""
        return self.truth.told(self.name)


def sample_margin(spec: ModelSpec, *, patch: int) -> int:
    """px beyond the window that patches need, so that they can move by half a core around every
    core."""
    return max(0, (patch + spec.lattice.core // 2 - spec.lattice.window + 1) // 2)


def sampling_box(around: Box, slide: Box, *, patch: int) -> Box:
    """The part of ``around`` from which patches are cut: what lies on the slide or a quarter patch
    beside it, and at least one patch (small flat images are not to be drowned in the white around
    them)."""
    inside = around.intersect(slide.pad(patch // 4))
    row0 = max(around.row0, min(inside.row0, around.row1 - patch))
    col0 = max(around.col0, min(inside.col0, around.col1 - patch))
    return Box(row0, col0, max(inside.row1, row0 + patch), max(inside.col1, col0 + patch))


def truth_window(slide: TrainingSlide, box: Box) -> TruthWindow:
    """Everything annotated in a box of the slide's grid."""
    frame = slide.source.frame
    scale = frame.scale
    labels, label_class = np.zeros(box.shape, np.int32), np.zeros(0, np.int64)
    boxes, box_class = np.zeros((0, 4)), np.zeros(0, np.int64)
    if slide.truth.objects is not None:
        labels, label_class = slide.truth.objects.instances(box, scale)
        xyxy, box_class = boxes_of(slide, box)
        boxes = xyxy[:, [1, 0, 3, 2]] - np.array([box.row0, box.col0, box.row0, box.col0])
    regions = (
        np.zeros(box.shape, np.uint8)
        if slide.truth.regions is None
        else slide.truth.regions.regions(box, scale)
    )
    if slide.truth.bounds is not None:
        known = slide.truth.bounds.regions(box, scale) > 0
    else:
        known = (
            np.ones(box.shape, np.bool_) if slide.truth.complete else (regions > 0) | (labels > 0)
        )
    return TruthWindow(
        labels=labels,
        label_class=label_class.astype(np.uint8),
        regions=regions,
        boxes=boxes,
        box_class=box_class.astype(np.uint8),
        label=slide.truth.label,
        known=known,
    )


def boxes_of(
    slide: TrainingSlide, box: Box
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Boxes (n, 4) x0, y0, x1, y1 in grid px and classes (n,) of the objects annotated in a box."""
    frame = slide.source.frame
    scale = frame.scale
    if slide.truth.objects is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    if slide.truth.point_diameter_um == 0:
        return slide.truth.objects.boxes(box, scale)
    xy, class_id = slide.truth.objects.points(box, scale)
    radius = slide.truth.point_diameter_um / frame.mpp / 2
    return np.concatenate([xy - radius, xy + radius], axis=1), class_id


class WindowSet:
    """All sampling windows of the training slides, with a byte-bounded cache of pixels and prepared
    targets."""

    def __init__(
        self,
        slides: Sequence[TrainingSlide],
        task: Task,
        spec: ModelSpec,
        *,
        patch: int,
        cache_mb: int = 1500,
        balance: bool = False,
    ) -> None:
        self._slides, self._task, self._spec, self._patch = slides, task, spec, patch
        self._margin = sample_margin(spec, patch=patch)
        places = [(index, cell) for index, slide in enumerate(slides) for cell in slide.cells]
        if not places:
            raise AnnotationError("there is nothing to train on: no training slide has tissue")
        self._places = [
            (index, cell)
            for index, cell in places
            if shows_known(slides[index], spec.lattice.window_box(cell))
        ]
        if not self._places:
            raise AnnotationError(
                "there is nothing to train on: nothing is annotated in the tissue of any training "
                "slide"
            )
        self._share = (
            class_shares([(slides[index], cell) for index, cell in self._places], spec)
            if balance
            else None
        )
        self._cache: OrderedDict[int, tuple[Rgb, Crop]] = OrderedDict()
        self._room = cache_mb * 2**20
        self._used = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._places)

    def window(self, index: int) -> tuple[Rgb, Crop]:
        """uint8 RGB (h, w, 3) and the prepared truth of one sampling window."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        number, cell = self._places[index]
        slide = self._slides[number]
        frame = slide.source.frame
        box = sampling_box(
            self._spec.lattice.window_box(cell).pad(self._margin), frame.box, patch=self._patch
        )
        rgb = slide.source.read(box)
        around = self._task.prepare(truth_window(slide, box.pad(CONTEXT)), self._spec)
        crop = cut(around, CONTEXT, CONTEXT, box.height, box.width)
        with self._lock:
            self._cache[index] = (rgb, crop)
            self._used += _bytes(rgb, crop)
            while self._used > self._room and len(self._cache) > 1:
                _, old = self._cache.popitem(last=False)
                self._used -= _bytes(*old)
        return rgb, crop

    def sample(
        self, index: int, rng: np.random.Generator, *, augment: Augmentation
    ) -> tuple[Rgb, Arrays]:
        """One augmented patch: uint8 RGB (patch, patch, 3) and the task's target arrays."""
        rgb, crop = self.window(index)
        rgb, crop = random_patch(rgb, crop, rng, side=self._patch, how=augment)
        if rng.random() < 0.5:
            rgb, crop = rgb[:, ::-1], flipped(crop)
        for _ in range(int(rng.integers(0, 4))):
            rgb, crop = np.rot90(rgb), turned(crop)
        return augment_colour(np.ascontiguousarray(rgb), rng, augment), self._task.targets(
            crop, self._spec
        )

    def indices(self, step: int, *, size: int, seed: int) -> list[int]:
        """The windows of one step's batch: in a shuffled round, or drawn so that classes are
        balanced."""
        n = len(self)
        if self._share is not None:
            return [
                int(np.random.default_rng([seed, step, i, 2]).choice(n, p=self._share))
                for i in range(size)
            ]
        places = [divmod(step * size + i, n) for i in range(size)]
        return [
            int(np.random.default_rng([seed, turn]).permutation(n)[place]) for turn, place in places
        ]

    def names(self, step: int, *, size: int, seed: int) -> list[str]:
        """The slides of one step's batch, each once."""
        indices = self.indices(step, size=size, seed=seed)
        return list(dict.fromkeys(self._slides[self._places[i][0]].name for i in indices))

    def batch(
        self, step: int, *, size: int, seed: int, augment: Augmentation, part: slice = slice(None)
    ) -> tuple[Rgb, Arrays]:
        """The batch of one step (or a ``part`` of it): uint8 (n, patch, patch, 3) and stacked
        targets."""
        chosen = list(enumerate(self.indices(step, size=size, seed=seed)))[part]
        samples = [
            self.sample(index, np.random.default_rng([seed, step, i, 1]), augment=augment)
            for i, index in chosen
        ]
        names = samples[0][1]
        return np.stack([s[0] for s in samples]), {
            n: np.stack([s[1][n] for s in samples]) for n in names
        }


def shows_known(slide: TrainingSlide, box: Box) -> bool:
    """Whether anything in a box is known: of a window that shows nothing known
    nothing is learnt.
    """
    truth, scale = slide.truth, slide.source.frame.scale
    if truth.label >= 0 or (truth.bounds is None and truth.complete):
        return True
    if truth.bounds is not None:
        return bool(truth.bounds.regions(box, scale).any())
    return len(boxes_of(slide, box)[0]) > 0 or (
        truth.regions is not None and bool(truth.regions.regions(box, scale).any())
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
    if slide.truth.label >= 0:
        return (slide.truth.label,)
    found = set(boxes_of(slide, box)[1].tolist())
    if slide.truth.regions is not None:
        frame = slide.source.frame
        found |= set(np.unique(slide.truth.regions.regions(box, frame.scale)).astype(int) - 1) - {
            -1
        }
    return tuple(sorted(found)) or (-1,)


def _bytes(rgb: Rgb, crop: Crop) -> int:
    return rgb.nbytes + crop.boxes.nbytes + sum(a.nbytes for a in crop.maps.values())


def cut(crop: Crop, row: int, col: int, height: int, width: int) -> Crop:
    """The part of a crop's truth; boxes whose centre lies outside are dropped, the others may reach
    outside."""
    boxes = crop.boxes - np.array([row, col, row, col], np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre >= 0).all(axis=1) & (centre[:, 0] < height) & (centre[:, 1] < width)
    return Crop(
        shape=(height, width),
        maps={name: a[row : row + height, col : col + width] for name, a in crop.maps.items()},
        boxes=boxes[inside],
        box_class=crop.box_class[inside],
        label=crop.label,
    )


def flipped(crop: Crop) -> Crop:
    """Mirrored left to right."""
    width = crop.shape[1]
    row0, col0, row1, col1 = crop.boxes.T
    boxes = np.stack([row0, width - col1, row1, width - col0], axis=1)
    return Crop(
        crop.shape, {n: a[:, ::-1] for n, a in crop.maps.items()}, boxes, crop.box_class, crop.label
    )


def turned(crop: Crop) -> Crop:
    """Turned by 90 degrees as ``np.rot90`` does (anticlockwise)."""
    height, width = crop.shape
    row0, col0, row1, col1 = crop.boxes.T
    boxes = np.stack([width - col1, row0, width - col0, row1], axis=1)
    return Crop(
        (width, height),
        {n: np.rot90(a) for n, a in crop.maps.items()},
        boxes,
        crop.box_class,
        crop.label,
    )
