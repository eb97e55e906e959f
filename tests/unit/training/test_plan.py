"""What is planned before a training: which slides, which folds, which jobs; and what becomes of
jobs that fail."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.places import THREE, refuse
from quadrat.core.errors import AnnotationError, ConfigError, SlideError, StoreError
from quadrat.engine.executor import Serial, guarded
from quadrat.engine.flow import ANYWHERE
from quadrat.engine.lease import Leases
from quadrat.training.job import TrainReceipt
from quadrat.training.plan import folds_of, train_all, training_manifest, training_of

SIX = tuple((n, "", f"case {n}", "") for n in range(6))


class Recording(Serial):
    """Runs jobs in this process and notes which were given to it together."""

    def __init__(self):
        self.together = []

    def run(self, source):
        together = []
        while (job := source.next(ANYWHERE)) is not None:
            if job.needs == "gpu":
                together.append(job.key)
            yield guarded(job)
        if together:
            self.together.append(together)


class Trainer:
    """Stands in for what a worker runs: notes the jobs, and fails those of some packages."""

    def __init__(self, **failures):
        self.jobs, self.failures = [], failures

    def __call__(self, job):
        self.jobs.append(job)
        name = Path(job.package).name.rpartition(".")[2]
        if name in self.failures:
            raise self.failures[name]
        return TrainReceipt(
            package=job.package,
            seconds=12.4,
            losses={"heat": 0.25, "loss": 0.5},
            promise="tiling-exact",
            figures={"f1": 0.75, "recall": 1.0},
            main="f1",
            step=3,
        )


# -- which slides


def test_a_training_has_the_slides_of_the_manifest_and_a_folder_next_to_its_package(place):
    training = training_of(place.load())
    assert (training.name, training.package) == ("p", place.folder / "package")
    assert training.folder == place.folder / "package.training"
    assert [(ref.name, ref.split) for ref in training.slides] == [
        ("0", "train"),
        ("1", "train"),
        ("2", "val"),
    ]
    assert any("no slide is for testing" in note for note in training.notes)


def test_a_pipeline_without_a_manifest_is_refused_with_the_way_out(place):
    pipeline = place.load()
    nameless = replace(pipeline, data=replace(pipeline.data, manifest=""))
    with pytest.raises(ConfigError, match=r"p names no training data; set data\.manifest to a CSV"):
        training_manifest(nameless)


def test_folds_leave_out_every_case_once_and_have_a_package_each(place):
    place.manifest(*SIX)
    trainings = folds_of(place.load(), 3)
    assert [t.name for t in trainings] == ["p.fold0", "p.fold1", "p.fold2"]
    assert [t.package.name for t in trainings] == [
        "package.fold0",
        "package.fold1",
        "package.fold2",
    ]
    assert trainings[0].folder.name == "package.fold0.training"
    tested = [ref.case for t in trainings for ref in t.slides if ref.split == "test"]
    assert sorted(tested) == [f"case {n}" for n in range(6)]
    for training in trainings:
        splits = {ref.split for ref in training.slides}
        assert splits == {"train", "val", "test"}
        assert len(training.slides) == 6


def test_folds_of_the_manifest_are_taken_as_they_stand(place):
    place.manifest((0, "", "a", 0), (1, "", "b", 0), (2, "", "c", 1), (3, "train", "d", ""))
    tested = {
        t.name: [ref.name for ref in t.slides if ref.split == "test"]
        for t in folds_of(place.load())
    }
    assert tested == {"p.fold0": ["0", "1"], "p.fold1": ["2"]}


def test_folds_are_the_same_for_the_same_seed_and_others_for_another(place):
    place.manifest(*SIX)

    def split(seed):
        return [t.slides for t in folds_of(place.load(f"train.seed={seed}"), 3)]

    assert split(1) == split(1)
    assert any(split(1) != split(seed) for seed in range(2, 6))


# -- which jobs


def test_the_job_holds_the_planned_slides_of_train_and_val_alone(place):
    place.manifest(*THREE, (3, "test", "d", ""))
    trainer = Trainer()
    train_all([training_of(place.load("slide.mpp=0.7"))], train_one=trainer)
    (job,) = trainer.jobs
    assert [work.ref.name for work in job.works] == ["0", "1", "2"]
    assert (job.package, job.folder) == (
        str(place.folder / "package"),
        str(place.folder / "package.training"),
    )
    for work in job.works:
        assert work.load_plan().cells
        assert work.identity
        assert work.margin >= 0
        assert work.path.is_relative_to(place.folder / "package.training" / "work")
        # mpp of a run's slides is not that of training slides, and data.tissue is theirs
        assert (work.slide.mpp, work.slide.tissue) == (None, "all")
    assert job.pipeline.slide == job.works[0].slide


def test_what_came_out_is_told_and_the_package_is_returned(place, capsys):
    made = train_all([training_of(place.load())], train_one=Trainer())
    assert made == {"p": place.folder / "package"}
    said = capsys.readouterr().err
    assert "p: trained in 12 s (heat 0.2500, loss 0.5000)\n" in said
    assert "p: f1 0.750 on validation slides, step 3 kept\n" in said
    assert "p: tiling-exact\n" in said


def test_a_package_that_exists_is_not_trained_unless_it_is_to_be_overwritten(place, capsys):
    (place.folder / "package").mkdir()
    (place.folder / "package" / "card.json").write_text("{}")
    trainer = Trainer()
    made = train_all([training_of(place.load())], train_one=trainer)
    assert made == {"p": place.folder / "package"}
    assert not trainer.jobs
    assert "exists already; --overwrite trains it again" in capsys.readouterr().err
    assert not (place.folder / "package.training").exists()
    train_all([training_of(place.load())], overwrite=True, train_one=trainer)
    assert len(trainer.jobs) == 1


def test_nothing_to_do_is_nothing_done():
    assert train_all([]) == {}


def test_trainings_run_together_and_those_of_several_processes_one_after_the_other(place):
    place.manifest(*SIX)
    trainings = folds_of(place.load(), 3)
    several = replace(
        trainings[1].pipeline, train=replace(trainings[1].pipeline.train, processes=2)
    )
    executor = Recording()
    train_all(
        [trainings[0], replace(trainings[1], pipeline=several), trainings[2]],
        executor=executor,
        train_one=Trainer(),
    )
    assert executor.together == [["p.fold0", "p.fold2"], ["p.fold1"]]


# -- what fails


def test_the_first_failure_is_raised_when_the_others_have_ended_and_the_rest_is_told(place, capsys):
    place.manifest(*SIX)
    trainer = Trainer(fold0=StoreError("no room"), fold2=StoreError("no room either"))
    with pytest.raises(StoreError, match=r"^p\.fold0: no room$"):
        train_all(folds_of(place.load(), 3), train_one=trainer)
    assert len(trainer.jobs) == 3
    said = capsys.readouterr().err
    assert "p.fold1: trained in" in said
    assert "p.fold2: failed: no room either\n" in said
    assert "p.fold0: failed" not in said, "whoever catches it tells it"


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (StoreError("the disk is full"), StoreError, "^p: the disk is full$"),
        (AnnotationError("a bad record"), SlideError, "^p: a bad record$"),
        (ZeroDivisionError("by nothing"), RuntimeError, "^p: ZeroDivisionError: by nothing\nTrace"),
    ],
    ids=["a full disk", "a refusal", "a crash"],
)
def test_a_failure_keeps_its_kind(failure, raised, message, place):
    with pytest.raises(raised, match=message):
        train_all([training_of(place.load())], train_one=Trainer(package=failure))


def test_a_slide_that_cannot_be_planned_ends_the_training(place):
    place.manifest(*THREE[:2])
    text = (place.folder / "train.csv").read_text()
    broken = place.folder / "broken.png"
    broken.write_bytes((place.pictures / "1.png").read_bytes()[:5000])
    (place.folder / "train.csv").write_text(text.replace(f"{place.pictures}/1.png", str(broken)))
    trainer = Trainer()
    with pytest.raises(SlideError, match="broken"):
        train_all([training_of(place.load("data.tissue=auto"))], train_one=trainer)
    assert not trainer.jobs


def test_two_trainings_must_have_names_and_packages_of_their_own(place):
    one = training_of(place.load())
    with pytest.raises(ConfigError, match="p and other would both write the package"):
        train_all([one, replace(one, name="other")], train_one=refuse)
    with pytest.raises(ConfigError, match="two of the pipelines are called p"):
        train_all([one, replace(one, package=place.folder / "other")], train_one=refuse)
    assert not one.folder.exists()


def test_a_training_holds_its_folder_and_gives_it_back_at_its_end(place):
    held = []

    def look(job):
        held.append(Leases(place.folder / "package.training").holder("driver"))
        return Trainer()(job)

    train_all([training_of(place.load())], train_one=look)
    assert held[0].holder.pid == os.getpid()
    assert Leases(place.folder / "package.training").holders() == {}
