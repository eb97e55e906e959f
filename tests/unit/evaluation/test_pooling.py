"""Evaluation of result files: what is read back, pooled, refused and written; small images, results
through real writers."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from helpers import annotated, answers
from helpers.annotated import CLASSES, NAMES, SIDE
from helpers.runs import quadrat
from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import DataSection, load_pipeline
from quadrat.core.errors import AnnotationError, ConfigError, QuadratError
from quadrat.core.geometry import Box
from quadrat.evaluation.evaluate import need_unseen, of_split
from quadrat.evaluation.pooling import (
    Judged,
    Part,
    evaluate,
    expected_of,
    judge_slides,
    with_ranking,
)
from quadrat.evaluation.report import aligned, table_rows
from quadrat.evaluation.results import read_answer
from quadrat.metrics.bootstrap import case_intervals
from quadrat.metrics.protocol import Answer
from quadrat.tasks import get_task

SLIDES = ["s0", "s1", "s2", "s3"]
CASES = ["p", "p", "q", "r"]


def painted(boxes, values):
    image = np.zeros((SIDE, SIDE), np.int32)
    for (x0, y0, x1, y1), value in zip(boxes, values, strict=True):
        image[y0:y1, x0:x1] = value
    return image


def right_answer(i, task):
    """What the truth of image ``i`` says, as an answer."""
    boxes, class_id = annotated.boxes_of(i)
    frame = answers.frame(SIDE, SIDE)
    score = 0.4 + 0.05 * np.arange(len(boxes))
    if task == "classification":
        return Answer(
            frame, tiles=answers.tile_scores([(0, 0), (0, 1)], [np.eye(2)[i % 2]] * 2), core=64
        )
    objects = answers.table(boxes, class_id, score)
    if task == "detection":
        return Answer(frame, objects=objects)
    values = class_id + 1 if task == "semantic" else np.arange(1, len(boxes) + 1)
    return Answer(frame, objects=objects, labels=answers.reader(painted(boxes, values)))


def finished(folder, task, change=lambda answer, i: answer, **kept):
    """Images, truth and results of ``SLIDES``; the manifest's slides and the results folder."""
    manifest = annotated.write_images(folder / "images", SLIDES, task=task, cases=CASES)
    for i, name in enumerate(SLIDES):
        annotated.write_result(
            folder / "results" / name, change(right_answer(i, task), i), task=task, **kept
        )
    return read_manifest(manifest), folder / "results"


def judged(folder, task, change=lambda answer, i: answer):
    refs, results = finished(folder, task, change)
    data = DataSection(annotations=annotated.ANNOTATIONS[task])
    return judge_slides([Part(tuple(refs), results)], task=get_task(task), data=data, classes=NAMES)


def without_first(answer, i):
    """Image 0 lacks its first object, in the table and in the label image."""
    if i:
        return answer
    rest = answer.objects.take(np.arange(1, len(answer.objects)))
    boxes, _ = annotated.boxes_of(0)
    return replace(
        answer, objects=rest, labels=answers.reader(painted(boxes, np.arange(len(boxes))))
    )


# --- reading results


def test_an_object_table_comes_back_from_its_file_as_it_was_written(tmp_path):
    written = right_answer(1, "instance")
    written = replace(
        written, frame=replace(written.frame, mpp=0.48, scale_row=1.93, scale_col=1.91)
    )
    annotated.write_result(tmp_path / "s", written, task="instance")
    got = read_answer(tmp_path / "s", classes=NAMES, label_image="objects")
    assert got.frame == written.frame
    for name in ("class_id", "score", "bbox", "centroid", "area_px", "perimeter_px", "flags"):
        np.testing.assert_allclose(
            getattr(got.objects, name), getattr(written.objects, name), rtol=1e-12, err_msg=name
        )
    for box in (annotated.whole(written.frame), Box(10, 20, 70, 33)):
        np.testing.assert_array_equal(got.labels(box), written.labels(box))


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ((96, 96), [(0, 0), (0, 1), (1, 1)]),
        ((50, 96), [(0, 1)]),
        ((40, 60), [(0, 0)]),
        ((200, 90), [(2, 0)]),
    ],
)
def test_tiles_come_back_with_the_side_of_their_cores(tmp_path, shape, cells):
    frame = answers.frame(*shape, scale=2.3)
    probability = np.random.default_rng(0).dirichlet((1, 1), len(cells))
    written = Answer(frame, tiles=answers.tile_scores(cells, probability), core=64)
    annotated.write_result(tmp_path / "s", written, task="classification")
    got = read_answer(tmp_path / "s", classes=NAMES, label_image=None)
    np.testing.assert_array_equal(got.tiles.cell, cells)
    np.testing.assert_allclose(
        got.tiles.probability.astype(int), written.tiles.probability.astype(int), atol=1
    )
    # where there is one core only, and it reaches over the slide's edge, its side on the slide is
    # all that can be known
    want, found = (
        [Box(r * n, c * n, r * n + n, c * n + n).intersect(frame.box) for r, c in cells]
        for n in (64, got.core)
    )
    assert found == want


