from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.core.predictions import Candidates, MaskCandidates, mask_boxes
from quadrat.stitching.masks import pack
from quadrat.stitching.suppression import suppress

SOME = settings(deadline=None, derandomize=True, max_examples=150)


def candidates(rng, n, *, extent=400, sizes=(1, 120), scores=65536, classes=1):
    """Random boxes in 1/16 px, one a cell; few scores make ties."""
    corner = rng.integers(-extent, extent, (n, 2))
    side = rng.integers(*sizes, (n, 2))
    cells = rng.permutation(max(1, 4 * n))[:n]
    return Candidates(
        box=np.concatenate([corner, corner + side], axis=1).astype(np.int32),
        score=rng.integers(0, scores, n).astype(np.uint16),
        class_id=rng.integers(0, classes, n).astype(np.uint8),
        cell=np.stack([cells // 7, cells % 7], axis=1).astype(np.int32) * 4,
    )


def greedy(found, *, thousandths, class_aware):
    """The definition in plain Python: best first, ties by row, column, class; kept if no better
    kept box conflicts."""
    key = [
        (-int(s), *map(int, c), int(k))
        for s, c, k in zip(found.score, found.cell, found.class_id, strict=True)
    ]
    kept = []
    for i in sorted(range(len(found)), key=key.__getitem__):
        x0, y0, x1, y1 = map(int, found.box[i])
        for j in kept:
            a0, b0, a1, b1 = map(int, found.box[j])
            inter = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - inter
            same = not class_aware or found.class_id[i] == found.class_id[j]
            if same and inter * 1000 > thousandths * union:
                break
        else:
            kept.append(i)
    return kept


@SOME
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.sampled_from([(1, 20), (1, 120), (100, 101), (1, 3000)]),
    st.sampled_from([1, 3, 65536]),
    st.sampled_from([0, 1, 300, 400, 500, 999]),
    st.booleans(),
)
def test_suppression_equals_the_definition(seed, n, sizes, scores, thousandths, class_aware):
    found = candidates(np.random.default_rng(seed), n, sizes=sizes, scores=scores, classes=3)
    kept = suppress(found, iou=thousandths / 1000, class_aware=class_aware)
    assert kept.tolist() == greedy(found, thousandths=thousandths, class_aware=class_aware)


@SOME
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([1, 4, 65536]), st.booleans()
)
def test_the_order_of_the_input_leaves_the_kept_boxes_unchanged(seed, n, scores, class_aware):
    rng = np.random.default_rng(seed)
    found = candidates(rng, n, scores=scores, classes=2)
    order = rng.permutation(n)
    first = suppress(found, iou=0.4, class_aware=class_aware)
    second = order[suppress(found.take(order), iou=0.4, class_aware=class_aware)]
    assert first.tolist() == second.tolist()


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_kept_boxes_never_conflict_and_every_dropped_one_conflicts_with_a_better_one(seed, n):
    found = candidates(np.random.default_rng(seed), n, scores=5)
    kept = suppress(found, iou=0.3)
    assert suppress(found.take(kept), iou=0.3).tolist() == list(range(len(kept)))
    assert len(set(kept.tolist())) == len(kept)
    for i in set(range(n)) - set(kept.tolist()):
        with_kept = found.take(np.append(kept, i))
        assert len(suppress(with_kept, iou=0.3)) == len(kept)


@SOME
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.integers(-3000, 3000),
    st.integers(-3000, 3000),
)
def test_a_shift_moves_nothing_in_or_out(seed, n, down, right):
    found = candidates(np.random.default_rng(seed), n, scores=9)
    moved = replace(found, box=found.box + np.array([right, down, right, down], np.int32))
    assert suppress(found, iou=0.4).tolist() == suppress(moved, iou=0.4).tolist()


def test_of_equal_scores_the_first_in_raster_order_stays_and_then_the_lower_class():
    box = np.array([[0, 0, 100, 100]] * 4, np.int32)
    found = Candidates(
        box=box,
        score=np.full(4, 9, np.uint16),
        class_id=np.array([0, 2, 1, 0], np.uint8),
        cell=np.array([[4, 0], [0, 8], [0, 8], [4, 4]], np.int32),
    )
    assert suppress(found, iou=0.5).tolist() == [2]
    assert suppress(found, iou=0.5, class_aware=True).tolist() == [2, 1, 0]


def test_only_an_overlap_above_the_limit_conflicts():
    # 100 x 100 boxes 60 px apart share 40 x 100: 4000 / 16000 = exactly 0.25
    found = Candidates(
        box=np.array([[0, 0, 100, 100], [60, 0, 160, 100]], np.int32),
        score=np.array([2, 1], np.uint16),
        class_id=np.zeros(2, np.uint8),
        cell=np.array([[0, 0], [0, 4]], np.int32),
    )
    assert len(suppress(found, iou=0.25)) == 2
    assert len(suppress(found, iou=0.249)) == 1


