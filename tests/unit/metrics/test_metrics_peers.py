"""The METRICS against torchmetrics, pycocotools and published examples, and what must not change
them."""

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
from quadrat.annotations import SlideTruth
from quadrat.core.errors import AnnotationError, QuadratError
from quadrat.metrics import classification, counts, detection, instance, semantic
from quadrat.metrics.protocol import Answer, Judging

torchmetrics = pytest.importorskip("torchmetrics")
COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval

CLASSES = ("a", "b", "c")


# --- semantic


def class_maps(rng, shape=(40, 50)):
    truth = rng.integers(0, 4, shape)
    found = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, 4, shape))
    return truth.astype(np.uint8), found.astype(np.uint8)


def of_map(found, truth, **expected):
    answer = Answer(answers.frame(*found.shape), labels=answers.reader(found))
    return answer, SlideTruth(regions=answers.region_truth(truth, CLASSES), **expected)


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


def test_pixels_outside_the_bounds_are_not_judged():
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


# --- classification


def test_slide_figures_are_those_of_torchmetrics():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 60)
    probability = rng.dirichlet(np.ones(3), 60) + 0.5 * np.eye(3)[truth]
    probability /= probability.sum(axis=1, keepdims=True)
    measured = [
        classification.METRICS.measure(
            Answer(answers.frame(64, 64), tiles=answers.tile_scores([(0, 0)], p[None])),
            SlideTruth(label=int(t)),
            classes=CLASSES,
        )
        for t, p in zip(truth, probability, strict=True)
    ]
    got = classification.METRICS.summarise(measured, classes=CLASSES)
    p, t = torch.from_numpy(probability), torch.from_numpy(truth)
    auroc = torchmetrics.classification.MulticlassAUROC(3, average="macro")(p, t)
    recall = torchmetrics.classification.MulticlassRecall(3, average="macro")(p, t)
    accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")(p, t)
    assert got["auroc"] == pytest.approx(float(auroc), abs=1e-5)
    assert got["balanced_accuracy"] == pytest.approx(float(recall), abs=1e-6)
    assert got["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert got["judged_slides"] == 60


def test_tiles_are_judged_by_the_region_that_covers_more_than_half_of_them():
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
    assert got["judged_tiles"] == 2


def test_a_slide_s_label_is_held_against_the_mean_of_its_tiles():
    tiles = answers.tile_scores([(0, 0), (0, 1)], [[0.6, 0.4, 0], [0, 0.9, 0.1]])
    measured = classification.METRICS.measure(
        Answer(answers.frame(8, 16), tiles=tiles, core=8), SlideTruth(label=1), classes=CLASSES
    )
    np.testing.assert_allclose(measured.probability, [0.3, 0.65, 0.05], atol=1e-4)


# --- detection


def crowded(rng, n=60, classes=3, side=120):
    """Boxes in one crowd with integer corners, and scores of few values, so that ties and near
    misses abound."""
    low = rng.integers(0, side, (n, 2))
    size = rng.integers(6, 22, (n, 2))
    return (
        np.concatenate([low, low + size], axis=1),
        rng.integers(0, classes, n),
        rng.integers(1, 8, n) / 8,
    )


def moved(rng, boxes):
    out = boxes + rng.integers(-3, 4, boxes.shape)
    out[:, 2:] = np.maximum(out[:, 2:], out[:, :2] + 2)
    return out


def images(seed, n_images=4):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n_images):
        boxes, class_id, _ = crowded(rng, n=int(rng.integers(1, 60)))
        found = np.concatenate([moved(rng, boxes), moved(rng, boxes)[::2], crowded(rng, n=15)[0]])
        found_class = np.concatenate([class_id, class_id[::2], crowded(rng, n=15)[1]])
        out.append((boxes, class_id, found, found_class, rng.integers(1, 8, len(found)) / 8))
    return out


def measure_boxes(image, **how):
    boxes, class_id, found, found_class, score = image
    answer = Answer(answers.frame(200, 200), objects=answers.table(found, found_class, score))
    return detection.METRICS.measure(
        answer,
        SlideTruth(objects=answers.box_truth(boxes, class_id, CLASSES)),
        classes=CLASSES,
        how=Judging(**how),
    )


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
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.maxDets = [100_000]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # thresholds, recalls, classes
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
        how=Judging(distance_um=distance_um),
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
            answer, expected, classes=CLASSES, how=Judging(block=block)
        )
        assert (measured.planted.tolist(), measured.found.tolist(), measured.matched.tolist()) == (
            [1, 0, 0],
        ) * 3


