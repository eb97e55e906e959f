"""The command: what is refused, what is run, and the figures it prints and writes."""

import csv
import json
import re
import shutil

import pytest

from helpers import annotated
from helpers.annotated import CASES, NAMES, SLIDES
from helpers.faults import NO_ROOM, disk
from helpers.runs import quadrat
from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import (
    ClassSection,
    DataSection,
    ModelSection,
    Pipeline,
    SlideSection,
    load_pipeline,
)
from quadrat.core.errors import ConfigError
from quadrat.evaluation import pooling
from quadrat.evaluation.evaluate import (
    EvaluationOptions,
    evaluate,
    evaluation_jobs,
    for_evaluation,
    need_unseen,
    of_split,
    settings_of,
)
from quadrat.evaluation.pooling import ResultFolder, measure_slides, pool, read_truths
from quadrat.tasks import get_task


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


def test_the_command_runs_compares_and_prints_one_table(evaluated):
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
    truths = read_truths(refs, DataSection(), NAMES)
    at = [
        pool(
            measure_slides(
                [ResultFolder(tuple(refs), folder / "out" / place)],
                truths,
                task=task,
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


def test_a_slide_that_cannot_be_read_is_named_and_the_others_are_evaluated(evaluated, tmp_path):
    folder, _ = evaluated
    shutil.copytree(folder / "images", tmp_path / "images")
    (tmp_path / "images" / "s2.png").write_bytes(b"no image")
    words = ("--manifest", tmp_path / "images" / "slides.csv", "--out", tmp_path / "out", "--no-ap")
    done = quadrat("evaluate", folder / "my.yaml", *words)
    assert done.code == 1
    assert "3 slides" in done.out
    assert list(read_metrics(tmp_path / "out")["failed"]) == ["s2"]


def test_no_figures_are_written_while_the_outputs_of_a_slide_cannot_be(evaluated, tmp_path):
    folder, _ = evaluated
    out = tmp_path / "out"
    words = ("--manifest", folder / "images" / "slides.csv", "--out", out, "--no-ap")
    with disk(out, error=NO_ROOM, fails=lambda call: call.target.endswith("results/s2")):
        done = quadrat("evaluate", folder / "my.yaml", *words)
    assert done.code == 74
    assert re.search("s2: commit: .*s2: cannot be written .No space left.*make room", done.err)
    assert not (out / "evaluation").exists()
    done = quadrat("evaluate", folder / "my.yaml", *words)
    assert done.code == 0, done.err
    assert read_metrics(out)["failed"] == {}


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
def test_every_kind_is_run_and_evaluated_by_the_same_command(tmp_path, task):
    manifest = annotated.write_images(tmp_path / "images", SLIDES[:2], task=task)
    package = annotated.write_package(tmp_path / "package", task, training=annotated.ABOUT)
    pipeline = annotated.write_pipeline(tmp_path / "my.yaml", task, package, manifest)
    done = quadrat("evaluate", pipeline, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["main"] in said["figures"]
    assert (said["slides"], said["intervals"]) == (2, {})
    assert any("no intervals" in note for note in said["notes"])


def test_the_folds_of_a_cross_validation_are_each_evaluated_on_what_they_left_out(tmp_path):
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


def test_each_annotation_file_is_read_once(evaluated, tmp_path, monkeypatch):
    folder, _ = evaluated
    read = []

    def counting(ref, *rest, **more):
        read.append(ref.name)
        return load_truth(ref, *rest, **more)

    monkeypatch.setattr(pooling, "load_truth", counting)
    options = EvaluationOptions(results=(folder / "out" / "results",))
    jobs = evaluation_jobs(load_pipeline(str(folder / "my.yaml")), None, tmp_path, options)
    done = evaluate(jobs, tmp_path, options)
    assert not done.details.notes  # average precision is of a second folder of results
    assert sorted(read) == SLIDES


@pytest.mark.parametrize(
    ("mpp", "data", "stated", "distance"),
    [
        (0.5, {}, None, 6.0),
        (0.5, {"annotations": "points", "point_diameter_um": 30.0}, None, 6.0),
        (0.5, {}, 4.0, 4.0),
        ("px", {"annotations": "points", "point_diameter_um": 30.0}, None, 15.0),
        ("px", {"annotations": "points", "point_diameter_um": 30.0}, 4.0, 4.0),
    ],
)
def test_the_distance_of_points_is_as_stated_or_as_the_unit_has_it(mpp, data, stated, distance):
    pipeline = Pipeline(
        name="p",
        task="detection",
        classes=(ClassSection(name="a"),),
        model=ModelSection(package="p", mpp=mpp),
        data=DataSection(tissue="all", **data),
        slide=SlideSection(tissue="all"),
    )
    assert settings_of(pipeline, distance_um=stated).distance_um == distance
