"""Figures of instances against torchmetrics and pycocotools; blocks, perfect answers, bad ids."""

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers import answers
from helpers.compared import CLASSES, assert_same, blobs, compact, instances
from quadrat.annotations.types import SlideTruth
from quadrat.core.errors import QuadratError
from quadrat.metrics import instance
from quadrat.metrics.protocol import Answer

torchmetrics = pytest.importorskip("torchmetrics")
COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval
LABELS = hnp.arrays(np.int32, (12, 15), elements=st.integers(0, 6))


@pytest.mark.parametrize("block", [7, 16, 40])
def test_cutting_a_slide_into_blocks_changes_no_figure_of_instances(block):
    rng = np.random.default_rng(5)
    truth, found = blobs(rng), blobs(rng)
    found[:, ::3] = truth[:, ::3]
    bounds = np.zeros(truth.shape, int)
    bounds[10:70, 5:80] = 1
    for limit in (None, answers.region_truth(bounds, ("ROI",))):
        assert_same(
            instances(truth, found, bounds=limit),
            instances(truth, found, block=block, bounds=limit),
        )


@settings(max_examples=30)
@given(LABELS, LABELS, st.integers(1, 16))
def test_blocks_of_any_size_give_the_same_sums_even_for_scattered_objects(truth, found, block):
    assert_same(instances(truth, found), instances(truth, found, block=block))


@settings(max_examples=30)
@given(LABELS)
def test_a_perfect_instance_answer_scores_one(truth):
    measured = instances(truth, truth)
    got = instance.METRICS.summarise([measured], classes=CLASSES)
    if truth.any():
        assert {got[n] for n in ("pq", "sq", "dq", "aji", "dice", "ap50", "pq_image_mean")} == {1.0}
    sizes = instance.METRICS.sizes([measured], classes=CLASSES)
    assert sizes["count_planted"] == sizes["count_found"] == len(np.unique(truth[truth > 0]))


def test_panoptic_quality_is_that_of_torchmetrics():
    rng = np.random.default_rng(6)
    pairs = []
    for _ in range(3):
        truth = blobs(rng)
        pairs.append(
            (truth, np.roll(np.where(rng.random(truth.shape) < 0.97, truth, 0), 1, axis=0))
        )
    got = instance.METRICS.summarise([instances(t, f) for t, f in pairs], classes=CLASSES)
    stacked = []
    for image in (0, 1):
        rows = []
        for pair in pairs:
            labels, class_id = compact(pair[image])
            category = np.concatenate([[99], class_id])[labels]
            rows.append(np.stack([category, labels], axis=-1))
        stacked.append(torch.from_numpy(np.stack(rows)))
    peer = torchmetrics.detection.PanopticQuality(
        things={0, 1, 2}, stuffs={99}, return_per_class=True, return_sq_and_rq=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer(stacked[1], stacked[0]).numpy()
    order = [*sorted({0, 1, 2}), 99]
    for k, name in enumerate(CLASSES):
        row = theirs[order.index(k)]
        np.testing.assert_allclose(
            [got[f"pq.{name}"], got[f"sq.{name}"], got[f"dq.{name}"]], row, atol=1e-6
        )


def test_mask_average_precision_is_that_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(7)
    truth, score = blobs(rng, n=30), None
    found = np.roll(np.where(rng.random(truth.shape) < 0.9, truth, 0), 1, axis=1)
    (truth, truth_class), (found, found_class) = compact(truth), compact(found)
    score = rng.integers(1, 5, len(found_class)) / 8
    answer = answers.of_label_image(found, found_class, score)
    expected = SlideTruth(objects=answers.label_truth(truth, truth_class, CLASSES))
    got = instance.METRICS.summarise(
        [instance.METRICS.measure(answer, expected, classes=CLASSES)], classes=CLASSES
    )
    rows = []
    for image, class_id in ((truth, truth_class), (found, found_class)):
        part = []
        for k, c in enumerate(class_id.tolist(), start=1):
            code = mask.encode(np.asfortranarray((image == k).astype(np.uint8)))
            part.append(
                {
                    "id": k,
                    "image_id": 1,
                    "category_id": c + 1,
                    "segmentation": code,
                    "area": int(mask.area(code)),
                    "iscrowd": 0,
                }
            )
        rows.append(part)
    for row, s in zip(rows[1], score.tolist(), strict=True):
        row["score"] = s
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": 1, "height": 96, "width": 96}],
            "annotations": rows[0],
            "categories": [{"id": k + 1} for k in range(3)],
        }
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(rows[1]), "segm")
        evaluator.params.maxDets = [100_000]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, 0]
    for k, name in enumerate(CLASSES):
        assert got[f"ap50_95.{name}"] == pytest.approx(precision[:, :, k].mean(), abs=1e-6)


def test_pooled_and_per_image_means_are_told_apart():
    one = np.zeros((12, 12), np.int32)
    one[:4, :4] = 1
    many = np.zeros((12, 12), np.int32)
    for k in range(9):
        many[k // 3 * 4 : k // 3 * 4 + 3, k % 3 * 4 : k % 3 * 4 + 3] = k + 1
    measured = [instances(one, np.zeros_like(one)), instances(many, many)]
    got = instance.METRICS.summarise(measured, classes=CLASSES)
    assert got["pq"] == pytest.approx(9 / 9.5)
    assert got["pq_image_mean"] == pytest.approx(0.5)
    assert got["aji"] == pytest.approx(81 / 97)
    assert got["aji_image_mean"] == pytest.approx(0.5)


def test_a_label_image_with_an_id_that_the_table_lacks_is_refused():
    found = np.ones((5, 5), np.int32)
    answer = answers.of_label_image(found * 2, [0, 0])
    answer = Answer(answer.frame, objects=answer.objects.take(np.array([0])), labels=answer.labels)
    with pytest.raises(QuadratError, match="holds the id 2, the table 1 objects"):
        instance.METRICS.measure(
            answer, SlideTruth(objects=answers.label_truth(found, [0], CLASSES)), classes=CLASSES
        )
