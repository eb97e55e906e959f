"""Figures of classification against examples worked by hand and against torchmetrics."""

import numpy as np
import pytest
import torch

from helpers import answers
from helpers.compared import CLASSES
from quadrat.annotations.types import SlideTruth
from quadrat.metrics import classification
from quadrat.metrics.protocol import Answer

torchmetrics = pytest.importorskip("torchmetrics")


def of_label(label, probability):
    """A slide of one tile."""
    return classification.METRICS.measure(
        Answer(answers.frame(64, 64), tiles=answers.tile_scores([(0, 0)], probability[None])),
        SlideTruth(label=int(label)),
        classes=CLASSES,
    )


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur():
    found = [0, 0, 1, 2]
    measured = [of_label(k, np.eye(3)[f]) for k, f in zip([0, 0, 0, 1], found, strict=True)]
    got = classification.METRICS.additive(measured, classes=CLASSES)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert got["slide_balanced_accuracy"] == got["balanced_accuracy"]
    assert np.isnan(got["recall.c"])


def test_auroc_counts_pairs_and_halves_ties():
    positive, score = np.array([True, True, False, False]), np.array([0.9, 0.5, 0.5, 0.1])
    assert classification.auroc(positive, score) == pytest.approx(3.5 / 4)


def test_slide_figures_are_those_of_torchmetrics():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 60)
    probability = rng.dirichlet(np.ones(3), 60) + 0.5 * np.eye(3)[truth]
    probability /= probability.sum(axis=1, keepdims=True)
    measured = [of_label(t, p) for t, p in zip(truth, probability, strict=True)]
    got = classification.METRICS.summarise(measured, classes=CLASSES)
    p, t = torch.from_numpy(probability), torch.from_numpy(truth)
    auroc = torchmetrics.classification.MulticlassAUROC(3, average="macro")(p, t)
    recall = torchmetrics.classification.MulticlassRecall(3, average="macro")(p, t)
    accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")(p, t)
    assert got["auroc"] == pytest.approx(float(auroc), abs=1e-5)
    assert got["balanced_accuracy"] == pytest.approx(float(recall), abs=1e-6)
    assert got["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert got["evaluated_slides"] == 60


def test_the_truth_of_a_tile_is_the_region_that_covers_most_of_it_if_half_is_annotated():
    regions = np.zeros((64, 100), int)
    regions[:32, :32] = 2
    regions[:8, :32] = 1
    regions[32:, :15] = 3  # less than half of its tile
    regions[:32, 96:] = 3  # all of a tile that is cut by the slide's edge
    cells = [(0, 0), (1, 0), (0, 3)]
    tiles = answers.tile_scores(cells, [[0.1, 0.8, 0.1], [0, 0, 1], [0.7, 0.2, 0.1]])
    answer = Answer(answers.frame(64, 100), tiles=tiles, core=32)
    expected = SlideTruth(regions=answers.region_truth(regions, CLASSES))
    measured = classification.METRICS.measure(answer, expected, classes=CLASSES)
    assert measured.tile_truth.tolist() == [1, 2]
    got = classification.METRICS.summarise([measured], classes=CLASSES)
    assert got["balanced_accuracy"] == got["tile_balanced_accuracy"] == 0.5
    assert got["evaluated_tiles"] == 2


def test_slides_with_a_label_have_the_figures_of_their_tiles_as_well():
    regions = np.kron([[1, 2]], np.ones((32, 32), int))
    tiles = answers.tile_scores([(0, 0), (0, 1)], [[0.9, 0.1, 0], [0.8, 0.2, 0]])
    measured = classification.METRICS.measure(
        Answer(answers.frame(32, 64), tiles=tiles, core=32),
        SlideTruth(label=0, regions=answers.region_truth(regions, CLASSES)),
        classes=CLASSES,
    )
    got = classification.METRICS.additive([measured], classes=CLASSES)
    assert (got["balanced_accuracy"], got["tile_balanced_accuracy"]) == (1.0, 0.5)
    assert (got["accuracy"], got["tile_recall.a"], got["tile_recall.b"]) == (1.0, 1.0, 0.0)
    sizes = classification.METRICS.sizes([measured], classes=CLASSES)
    assert sizes == {"evaluated_slides": 1, "evaluated_tiles": 2}


def test_a_slide_s_label_is_held_against_the_mean_of_its_tiles():
    tiles = answers.tile_scores([(0, 0), (0, 1)], [[0.6, 0.4, 0], [0, 0.9, 0.1]])
    measured = classification.METRICS.measure(
        Answer(answers.frame(8, 16), tiles=tiles, core=8), SlideTruth(label=1), classes=CLASSES
    )
    np.testing.assert_allclose(measured.probability, [0.3, 0.65, 0.05], atol=1e-4)
