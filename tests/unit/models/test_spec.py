"""From a pipeline to a specification in um or in px, and as JSON."""

from dataclasses import replace

import pytest

from quadrat.config.pipeline import ClassSection, DataSection, ModelSection, Pipeline, SlideSection
from quadrat.core.errors import ConfigError, PackageError
from quadrat.engine.finished import spec_for
from quadrat.models.spec import need_stated, need_unit, spec_from_dict, spec_of, spec_to_dict
from quadrat.tasks import get_task

CLASSES = (ClassSection(name="a"), ClassSection(name="b"))
STATED = {
    "instance": {"min_area_um2": 30.0, "cap_um": 300.0},
    "instance_masks": {"min_area_um2": 30.0},
    "semantic": {"min_area_um2": 30.0},
    "detection": {},
    "classification": {},
}


def pipeline_for(task, *, mpp="px", thresholds=None):
    return Pipeline(
        name="mine",
        task=task,
        classes=CLASSES,
        model=ModelSection(package="p", mpp=mpp),
        slide=SlideSection(tissue="all"),
        data=DataSection(tissue="all"),
        thresholds=STATED[task] if thresholds is None else thresholds,
    )


@pytest.mark.parametrize("task", STATED)
def test_a_specification_in_px_comes_back_from_its_card_and_names_no_um(task):
    spec = spec_of(pipeline_for(task), get_task(task))
    values = spec_to_dict(spec)
    assert (spec.unit, spec.mpp, values["unit"]) == ("px", 1.0, "px")
    assert "mpp" not in values
    assert not [name for name in values["thresholds"] if "um" in name]
    assert spec_from_dict(values) == spec


def test_the_card_of_a_specification_in_um_is_as_it_was():
    spec = spec_of(pipeline_for("instance", mpp=0.5), get_task("instance"))
    values = spec_to_dict(spec)
    assert values["mpp"] == 0.5
    assert "unit" not in values
    assert {"min_area_um2", "cap_um"} <= set(values["thresholds"])
    assert spec_from_dict(values) == spec


def test_a_card_of_before_there_was_a_choice_of_precision_is_one_of_fp32():
    spec = spec_of(pipeline_for("instance", mpp=0.5), get_task("instance"))
    values = spec_to_dict(spec)
    del values["inference"]
    assert spec_from_dict(values | {"batch": 4}) == spec
    assert spec_from_dict(values | {"inference": "bf16"}) == replace(spec, inference="bf16")
    with pytest.raises(ValueError, match="inference is 'fp16'; it must be fp32 or bf16"):
        spec_from_dict(values | {"inference": "fp16"})


@pytest.mark.parametrize("asked", [None, "fp32", "bf16"])
@pytest.mark.parametrize("theirs", ["fp32", "bf16"])
def test_a_pipeline_that_states_a_precision_lays_it_over_the_packages(asked, theirs, tmp_path):
    pipeline = pipeline_for("detection", mpp=0.5)
    pipeline = replace(pipeline, model=replace(pipeline.model, inference=asked))
    spec = replace(spec_of(pipeline, get_task("detection")), inference=theirs)
    assert spec_for(pipeline, spec, tmp_path).inference == (asked or theirs)
    assert spec_of(pipeline, get_task("detection")).inference == (asked or "fp32")


@pytest.mark.parametrize("task", STATED)
def test_every_threshold_in_um_is_to_be_stated_in_pixel_work_and_nowhere_else(task):
    need_stated(pipeline_for(task), get_task(task))
    need_stated(pipeline_for(task, mpp=0.5, thresholds={}), get_task(task))
    for name in STATED[task]:
        left = {key: value for key, value in STATED[task].items() if key != name}
        unit = "square pixels" if name == "min_area_um2" else "pixels"
        with pytest.raises(ConfigError, match=rf"thresholds\.{name} is not stated; .* in {unit}$"):
            need_stated(pipeline_for(task, thresholds=left), get_task(task))


def test_a_threshold_that_is_named_by_px_already_could_not_be_told_from_one_in_um():
    class Own:
        name, default_thresholds = "own", {"side_px": 3.0}

    with pytest.raises(ConfigError, match="the task own has a threshold side_px"):
        need_stated(pipeline_for("detection"), Own())
    need_stated(pipeline_for("detection", mpp=0.5), Own())


@pytest.mark.parametrize(("theirs", "ours"), [("um", "px"), ("px", "um")])
def test_a_package_of_the_other_unit_is_refused(theirs, ours, tmp_path):
    pipeline = pipeline_for("detection", mpp="px" if ours == "px" else 0.5)
    spec = spec_of(pipeline, get_task("detection"))
    need_unit(pipeline, spec, tmp_path)
    with pytest.raises(PackageError, match=r"the pipeline mine .*: its figures would be given ano"):
        need_unit(pipeline, replace(spec, unit=theirs), tmp_path)
