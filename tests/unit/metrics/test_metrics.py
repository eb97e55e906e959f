"""Metrics against examples worked by hand and against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quadrat.metrics import classification, counts, detection, instance, semantic

LABELS = hnp.arrays(np.int32, (7, 9), elements=st.integers(0, 4))


def overlaps(truth, found):
    return instance.Overlaps.of(instance.OverlapCounts.of(np.asarray(truth), np.asarray(found)))


def test_panoptic_quality_of_a_hand_worked_row():
    # truth 1 has 4 px of which found 7 covers 3 (IoU 3/4); truth 2 and found 8 share 1 of 3 px (no
    # match)
    truth = [[1, 1, 1, 1, 0, 2, 2, 0]]
    found = [[7, 7, 7, 0, 0, 0, 8, 8]]
    quality = instance.panoptic_quality(overlaps(truth, found))
    assert (quality.matched, quality.missed, quality.extra) == (1, 1, 1)
    assert quality.sq == pytest.approx(0.75)
    assert quality.dq == pytest.approx(0.5)
    assert quality.pq == pytest.approx(0.375)


def test_an_iou_of_exactly_one_half_does_not_match():
    assert instance.panoptic_quality(overlaps([[1, 1]], [[5, 0]])).matched == 0


def test_classes_never_match_across():
    table = overlaps([[1, 1, 0, 2, 2]], [[3, 3, 0, 4, 4]])
    by_class = instance.panoptic_quality_by_class(
        table, np.array([0, 1]), np.array([0, 0]), n_classes=3
    )
    assert [(q.matched, q.missed, q.extra) for q in by_class] == [(1, 0, 1), (0, 1, 0), (0, 0, 0)]
    assert by_class[0].pq == pytest.approx(1 / 1.5)
    assert np.isnan(by_class[2].pq)


def test_aggregated_jaccard_of_a_hand_worked_row():
    # 3 shared of 4 for the first; 1 shared of 3 for the second; found 9 (2 px) is used by nobody: 4
    # / (4 + 3 + 2)
    truth = [[1, 1, 1, 1, 0, 2, 2, 0, 0, 0]]
    found = [[7, 7, 7, 0, 0, 0, 8, 8, 9, 9]]
    assert instance.aggregated_jaccard(overlaps(truth, found)) == pytest.approx(4 / 9)


def brute_quality(truth, found):
    ious = []
    for t, f in itertools.product(set(truth.flat) - {0}, set(found.flat) - {0}):
        iou = ((truth == t) & (found == f)).sum() / ((truth == t) | (found == f)).sum()
        if iou > 0.5:
            ious.append(iou)
    return len(ious), sum(ious)


def brute_aji(truth, found):
    shared, union, used = 0, 0, set()
    for t in sorted(set(truth.flat) - {0}):
        pairs = [((truth == t) & (found == f)).sum() for f in range(5)]
        unions = [((truth == t) | (found == f)).sum() for f in range(5)]
        ious = [pairs[f] / unions[f] if f and pairs[f] else 0 for f in range(5)]
        best = int(np.argmax(ious))
        if ious[best] == 0:
            union += (truth == t).sum()
        else:
            shared, union = shared + pairs[best], union + unions[best]
            used.add(best)
    union += sum((found == f).sum() for f in set(found.flat) - {0} - used)
    return shared / union if union else float("nan")


@settings(max_examples=60, deadline=None)
@given(LABELS, LABELS)
def test_instance_figures_equal_brute_force(truth, found):
    table = overlaps(truth, found)
    quality = instance.panoptic_quality(table)
    matched, iou_sum = brute_quality(truth, found)
    assert quality.matched == matched
    assert quality.iou_sum == pytest.approx(iou_sum)
    assert instance.aggregated_jaccard(table) == pytest.approx(brute_aji(truth, found), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(LABELS, LABELS, st.integers(0, 7), st.integers(0, 9))
def test_counts_of_blocks_add_up_to_the_count_of_the_whole_in_any_order(truth, found, row, col):
    whole = instance.OverlapCounts.of(truth, found)
    cuts = [
        (slice(None, row), slice(None)),
        (slice(row, None), slice(None, col)),
        (slice(row, None), slice(col, None)),
    ]
    for order in itertools.permutations(cuts):
        total = instance.OverlapCounts.total(
            instance.OverlapCounts.of(truth[c], found[c]) for c in order
        )
        np.testing.assert_array_equal(total.key, whole.key)
        np.testing.assert_array_equal(total.pixels, whole.pixels)


def test_ids_beyond_31_bits_are_told_apart():
    truth = np.array([[2**32 - 1, 1]], np.uint32)
    table = overlaps(truth, truth[:, ::-1])
    assert table.truth_ids.tolist() == [1, 2**32 - 1]
    assert table.found_ids[table.pair_found].tolist() == [2**32 - 1, 1]


def match(truth, found, score, truth_class=None, found_class=None):
    zeros = np.zeros(max(len(truth), len(found)), np.int64)
    return detection.match_boxes(
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


def test_f1_by_class_and_macro_of_a_hand_worked_case():
    truth = [[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]]
    found = [[0, 0, 4, 4], [20, 0, 24, 4], [40, 0, 44, 4]]
    truth_class, found_class = np.array([0, 0, 1]), np.array([0, 1, 1])
    got = match(truth, found, [1, 1, 1], truth_class, found_class)
    rows = detection.detection_by_class(
        got, truth_class=truth_class, found_class=found_class, n_classes=3
    )
    assert (rows[0].precision, rows[0].recall) == (1.0, 0.5)
    assert rows[0].f1 == pytest.approx(2 / 3)
    assert rows[1].f1 == pytest.approx(2 / 3)
    assert detection.macro_f1(rows) == pytest.approx(
        2 / 3
    )  # class 2 occurs nowhere and counts for nothing


def test_points_match_the_nearest_first_within_the_distance():
    truth, found = np.array([[0.0, 0], [10, 0]]), np.array([[4.0, 0], [9, 0], [30, 0]])
    zeros = np.zeros(3, np.int64)
    got = detection.match_points(
        truth, found, truth_class=zeros[:2], found_class=zeros, mpp=0.5, distance_um=2.0
    )
    assert sorted(zip(got.truth.tolist(), got.found.tolist(), got.value.tolist(), strict=True)) == [
        (0, 0, 2.0),
        (1, 1, 0.5),
    ]


def test_no_points_at_all_are_no_error():
    none, zeros = np.zeros((0, 2)), np.zeros(0, np.int64)
    got = detection.match_points(
        none, none, truth_class=zeros, found_class=zeros, mpp=0.5, distance_um=2.0
    )
    assert len(got.truth) == 0


def test_average_precision_of_a_hand_worked_ranking():
    # hits at ranks 1 and 3 of 3, two planted: recall 1/2 at precision 1, then 1 at 2/3
    got = detection.Matches(np.array([0, 1]), np.array([0, 2]), np.array([1.0, 1.0]))
    assert detection.average_precision(got, np.array([0.9, 0.8, 0.7]), planted=2) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )


def test_found_objects_of_equal_score_enter_the_curve_together():
    got = detection.Matches(np.array([0]), np.array([0]), np.array([1.0]))
    assert detection.average_precision(got, np.array([0.5, 0.5]), planted=1) == pytest.approx(0.5)


def test_dice_and_iou_of_a_hand_worked_map():
    matrix = semantic.confusion(np.array([[0, 1, 1, 1]]), np.array([[1, 1, 1, 0]]), n_values=3)
    assert matrix.tolist() == [[0, 1, 0], [1, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(semantic.dice(matrix), [0, 4 / 6, np.nan])
    np.testing.assert_allclose(semantic.iou(matrix), [0, 2 / 4, np.nan])


def test_a_value_beyond_the_matrix_is_refused():
    with pytest.raises(ValueError, match=r"found holds values 3\.\.3, want 0\.\.2"):
        semantic.confusion(np.array([0]), np.array([3]), n_values=3)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur():
    matrix = classification.confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2]), n_values=3)
    assert classification.balanced_accuracy(matrix) == pytest.approx((2 / 3 + 0) / 2)


def test_auroc_counts_pairs_and_halves_ties():
    positive, score = np.array([True, True, False, False]), np.array([0.9, 0.5, 0.5, 0.1])
    assert classification.auroc(positive, score) == pytest.approx(3.5 / 4)


def test_counts_agree_as_bias_error_and_relative_error():
    planted, found = np.array([100, 50]), np.array([90, 52])
    assert counts.bias(planted, found) == pytest.approx(-4)
    assert counts.mean_absolute_error(planted, found) == pytest.approx(6)
    assert counts.relative_error(100, 90) == pytest.approx(-0.1)
    assert counts.relative_error(0, 0) == 0
    assert counts.relative_error(0, 3) == float("inf")
