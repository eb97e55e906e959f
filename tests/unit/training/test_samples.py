import numpy as np
import pytest
from hypothesis import settings
from scipy import ndimage

from helpers import fields
from helpers.trainings import batch_of
from quadrat.annotations.types import SlideTruth
from quadrat.config.pipeline import Augmentation
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.models.task import ModelSpec
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.tasks import get_task
from quadrat.training.samples import WindowSet, sample_margin
from quadrat.training.truth import TrainingSlide, boxes_of, truth_window

MILD = Augmentation(stain=0.1, scale=0.1, rotate=5)
SOME = settings(deadline=None, derandomize=True, max_examples=80)
SLIDE = (150, 170)


class Planted:
    """A truth held in memory: a label field and a class for each label, at a scale of 1."""

    classes = ("a", "b")

    def __init__(self, labels, class_id):
        self.labels, self.class_id = labels, class_id.astype(np.int64)

    def _window(self, array, box):
        out = np.zeros(box.shape, array.dtype)
        inside = box.intersect(Box(0, 0, *array.shape))
        if not inside.empty:
            out[inside.slices_in(box)] = array[inside.row0 : inside.row1, inside.col0 : inside.col1]
        return out

    def instances(self, box, scale):
        assert scale == Scale(1.0, 1.0)
        part = self._window(self.labels, box)
        present = np.unique(part[part > 0])
        rename = np.zeros(len(self.class_id) + 1, np.int32)
        rename[present] = np.arange(1, len(present) + 1)
        return rename[part], self.class_id[present - 1]

    def regions(self, box, scale):
        by_label = np.concatenate([[0], self.class_id + 1]).astype(np.uint8)
        return self._window(by_label[self.labels], box)

    def boxes(self, box, scale):
        rows = [
            (w[1].start, w[0].start, w[1].stop, w[0].stop)
            for w in ndimage.find_objects(self.labels)
        ]
        xyxy = np.array(rows, np.float64).reshape(-1, 4)
        meets = (
            (xyxy[:, 0] < box.col1)
            & (xyxy[:, 2] > box.col0)
            & (xyxy[:, 1] < box.row1)
            & (xyxy[:, 3] > box.row0)
        )
        return xyxy[meets], self.class_id[meets]

    def points(self, box, scale):
        xyxy, class_id = self.boxes(Box(0, 0, *self.labels.shape), scale)
        xy = (xyxy[:, :2] + xyxy[:, 2:]) / 2
        inside = (xy >= [box.col0, box.row0]).all(axis=1) & (xy < [box.col1, box.row1]).all(axis=1)
        return xy[inside], class_id[inside]


def spec_for(task, **lattice):
    return ModelSpec(
        task=task,
        classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
        mpp=0.5,
        lattice=Lattice(**({"core": 48, "halo": 16, "stride": 8, "shard": 96} | lattice)),
        widths=(4, 6, 8),
        thresholds={},
    )


def slide_for(seed=0, *, label=-1, regions=True, **options):
    """A slide whose red channel tells the label and whose green channel tells the class + 1."""
    rng = np.random.default_rng(seed)
    labels = fields.disjoint_ellipses(rng, SLIDE, n=60)
    assert 5 < labels.max() < 250
    truth = Planted(labels, fields.random_classes(labels, 2, seed))
    rgb = rng.integers(0, 256, (*SLIDE, 3)).astype(np.uint8)
    rgb[..., 0] = labels
    rgb[..., 1] = truth.regions(Box(0, 0, *SLIDE), Scale(1.0, 1.0))
    source = source_of(ArraySlide(rgb, mpp=0.5), mpp=0.5)
    cells = [(r, c) for r in range(3) for c in range(3)]
    return TrainingSlide(
        f"s{seed}",
        source,
        cells,
        SlideTruth(truth, truth if regions else None, label=label, **options),
    )


@pytest.mark.parametrize(
    "box",
    [Box(0, 0, *SLIDE), Box(-20, 30, 60, 100), Box(100, 120, 200, 260), Box(400, 400, 410, 410)],
)
def test_a_truth_window_holds_everything_in_its_own_frame(box):
    slide = slide_for(label=1)
    window = truth_window(slide, box)
    rgb = slide.source.read(box)
    on_slide = box.intersect(Box(0, 0, *SLIDE))
    where = on_slide.slices_in(box) if not on_slide.empty else np.s_[:0, :0]
    assert np.array_equal(window.labels[where] > 0, rgb[where][..., 0] > 0)
    assert np.array_equal(window.regions[where], rgb[where][..., 1])
    assert len(window.label_class) == window.labels.max(initial=0)
    assert window.label == 1
    by_label = np.concatenate([[0], window.label_class + 1])[window.labels]
    assert np.array_equal(by_label, window.regions)
    for (row0, col0, row1, col1), class_id in zip(
        window.boxes.astype(int), window.box_class, strict=True
    ):
        inside = window.regions[max(0, row0) : max(0, row1), max(0, col0) : max(0, col1)]
        assert (inside == class_id + 1).any()


