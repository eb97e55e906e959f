"""The training job: as text and back, its slides, and the package that it makes."""

import json

import numpy as np
import pytest
import torch

from helpers.places import Place
from helpers.trainings import no_step
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ConfigError
from quadrat.engine.work import SlideWork
from quadrat.models.spec import spec_of
from quadrat.tasks import get_task
from quadrat.training.distributed import Solo
from quadrat.training.job import (
    PROGRESS,
    TrainJob,
    job_from_json,
    job_to_json,
    material,
    train_network,
    train_package,
)

CPU = torch.device("cpu")
SHIPPED = ("nuclei", "cells", "masks", "demo_semantic", "demo_classification", "demo_detection")


IN_PX = ("model.mpp=px", "slide.mpp=null", "slide.tissue=all", "data.tissue=all")


def job_of(name, *more):
    """A job of a shipped pipeline, with a slide that has every field filled and one that has
    none."""
    pipeline = load_pipeline(name, ["train.validate_every=7", "slide.mpp=0.3", *more])
    spec = spec_of(pipeline, get_task(pipeline.task))
    full = SlideRef(
        "a", "dir/a b.svs", mpp=0.1 + 0.2, annotation="é.json", label="x", case="c", split="val",
        regions="r.geojson", annotated="all", fold=3,
    )  # fmt: skip
    works = tuple(
        SlideWork(ref, f"work/{ref.name}", spec, pipeline.slide, pipeline.task, "sha", margin=m)
        for ref, m in ((full, 12), (SlideRef("b", "b.png"), 0))
    )
    return TrainJob(pipeline, works, "package", "folder")


@pytest.mark.parametrize("more", [(), IN_PX], ids=["um", "px"])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_job_as_text_and_back_is_the_same_job(name, more):
    job = job_of(name, *more)
    text = job_to_json(job)
    again = job_from_json(text)
    assert again == job
    assert repr(again) == repr(job), "of the same types, too"
    assert job_to_json(again) == text


def test_the_text_of_a_job_is_plain_json_and_what_is_none_is_refused():
    text = job_to_json(job_of("nuclei"))
    content = json.loads(text)
    assert content.keys() == {"pipeline", "works", "package", "folder"}
    with pytest.raises(ValueError, match="JSON"):
        job_from_json("\x80\x04\x95")  # how a pickle begins
    with pytest.raises(ValueError, match="works"):
        job_from_json(json.dumps({name: content[name] for name in content if name != "works"}))
    content["works"][0]["margin"] = "wide"
    with pytest.raises(ValueError, match="margin"):
        job_from_json(json.dumps(content))


def test_a_job_without_a_slide_to_learn_from_is_refused(place):
    job = place.job()
    only = TrainJob(job.pipeline, job.works[2:], job.package, job.folder)
    with pytest.raises(ConfigError, match="no slide of split 'train'"), material(only):
        pass


def test_the_slides_of_a_job_are_those_to_learn_from_and_those_to_validate_on(place):
    with material(place.job()) as slides:
        assert [slide.name for slide in slides.train] == ["0", "1"]
        assert [slide.name for _, slide in slides.val] == ["2"]
        assert all(slide.truth.objects is not None for slide in slides.train)
        assert slides.notes == []


def test_a_job_makes_a_package_and_says_what_came_out_of_it(place):
    told = []
    receipt = train_package(place.job(), callback=told.append)
    card = place.card()
    assert receipt.package == str(place.folder / "package")
    assert receipt.step == card["training"]["kept_step"] in (2, 4)
    assert receipt.losses == card["metrics"]["training_loss"]
    assert receipt.main in receipt.figures
    assert "exact" in receipt.promise
    kinds = [(event.kind, event.done) for event in told]
    assert [done for kind, done in kinds if kind == "step"] == [1, 2, 3, 4]
    assert kinds.index(("best", 2)) < kinds.index(("step", 2)) < kinds.index(("checkpoint", 2))
    progress = json.loads((place.folder / "package.training" / PROGRESS).read_text())
    assert progress["done"] == 4


def test_a_job_that_is_done_makes_its_package_again_without_a_step(place):
    job = place.job()
    first = train_package(job)
    again = train_package(job, callback=no_step)
    np.testing.assert_equal(again.figures, first.figures)
    assert (again.losses, again.step) == (first.losses, first.step)


def test_the_key_follows_content_and_not_places(place, tmp_path_factory):
    """What is written is found by a job of another folder with the same pictures."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for picture in place.pictures.iterdir():
        (elsewhere / picture.name).write_bytes(picture.read_bytes())
    other = Place(elsewhere, elsewhere).manifest(
        (0, "train", "a", ""), (1, "train", "b", ""), (2, "val", "c", "")
    )
    other.write()
    train_package(place.job())
    (place.folder / "package.training" / "checkpoints").rename(elsewhere / "checkpoints")
    job = other.job()
    (elsewhere / "checkpoints").rename(elsewhere / "package.training" / "checkpoints")
    train_package(job, callback=no_step)


def test_only_the_first_of_several_processes_writes(place):
    class Second(Solo):
        first = False

    job = place.job("train.validate_every=0")
    with material(job) as slides:
        trained = train_network(job, slides, device=CPU, ranks=Second())
    assert len(trained.history) == 4
    left = [p.name for p in (place.folder / "package.training").rglob("*") if p.is_file()]
    assert PROGRESS not in left
    assert not [name for name in left if name.startswith("checkpoint")]
