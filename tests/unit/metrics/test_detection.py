"""Figures of detection against pycocotools and examples worked by hand; bounds and points."""

import contextlib
import io

import numpy as np
import pytest

from helpers import answers
from helpers.compared import CLASSES, images, measure_boxes
from quadrat.annotations.types import SlideTruth
from quadrat.metrics import detection
from quadrat.metrics.protocol import Answer, MetricSettings

COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval


def coco_ap(images):
    """AP@[.5:.95] and AP@0.5, of all and of each class, by pycocotools with room for
    all objects.
    """
    truth, found = [], []
    for i, (boxes, class_id, found_boxes, found_class, score) in enumerate(images, start=1):
        for b, c in zip(boxes.tolist(), class_id.tolist(), strict=True):
            w, h = b[2] - b[0], b[3] - b[1]
            truth.append(
                {
                    "image_id": i,
                    "category_id": c + 1,
                    "bbox": [b[0], b[1], w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        for b, c, s in zip(found_boxes.tolist(), found_class.tolist(), score.tolist(), strict=True):
            w, h = b[2] - b[0], b[3] - b[1]
            found.append(
                {"image_id": i, "category_id": c + 1, "bbox": [b[0], b[1], w, h], "score": s}
            )
    for k, row in enumerate(truth, start=1):
        row["id"] = k
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(1, len(images) + 1)],
            "annotations": truth,
            "categories": [{"id": k + 1, "name": c} for k, c in enumerate(CLASSES)],
        }
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluator.params.maxDets = [100_000]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, 0]  # thresholds, recalls, classes
    return precision.mean(axis=(0, 1)), precision[0].mean(axis=0)


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_of_crowded_images_with_ties_is_that_of_pycocotools(seed):
    some = images(seed)
    got = detection.METRICS.summarise([measure_boxes(image) for image in some], classes=CLASSES)
    whole, at_half = coco_ap(some)
    for k, name in enumerate(CLASSES):
        assert got[f"ap50_95.{name}"] == pytest.approx(whole[k], abs=1e-6)
        assert got[f"ap50.{name}"] == pytest.approx(at_half[k], abs=1e-6)
    assert got["ap50_95"] == pytest.approx(whole.mean(), abs=1e-6)
    assert got["ap50"] == pytest.approx(at_half.mean(), abs=1e-6)


def test_a_class_that_is_nowhere_planted_has_no_part_in_mean_average_precision():
    boxes = np.array([[0, 0, 10, 10]])
    got = detection.METRICS.summarise(
        [
            measure_boxes(
                (
                    boxes,
                    np.array([0]),
                    np.tile(boxes, (2, 1)),
                    np.array([0, 1]),
                    np.array([0.9, 0.8]),
                )
            )
        ],
        classes=CLASSES,
    )
    assert got["ap50"] == 1.0
    assert np.isnan(got["ap50.b"])


def test_f1_by_class_and_macro_of_a_hand_worked_case():
    truth = [[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]]
    found = [[0, 0, 4, 4], [20, 0, 24, 4], [40, 0, 44, 4]]
    truth_class, found_class = np.array([0, 0, 1]), np.array([0, 1, 1])
    measured = measure_boxes((np.array(truth), truth_class, found, found_class, np.ones(3)))
    got = detection.METRICS.additive([measured], classes=CLASSES)
    assert (got["precision.a"], got["recall.a"]) == (1.0, 0.5)
    assert got["f1.a"] == pytest.approx(2 / 3)
    assert got["f1.b"] == pytest.approx(2 / 3)
    assert got["f1_macro"] == pytest.approx(2 / 3)  # class c occurs nowhere and is left out
    sizes = detection.METRICS.sizes([measured, measured], classes=CLASSES)
    assert (sizes["count_planted"], sizes["count_planted.b"], sizes["count_found.b"]) == (6, 2, 4)


def test_f1_of_boxes_is_by_class_and_of_points_whatever_the_class():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    image = (boxes, np.array([0, 0, 1]), boxes, np.array([0, 1, 1]), np.full(3, 0.5))
    got = detection.METRICS.summarise([measure_boxes(image)], classes=CLASSES)
    assert got["f1"] == got["f1_macro"] == pytest.approx(2 / 3)
    assert (got["f1_any"], got["f1_micro"], got["f1.a"]) == (
        1.0,
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )
    answer = Answer(answers.frame(60, 60), objects=answers.table(boxes, [0, 1, 1], [0.5] * 3))
    truth = answers.point_truth([(5, 5), (25, 5), (45, 20)], [0, 0, 1], CLASSES)
    measured = detection.METRICS.measure(
        answer, SlideTruth(objects=truth, point_diameter_um=5), classes=CLASSES
    )
    got = detection.METRICS.summarise([measured], classes=CLASSES)
    assert got["f1"] == got["f1_any"] == pytest.approx(2 / 3)  # the third is 7.5 um away
    assert measured.confusion.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(("distance_um", "f1"), [(6.0, 1.0), (5.9, 0.0)])
def test_points_match_up_to_the_distance_in_um(distance_um, f1):
    answer = Answer(
        answers.frame(60, 60, mpp=0.5), objects=answers.table([[10, 10, 14, 14]], [0], [0.9])
    )
    truth = answers.point_truth([(24, 12)], [0], CLASSES)
    measured = detection.METRICS.measure(
        answer,
        SlideTruth(objects=truth, point_diameter_um=4),
        classes=CLASSES,
        settings=MetricSettings(distance_um=distance_um),
    )
    assert detection.METRICS.summarise([measured], classes=CLASSES)["f1"] == f1


def test_objects_whose_centre_lies_outside_the_bounds_count_on_neither_side():
    bounds = np.zeros((200, 200), int)
    bounds[:100, :100] = 1
    boxes = np.array([[0, 0, 10, 10], [95, 0, 105, 10], [150, 150, 160, 160]])
    answer = Answer(
        answers.frame(200, 200), objects=answers.table(boxes[[0, 2]], [0, 0], [0.9, 0.9])
    )
    expected = SlideTruth(
        objects=answers.box_truth(boxes, [0, 0, 0], CLASSES),
        bounds=answers.region_truth(bounds, ("ROI",)),
    )
    for block in (2048, 64):
        measured = detection.METRICS.measure(
            answer, expected, classes=CLASSES, settings=MetricSettings(block=block)
        )
        assert (measured.planted.tolist(), measured.found.tolist(), measured.matched.tolist()) == (
            [1, 0, 0],
        ) * 3
