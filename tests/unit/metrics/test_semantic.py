"""Dice and IoU against an example worked by hand and against torchmetrics; areas and bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import answers
from helpers.compared import CLASSES, class_maps, of_map
from quadrat.metrics import semantic

torchmetrics = pytest.importorskip("torchmetrics")


def test_dice_and_iou_of_a_hand_worked_map():
    matrix = semantic.confusion(np.array([[0, 1, 1, 1]]), np.array([[1, 1, 1, 0]]), n_values=3)
    assert matrix.tolist() == [[0, 1, 0], [1, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(semantic.dice(matrix), [0, 4 / 6, np.nan])
    np.testing.assert_allclose(semantic.iou(matrix), [0, 2 / 4, np.nan])


def test_a_value_beyond_the_matrix_is_refused():
    with pytest.raises(ValueError, match=r"found holds values 3\.\.3, want 0\.\.2"):
        semantic.confusion(np.array([0]), np.array([3]), n_values=3)


def test_dice_and_iou_pooled_over_slides_are_those_of_torchmetrics():
    rng = np.random.default_rng(0)
    maps = [class_maps(rng) for _ in range(3)]
    measured = [semantic.METRICS.measure(*of_map(f, t), classes=CLASSES) for t, f in maps]
    got = semantic.METRICS.summarise(measured, classes=CLASSES)
    truth, found = (
        torch.from_numpy(np.concatenate([m[i].ravel() for m in maps]).astype(np.int64))
        for i in (0, 1)
    )
    iou = torchmetrics.classification.MulticlassJaccardIndex(4, average="none")(found, truth)
    dice = torchmetrics.classification.MulticlassF1Score(4, average="none")(
        found, truth
    )  # of pixels F1 is Dice
    for k, name in enumerate(("background", *CLASSES)):
        assert got[f"iou.{name}"] == pytest.approx(float(iou[k]), abs=1e-6)
        assert got[f"dice.{name}"] == pytest.approx(float(dice[k]), abs=1e-6)
    assert got["dice"] == pytest.approx(float(dice.mean()), abs=1e-6)


def test_areas_are_summed_in_mm2_over_slides_of_different_scale():
    measured = []
    for mpp, found in ((0.5, [[1, 1, 2, 0]]), (2.0, [[1, 3, 3, 0]])):
        answer, truth = of_map(np.array(found, np.uint8), np.array([[1, 2, 2, 0]]))
        answer = replace(answer, frame=replace(answer.frame, mpp=mpp))
        measured.append(semantic.METRICS.measure(answer, truth, classes=CLASSES))
    got = semantic.METRICS.sizes(measured, classes=CLASSES)
    small, large = 0.25e-6, 4e-6  # mm2 of a pixel
    assert got["evaluated_px"] == 8
    assert got["annotated_mm2.a"] == pytest.approx(small + large)
    assert got["annotated_mm2"] == pytest.approx(3 * small + 3 * large)
    assert got["found_mm2.a"] == pytest.approx(2 * small + large)
    assert got["found_mm2.c"] == pytest.approx(2 * large)


def test_pixels_outside_the_bounds_are_not_evaluated():
    truth, found = class_maps(np.random.default_rng(1))
    bounds = np.zeros(truth.shape, int)
    bounds[:20, :25] = 1
    whole = semantic.METRICS.measure(
        *of_map(found, truth, bounds=answers.region_truth(bounds, ("ROI",))), classes=CLASSES
    )
    part = semantic.METRICS.measure(*of_map(found[:20, :25], truth[:20, :25]), classes=CLASSES)
    np.testing.assert_array_equal(whole.matrix, part.matrix)


def test_without_bounds_what_is_not_annotated_is_ignored_unless_the_slide_is_annotated_completely():
    truth, found = class_maps(np.random.default_rng(2))
    measured = semantic.METRICS.measure(*of_map(found, truth, complete=False), classes=CLASSES)
    assert measured.matrix[0].sum() == 0
    assert measured.matrix.sum() == (truth > 0).sum()
    figures = semantic.METRICS.summarise([measured], classes=CLASSES)
    assert figures["dice"] == pytest.approx(np.mean([figures[f"dice.{c}"] for c in CLASSES]))