def test_boxes_that_touch_or_lie_apart_never_conflict():
    found = Candidates(
        box=np.array([[0, 0, 16, 16], [16, 0, 32, 16], [0, 16, 16, 32]], np.int32),
        score=np.array([3, 2, 1], np.uint16),
        class_id=np.zeros(3, np.uint8),
        cell=np.array([[0, 0], [0, 4], [4, 0]], np.int32),
    )
    assert suppress(found, iou=0.0).tolist() == [0, 1, 2]


def test_a_chain_is_decided_from_its_best_end():
    # each conflicts with the next only; the second falls to the first, so the third stays
    n = 9
    x = np.arange(n) * 40
    found = Candidates(
        box=np.stack([x, 0 * x, x + 100, 0 * x + 100], axis=1).astype(np.int32),
        score=np.arange(n, 0, -1).astype(np.uint16),
        class_id=np.zeros(n, np.uint8),
        cell=np.stack([0 * x, x // 10], axis=1).astype(np.int32),
    )
    assert suppress(found, iou=0.3).tolist() == [0, 2, 4, 6, 8]


def test_boxes_far_apart_and_one_that_covers_all_are_decided_right():
    rng = np.random.default_rng(3)
    found = candidates(rng, 500, extent=1_500_000, sizes=(100, 400))
    everything = replace(found, box=found.box.copy())
    everything.box[0] = (-1_500_000, -1_500_000, 1_500_400, 1_500_400)
    for given_boxes in (
        found,
        replace(found, box=everything.box // 8000 * 16 + np.array([0, 0, 160, 160], np.int32)),
    ):
        kept = suppress(given_boxes, iou=0.4)
        assert kept.tolist() == greedy(given_boxes, thousandths=400, class_aware=False)


@pytest.mark.parametrize("iou", [0.0, 0.5])
def test_no_candidates_give_no_boxes(iou):
    kept = suppress(candidates(np.random.default_rng(0), 0), iou=iou)
    assert kept.dtype == np.int64
    assert kept.shape == (0,)


def masks(rng, n):
    """Random masks in boxes of whole px that overlap, and the pixels of each as a set."""
    corner, side = rng.integers(0, 40, (n, 2)), rng.integers(1, 14, (n, 2))
    bounds = np.concatenate([corner, corner + side], axis=1)
    inside = (rng.random(int(side.prod(axis=1).sum())) < 0.8).astype(np.uint8)
    box, area, starts, bits = pack(inside, bounds)
    cells = rng.permutation(4 * n)[:n]
    found = MaskCandidates(
        box=box,
        score=rng.integers(0, 4, n).astype(np.uint16),
        class_id=rng.integers(0, 2, n).astype(np.uint8),
        cell=np.stack([cells // 7, cells % 7], axis=1).astype(np.int32),
        area=area,
        flags=np.zeros(n, np.uint8),
        starts=starts,
        bits=bits,
    ).take(area > 0)
    pixels = []
    for i, (row0, col0, row1, col1) in enumerate(mask_boxes(found.box)):
        own = np.unpackbits(found.bits[found.starts[i] : found.starts[i + 1]])
        shape = row1 - row0, col1 - col0
        rows, cols = np.nonzero(own[: shape[0] * shape[1]].reshape(shape))
        pixels.append(set(zip((rows + row0).tolist(), (cols + col0).tolist(), strict=True)))
    return found, pixels


@SOME
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.sampled_from([0, 100, 250, 500, 999]),
    st.booleans(),
)
def test_suppression_by_masks_counts_the_pixels_that_both_hold(seed, n, thousandths, class_aware):
    found, pixels = masks(np.random.default_rng(seed), n)
    key = list(zip(-found.score.astype(int), *found.cell.T, found.class_id, strict=True))
    kept = []
    for i in sorted(range(len(found)), key=key.__getitem__):
        rivals = [j for j in kept if not class_aware or found.class_id[i] == found.class_id[j]]
        if not any(
            1000 * len(pixels[i] & pixels[j]) > thousandths * len(pixels[i] | pixels[j])
            for j in rivals
        ):
            kept.append(i)
    result = suppress(found, iou=thousandths / 1000, class_aware=class_aware, by_mask=True)
    assert result.tolist() == kept


def test_boxes_without_masks_cannot_be_compared_by_masks():
    with pytest.raises(TypeError, match="needs candidates with masks"):
        suppress(candidates(np.random.default_rng(0), 3), iou=0.4, by_mask=True)
