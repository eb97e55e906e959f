"""Panoptic quality and AJI against examples worked by hand and against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quadrat.metrics.overlaps import (
    OverlapCounts,
    Overlaps,
    jaccard_sums,
    panoptic_quality,
    panoptic_quality_by_class,
)

LABELS = hnp.arrays(np.int32, (7, 9), elements=st.integers(0, 4))


def aggregated_jaccard(table):
    shared, union = jaccard_sums(table)
    return shared / union if union else float("nan")


def overlaps(truth, found):
    return Overlaps.of(OverlapCounts.of(np.asarray(truth), np.asarray(found)))


def test_panoptic_quality_of_a_hand_worked_row():
    # truth 1 has 4 px of which found 7 covers 3 (IoU 3/4); truth 2 and found 8 share 1 of 3 px (no
    # match)
    truth = [[1, 1, 1, 1, 0, 2, 2, 0]]
    found = [[7, 7, 7, 0, 0, 0, 8, 8]]
    quality = panoptic_quality(overlaps(truth, found))
    assert (quality.matched, quality.missed, quality.extra) == (1, 1, 1)
    assert quality.sq == pytest.approx(0.75)
    assert quality.dq == pytest.approx(0.5)
    assert quality.pq == pytest.approx(0.375)


def test_an_iou_of_exactly_one_half_does_not_match():
    assert panoptic_quality(overlaps([[1, 1]], [[5, 0]])).matched == 0


def test_classes_never_match_across():
    table = overlaps([[1, 1, 0, 2, 2]], [[3, 3, 0, 4, 4]])
    by_class = panoptic_quality_by_class(table, np.array([0, 1]), np.array([0, 0]), n_classes=3)
    assert [(q.matched, q.missed, q.extra) for q in by_class] == [(1, 0, 1), (0, 1, 0), (0, 0, 0)]
    assert by_class[0].pq == pytest.approx(1 / 1.5)
    assert np.isnan(by_class[2].pq)


def test_aggregated_jaccard_of_a_hand_worked_row():
    # 3 shared of 4 for the first; 1 shared of 3 for the second; found 9 (2 px) is used by nobody: 4
    # / (4 + 3 + 2)
    truth = [[1, 1, 1, 1, 0, 2, 2, 0, 0, 0]]
    found = [[7, 7, 7, 0, 0, 0, 8, 8, 9, 9]]
    assert aggregated_jaccard(overlaps(truth, found)) == pytest.approx(4 / 9)


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
    quality = panoptic_quality(table)
    matched, iou_sum = brute_quality(truth, found)
    assert quality.matched == matched
    assert quality.iou_sum == pytest.approx(iou_sum)
    assert aggregated_jaccard(table) == pytest.approx(brute_aji(truth, found), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(LABELS, LABELS, st.integers(0, 7), st.integers(0, 9))
def test_counts_of_blocks_add_up_to_the_count_of_the_whole_in_any_order(truth, found, row, col):
    whole = OverlapCounts.of(truth, found)
    cuts = [
        (slice(None, row), slice(None)),
        (slice(row, None), slice(None, col)),
        (slice(row, None), slice(col, None)),
    ]
    for order in itertools.permutations(cuts):
        total = OverlapCounts.total(OverlapCounts.of(truth[c], found[c]) for c in order)
        np.testing.assert_array_equal(total.key, whole.key)
        np.testing.assert_array_equal(total.pixels, whole.pixels)


def test_ids_beyond_31_bits_are_told_apart():
    truth = np.array([[2**32 - 1, 1]], np.uint32)
    table = overlaps(truth, truth[:, ::-1])
    assert table.truth_ids.tolist() == [1, 2**32 - 1]
    assert table.found_ids[table.pair_found].tolist() == [2**32 - 1, 1]
