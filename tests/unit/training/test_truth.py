"""What nobody has annotated is learnt from by nobody: no loss and no gradient depends on it. And
how classes are balanced."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.known import CELLS, HALF, LEFT, RIGHT, SLIDE, Rectangle, Truth, joined, slide_of
from helpers.trainings import Planted, batch_of, spec_for
from quadrat.annotations.types import SlideTruth
from quadrat.config.pipeline import Augmentation
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import ClassInfo
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.tasks import get_task
from quadrat.training.batches import balanced, rounds
from quadrat.training.samples import WindowSet
from quadrat.training.truth import TrainingSlide, class_shares, truth_window

NONE = Augmentation()
TURNED = Augmentation(scale=0.3, rotate=30)
DENSE = ("semantic", "instance", "detection")


def learnt(task, slide, *, augment=NONE, steps=4, patch=48):
    """(losses, gradients) of some steps of an untrained network."""
    kind, spec = get_task(task), spec_for(task)
    data = WindowSet([slide], kind, spec, patch=patch)
    torch.manual_seed(0)
    model = kind.build(spec)
    losses, gradients = [], []
    for step in range(steps):
        rgb, targets = batch_of(data, step, size=4, seed=3, augment=augment)
        output = model(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255)
        terms = kind.loss(
            output, {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in targets.items()}, spec
        )
        model.zero_grad()
        terms["loss"].backward()
        losses.append({name: float(value.detach()) for name, value in terms.items()})
        gradients.append([p.grad.clone() for p in model.parameters()])
    return losses, gradients


def same(one, other):
    return one[0] == other[0] and all(
        torch.equal(a, b)
        for x, y in zip(one[1], other[1], strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_the_planted_fields_differ_in_the_right_half_alone():
    a, b = Truth(LEFT), Truth(joined(LEFT, RIGHT))
    whole = Box(0, 0, *SLIDE)
    one, other = a.regions(whole, Scale(1.0, 1.0)), b.regions(whole, Scale(1.0, 1.0))
    assert np.array_equal(one[:, :HALF], other[:, :HALF])
    assert (one[:, HALF:] != other[:, HALF:]).mean() > 0.1
    assert one[:, :HALF].any()


@pytest.mark.parametrize("augment", [NONE, TURNED], ids=["as it is", "turned and zoomed"])
@pytest.mark.parametrize("task", DENSE)
def test_truth_outside_the_bounds_changes_no_loss_and_no_gradient(task, augment):
    one = learnt(task, slide_of(LEFT), augment=augment)
    other = learnt(task, slide_of(joined(LEFT, RIGHT)), augment=augment)
    assert same(one, other)
    assert any(bool(g.any()) for g in one[1][0]), "something is learnt"
    # the comparison can fail: without bounds, and with another left half
    free = learnt(task, slide_of(LEFT, bounds=False), augment=augment)
    assert not same(
        free, learnt(task, slide_of(joined(LEFT, RIGHT), bounds=False), augment=augment)
    )
    assert not same(one, free)
    assert not same(one, learnt(task, slide_of(joined(RIGHT, LEFT)), augment=augment))


def test_an_object_that_reaches_over_the_border_is_learnt_only_if_its_centre_is_inside():
    """Detection: a peak's slope and its box must not come from an object outside."""
    kind, spec = get_task("detection"), spec_for("detection")

    def targets(col):
        labels = np.zeros(SLIDE, np.int32)
        labels[40:56, col : col + 16] = 1
        slide = slide_of(labels)
        crop = kind.prepare(truth_window(slide, Box(0, 0, *SLIDE)), spec)
        return kind.targets(crop, spec)

    outside, inside = targets(HALF - 6), targets(HALF - 10)
    assert not outside["heat"].any()
    assert not outside["weight"].any()
    assert (inside["heat"] == 1).sum() == 1


@pytest.mark.parametrize("task", DENSE)
def test_where_nothing_at_all_is_known_there_is_a_loss_that_teaches_nothing(task):
    slide = slide_of(LEFT)
    slide = replace(slide, cells=[(1, 2), (2, 2)], source=slide.source)
    kind, spec = get_task(task), spec_for(task)
    crop = kind.prepare(truth_window(slide, Box(0, HALF, 32, HALF + 32)), spec)
    targets = {
        n: torch.from_numpy(np.ascontiguousarray(a))[None]
        for n, a in kind.targets(crop, spec).items()
    }
    channels = 6 if task == "detection" else kind.storage(spec).channels
    side = 8 if task == "detection" else 32
    output = torch.randn(1, channels, side, side, requires_grad=True)
    terms = kind.loss(output, targets, spec)
    terms["loss"].backward()
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    assert not output.grad.any()


