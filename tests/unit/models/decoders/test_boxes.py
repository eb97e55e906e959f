import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import foreign_maps as fm
from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.lattice import Lattice
from quadrat.core.objects import FLAG_CAPPED, Frame
from quadrat.core.predictions import Candidates
from quadrat.models.decoders import DECODERS
from quadrat.models.inference import is_finite
from quadrat.stitching.suppression import suppress
from quadrat.tasks import get_task

BOXES, MASKS = DECODERS["boxes"], DECODERS["masks"]
LATTICE = Lattice(core=32, halo=16, stride=1, shard=64)
SHAPE = (100, 90)
SOME = settings(deadline=None, derandomize=True, max_examples=25)


def chance(rng, n, *, classes=2):
    """Objects of a slide: boxes (n, 4), scores, labels from 1 on."""
    corner = rng.uniform(0, 80, (n, 2))
    box = np.concatenate([corner, corner + rng.uniform(2, 14, (n, 2))], axis=1)
    return (
        torch.from_numpy(box),
        torch.from_numpy(rng.uniform(0, 1, n)),
        torch.from_numpy(rng.integers(1, classes + 1, n)),
    )


def windows_of(objects, rng=None):
    """Each window's core and the objects whose box it sees as a whole, in px of the window, in any
    order."""
    frame = Frame(height=SHAPE[0], width=SHAPE[1], mpp=1.0, scale_row=1.0, scale_col=1.0)
    boxes, scores, labels = objects
    for cell in LATTICE.cores(frame.box):
        box = LATTICE.window_box(cell)
        seen = (boxes[:, 0] >= box.col0) & (boxes[:, 1] >= box.row0)
        seen &= (boxes[:, 2] <= box.col1) & (boxes[:, 3] <= box.row1)
        at = torch.nonzero(seen).flatten()
        at = at[torch.from_numpy(rng.permutation(len(at)))] if rng is not None else at
        moved = boxes[at] - torch.tensor([box.col0, box.row0] * 2)
        yield cell, {"boxes": [moved], "scores": [scores[at]], "labels": [labels[at]]}


def emitted(objects, rng=None, **head):
    spec = fm.spec_of(BOXES, fm.head_of(BOXES, classes=2, **head), LATTICE)
    task, found = get_task("detection"), []
    for cell, outputs in windows_of(objects, rng):
        output = BOXES.adapt(outputs, fm.head_of(BOXES, classes=2, **head))
        found += task.decode(task.answer(output, spec), [cell], spec)
    return found


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(0, 150))
def test_each_object_is_emitted_once_by_the_core_that_holds_its_centre(seed, n):
    rng = np.random.default_rng(seed)
    boxes, scores, labels = chance(rng, n)
    found = Candidates.concatenate(emitted((boxes, scores, labels), rng))
    whole = np.floor(boxes.numpy() * 16 + 0.5).astype(np.int32)
    wanted = sorted(
        (*box, round(float(score) * 65535), int(label) - 1)
        for box, score, label in zip(whole.tolist(), scores, labels, strict=True)
        if score >= 0.1
    )
    rows = zip(found.box.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
    assert sorted((*box, score, k) for box, score, k in rows) == wanted


@SOME
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_networks_list_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    objects = chance(rng, 80)
    one, other = emitted(objects), emitted(objects, rng)
    for a, b in zip(one, other, strict=True):
        for name in Candidates.COLUMNS:
            assert np.array_equal(getattr(a, name), getattr(b, name))
    assert len(suppress(Candidates.concatenate(one), iou=0.4)) > 0


def test_tensors_of_one_length_are_read_like_lists_and_padding_is_below_the_score():
    boxes, scores, labels = chance(np.random.default_rng(3), 20)
    cell, outputs = list(windows_of((boxes, scores, labels)))[1]
    n = len(outputs["scores"][0])
    assert n > 0
    padded = {
        "boxes": torch.cat([outputs["boxes"][0], torch.zeros(5, 4)])[None],
        "scores": torch.cat([outputs["scores"][0], torch.zeros(5)])[None],
        "labels": torch.cat([outputs["labels"][0], torch.zeros(5)])[None],
    }
    head = fm.head_of(BOXES, classes=2)
    for a, b in zip(
        BOXES.adapt(outputs, head).of_cores([cell], LATTICE),
        BOXES.adapt(padded, head).of_cores([cell], LATTICE),
        strict=True,
    ):
        assert np.array_equal(a.box, b.box)
        assert len(a) > 0


def test_boxes_by_centre_and_size_and_labels_from_nought_and_logits_are_options():
    given_ = {
        "boxes": torch.tensor([[[30.0, 40.0, 8.0, 4.0]]]),
        "scores": torch.zeros(1, 1),
        "labels": torch.zeros(1, 1, dtype=torch.int64),
    }
    head = fm.head_of(BOXES, activation="logits", options={"format": "cxcywh", "first_label": 0})
    found = BOXES.adapt(given_, head).of_cores([(0, 0)], LATTICE)[0]
    assert (found.box / 16 + 16).tolist() == [[26, 38, 34, 42]]  # the window begins at -16
    assert found.class_id.tolist() == [0]
    assert found.score.tolist() == [32768]


def test_a_batch_is_cut_and_cast_and_looked_through_for_nan():
    boxes, scores, labels = chance(np.random.default_rng(3), 4)
    given_ = {"boxes": [boxes] * 3, "scores": [scores] * 3, "labels": [labels] * 3}
    found = BOXES.adapt(given_, fm.head_of(BOXES, classes=2))
    assert len(found) == 3
    assert len(found[:2]) == 2
    kinds = {tensor.dtype for tensor in found.float().tensors()}
    assert kinds == {torch.float32, torch.int64}
    assert is_finite(found)
    boxes[0, 0] = torch.nan
    assert not is_finite(found[:1])


def test_a_label_without_a_class_is_named():
    outputs = {"boxes": torch.ones(1, 1, 4), "scores": torch.ones(1, 1)}
    outputs["labels"] = torch.full((1, 1), 7)
    found = BOXES.adapt(outputs, fm.head_of(BOXES, classes=2))
    with pytest.raises(PackageError, match=r"label 7, and the card has 2 classes from 1 on: name"):
        found.of_cores([(0, 0)], LATTICE)


def test_scores_that_are_no_probabilities_are_found_out():
    outputs = {"boxes": torch.ones(1, 1, 4), "scores": torch.full((1, 1), 3.0)}
    found = BOXES.adapt(outputs | {"labels": torch.ones(1, 1)}, fm.head_of(BOXES))
    with pytest.raises(PackageError, match=r"'scores' has 3 to 3, and the card says probabilities"):
        found.of_cores([(0, 0)], LATTICE)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, r"needs an output 'boxes', and the network gives none"),
        ({"boxes": torch.zeros(1, 3, 5)}, r"'boxes' of a window is float32 \(3, 5\).*\(n, 4\)"),
        ({"scores": torch.zeros(1, 2)}, r"'scores' of a window is float32 \(2,\).*with n = 3"),
        ({"labels": [torch.zeros(3, 2)]}, r"'labels' of a window is float32 \(3, 2\)"),
    ],
)
def test_outputs_of_a_wrong_shape_are_named_with_what_they_must_be(outputs, message):
    right = {"boxes": torch.zeros(1, 3, 4), "scores": torch.zeros(1, 3), "labels": [torch.zeros(3)]}
    with pytest.raises(PackageError, match=message):
        BOXES.adapt(right | outputs if outputs else {}, fm.head_of(BOXES))


