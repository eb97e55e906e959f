"""One-to-one matching of boxes and of points against examples worked by hand."""

import numpy as np
import pytest

from quadrat.metrics.matching import match_boxes, match_points


def match(truth, found, score, truth_class=None, found_class=None):
    zeros = np.zeros(max(len(truth), len(found)), np.int64)
    return match_boxes(
        np.array(truth, float).reshape(-1, 4),
        np.array(found, float).reshape(-1, 4),
        np.array(score, float),
        truth_class=zeros[: len(truth)] if truth_class is None else np.array(truth_class),
        found_class=zeros[: len(found)] if found_class is None else np.array(found_class),
    )


def test_two_found_boxes_cannot_claim_one_truth_and_the_better_score_wins():
    got = match([[0, 0, 10, 10]], [[0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8])
    assert (got.truth.tolist(), got.found.tolist()) == ([0], [0])
    assert got.value[0] == pytest.approx(0.9)


def test_an_iou_of_exactly_one_half_matches_a_box():
    assert len(match([[0, 0, 10, 10]], [[0, 0, 10, 5]], [1]).truth) == 1
    assert len(match([[0, 0, 10, 10]], [[0, 0, 10, 4.99]], [1]).truth) == 0


def test_boxes_of_another_class_do_not_match():
    assert len(match([[0, 0, 1, 1]], [[0, 0, 1, 1]], [1], [0], [1]).truth) == 0


def test_nothing_found_and_nothing_planted_are_no_error():
    assert len(match([], [[0, 0, 1, 1]], [1]).truth) == 0
    assert len(match([[0, 0, 1, 1]], [], []).truth) == 0


def test_matching_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 40, (60, 2)).astype(float)
    boxes = np.concatenate([corner, corner + rng.integers(4, 12, (60, 2))], axis=1)
    boxes = np.unique(boxes, axis=0)
    truth, score = boxes + 1.0, rng.integers(1, 4, len(boxes)) / 4
    one = match(truth, boxes, score)
    p, q = rng.permutation(len(truth)), rng.permutation(len(boxes))
    two = match(truth[p], boxes[q], score[q])
    assert set(zip(one.truth, one.found, strict=True)) == set(
        zip(p[two.truth], q[two.found], strict=True)
    )


def test_points_match_the_nearest_first_within_the_distance():
    truth, found = np.array([[0.0, 0], [10, 0]]), np.array([[4.0, 0], [9, 0], [30, 0]])
    zeros = np.zeros(3, np.int64)
    got = match_points(
        truth, found, truth_class=zeros[:2], found_class=zeros, mpp=0.5, distance_um=2.0
    )
    assert sorted(zip(got.truth.tolist(), got.found.tolist(), got.value.tolist(), strict=True)) == [
        (0, 0, 2.0),
        (1, 1, 0.5),
    ]


def test_no_points_at_all_are_no_error():
    none, zeros = np.zeros((0, 2)), np.zeros(0, np.int64)
    got = match_points(none, none, truth_class=zeros, found_class=zeros, mpp=0.5, distance_um=2.0)
    assert len(got.truth) == 0
