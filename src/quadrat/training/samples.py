"""Slides and their truth -> training samples, each a patch of a window and its targets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quadrat.config.pipeline import Augmentation
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box
from quadrat.core.predictions import Arrays
from quadrat.models.task import Crop, ModelSpec, Task
from quadrat.training.augment import augment_colour, random_patch
from quadrat.training.crops import cut, flipped, turned
from quadrat.training.truth import TrainingSlide, class_shares, shows_known, truth_window

CONTEXT = 32
"""px of truth around a window, so that objects that its border cuts keep their whole shape while
targets are made."""
Rgb = npt.NDArray[np.uint8]


def sample_margin(spec: ModelSpec, *, patch: int) -> int:
    """px beyond the window that patches need, so that they can move by half a core around every
    core."""
    return max(0, (patch + spec.lattice.core // 2 - spec.lattice.window + 1) // 2)


def sampling_box(around: Box, slide: Box, *, patch: int) -> Box:
    """The part of ``around`` from which patches are cut: what lies on the slide or a quarter patch
    next to it, and at least one patch. (Small flat images would else drown in the white around
    them.)"""
    inside = around.intersect(slide.pad(patch // 4))
    row0 = max(around.row0, min(inside.row0, around.row1 - patch))
    col0 = max(around.col0, min(inside.col0, around.col1 - patch))
    return Box(row0, col0, max(inside.row1, row0 + patch), max(inside.col1, col0 + patch))


class WindowSet:
    """All windows of the training slides, with a cache of their pixels and prepared targets.

    Windows of which nothing is known are left out, since nothing could be learnt from them.

    Raises:
        AnnotationError: there is no window at all, or none of which anything is known.
    """

    def __init__(
        self,
        slides: Sequence[TrainingSlide],
        task: Task,
        spec: ModelSpec,
        *,
        patch: int,
        cache_mb: int = 1500,
    ) -> None:
        """``patch``: side of a sample in px; ``cache_mb``: the most that the cache holds."""
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
        self._cache: OrderedDict[int, tuple[Rgb, Crop]] = OrderedDict()
        self._room = cache_mb * 2**20
        self._used = 0

    def __len__(self) -> int:
        return len(self._places)

    def slide_of(self, index: int) -> str:
        """The name of the slide that a window lies on."""
        return self._slides[self._places[index][0]].name

    def shares(self) -> npt.NDArray[np.float64]:
        """How often each window is to be drawn so that classes come equally often; see
        :func:`class_shares`."""
        windows = [(self._slides[index], cell) for index, cell in self._places]
        return class_shares(windows, self._spec)

    def window(self, index: int) -> tuple[Rgb, Crop]:
        """uint8 RGB (h, w, 3) and the prepared truth of one window."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        found = self._cache[index] = self._prepared(index)
        self._used += _bytes(*found)
        while self._used > self._room and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._used -= _bytes(*old)
        return found

    def _prepared(self, index: int) -> tuple[Rgb, Crop]:
        number, cell = self._places[index]
        slide, window = self._slides[number], self._spec.lattice.window_box(cell)
        around = window.pad(self._margin)
        box = sampling_box(around, slide.source.frame.box, patch=self._patch)
        rgb = slide.source.read(box)
        crop = self._task.prepare(truth_window(slide, box.pad(CONTEXT)), self._spec)
        return rgb, cut(crop, CONTEXT, CONTEXT, box.height, box.width)

    def sample(
        self, index: int, rng: np.random.Generator, *, augment: Augmentation
    ) -> tuple[Rgb, Arrays]:
        """One augmented patch of a window: uint8 RGB (patch, patch, 3) and the task's target
        arrays. It depends on the arguments alone."""
        rgb, crop = self.window(index)
        rgb, crop = random_patch(rgb, crop, rng, side=self._patch, how=augment)
        if rng.random() < 0.5:
            rgb, crop = rgb[:, ::-1], flipped(crop)
        for _ in range(int(rng.integers(0, 4))):
            rgb, crop = np.rot90(rgb), turned(crop)
        rgb = augment_colour(np.ascontiguousarray(rgb), rng, augment)
        return rgb, self._task.targets(crop, self._spec)


def _bytes(rgb: Rgb, crop: Crop) -> int:
    return rgb.nbytes + crop.boxes.nbytes + sum(a.nbytes for a in crop.maps.values())