def test_points_count_as_boxes_of_the_stated_diameter():
    slide = slide_for(point_diameter_um=4.0)
    xyxy, class_id = boxes_of(slide, Box(0, 0, *SLIDE))
    assert len(class_id) == slide.truth.objects.labels.max()
    assert (xyxy[:, 2:] - xyxy[:, :2] == 8).all()
    whole = slide.truth.objects.boxes(Box(0, 0, *SLIDE), Scale(1.0, 1.0))[0]
    assert np.allclose(xyxy[:, :2] + xyxy[:, 2:], whole[:, :2] + whole[:, 2:])


@pytest.mark.parametrize("patch", [32, 80, 96, 128])
def test_patches_reach_half_a_core_around_every_core(patch):
    spec = spec_for("instance")
    room = spec.lattice.window + 2 * sample_margin(spec, patch=patch) - patch
    assert room >= min(
        spec.lattice.core // 2,
        spec.lattice.window - patch if patch < spec.lattice.window else 10**9,
    )


@pytest.mark.parametrize("task", ["instance", "semantic", "detection", "classification"])
def test_pixels_and_targets_of_a_sample_show_the_same_place(task):
    data = WindowSet([slide_for()], get_task(task), spec_for(task), patch=48)
    agreed = 0
    for step in range(12):
        rgb, targets = batch_of(data, step, size=2, seed=5, augment=Augmentation())
        assert rgb.shape == (2, 48, 48, 3)
        assert rgb.dtype == np.uint8
        for i in range(2):
            # green tells class + 1 on the slide and 255 outside it
            seen = np.where(rgb[i, ..., 1] == 255, 0, rgb[i, ..., 1])
            if task in ("instance", "semantic"):
                assert np.array_equal(targets["classes"][i], seen)
                agreed += int(seen.sum() > 0)
            elif task == "classification":
                cover = np.bincount(seen.ravel(), minlength=3)[1:]
                assert targets["label"][i] == (cover.argmax() if cover.any() else -1)
                agreed += int(cover.any())
            else:
                for class_id, row, col in zip(*np.nonzero(targets["heat"][i] == 1), strict=True):
                    block = seen[4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
                    assert (block == class_id + 1).any()
                    agreed += 1
    assert agreed > 5


def test_samples_are_a_pure_function_of_seed_and_step():
    task, spec = get_task("instance"), spec_for("instance")

    def fresh(**options):
        return WindowSet([slide_for(0), slide_for(1)], task, spec, patch=48, **options)

    first, second, tight = fresh(), fresh(), fresh(cache_mb=0)
    for step in (3, 0, 11, 3):  # other steps before it must not matter, nor what the cache holds
        rgb, targets = batch_of(first, step, size=3, seed=7, augment=MILD)
        for other in (
            batch_of(second, step, size=3, seed=7, augment=MILD),
            batch_of(tight, step, size=3, seed=7, augment=MILD),
        ):
            assert np.array_equal(rgb, other[0])
            assert targets.keys() == other[1].keys()
            assert all(np.array_equal(targets[n], other[1][n]) for n in targets)
        second = fresh()
    assert not np.array_equal(
        batch_of(first, 0, size=3, seed=7, augment=MILD)[0],
        batch_of(first, 0, size=3, seed=8, augment=MILD)[0],
    )
    assert not np.array_equal(
        batch_of(first, 0, size=3, seed=7, augment=MILD)[0],
        batch_of(first, 1, size=3, seed=7, augment=MILD)[0],
    )


def test_samples_never_write_into_the_cache():
    data = WindowSet([slide_for()], get_task("instance"), spec_for("instance"), patch=48)
    before = [
        (rgb.copy(), crop.maps["classes"].copy())
        for rgb, crop in map(data.window, range(len(data)))
    ]
    for step in range(6):
        batch_of(data, step, size=4, seed=1, augment=Augmentation(stain=0.3))
    for index, (rgb, classes) in enumerate(before):
        assert np.array_equal(data.window(index)[0], rgb)
        assert np.array_equal(data.window(index)[1].maps["classes"], classes)


def test_without_windows_there_is_nothing_to_train_on():
    with pytest.raises(AnnotationError, match="nothing to train on"):
        WindowSet([], get_task("instance"), spec_for("instance"), patch=48)
