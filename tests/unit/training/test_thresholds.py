"""Which thresholds are chosen on validation slides, and that a trial shows what a run with them
would write."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from helpers.schedules import CPU, Case, OnDisk
from quadrat.annotations.types import SlideTruth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import OutputsSection, SlideSection
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.predictions import BOX_UNIT, Candidates, quantise_score
from quadrat.engine import images, steps, tables
from quadrat.engine.opened import Opened, open_work_source
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.models.task import ModelSpec
from quadrat.store.predictions import Layout, TableStorage
from quadrat.tasks import get_task, task_names
from quadrat.training.thresholds import Trial, TrialView, calibrate, count_error, figures_of

LATTICE = Lattice(core=64, halo=16, stride=8, shard=128)
NAN = float("nan")


def spec_for(task, **thresholds):
    return ModelSpec(
        task=task,
        classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
        mpp=0.5,
        lattice=LATTICE,
        widths=(4, 6, 8),
        thresholds=dict(get_task(task).default_thresholds) | thresholds,
    )


# -- choosing


class Boxes:
    """Truth boxes x0, y0, x1, y1 of one class."""

    classes = ("a", "b")

    def __init__(self, xyxy):
        self.xyxy = np.asarray(xyxy, np.float64)

    def boxes(self, box, scale):
        return self.xyxy, np.zeros(len(self.xyxy), np.int64)


@pytest.fixture
def view_and_truth(tmp_path):
    """Ten objects; found are six of them surely, four weakly, and between these four
    that are none.
    """
    corner = np.array([(30 * (i % 8), 30 * (i // 8)) for i in range(14)], np.int32)
    xyxy = np.concatenate([corner, corner + 16], axis=1)
    score = np.array([0.9] * 6 + [0.37] * 4 + [0.57] * 4)
    cell = (corner[:, ::-1] + 8) // 4 * 4
    frame = Frame(128, 256, 0.5, 1.0, 1.0)
    spec = spec_for("detection")
    work = SlideWork(
        SlideRef("s.png", "s"), str(tmp_path / "s"), spec, SlideSection(), "detection", ""
    )
    layout = Layout(frame, LATTICE, ((0, 0), (0, 1)))
    store = TableStorage(Candidates).create(work.predictions, layout)
    for shard in layout.shards:
        own = cell[:, 1] // 128 == shard[1]
        found = Candidates(
            xyxy[own] * BOX_UNIT,
            quantise_score(score[own]),
            np.zeros(own.sum(), np.uint8),
            cell[own],
        )
        store.write(shard, {(0, 2 * shard[1]): found})
    return WorkView(work), SlideTruth(objects=Boxes(xyxy[:10]))


def test_the_built_example_has_the_figures_it_was_built_for(view_and_truth):
    task = get_task("detection")

    def at(score):
        return figures_of(task, spec_for("detection", score=score), [view_and_truth])

    assert [round(at(s).count_error, 6) for s in (0.7, 0.5, 0.3)] == [0.4, 0.0, 0.4]
    main = task.metrics.main
    assert [round(at(s).figures[main], 3) for s in (0.7, 0.5, 0.3)] == [0.75, 0.6, 0.833]


def test_the_best_figure_and_the_best_count_choose_differently(view_and_truth):
    task, spec = get_task("detection"), spec_for("detection")
    by_figure, tried = calibrate(task, spec, {}, [view_and_truth], aim="f1")
    by_count, again = calibrate(task, spec, {}, [view_and_truth], aim="count")
    assert by_figure.thresholds["score"] == 0.15, "the first of equals"
    assert by_count.thresholds["score"] == 0.4
    np.testing.assert_equal([t.figures for t in tried], [t.figures for t in again])
    assert len(tried) == len(task.threshold_grid.settings(spec.thresholds))
    best = {t.thresholds["score"]: t for t in tried}
    assert best[0.4].count_error == 0
    assert best[0.15].figures[task.metrics.main] == max(t.figures[task.metrics.main] for t in tried)
    for chosen in (by_figure, by_count):
        assert replace(chosen, thresholds=spec.thresholds) == spec, (
            "nothing but thresholds is chosen"
        )


@pytest.mark.parametrize("aim", ["f1", "count"])
@pytest.mark.parametrize(
    "fixed", [{"score": 0.62}, {"score": 0.21, "iou": 0.45}, {"class_aware": 1.0}]
)
def test_thresholds_that_the_file_sets_are_never_moved(aim, fixed, view_and_truth):
    task = get_task("detection")
    chosen, tried = calibrate(
        task, spec_for("detection", **fixed), fixed, [view_and_truth], aim=aim
    )
    for thresholds in (chosen.thresholds, *(t.thresholds for t in tried)):
        assert {name: thresholds[name] for name in fixed} == fixed
    settings = [tuple(sorted(t.thresholds.items())) for t in tried]
    assert len(set(settings)) == len(settings), "none is tried twice"


def test_a_figure_that_is_not_defined_is_never_chosen_for_it():
    task, spec = get_task("detection"), spec_for("detection")
    planned = {
        0.15: (NAN, 0.0),
        0.2: (0.4, 0.5),
        0.25: (0.6, 0.2),
        0.3: (0.6, 0.1),
        0.35: (0.6, 0.1),
    }

    def figures(task, spec, slides):
        figure, error = planned.get(spec.thresholds["score"], (0.1, 0.9))
        return Trial(dict(spec.thresholds), {task.metrics.main: figure}, error)

    def chosen(aim):
        return calibrate(task, spec, {}, [], aim=aim, measure=figures)[0].thresholds

    assert chosen("f1")["score"] == 0.3, "of equal figures the better count"
    assert chosen("count")["score"] == 0.15
    planned[0.15] = (NAN, 0.1)
    assert chosen("count")["score"] == 0.3, "of equal counts the better figure"
    assert chosen("count")["iou"] == 0.4, "settings come preferred first"


def test_tasks_that_count_nothing_have_no_error_of_counts():
    assert count_error(object()) == 0.0


@pytest.mark.parametrize("task", [n for n in task_names() if get_task(n).threshold_grid])
def test_the_settings_to_try_hold_every_threshold_and_the_default_first(task):
    spec = spec_for(task)
    settings = get_task(task).threshold_grid.settings(spec.thresholds)
    assert all(setting.keys() == spec.thresholds.keys() for setting in settings)
    assert any(dict(setting) == dict(spec.thresholds) for setting in settings)


# -- a trial shows what a run writes


def network(spec):
    """Random weights whose answers spread over the whole range."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = get_task(spec.task).build(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    with torch.no_grad():
        model.head.weight *= 6
    return model.eval()


