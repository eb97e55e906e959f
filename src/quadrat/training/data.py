"""The material of a training: slides with their truth, and whether there is anything to learn from
them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quadrat.annotations.truth import load_truth, need_annotated
from quadrat.annotations.types import SlideTruth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import AnnotationError
from quadrat.core.lattice import CoreIndex
from quadrat.core.unit import PX, Mpp
from quadrat.models.task import ModelSpec, Task
from quadrat.slides.opening import open_slide
from quadrat.slides.source import PixelSource, believable_mpp
from quadrat.tasks import get_task
from quadrat.training.samples import WindowSet
from quadrat.training.truth import TrainingSlide

NOTES_SHOWN = 5
"""Notes on annotations that are reported before a training; the package's card has all of them."""


def training_slide(
    ref: SlideRef, pipeline: Pipeline, source: PixelSource, cells: Sequence[CoreIndex]
) -> TrainingSlide:
    """A slide of the manifest, its pixels and its truth.

    Raises:
        ConfigError: the slide's label is not a class of the pipeline. AnnotationError: a bad
            record, or objects of which nobody says where all of them are annotated.
    """
    frame = source.frame
    _, _, width, height = frame.scale.box_l0(frame.box)
    size = round(height), round(width)
    missing = math.ceil(max(frame.scale_row, frame.scale_col)) + 1
    truth = truth_of(ref, pipeline, size=size, mpp=frame.stated_mpp, tolerance=missing)
    return TrainingSlide(ref.name, source, cells, truth)


def truth_of(
    ref: SlideRef,
    pipeline: Pipeline,
    *,
    size: tuple[int, int],
    mpp: Mpp | None = None,
    tolerance: int = 1,
) -> SlideTruth:
    """What is known of a slide; ``size``, ``mpp`` and ``tolerance`` as for
    :func:`quadrat.annotations.truth.load_truth`.

    Raises:
        ConfigError, AnnotationError: see :func:`training_slide`.
    """
    names = [c.name for c in pipeline.classes]
    truth = load_truth(ref, pipeline.data, names, size=size, mpp=mpp, tolerance=tolerance)
    need_annotated(truth, ref, otherwise="nothing could be learnt as background")
    return truth


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to learn from one slide, found before its pixels are read."""

    classes: frozenset[int]
    """Class ids of what is annotated."""
    background: bool
    """Whether anything is known to be background."""
    notes: tuple[str, ...]
    """What a user should know of the annotations."""


def known_of(ref: SlideRef, pipeline: Pipeline) -> Known:
    """Read a slide's annotations and check them against its size and mpp.

    Raises:
        ConfigError, AnnotationError: see :func:`training_slide`. SlideError: the slide cannot be
            opened or states no mpp.
    """
    with open_slide(ref.path, mpp=ref.mpp, scene=ref.scene) as slide:
        mpp: Mpp = PX if pipeline.model.unit == PX else believable_mpp(slide)
        size = slide.levels[0].height, slide.levels[0].width
    truth = truth_of(ref, pipeline, size=size, mpp=mpp)
    classes = {truth.label} if truth.label >= 0 else set()
    for drawn in (truth.objects, truth.regions):
        classes |= set() if drawn is None else drawn.present()
    background = truth.complete or truth.bounds is not None
    return Known(frozenset(classes), background, truth.told(ref.name))


def check_material(slides: Sequence[Known], pipeline: Pipeline) -> list[str]:
    """Check that there is something to learn from the training slides; what a user should know of
    their annotations.

    Raises:
        AnnotationError: nothing of any class is annotated; there is one class alone and nothing to
            tell it from; or there is one class of regions and nowhere anything that is not of it.
    """
    names = [c.name for c in pipeline.classes]
    if not get_task(pipeline.task).has_background and len(names) < 2:
        raise AnnotationError(
            f"a classifier chooses among classes, but the only one is '{names[0]}'; name what else "
            "there is"
        )
    there = frozenset[int]().union(*(known.classes for known in slides))
    if not there:
        raise AnnotationError(
            f"none of the {len(slides)} training slides shows anything of the classes "
            f"{', '.join(names)}: there is nothing to learn ('quadrat annotations stats' tells "
            "what the files hold)"
        )
    regions = pipeline.data.annotations in ("regions", "mask")
    if regions and len(names) == 1 and not any(known.background for known in slides):
        raise AnnotationError(
            f"everything that is known of the training slides is '{names[0]}', so nothing could be "
            "learnt as background: fill the manifest's column 'annotated' with 'all', or with the "
            "class of the regions inside which every area is drawn"
        )
    missing = [name for k, name in enumerate(names) if k not in there]
    notes = [f"no training slide shows '{name}'; it cannot be learnt" for name in missing]
    of_slides = [note for known in slides for note in known.notes]
    hidden = len(of_slides) - NOTES_SHOWN
    more = [f"and {hidden} more"] if hidden > 0 else []
    return notes + of_slides[:NOTES_SHOWN] + more


def check_partial(slide: TrainingSlide, task: Task) -> None:
    """Check that a task can learn from a slide of which not everything is known.

    Raises:
        AnnotationError: it learns from slides that are annotated completely, and this one is not.
    """
    whole = slide.truth.bounds is None and slide.truth.complete
    if not task.learns_from_partial and not whole:
        raise AnnotationError(
            f"{slide.name}: the task {task.name} learns from slides that are annotated completely: "
            "say annotated=all in the manifest where they are, or use the task 'instance', which "
            "can leave out what is not"
        )


def window_set(
    slides: Sequence[TrainingSlide], task: Task, spec: ModelSpec, pipeline: Pipeline
) -> WindowSet:
    """The windows from which training samples are cut.

    Raises:
        AnnotationError: see :func:`check_partial` and :class:`WindowSet`.
    """
    for slide in slides:
        check_partial(slide, task)
    train = pipeline.train
    return WindowSet(slides, task, spec, patch=train.patch, cache_mb=train.cache_mb)