def test_of_a_slide_without_bounds_that_is_not_complete_only_what_is_drawn_is_known():
    slide = slide_of(LEFT, bounds=False, complete=False)
    window = truth_window(slide, Box(0, 0, *SLIDE))
    assert np.array_equal(window.known, window.regions > 0)
    assert truth_window(
        replace(slide, truth=replace(slide.truth, complete=True)), Box(0, 0, *SLIDE)
    ).known.all()
    assert np.array_equal(
        truth_window(slide_of(LEFT), Box(0, 0, *SLIDE)).known,
        Rectangle().regions(Box(0, 0, *SLIDE), 1) > 0,
    )


def test_semantic_classes_drawn_without_a_word_on_the_rest_teach_no_background():
    slide = slide_of(LEFT, bounds=False, complete=False)
    kind, spec = get_task("semantic"), spec_for("semantic")
    data = WindowSet([slide], kind, spec, patch=48)
    _, targets = batch_of(data, 0, size=8, seed=0, augment=TURNED)
    assert not (targets["classes"] == 0).any()
    assert (targets["classes"] > 0).any()
    assert (targets["classes"] == -1).any()


def test_windows_of_which_nothing_is_known_are_not_drawn():
    bounded = slide_of(LEFT)  # the left half is known
    seen = WindowSet([bounded], get_task("semantic"), spec_for("semantic"), patch=16)
    assert len(seen) < len(CELLS)
    assert len(
        WindowSet(
            [slide_of(LEFT, bounds=False)], get_task("semantic"), spec_for("semantic"), patch=16
        )
    ) == len(CELLS)
    nothing = replace(bounded, truth=SlideTruth(complete=False))
    with pytest.raises(
        AnnotationError, match="nothing is annotated in the tissue of any training slide"
    ):
        WindowSet([nothing], get_task("semantic"), spec_for("semantic"), patch=16)


def test_a_label_of_the_whole_slide_is_learnt_whatever_is_annotated():
    kind, spec = get_task("classification"), spec_for("classification")
    batches = []
    for options in ({"bounds": True}, {"bounds": False, "complete": False}, {"bounds": False}):
        slide = slide_of(LEFT, **options)
        slide = replace(slide, truth=replace(slide.truth, objects=None, regions=None, label=1))
        data = WindowSet([slide], kind, spec, patch=48)
        batches.append(batch_of(data, 0, size=4, seed=0, augment=NONE))
    for rgb, targets in batches:
        assert np.array_equal(rgb, batches[0][0])
        assert targets["label"].tolist() == [1] * 4


# -- balance


def sparse_slide(rare, n_cells=24, name="s", label=-1):
    """A slide whose windows all show class a, but ``rare`` windows, which show class b; and four
    windows with nothing."""
    spec = spec_for("detection")
    labels = np.zeros((32 * n_cells, 40), np.int32)
    class_id = []
    for row in range(n_cells - 4):
        labels[32 * row + 14 : 32 * row + 18, 14:18] = row + 1
        class_id.append(int(row < rare))
    truth = Planted.__new__(Planted)
    truth.labels, truth.class_id = np.pad(labels, 100), np.array(class_id, np.int64)
    rgb = np.full((*labels.shape, 3), 200, np.uint8)
    source = source_of(ArraySlide(rgb, mpp=0.5), mpp=0.5)
    slide = TrainingSlide(
        name, source, [(r, 0) for r in range(n_cells)], SlideTruth(truth, label=label)
    )
    return slide, spec


def test_rare_classes_and_windows_without_any_come_as_often_as_the_frequent_one():
    slide, spec = sparse_slide(rare=2)
    # neighbours see each other's objects in the halo unless it is small: a window of 48 px around
    # cores of 32 shows 8 px more
    shares = class_shares([(slide, cell) for cell in slide.cells], spec)
    assert shares.sum() == pytest.approx(1)
    by = np.array([2 if r >= 20 else int(r < 2) for r in range(24)])
    assert [shares[by == k].sum() for k in range(3)] == pytest.approx([1 / 3] * 3)
    data = WindowSet([slide], get_task("detection"), spec, patch=32)
    drawn = list(map(balanced(data.shares(), seed=7, batch=4), range(1200)))
    often = Counter(by[i] for i in drawn)
    # 1,200 draws at 1/3: a s.d. is 16
    assert all(abs(often[k] - 400) < 4 * 16.4 for k in range(3)), often
    unbalanced = Counter(by[i] for i in map(rounds(len(data), seed=7), range(1200)))
    assert unbalanced == {0: 900, 1: 100, 2: 200}
    assert len(set(drawn)) == 24, "no window is left out"


def test_slides_of_a_rare_label_are_drawn_as_often_as_the_others():
    slides = [sparse_slide(0, n_cells=4 + i, name=str(i), label=int(i == 2))[0] for i in range(4)]
    shares = class_shares(
        [(slide, cell) for slide in slides for cell in slide.cells],
        replace(spec_for("classification"), classes=(ClassInfo("a", (0, 0, 0)),) * 2),
    )
    of = np.repeat([0, 0, 1, 0], [4, 5, 6, 7])
    assert [shares[of == k].sum() for k in range(2)] == pytest.approx([0.5, 0.5])