def test_an_unfinished_slide_is_named(tmp_path):
    with pytest.raises(QuadratError, match=r"s.summary\.json: no finished result"):
        read_answer(tmp_path / "s", classes=NAMES, label_image=None)


def test_results_of_other_classes_are_refused(tmp_path):
    annotated.write_result(tmp_path / "s", right_answer(0, "detection"), task="detection")
    with pytest.raises(QuadratError, match=r"class . is '.', but the pipeline's classes are b, a"):
        read_answer(tmp_path / "s", classes=("b", "a"), label_image=None)


# --- figures


@pytest.mark.parametrize("task", ["instance", "detection", "semantic", "classification"])
def test_results_that_say_what_the_truth_says_score_one(tmp_path, task):
    evaluation = evaluate(judged(tmp_path, task), task=get_task(task), classes=NAMES, draws=20)
    assert evaluation.figures[evaluation.main] == 1.0
    assert evaluation.intervals[evaluation.main] == (1.0, 1.0)
    assert set(evaluation.per_slide) == set(SLIDES)
    assert evaluation.cases == ("p", "q", "r")
    if evaluation.counts:
        assert evaluation.agreement["case"]["all"]["icc"] == 1.0
        assert evaluation.agreement["slide"]["a"]["mae"] == 0.0


def test_counts_are_grouped_by_slide_and_by_case(tmp_path):
    slides = judged(tmp_path, "instance", without_first)
    evaluation = evaluate(slides, task=get_task("instance"), classes=NAMES, draws=20)
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
    parts = [Part(tuple(refs[2:]), other), Part(tuple(refs[:2]), results)]
    task, data = get_task("instance"), DataSection(annotations="objects")
    pooled = evaluate(
        judge_slides(parts, task=task, data=data, classes=NAMES), task=task, classes=NAMES, draws=20
    )
    for name in SLIDES[2:]:
        shutil.move(other / name, results / name)
    one = judge_slides([Part(tuple(refs[::-1]), results)], task=task, data=data, classes=NAMES)
    whole = evaluate(one, task=task, classes=NAMES, draws=20)
    assert (pooled.figures, pooled.intervals, pooled.counts) == (
        whole.figures,
        whole.intervals,
        whole.counts,
    )


def test_a_slide_in_two_folds_is_refused(tmp_path):
    refs, results = finished(tmp_path, "detection")
    parts = [Part(tuple(refs), results), Part((refs[1],), results)]
    with pytest.raises(QuadratError, match="'s1' is to be evaluated twice"):
        judge_slides(parts, task=get_task("detection"), data=DataSection(), classes=NAMES)


def test_average_precision_of_other_slides_is_no_average_precision_of_these():
    one, other = Judged("a", "a", None), Judged("b", "b", None)
    with pytest.raises(ValueError, match="other slides"):
        with_ranking([one], [other], task=get_task("detection"), classes=NAMES)


def test_intervals_are_drawn_by_case_and_repeat():
    value = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.5])
    cases = ["p", "p", "p", "q", "q", "r"]

    def mean(index):
        return {"mean": float(value[index].mean())}

    one = case_intervals(cases, mean, draws=200)
    assert one == case_intervals(cases, mean, draws=200)
    assert one["mean"] == (
        0.0,
        1.0,
    )  # the whole of a case or none of it: units alone would be less spread
    assert case_intervals(["p", "p", "q"], lambda index: {"mean": 1.0}) == {}


