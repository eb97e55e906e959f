"""What a network says of a slide: scores in whole numbers, candidates with their masks."""

import numpy as np

from quadrat.core.predictions import SCORE_MAX, Candidates, MaskCandidates, quantise_score


def test_masks_are_taken_by_mask_and_slice_as_by_index():
    box = np.array([[0, 0, 48, 16], [16, 16, 80, 80], [0, 0, 16, 16]], np.int32)
    sizes = np.array([1, 2, 1])
    found = MaskCandidates(
        box=box,
        score=np.array([1, 2, 3], np.uint16),
        class_id=np.zeros(3, np.uint8),
        cell=np.zeros((3, 2), np.int32),
        area=np.array([3, 16, 1], np.int32),
        flags=np.zeros(3, np.uint8),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        bits=np.array([0b11100000, 255, 254, 128], np.uint8),
    )
    for index in (np.array([False, True, True]), slice(1, 3)):
        taken = found.take(index)
        assert taken.bits.tolist() == [255, 254, 128]
        assert taken.starts.tolist() == [0, 2, 3]
    assert type(found.boxes) is Candidates
    assert len(MaskCandidates.concatenate([])) == len(MaskCandidates.empty()) == 0


def test_scores_keep_their_order_in_sixteen_bits():
    score = np.linspace(-0.1, 1.1, 100_001)
    found = quantise_score(score)
    assert found.dtype == np.uint16
    assert (np.diff(found.astype(int)) >= 0).all()
    assert (found[0], found[-1]) == (0, SCORE_MAX)
    assert quantise_score(np.arange(SCORE_MAX + 1) / SCORE_MAX).tolist() == list(
        range(SCORE_MAX + 1)
    )