# --- instance


LABELS = hnp.arrays(np.int32, (12, 15), elements=st.integers(0, 6))


def compact(image, n=6, rng=None):
    present = np.unique(image[image > 0])
    return np.searchsorted(present, image) * (image > 0) + (image > 0), np.arange(
        len(present)
    ) % len(CLASSES)


def instances(truth, found, *, block=2048, score=None, bounds=None):
    (truth, truth_class), (found, found_class) = compact(truth), compact(found)
    answer = answers.of_label_image(found, found_class, score)
    expected = SlideTruth(objects=answers.label_truth(truth, truth_class, CLASSES), bounds=bounds)
    return instance.METRICS.measure(answer, expected, classes=CLASSES, how=Judging(block=block))


def blobs(rng, shape=(96, 96), n=25):
    image = np.zeros(shape, np.int32)
    for k in range(1, n + 1):
        row, col = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 12)
        image[row : row + rng.integers(4, 12), col : col + rng.integers(4, 12)] = k
    return image


def assert_same(one, other):
    for name in one.__dataclass_fields__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


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
    assert got["count_bias"] == 0


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
    judge = torchmetrics.detection.PanopticQuality(
        things={0, 1, 2}, stuffs={99}, return_per_class=True, return_sq_and_rq=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = judge(stacked[1], stacked[0]).numpy()
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
        judge = COCOeval(coco, coco.loadRes(rows[1]), "segm")
        judge.params.maxDets = [100_000]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]
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


@pytest.mark.parametrize("metrics", [semantic.METRICS, detection.METRICS, instance.METRICS])
def test_a_truth_that_lacks_what_is_compared_is_refused(metrics):
    answer = answers.of_label_image(np.zeros((5, 5), np.int32), [])
    with pytest.raises(AnnotationError, match="the truth holds no"):
        metrics.measure(answer, SlideTruth(), classes=CLASSES)


# --- all kinds


def test_the_order_of_slides_changes_no_figure():
    rng = np.random.default_rng(8)
    pairs = [(blobs(rng), blobs(rng)) for _ in range(4)]
    cases = [
        (
            instance.METRICS,
            [instances(t, f, score=rng.random(len(compact(f)[1]))) for t, f in pairs],
        ),
        (
            semantic.METRICS,
            [semantic.METRICS.measure(*of_map(f % 4, t % 4), classes=CLASSES) for t, f in pairs],
        ),
        (detection.METRICS, [measure_boxes((*i[:4], rng.random(len(i[2])))) for i in images(9)]),
    ]
    for metrics, measured in cases:
        one, other = (
            metrics.summarise(order, classes=CLASSES) for order in (measured, measured[::-1])
        )
        assert one.keys() == other.keys()
        assert metrics.main in one
        for name, value in one.items():
            assert other[name] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    "metrics", [semantic.METRICS, classification.METRICS, detection.METRICS, instance.METRICS]
)
def test_no_slides_give_undefined_figures_and_no_error(metrics):
    got = metrics.summarise([], classes=CLASSES)
    assert np.isnan(got[metrics.main])


# --- counts


def test_icc_is_that_of_the_worked_example_of_shrout_and_fleiss():
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    )
    assert counts.icc_2_1(ratings) == pytest.approx(0.29, abs=0.005)  # table 4 of the paper


def test_icc_of_equal_counts_is_one_and_of_constant_ones_not_defined():
    planted = np.array([3, 50, 17])
    assert counts.icc_2_1(np.stack([planted, planted], axis=1)) == 1
    assert np.isnan(counts.icc_2_1(np.full((4, 2), 5)))
    assert (
        counts.icc_2_1(np.stack([planted, planted + 20], axis=1)) < 0.8
    )  # agreement, not consistency


def test_count_agreement_of_a_worked_table():
    got = counts.count_agreement(np.array([100, 50, 0]), np.array([90, 52, 2]))
    assert got["bias"] == -2
    assert got["mae"] == pytest.approx(14 / 3)
    assert got["relative_error_median"] == pytest.approx((0.1 + 0.04) / 2)
    assert got["units_without_truth"] == 1
    spread = 1.96 * np.std([-10, 2, 2], ddof=1)
    assert (got["limit_low"], got["limit_high"]) == pytest.approx((-2 - spread, -2 + spread))
    assert got["total_relative_error"] == pytest.approx(-6 / 150)