LOOSE = {
    "instance": {"min_area_um2": 1.0, "seed": 0.4},
    "semantic": {"min_area_um2": 5.0},
    "instance_masks": {"score": 0.35, "min_area_um2": 1.0},
}


@pytest.fixture(scope="module", params=list(LOOSE))
def finished(request, tmp_path_factory):
    """(view of kept predictions, specification, label image as written) of a slide that was run
    under its thresholds."""
    spec = spec_for(request.param, **LOOSE[request.param])
    rng = np.random.default_rng(0)
    layers = [
        ndimage.gaussian_filter(rng.standard_normal((190, 300, 3)), (s, s, 0)) * s
        for s in (0.5, 2, 6)
    ]
    rgb = np.clip(140 + 60 * sum(layers), 0, 255).astype(np.uint8)
    work = OnDisk(tmp_path_factory.mktemp("run"), Case(rgb, network(spec), spec)).work("run")
    task = get_task(spec.task)
    work.path.mkdir(parents=True)
    shards = steps.plan_slide(work).shards
    assert len(shards) == 6
    steps.create_predictions(work)
    with open_work_source(work) as source:
        steps.infer_shards(work, network(spec), shards, source, Opened(work), device=CPU)
    if task.parts.select is not None:
        steps.select_slide(work)
    steps.stitch_shards(steps.ShardJob(work, tuple(shards)))
    tables.merge_slide(tables.MergeJob(work, OutputsSection(overlay=False)))
    images.create_labels(work)
    images.paint_shards(steps.ShardJob(work, tuple(shards)))
    written = np.asarray(
        zarr.open_group(work.image / "labels" / task.label_image.name, mode="r")["0"]
    ).squeeze()
    assert written.shape == (190, 300)
    return work, spec, written


def test_the_label_image_of_a_trial_is_the_one_that_a_run_writes_in_any_box(finished):
    work, spec, written = finished
    assert len(np.unique(written)) >= 3, "there is something to see"
    # the view it is made from has other thresholds, as a network that is being judged has
    other = replace(work, spec=replace(spec, thresholds=get_task(spec.task).default_thresholds))
    answer = TrialView(WorkView(other), get_task(spec.task), spec).answer()
    rng = np.random.default_rng(1)
    boxes = [
        Box(0, 0, 190, 300),
        Box(100, 120, 140, 260),
        Box(127, 127, 129, 129),
        Box(-20, -30, 60, 40),
        Box(150, 250, 230, 340),
    ]
    for _ in range(25):
        row, col = int(rng.integers(-40, 200)), int(rng.integers(-40, 310))
        boxes.append(
            Box(row, col, row + int(rng.integers(1, 150)), col + int(rng.integers(1, 200)))
        )
    padded = np.zeros((590, 700), written.dtype)
    padded[200:390, 200:500] = written
    for box in boxes:
        want = padded[box.row0 + 200 : box.row1 + 200, box.col0 + 200 : box.col1 + 200]
        found = answer.labels(box)
        assert found.dtype == written.dtype
        assert np.array_equal(found, want), box
    if spec.task != "semantic":
        assert written.max() <= len(answer.objects)
        row, col = np.nonzero(written == len(answer.objects))
        last = answer.objects.bbox[-1]
        assert (
            row.min() >= last[0]
            and row.max() < last[2]
            and col.min() >= last[1]
            and col.max() < last[3]
        ) or not len(row)


def test_a_trial_writes_nothing(finished):
    work, spec, _ = finished
    before = sorted((p, p.stat().st_mtime_ns) for p in work.path.rglob("*"))
    grid = get_task(spec.task).threshold_grid
    thresholds = dict(grid.settings(spec.thresholds)[-1]) if grid else dict(spec.thresholds)
    TrialView(
        WorkView(work), get_task(spec.task), replace(spec, thresholds=thresholds)
    ).answer().labels(Box(0, 0, 190, 300))
    assert sorted((p, p.stat().st_mtime_ns) for p in work.path.rglob("*")) == before


def test_a_trial_under_other_thresholds_is_another(finished):
    work, spec, written = finished
    strict = replace(spec, thresholds=dict(spec.thresholds) | {"min_area_um2": 30.0})
    answer = TrialView(WorkView(work), get_task(spec.task), strict).answer()
    found = answer.labels(Box(0, 0, 190, 300))
    if spec.task == "semantic":  # its class map knows no threshold
        assert np.array_equal(found, written)
        return
    assert 0 < len(answer.objects) < written.max()
    assert found.max() <= len(answer.objects)


def test_annotations_can_be_empty_in_a_trial(view_and_truth):
    view, _ = view_and_truth
    nobody = SlideTruth(objects=Boxes(np.zeros((0, 4))))
    trial = figures_of(get_task("detection"), spec_for("detection"), [(view, nobody)])
    assert trial.count_error == 14.0