# --- what is refused


def test_a_package_that_has_seen_a_case_or_a_slide_is_refused(tmp_path):
    refs = [SlideRef("s0", "s0.png", case="p"), SlideRef("s1", "s1.png")]
    need_unseen(
        {"training": {"slides": ["t"], "validation_slides": ["v"], "cases": ["q", "t", "v"]}},
        tmp_path,
        refs,
    )
    with pytest.raises(ConfigError, match=r"case 'p' \(slide 's0' of 2\).*--allow-seen"):
        need_unseen({"training": {"slides": ["t"], "cases": ["p"]}}, tmp_path, refs)
    with pytest.raises(ConfigError, match="case 's1'"):
        need_unseen(
            {"training": {"slides": ["t"], "validation_slides": ["s1"], "cases": ["x"]}},
            tmp_path,
            refs,
        )
    own = {"slides": ["t"], "cases": ["x"]}
    with pytest.raises(ConfigError, match=r"case 'p' .*by the package that it was begun from"):
        need_unseen(
            {"training": own | {"inherited": {"slides": ["u"], "cases": ["p"]}}}, tmp_path, refs
        )
    need_unseen(
        {"training": own | {"inherited": {"slides": ["u"], "cases": ["z"]}}}, tmp_path, refs
    )
    for card in ({}, {"training": own | {"inherited": None}}):
        with pytest.raises(ConfigError, match="does not say on which slides"):
            need_unseen(card, tmp_path, refs)


def test_a_split_without_slides_is_refused_and_the_splits_are_named():
    refs = [SlideRef("a", "a"), SlideRef("b", "b", split="val")]
    assert of_split(refs, "train") == refs[:1]
    assert of_split(refs, "all") == refs
    with pytest.raises(
        ConfigError, match=r"no slide of split 'test' \(there are: train \(1\), val \(1\)\)"
    ):
        of_split(refs, "test")


def test_a_slide_without_annotation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"s\.png: the manifest names no annotation"):
        expected_of(SlideRef("s", "s.png"), DataSection(annotations="objects"), NAMES)
    manifest = annotated.write_images(tmp_path, ["s0"], task="detection", annotated="")
    with pytest.raises(
        AnnotationError, match=r"s0\.png: the manifest does not say where all objects are annotated"
    ):
        expected_of(read_manifest(manifest)[0], DataSection(annotations="objects"), NAMES)


