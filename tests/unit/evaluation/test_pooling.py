"""Measured slides pooled: figures by slide and by case, counts, folds, intervals."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers import annotated, answers
from helpers.annotated import NAMES, SIDE, SLIDES, finished, measured, without_first
from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError, ConfigError, QuadratError
from quadrat.core.geometry import Box, Scale
from quadrat.evaluation.pooling import (
    ResultFolder,
    measure_slides,
    pool,
    read_truths,
)
from quadrat.metrics.protocol import Answer
from quadrat.tasks import get_task


@pytest.mark.parametrize("task", ["instance", "detection", "semantic", "classification"])
def test_results_that_say_what_the_truth_says_score_one(tmp_path, task):
    evaluation = pool(measured(tmp_path, task), task=get_task(task), classes=NAMES, draws=20)
    assert evaluation.figures[evaluation.main] == 1.0
    assert evaluation.intervals[evaluation.main] == (1.0, 1.0)
    assert set(evaluation.per_slide) == set(SLIDES)
    assert evaluation.cases == ("p", "q", "r")
    if evaluation.counts:
        assert evaluation.agreement["case"]["all"]["icc"] == 1.0
        assert evaluation.agreement["slide"]["a"]["mae"] == 0.0


def test_counts_are_grouped_by_slide_and_by_case(tmp_path):
    slides = measured(tmp_path, "instance", without_first)
    evaluation = pool(slides, task=get_task("instance"), classes=NAMES, draws=20)
    boxes = [annotated.boxes_of(i) for i in range(4)]
    missing = NAMES[boxes[0][1][0]]
    by_slide = {
        (c.name, c.class_name): (c.planted, c.found) for c in evaluation.counts if c.unit == "slide"
    }
    by_case = {
        (c.name, c.class_name): (c.planted, c.found) for c in evaluation.counts if c.unit == "case"
    }
    n0, n1 = len(boxes[0][0]), len(boxes[1][0])
    assert by_slide["s0", "all"] == (n0, n0 - 1)
    assert by_case["p", "all"] == (n0 + n1, n0 + n1 - 1)
    planted, found = by_case["p", missing]
    assert planted - found == 1
    assert evaluation.agreement["slide"]["all"]["bias"] == -0.25
    assert evaluation.agreement["case"]["all"]["bias"] == pytest.approx(-1 / 3)
    total = sum(len(b) for b, _ in boxes)
    assert evaluation.figures["dq"] == pytest.approx((total - 1) / (total - 0.5))
    assert evaluation.per_case["q"]["pq"] == 1.0


def test_folds_that_lie_in_several_folders_are_pooled_as_if_they_lay_in_one(tmp_path):
    refs, results = finished(tmp_path, "instance", without_first)
    other = tmp_path / "fold1" / "results"
    other.mkdir(parents=True)
    for name in SLIDES[2:]:
        shutil.move(results / name, other / name)
    parts = [ResultFolder(tuple(refs[2:]), other), ResultFolder(tuple(refs[:2]), results)]
    task, data = get_task("instance"), DataSection(annotations="objects")
    truths = read_truths(refs, data, NAMES)
    both = measure_slides(parts, truths, task=task, classes=NAMES)
    pooled = pool(both, task=task, classes=NAMES, draws=20)
    for name in SLIDES[2:]:
        shutil.move(other / name, results / name)
    folder = ResultFolder(tuple(refs[::-1]), results)
    one = measure_slides([folder], truths, task=task, classes=NAMES)
    whole = pool(one, task=task, classes=NAMES, draws=20)
    assert (pooled.figures, pooled.intervals, pooled.counts) == (
        whole.figures,
        whole.intervals,
        whole.counts,
    )


def test_a_slide_in_two_folds_is_refused(tmp_path):
    refs, results = finished(tmp_path, "detection")
    parts = [ResultFolder(tuple(refs), results), ResultFolder((refs[1],), results)]
    with pytest.raises(QuadratError, match="'s1' is to be evaluated twice"):
        measure_slides(parts, {}, task=get_task("detection"), classes=NAMES)


def test_average_precision_of_other_slides_is_no_average_precision_of_these(tmp_path):
    slides = measured(tmp_path, "detection")
    with pytest.raises(ValueError, match="the same slides"):
        pool(slides, task=get_task("detection"), classes=NAMES, ranked=slides[1:], draws=5)


def test_a_slide_s_row_says_how_much_was_compared(tmp_path):
    for task, name in (
        ("instance", "count_planted"),
        ("semantic", "annotated_mm2"),
        ("classification", "evaluated_slides"),
    ):
        slides = measured(tmp_path / task, task)
        evaluation = pool(slides, task=get_task(task), classes=NAMES, draws=5)
        assert evaluation.per_slide["s0"][name] > 0
        total = sum(row[name] for row in evaluation.per_slide.values())
        assert total == pytest.approx(sum(row[name] for row in evaluation.per_case.values()))
        assert name not in evaluation.intervals


BOXES = np.array([(0, 0, 8, 8), (16, 0, 24, 8), (32, 32, 40, 40), (48, 48, 60, 60)])
CLASS_ID = np.array([0, 1, 0, 1])


def figures_of(folder, task, answer):
    """The figures of one slide with the truth ``BOXES``."""
    truth, result = folder / "s.geojson", folder / "results" / "s"
    kind = "detection" if annotated.ANNOTATIONS[task] == "objects" else "annotation"
    annotated.write_geojson(truth, BOXES, CLASS_ID, kind=kind)
    annotated.write_result(result, answer, task=task)
    ref = SlideRef("s", "s.png", annotation=str(truth), annotated="all")
    truths = read_truths([ref], DataSection(annotations=annotated.ANNOTATIONS[task]), NAMES)
    folders = [ResultFolder((ref,), folder / "results")]
    slides = measure_slides(folders, truths, task=get_task(task), classes=NAMES)
    return pool(slides, task=get_task(task), classes=NAMES, draws=5)


def found_answer(task, boxes, class_id, *, scale=1):
    """An answer on a grid of ``scale`` level-0 px per grid px; ``boxes`` in level-0 px."""
    boxes, class_id = np.asarray(boxes) // scale, np.asarray(class_id)
    side = SIDE // scale
    values = class_id + 1 if task == "semantic" else np.arange(1, len(boxes) + 1)
    image = annotated.painted(boxes, values)[:side, :side]
    return Answer(
        answers.frame(side, side, mpp=0.5 * scale, scale=scale),
        objects=answers.table(boxes, class_id, np.full(len(boxes), 0.9)),
        labels=None if task == "detection" else answers.reader(image),
    )


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("task", ["instance", "detection", "semantic"])
def test_a_perfect_result_scores_one_on_any_grid(tmp_path, task, scale):
    evaluation = figures_of(tmp_path, task, found_answer(task, BOXES, CLASS_ID, scale=scale))
    assert evaluation.figures[evaluation.main] == 1.0
    if task == "instance":
        assert {evaluation.figures[n] for n in ("sq", "dq", "aji", "pq.a", "pq.b")} == {1.0}
    if task == "semantic":
        area = (2 * 64 + 64 + 144) * 0.25e-6
        assert evaluation.per_slide["s"]["annotated_mm2"] == pytest.approx(area)
        assert evaluation.per_slide["s"]["found_mm2"] == pytest.approx(area)


def test_an_instance_result_with_one_half_and_one_missed_object_is_scored_as_worked_by_hand(
    tmp_path,
):
    found = [BOXES[0], (16, 0, 24, 6), (32, 32, 36, 40)]  # IoU 1, 3/4, and 1/2, which is no match
    got = figures_of(tmp_path, "instance", found_answer("instance", found, CLASS_ID[:3]))
    assert got.figures["sq"] == pytest.approx(1.75 / 2)
    assert got.figures["dq"] == pytest.approx(2 / (2 + 0.5 * 2 + 0.5 * 1))
    assert got.figures["pq.b"] == pytest.approx(0.75 / 1.5)
    assert got.figures["aji"] == pytest.approx((64 + 48 + 32) / (64 + 64 + 64 + 144))
    assert got.agreement["slide"]["all"]["total_relative_error"] == pytest.approx(-0.25)


def test_detections_are_matched_within_classes_and_one_to_one(tmp_path):
    boxes, class_id = [*BOXES, BOXES[0]], [0, 0, 0, 1, 0]
    got = figures_of(tmp_path, "detection", found_answer("detection", boxes, class_id))
    assert got.figures["f1.a"] == pytest.approx(2 * 2 / (2 + 4))
    assert got.figures["f1.b"] == pytest.approx(2 * 1 / (2 + 1))
    assert got.figures["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert got.agreement["slide"]["all"]["total_relative_error"] == pytest.approx(0.25)


def test_a_slide_without_annotation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"s\.png: the manifest names no annotation"):
        read_truths([SlideRef("s", "s.png")], DataSection(annotations="objects"), NAMES)
    manifest = annotated.write_images(tmp_path, ["s0"], task="detection", annotated="")
    with pytest.raises(
        AnnotationError, match=r"s0\.png: the manifest does not say where all objects are annotated"
    ):
        read_truths(read_manifest(manifest), DataSection(annotations="objects"), NAMES)


def test_points_in_um_are_compared_at_the_scale_of_the_row_or_of_the_file(tmp_path):
    table = tmp_path / "s.tsv"
    table.write_text(f"Image\tClass\tCentroid X µm\tCentroid Y µm\ns.png\t{NAMES[0]}\t4\t3\n")
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(tmp_path / "s.png")
    data = DataSection(annotations="points", point_diameter_um=8)
    ref = SlideRef("s", str(tmp_path / "s.png"), annotation=str(table), annotated="all", mpp=0.5)
    points, _ = read_truths([ref], data, NAMES)["s"].objects.points(Box(0, 0, 9, 9), Scale(1, 1))
    assert points.tolist() == [[8, 6]]
    with pytest.raises(AnnotationError, match="coordinates are in um"):
        read_truths([replace(ref, mpp=None)], data, NAMES)


def test_figures_of_pixel_work_have_the_same_values_under_the_names_of_px(tmp_path):
    slides = measured(tmp_path, "semantic")
    task = get_task("semantic")
    um, px = (pool(slides, task=task, classes=NAMES, draws=5, unit=unit) for unit in ("um", "px"))
    assert {"annotated_mpx", "annotated_mpx.a", "found_mpx"} <= set(px.figures)
    pairs = [(um.figures, px.figures), (um.intervals, px.intervals)]
    pairs += [(um.per_slide[name], px.per_slide[name]) for name in um.per_slide]
    pairs += [(um.per_case[name], px.per_case[name]) for name in um.per_case]
    for one, other in pairs:
        assert [name.replace("mm2", "mpx") for name in one] == list(other)
        np.testing.assert_equal([*other.values()], [*one.values()])
