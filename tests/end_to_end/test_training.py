"""`quadrat train` on small pictures: folds, going on, what is refused before any work, and what is
left beside the weights."""

import csv
import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from helpers.faults import NO_ROOM, disk
from helpers.leases import signed
from helpers.places import COLUMNS, SIDE, THREE, Place, write_pictures
from helpers.runs import contents, quadrat
from helpers.trainings import no_step


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six annotated pictures; never changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def place(tmp_path, pictures):
    return Place(tmp_path, pictures).manifest(*THREE).write()


def test_as_many_packages_as_folds_and_no_card_knows_a_case_that_its_fold_tests(place):
    cases = {0: "a", 1: "a", 2: "b", 3: "c", 4: "d", 5: "e"}
    place.manifest(*((n, "", case, "") for n, case in cases.items()))
    done = place.train("--folds", "3")
    assert done.code == 0, done.err
    names = [f"package.fold{k}" for k in range(3)]
    assert place.written() == sorted([*names, *(f"{n}.training" for n in names)])
    tested = Counter()
    for k, name in enumerate(names):
        training = place.card(name)["training"]
        known = set(training["cases"])
        assert known == {
            cases[int(s)] for s in (*training["slides"], *training["validation_slides"])
        }
        assert training["slides"]
        assert training["validation_slides"]
        left_out = set(cases.values()) - known
        assert left_out
        tested.update(left_out)
        assert f"p.fold{k}: {place.folder / name}" in done.out
    assert tested == Counter("abcde"), "every case is tested once"


def test_the_folds_of_the_manifest_are_taken_as_they_stand(place):
    place.manifest((0, "", "a", 0), (1, "", "b", 0), (2, "", "c", 1), (3, "train", "d", ""))
    assert place.train("--folds").code == 0
    assert place.card("package.fold0")["training"]["cases"] == ["c", "d"]
    assert place.card("package.fold1")["training"]["cases"] == ["a", "b", "d"]


def test_a_failing_fold_does_not_stop_the_others_and_is_told_by_the_exit_code(place):
    place.manifest(*((n, "", f"case {n}", "") for n in range(4)))
    in_the_way = place.folder / "package.fold1.training" / "checkpoints" / "log.csv"
    in_the_way.mkdir(parents=True)
    done = place.train("--folds", "3")
    assert done.code == 74
    assert done.err.count("cannot be written") == 1
    assert "p.fold1: " in done.err
    assert str(in_the_way.parent) in done.err
    assert "Traceback" not in done.err
    assert [n for n in place.written() if not n.endswith(".training")] == [
        "package.fold0",
        "package.fold2",
    ]
    in_the_way.rmdir()
    again = place.train("--folds", "3")
    assert again.code == 0
    for k, said in enumerate(("exists already", "trained in", "exists already")):
        assert [line for line in again.err.splitlines() if f"p.fold{k}: " in line and said in line]
    assert again.err.count("trained in") == 1, "what is done is not done again"


