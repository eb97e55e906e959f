"""Which steps a slide takes."""

from quadrat.engine.route import steps_of
from quadrat.tasks import get_task


def names(task, pipeline, until="results"):
    return [step.name for step in steps_of(get_task(task), pipeline, until=until)]


def test_a_slide_of_each_task_takes_the_steps_that_its_task_has(tiny):
    last = ["labels", "paint", "pyramid", "finish"]
    first = ["plan", "layout", "predict"]
    pipeline = tiny.pipeline()
    assert names("instance", pipeline) == [*first, "stitch", "merge", *last]
    assert names("semantic", pipeline) == [*first, "stitch", "merge", *last]
    assert names("instance_masks", pipeline) == [*first, "select", "stitch", "merge", *last]
    for task in ("detection", "classification"):
        assert names(task, pipeline) == [*first, "merge", "pyramid", "finish"]


def test_settings_and_the_end_of_a_run_choose_among_the_steps(tiny):
    stored = tiny.pipeline(source="stored", outputs={"image": True})
    tiles = ["plan", "store", "tile", "seal"]
    assert names("instance", stored, "plan") == ["plan"]
    assert names("instance", stored, "tile") == names("instance", tiny.pipeline(), "tile") == tiles
    assert names("instance", stored, "predict") == [*tiles, "layout", "predict"]
    assert names("instance", stored)[7:] == [
        *("merge", "image", "copy", "labels", "paint", "pyramid", "finish")
    ]