def test_a_format_of_boxes_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match=r"option format is yolo; it must be xyxy or cxcywh"):
        BOXES.adapt({}, fm.head_of(BOXES, options={"format": "yolo"}))


def disc(row, col, radius, side=64):
    r, c = np.mgrid[:side, :side]
    return ((r - row) ** 2 + (c - col) ** 2 <= radius**2).astype(np.float32)


def masks_from(discs, *, scores=None):
    """What torchvision's Mask R-CNN answers for discs (row, col, radius) in one window."""
    masks = np.stack([disc(*one) for one in discs])
    boxes = [[c - r, y - r, c + r + 1, y + r + 1] for y, c, r in discs]
    return {
        "boxes": [torch.tensor(boxes, dtype=torch.float32)],
        "labels": [torch.ones(len(discs), dtype=torch.int64)],
        "scores": [torch.tensor(scores or [0.9] * len(discs))],
        "masks": [torch.from_numpy(masks)[:, None]],
    }


def test_masks_of_the_core_are_kept_pixel_by_pixel_and_those_cut_by_the_window_are_flagged():
    outputs = masks_from([(30, 30, 6), (5, 30, 4), (40, 40, 25)])
    found = MASKS.adapt(outputs, fm.head_of(MASKS)).of_cores([(1, 1)], LATTICE)[0]
    assert found.area.tolist() == [disc(30, 30, 6).sum(), disc(40, 40, 25).sum()]
    assert (found.flags & FLAG_CAPPED > 0).tolist() == [False, True]
    # the window of core (1, 1) begins at 16, 16
    assert found.cell.tolist() == [[46, 46], [56, 56]]
    assert found.box[0].tolist() == [16 * v for v in (40, 40, 53, 53)]


def test_a_mask_without_a_pixel_is_left_out():
    outputs = masks_from([(30, 30, 6), (30, 36, 6)])
    outputs["masks"][0][0] = 0
    found = MASKS.adapt(outputs, fm.head_of(MASKS)).of_cores([(1, 1)], LATTICE)[0]
    assert found.area.tolist() == [disc(30, 36, 6).sum()]


def test_a_mask_of_another_size_than_the_window_is_refused():
    outputs = masks_from([(30, 30, 6)])
    outputs["masks"] = [torch.ones(1, 1, 28, 28)]
    found = MASKS.adapt(outputs, fm.head_of(MASKS))
    with pytest.raises(PackageError, match=r"\(1, 1, 28, 28\), and a mask must cover the window o"):
        found.of_cores([(1, 1)], LATTICE)