# --- the command


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A detection package of random weights, evaluated by the command; (folder, what the command
    said)."""
    folder = tmp_path_factory.mktemp("evaluated")
    manifest = annotated.write_images(folder / "images", SLIDES, task="detection", cases=CASES)
    package = annotated.write_package(folder / "package", "detection", training=annotated.ABOUT)
    pipeline = annotated.write_pipeline(
        folder / "my.yaml", "detection", package, manifest, thresholds={"score": 0.5}
    )
    return folder, quadrat("evaluate", pipeline, "--out", folder / "out")


def read_metrics(folder):
    return json.loads((folder / "evaluation" / "metrics.json").read_text())


def test_the_command_runs_judges_and_prints_one_table(evaluated):
    folder, done = evaluated
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "my (detection), split 'test': 4 slides, 3 cases"
    assert lines[1].split() == ["figure", "value", "95", "%", "a", "b"]
    assert lines[2].startswith("f1 ")
    said = read_metrics(folder / "out")
    assert said["main"] == "f1"
    assert said["packages"][0]["name"] == "package"
    pictures = (
        "confusion",
        "counts_slide",
        "counts_case",
        "bland_altman_slide",
        "bland_altman_case",
        "precision_recall",
    )
    written = {path.name for path in (folder / "out" / "evaluation").iterdir()}
    tables = {"metrics.json", "per_slide.csv", "per_case.csv", "counts.csv", "report.md"}
    assert written == tables | {f"{name}.png" for name in pictures}
    with (folder / "out" / "evaluation" / "per_slide.csv").open() as stream:
        assert [(row["slide"], row["case"]) for row in csv.DictReader(stream)] == list(
            zip(SLIDES, CASES, strict=True)
        )


def test_average_precision_is_of_all_candidates_and_the_rest_of_the_working_threshold(evaluated):
    folder, _ = evaluated
    stated = [
        json.loads((folder / "out" / place / "s0" / "summary.json").read_text())
        for place in ("results", "ap/results")
    ]
    assert [s["thresholds"]["score"] for s in stated] == [0.5, 0.1]
    refs = read_manifest(folder / "images" / "slides.csv")
    task, said = get_task("detection"), read_metrics(folder / "out")["figures"]
    at = [
        evaluate(
            judge_slides(
                [Part(tuple(refs), folder / "out" / place)],
                task=task,
                data=DataSection(),
                classes=NAMES,
            ),
            task=task,
            classes=NAMES,
            draws=5,
        )
        for place in ("results", "ap/results")
    ]
    assert said["recall_any"] == pytest.approx(at[0].figures["recall_any"])
    assert said["ap50"] == pytest.approx(at[1].figures["ap50"])
    found = [evaluation.agreement["slide"]["all"]["found"] for evaluation in at]
    assert 0 < found[0] < found[1]


def test_finished_results_are_evaluated_to_the_same_figures_without_a_run(evaluated, tmp_path):
    folder, _ = evaluated
    done = quadrat(
        "evaluate",
        folder / "my.yaml",
        "--results",
        folder / "out" / "results",
        "--out",
        tmp_path,
        "--json",
    )
    assert done.code == 0, done.err
    assert json.loads(done.out) == read_metrics(folder / "out")
    assert not (tmp_path / "results").exists()


def test_results_of_another_package_are_refused(evaluated, tmp_path):
    folder, _ = evaluated
    other = annotated.write_package(
        tmp_path / "other", "detection", training=annotated.ABOUT, seed=1
    )
    words = (
        "--results",
        folder / "out" / "results",
        "--out",
        tmp_path / "out",
        "--set",
        f"model.package={other}",
    )
    done = quadrat("evaluate", folder / "my.yaml", *words)
    assert done.code == 2
    assert "made by another model" in done.err


def test_a_slide_twice_and_a_copy_of_a_training_slide_are_refused(evaluated, tmp_path):
    folder, _ = evaluated
    images = folder / "images"
    rows = list(csv.DictReader((images / "slides.csv").open()))
    copy = tmp_path / "copy.png"
    copy.write_bytes((images / rows[1]["slide"]).read_bytes())
    for extra, text in (
        ({"slide": str(images / rows[1]["slide"])}, "is listed twice"),
        ({"slide": str(copy)}, "hold the same bytes"),
    ):
        with (tmp_path / "m.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*dict.fromkeys([*rows[0], "name"])])
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {k: str(images / row[k]) for k in ("slide", "annotation")})
            writer.writerow(
                rows[1]
                | {"annotation": str(images / rows[1]["annotation"]), "name": "other", "case": "z"}
                | extra
            )
        done = quadrat(
            "evaluate",
            folder / "my.yaml",
            "--manifest",
            tmp_path / "m.csv",
            "--out",
            tmp_path / "out",
        )
        assert done.code == 2, done.out
        assert text in done.err


def test_a_seen_case_is_refused_before_anything_runs_unless_allowed(evaluated, tmp_path):
    folder, _ = evaluated
    card = json.loads((folder / "package" / "card.json").read_text())
    seen = tmp_path / "seen"
    shutil.copytree(folder / "package", seen)
    card["training"]["cases"] = ["q"]
    (seen / "card.json").write_text(json.dumps(card))
    words = (folder / "my.yaml", "--set", f"model.package={seen}", "--out", tmp_path / "out")
    done = quadrat("evaluate", *words)
    assert done.code == 2
    assert "has seen the case 'q'" in done.err
    assert not (tmp_path / "out").exists()
    done = quadrat("evaluate", *words, "--allow-seen", "--no-ap")
    assert done.code == 0
    assert "note: --allow-seen" in done.out
    assert "note: average precision is that of the objects above the working threshold" in done.out
    assert not (tmp_path / "out" / "ap").exists()


def test_a_slide_that_cannot_be_read_is_named_and_the_others_are_judged(evaluated, tmp_path):
    folder, _ = evaluated
    shutil.copytree(folder / "images", tmp_path / "images")
    (tmp_path / "images" / "s2.png").write_bytes(b"no image")
    words = ("--manifest", tmp_path / "images" / "slides.csv", "--out", tmp_path / "out", "--no-ap")
    done = quadrat("evaluate", folder / "my.yaml", *words)
    assert done.code == 1
    assert "3 slides" in done.out
    assert list(read_metrics(tmp_path / "out")["failed"]) == ["s2"]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--split", "val"), "no slide of split 'val'"),
        (("--distance-um", "0"), "--distance-um is 0"),
        (("--results", "nowhere"), "the slide 's0' has no result in nowhere"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(evaluated, tmp_path, words, wrong):
    folder, _ = evaluated
    done = quadrat("evaluate", folder / "my.yaml", "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert wrong in done.err


@pytest.mark.parametrize("task", ["instance", "semantic", "classification"])
def test_every_kind_is_run_and_judged_by_the_same_command(tmp_path, task):
    manifest = annotated.write_images(tmp_path / "images", SLIDES[:2], task=task)
    package = annotated.write_package(tmp_path / "package", task, training=annotated.ABOUT)
    pipeline = annotated.write_pipeline(tmp_path / "my.yaml", task, package, manifest)
    done = quadrat("evaluate", pipeline, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["main"] in said["figures"]
    assert (said["slides"], said["intervals"]) == (2, {})
    assert any("no intervals" in note for note in said["notes"])


def test_the_folds_of_a_cross_validation_are_each_judged_on_what_they_left_out(tmp_path):
    manifest = annotated.write_images(tmp_path / "images", SLIDES, task="semantic", split="")
    lines = manifest.read_text().splitlines()
    folds = ["fold", "0", "1", "1", "0"]
    manifest.write_text(
        "\n".join(f"{line},{fold}" for line, fold in zip(lines, folds, strict=True)) + "\n"
    )
    for fold, unseen in ((0, ["s0", "s3"]), (1, ["s1", "s2"])):
        about = {
            "slides": sorted(set(SLIDES) - set(unseen)),
            "cases": sorted(set(SLIDES) - set(unseen)),
        }
        annotated.write_package(
            tmp_path / f"package.fold{fold}", "semantic", training=about, seed=fold
        )
    pipeline = annotated.write_pipeline(
        tmp_path / "my.yaml", "semantic", tmp_path / "package", manifest
    )
    done = quadrat("evaluate", pipeline, "--folds", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["slides"], said["split"]) == (4, "left-out folds")
    assert [p["name"] for p in said["packages"]] == ["package.fold0", "package.fold1"]
    assert sorted(
        path.name for path in (tmp_path / "out" / "fold1" / "results").iterdir() if path.is_dir()
    ) == ["s1", "s2"]


def test_flat_images_are_analysed_whole_and_at_the_manifest_s_scale(tmp_path):
    from quadrat.evaluation.evaluate import for_evaluation

    pipeline = load_pipeline(
        str(annotated.write_pipeline(tmp_path / "my.yaml", "detection", "p", "m")),
        ["slide.mpp=2.0"],
    )
    prepared = for_evaluation(pipeline)
    assert (prepared.slide.tissue, prepared.slide.mpp) == ("all", None)
    assert (prepared.outputs.overlay, for_evaluation(pipeline, pictures=True).outputs.overlay) == (
        False,
        True,
    )


def test_the_table_has_a_column_a_class_and_no_empty_row(tmp_path):
    evaluation = evaluate(
        judged(tmp_path, "semantic"), task=get_task("semantic"), classes=NAMES, draws=5
    )
    rows = table_rows(evaluation)
    assert rows[0] == ["figure", "value", "95 %", "background", *[c.name for c in CLASSES]]
    assert rows[1] == ["dice", "1.000", "1.000 to 1.000", "1.000", "1.000", "1.000"]
    assert aligned([["a", "b"], ["cc", ""]]) == ["a   b", "cc"]
