"""What decides the weights of a training is in its key, by content; all else is not."""

import json
import shutil
from dataclasses import replace

import pytest

from helpers.places import THREE, Place
from quadrat.training.checkpoint import differences
from quadrat.training.key import training_key


def key_of(job):
    """As a checkpoint holds it."""
    return json.loads(json.dumps(training_key(job.pipeline, job.works, job.works[0].spec)))


@pytest.fixture
def own(tmp_path, place):
    """A place with pictures of its own."""
    shutil.copytree(place.pictures, tmp_path / "own")
    return Place(tmp_path, tmp_path / "own").manifest(*THREE)


def test_a_key_is_the_same_wherever_the_files_lie(own, tmp_path_factory):
    before = key_of(own.job())
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(own.pictures, moved / "pictures")
    there = Place(moved, moved / "pictures").manifest(*THREE).write()
    assert differences(before, key_of(there.job())) == []


def test_changed_pixels_and_annotations_are_in_the_key_and_named(own):
    before = key_of(own.job())
    shutil.copyfile(own.pictures / "5.labels.png", own.pictures / "1.labels.png")
    shutil.copyfile(own.pictures / "4.png", own.pictures / "0.png")
    changed = [line.partition(" ->")[0] for line in differences(before, key_of(own.job()))]
    assert [line.rpartition(" ")[0] for line in changed] == [
        "pixels of slide 0",
        "annotation of slide 1",
    ], "name, slide and the old digest"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("train.seed=3", "train.seed 0 -> 3"),
        ("train.augment.stain=0.2", "train.augment.stain 0.08 -> 0.2"),
        ("model.widths=[4, 6, 9]", "model.widths [4, 6, 8] -> [4, 6, 9]"),
        ("slide.damaged=mark", "slide.damaged fail -> mark"),
        ("data.bad_records=skip", "data.bad_records refuse -> skip"),
        ("thresholds.min_area_um2=3", "thresholds.min_area_um2 "),
    ],
)
def test_a_setting_that_decides_the_weights_is_in_the_key(setting, named, place):
    (found,) = differences(key_of(place.job()), key_of(place.job(setting)))
    assert found.startswith(named)


@pytest.mark.parametrize(
    "setting",
    [
        "train.patience=3", "train.calibrate=count", "train.cache_mb=7", "train.source=stored",
        "train.checkpoint_every_s=5", "model.license=mine", "model.inference=bf16", "run.batch=3",
        "run.threads=3",
        "data.source=a lab", "data.license=mine", "name=another",
    ],
)  # fmt: skip
def test_a_setting_that_decides_nothing_is_not_in_the_key(setting, place):
    assert differences(key_of(place.job()), key_of(place.job(setting))) == []


def test_the_order_and_the_splits_of_slides_are_in_the_key(place):
    job = place.job()
    before = key_of(job)
    (turned,) = differences(before, key_of(replace(job, works=job.works[::-1])))
    assert turned.startswith("order of slides ")
    first = replace(job.works[0], ref=replace(job.works[0].ref, split="val"))
    other = key_of(replace(job, works=(first, *job.works[1:])))
    assert differences(before, other) == ["split of slide 0 train -> val"]