REFUSED = {
    "more folds than cases": (
        [(0, "", "a", ""), (1, "", "b", "")],
        ("--folds", "3"),
        "3 folds need at least 3 cases",
    ),
    "one case and folds": (
        [(0, "", "a", ""), (1, "", "a", "")],
        ("--folds", "2"),
        "train without --folds",
    ),
    "one fold": ([(0, "", "a", ""), (1, "", "b", "")], ("--folds", "1"), "at least 2 folds"),
    "a case in two folds": (
        [(0, "", "a", 0), (1, "", "a", 1)],
        ("--folds",),
        "'a' is on two sides",
    ),
    "a case on two sides": (
        [(0, "train", "a", ""), (1, "test", "a", "")],
        (),
        "'a' is on two sides",
    ),
    "a slide listed twice": ([(0, "train", "a", ""), (0, "train", "a", "")], (), "0"),
    "a slide listed twice for folds": ([(0, "", "a", ""), (0, "", "b", "")], ("--folds", "2"), "0"),
    "nothing to learn from": (
        [(0, "val", "a", ""), (1, "test", "b", "")],
        (),
        "there is nothing to learn from",
    ),
    "an empty manifest": ([], (), "no slide"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(what, place):
    rows, words, told = REFUSED[what]
    done = place.manifest(*rows).train(*words)
    assert_refused(done, told, place)


def assert_refused(done, told, place):
    assert done.code == 2, done.err
    assert done.err.startswith("quadrat: ")
    assert done.err.count("\n") == 1
    assert told in done.err
    assert place.written() == []


def test_one_picture_under_two_names_is_refused(place, pictures):
    shutil.copyfile(pictures / "0.png", place.folder / "copy.png")
    line = f"{place.folder}/copy.png,{pictures}/0.labels.png,0.5,all,val,z,"
    with (place.folder / "train.csv").open("a") as stream:
        stream.write(line + "\n")
    done = place.train()
    assert done.code == 2
    assert "one slide under two names" in done.err


SETTINGS = {
    "a patch out of step": (
        "train.patch=60",
        "train.patch is 60; it must be a multiple of the network's stride 8",
    ),
    "a stride out of step": (
        "model.stride=4",
        "model.stride 4 is not a multiple of the network's stride 8",
    ),
    "no patch": ("train.patch=0", "train.patch is 0; it must be at least 1"),
    "no rate": ("train.lr=0", "train.lr is 0"),
    "a rate below nothing": ("train.lr=-.inf", "train.lr is -inf"),
    "validation backwards": ("train.validate_every=-2", "train.validate_every is -2"),
    "no thread": ("train.threads=0", "train.threads is 0; it must be at least 1"),
    "no package to begin from": ("train.init=nowhere", "nowhere"),
    "no encoder weights": ("model.encoder_weights=nowhere.pth", "has no pretrained weights"),
    "an unknown aim": ("train.calibrate=counts", "f1, count, none"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_wrong_settings_are_refused_before_anything_is_written(what, place):
    setting, told = SETTINGS[what]
    assert_refused(place.train("--set", setting), told, place)


def geojson(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def feature(name, corners, kind="detection"):
    ring = [[*c] for c in (*corners, corners[0])]
    about = {"objectType": kind, "classification": {"name": name}}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": about,
    }


SQUARE = [(10, 10), (30, 10), (30, 30), (10, 30)]
WRONG_TRUTH = {
    "a class that the pipeline lacks": (geojson(feature("tumour", SQUARE)), "all", "tumour"),
    "a crossing outline": (
        geojson(feature("nucleus", [(10, 10), (30, 30), (30, 10), (10, 30)])),
        "all",
        "bad record",
    ),
    "bounds of a class that is not drawn": (geojson(feature("nucleus", SQUARE)), "ROI", "ROI"),
    "no word on what is annotated": (geojson(feature("nucleus", SQUARE)), "", "annotated"),
    "no annotation file": (None, "all", "truth.geojson"),
    "text": ("this is no annotation", "all", "truth.geojson"),
}


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("what", WRONG_TRUTH)
def test_a_bad_annotation_is_told_with_its_file_before_a_slide_is_read(what, folds, place):
    text, annotated, told = WRONG_TRUTH[what]
    if text is not None:
        (place.folder / "truth.geojson").write_text(text)
    rows = [
        f"{place.pictures}/{n}.png,{place.folder}/truth.geojson,0.5,{annotated},,case {n},"
        for n in range(2)
    ]
    (place.folder / "train.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    words = ("--folds", "2") if folds else ()
    done = place.train("--set", "data.annotations=objects", *words)
    assert done.code == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list(place.folder.glob("*.training"))


def test_annotations_of_test_slides_are_not_needed_but_what_is_wrong_with_them_is_told(place):
    place.manifest((0, "train", "a", ""), (1, "test", "b", ""))
    text = (place.folder / "train.csv").read_text().replace("1.labels.png", "nothing.png")
    (place.folder / "train.csv").write_text(text)
    done = place.train()
    assert done.code == 0, done.err
    assert "p: the test slide 1 cannot be evaluated as it is: " in done.err
    assert "nothing.png" in done.err


def test_a_training_set_that_shows_nothing_of_its_classes_is_refused(place):
    place.manifest((0, "train", "a", ""))
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(place.folder / "0.png")
    text = (
        (place.folder / "train.csv").read_text().replace(f"{place.pictures}/0.labels.png", "0.png")
    )
    (place.folder / "train.csv").write_text(text)
    done = place.train()
    assert done.code == 2
    assert (
        "none of the 1 training slides shows anything of the classes nucleus: there is nothing to "
        "learn" in done.err
    )
    assert not (place.folder / "package.training").exists()


def test_one_class_alone_is_refused_where_there_is_nothing_to_choose_among(place):
    text = (
        (place.folder / "train.csv")
        .read_text()
        .replace("fold\n", "fold,label\n")
        .replace(",\n", ",,nucleus\n")
    )
    (place.folder / "train.csv").write_text(text)
    done = place.train("--set", "task=classification", "--set", "data.annotations=none")
    assert done.code == 2
    assert "a classifier chooses among classes, but the only one is 'nucleus'" in done.err


def test_a_class_without_an_example_is_told(place):
    done = place.write(thresholds={}).train("--set", "classes=[{name: nucleus}, {name: mitosis}]")
    assert done.code == 0, done.err
    assert "p: no training slide shows 'mitosis'; it cannot be learnt" in done.err


def test_two_pipelines_of_one_package_or_one_name_are_refused(place):
    done = quadrat("train", place.pipeline, place.pipeline)
    assert_refused(done, "would both write the package", place)
    other = place.folder / "other"
    other.mkdir()
    twin = Place(other, place.pictures).manifest((0, "train", "a", "")).write()
    done = quadrat("train", place.pipeline, twin.pipeline)
    assert done.code == 2
    assert "two of the pipelines are called p" in done.err


def test_one_picture_alone_is_enough_and_the_notes_say_what_is_missing(place):
    place.manifest((0, "", "", ""))
    done = place.train()
    assert done.code == 0, done.err
    said = done.out + done.err
    for note in (
        "no slide is for validation",
        "no slide is for testing",
        "all training slides are of one case",
    ):
        assert note in said
    card = place.card()
    assert card["training"]["slides"] == ["0"]
    assert card["training"]["validation_slides"] == []
    assert sorted(p.name for p in (place.folder / "package").iterdir()) == [
        "card.json", "curves.png", "training.csv", "weights.safetensors",
    ]  # fmt: skip


def test_logs_curves_and_examples_lie_beside_the_weights(place):
    assert place.train().code == 0
    folder = place.folder / "package"
    with (folder / "training.csv").open(newline="") as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [0, 1, 2, 3]
    with (folder / "validation.csv").open(newline="") as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [2, 4]
    for name in ("curves.png", "examples.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 500
    card = place.card()
    assert card["training"]["kept_step"] in (2, 4)
    assert card["training"]["validation_slides"] == ["2"]
    assert len(card["metrics"]["calibration"]["tried"]) > 1


def test_a_training_that_is_killed_while_it_draws_its_pages_draws_them_when_it_is_run_again(
    place,
):
    with disk(place.folder, error=NO_ROOM, fails=lambda call: "curves.png" in call.path) as watched:
        done = place.train()
    assert watched.failed is not None
    assert done.code == 74
    assert "curves.png: cannot be written (No space left on device); make room" in done.err
    assert not (place.folder / "package").exists()
    assert place.checkpoint()["ended"]
    assert place.train_here(callback=no_step)
    assert {"curves.png", "training.csv", "examples.png"} <= {
        p.name for p in (place.folder / "package").iterdir()
    }


def test_a_package_is_left_alone_unless_it_is_to_be_trained_again(place):
    assert place.train().code == 0
    first = contents(place.folder)
    done = place.train()
    assert done.code == 0
    assert "--overwrite trains it again" in done.out + done.err
    assert contents(place.folder) == first
    assert place.train("--overwrite", "--set", "train.seed=7").code == 0
    weights = "package/weights.safetensors"
    assert contents(place.folder)[weights] != first[weights]


def test_overwrite_does_an_ended_training_again_and_goes_on_with_an_interrupted_one(place):
    assert place.train().code == 0
    steps = []
    place.train_here(overwrite=True, callback=steps_into(steps))
    assert steps == [1, 2, 3, 4]
    # as if it had been killed after its second step
    shutil.rmtree(place.folder / "package.training" / "checkpoints")
    with pytest.raises(KeyboardInterrupt):
        place.train_here(overwrite=True, callback=interrupt_at(3))
    assert place.checkpoint()["step"] == 2
    steps.clear()
    place.train_here(overwrite=True, callback=steps_into(steps))
    assert steps == [3, 4]
    assert place.checkpoint()["ended"]


def interrupt_at(step):
    """A callback that ends the training in this step, as Ctrl-C would."""

    def callback(event):
        if (event.kind, event.done) == ("step", step):
            raise KeyboardInterrupt

    return callback


def steps_into(steps):
    """A callback that notes the steps taken."""
    return lambda event: steps.append(event.done) if event.kind == "step" else None


def interrupted_after(place, step, *settings):
    """The training of a place, ended in the step after ``step``."""
    with pytest.raises(KeyboardInterrupt):
        place.train_here(*settings, callback=interrupt_at(step + 1))
    assert place.checkpoint()["step"] == step


def test_changed_annotations_are_refused_and_with_overwrite_the_training_is_begun_anew(
    place, capsys
):
    own = place.folder / "own"
    shutil.copytree(place.pictures, own)
    here = Place(place.folder, own).manifest((0, "train", "a", ""), (1, "train", "b", ""))
    interrupted_after(here, 2)
    shutil.copyfile(own / "5.labels.png", own / "1.labels.png")
    refused = here.train()
    assert refused.code == 2
    assert "begun otherwise (annotation of slide 1 " in refused.err
    assert "or train anew with --overwrite" in refused.err
    assert here.checkpoint()["step"] == 2
    steps = []
    here.train_here(overwrite=True, callback=steps_into(steps))
    assert "p: what was begun otherwise (annotation of slide 1 " in capsys.readouterr().err
    assert steps == [1, 2, 3, 4]


def test_a_changed_setting_is_refused_before_a_slide_is_planned_and_set_back_the_training_goes_on(
    place,
):
    interrupted_after(place, 2)
    before = {p: p.stat().st_mtime_ns for p in place.folder.rglob("*") if p.is_file()}
    refused = place.train("--set", "train.threads=2")
    assert refused.code == 2
    assert "(train.threads 1 -> 2); set that back to go on with it" in refused.err
    assert {p: p.stat().st_mtime_ns for p in place.folder.rglob("*") if p.is_file()} == before
    steps = []
    place.train_here("train.calibrate=count", "train.patience=9", callback=steps_into(steps))
    assert steps == [3, 4]
    assert place.card()["metrics"]["calibration"]["aim"] == "count"


def test_an_ended_training_of_another_aim_chooses_thresholds_anew_without_a_step(place):
    assert place.train().code == 0
    shutil.rmtree(place.folder / "package")
    place.train_here("train.calibrate=none", callback=no_step)
    assert place.card()["metrics"]["calibration"] == {"aim": "none", "tried": []}


def test_a_package_that_another_training_is_at_work_on_is_left_to_it(place):
    lease = signed(place.folder / "package.training" / "driver", pid=os.getppid())
    refused = place.train("--overwrite")
    assert refused.code == 74
    told = f"p: another training is at work on {place.folder / 'package'} ("
    assert told in refused.err
    assert "; wait for it, or give this one another model.package" in refused.err
    assert lease.exists()
    lease.unlink()
    assert place.train().code == 0
    assert not list(lease.parent.glob("*.lease.*"))


def test_overwrite_that_is_refused_forgets_nothing(place):
    assert place.train().code == 0
    assert place.train("--overwrite", "--set", "train.patch=63").code == 2
    assert place.checkpoint()["ended"]


def test_moving_the_folder_does_not_begin_it_anew(place, tmp_path_factory):
    interrupted_after(place, 2)
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(place.folder / "package.training", moved / "package.training")
    there = Place(moved, place.pictures).manifest(*THREE).write()
    steps = []
    there.train_here(callback=steps_into(steps))
    assert steps == [3, 4]


def test_a_training_can_begin_from_a_package_and_its_card_says_so(place):
    assert place.train("--set", "train.steps=2").code == 0
    start = place.folder / "package"
    start.rename(place.folder / "first")
    shutil.rmtree(place.folder / "package.training")
    # a rate so small that the weights stay what they began with
    still = (
        "--set",
        "train.lr=1e-12",
        "--set",
        "train.weight_decay=0",
        "--set",
        "train.freeze_norm=true",
    )
    assert place.train("--init", place.folder / "first", *still).code == 0
    before, after = (
        load_file(place.folder / name / "weights.safetensors") for name in ("first", "package")
    )
    learnt = [n for n in before if "running" not in n and "num_batches" not in n]
    assert all(np.allclose(before[n], after[n], atol=1e-6) for n in learnt)
    encoder = [n for n in before if n.startswith("encoder") and "running" in n]
    assert encoder
    assert all(np.array_equal(before[n], after[n]) for n in encoder)
    assert place.card()["training"]["begun_from"] == str(place.folder / "first")


def test_what_a_package_was_begun_from_has_seen_counts_as_seen(place):
    assert place.train().code == 0  # learns a and b, is judged on c
    place.manifest(
        (3, "train", "d", ""), (2, "val", "c", ""), (0, "test", "a", ""), (1, "test", "b", "")
    )
    done = place.train(
        "--init", place.folder / "package", "--set", f"model.package={place.folder / 'second'}"
    )
    assert done.code == 0, done.err
    assert "has seen 1 of the val slides (2, ...): early stopping and thresholds" in done.err
    assert "has seen 2 of the test slides (0, ...): 'quadrat evaluate' will refuse them" in done.err
    training = place.card("second")["training"]
    assert (training["cases"], training["inherited"]) == (
        ["c", "d"],
        {"slides": ["0", "1", "2"], "cases": ["a", "b", "c"]},
    )
    done = quadrat(
        "evaluate",
        place.pipeline,
        "--set",
        f"model.package={place.folder / 'second'}",
        "--out",
        place.folder / "out",
    )
    assert done.code == 2
    assert "has seen the case 'a'" in done.err


def test_what_a_package_to_begin_from_knows_otherwise_is_told_before_the_training(place, capsys):
    assert place.train().code == 0
    first = (place.folder / "package").rename(place.folder / "first")
    shutil.rmtree(place.folder / "package.training")
    capsys.readouterr()
    other = f"train.init={first}", "classes=[{name: cell}]", "model.mpp=1.0"
    with pytest.raises(KeyboardInterrupt):
        place.train_here(*other, callback=interrupt_at(1))
    said = capsys.readouterr().err
    assert f"p: {first} was trained at model.mpp 0.5, this one is at 1.0" in said
    assert (
        f"p: {first} knows the classes nucleus, this one is to learn cell: the head is begun anew"
        in said
    )


def test_a_full_disk_is_told_with_the_exit_code_for_stores(place, monkeypatch):
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: type("Full", (), {"f_bavail": 1, "f_frsize": 1})(),
    )
    done = place.train()
    assert done.code == 74, done.err
    assert "make room" in done.err
    assert not (place.folder / "package").exists()
