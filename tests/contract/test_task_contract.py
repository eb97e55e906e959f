"""What every task must keep, found by name: a fifth task is held to it without a line here."""

import sys
from dataclasses import fields as columns
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers import fields
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.core.predictions import Candidates, MaskCandidates, TileScores
from quadrat.models.inference import normalise, predict_cells, read_windows
from quadrat.models.package import exactness
from quadrat.models.task import Crop, ModelSpec, Task, TruthWindow
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.store.predictions import (
    Layout,
    MapStorage,
    MapStore,
    MaskStorage,
    TableStorage,
)
from quadrat.tasks import get_task, task_names

LATTICE = Lattice(core=64, halo=48, stride=8, shard=128)
SLIDE = (150, 180)
MOST_FLIPS = 1e-5


def spec_for(name, classes=3, **changes):
    spec = ModelSpec(
        task=name,
        classes=tuple(ClassInfo(f"class {i}", (i, 0, 0)) for i in range(classes)),
        mpp=0.5,
        lattice=LATTICE,
        widths=(8, 12, 16),
        thresholds=dict(get_task(name).default_thresholds),
    )
    return replace(spec, **changes)


def network(name, spec, seed=0):
    """A network with random weights and statistics whose answers spread over the whole range, in
    eval mode."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = get_task(name).build(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    head = model.head
    with torch.no_grad():
        head.weight *= 6
        head.bias.zero_()  # detection starts from a low prior, which emits nothing
    return model.to(memory_format=torch.channels_last).eval()


def slide_for(seed=0, shape=SLIDE):
    """A picture with structure at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        ndimage.gaussian_filter(rng.standard_normal((*shape, 3)), (s, s, 0)) * s
        for s in (0.5, 2, 6)
    ]
    rgb = np.clip(140 + 60 * sum(layers), 0, 255).astype(np.uint8)
    return source_of(ArraySlide(rgb, mpp=0.5), mpp=0.5)


def outputs(model, spec, source, cells):
    with torch.inference_mode():
        return model(normalise(torch.from_numpy(read_windows(source, cells, spec)), spec))[
            : len(cells)
        ]


def decoded(task, output, cells, spec):
    with torch.inference_mode():
        return task.decode(task.answer(output, spec), cells, spec)


def same_prediction(a, b):
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in columns(a)
    )


def truth_for(shape, *, classes, seed=0, label=-1, n=12):
    labels = fields.ellipses(np.random.default_rng(seed), shape, n=n, radius=(5, 12))
    label_class = fields.random_classes(labels, classes, seed)
    where = ndimage.find_objects(labels)
    boxes = np.array(
        [(w[0].start, w[1].start, w[0].stop, w[1].stop) for w in where], np.float64
    ).reshape(-1, 4)
    regions = np.concatenate([[0], label_class + 1]).astype(np.uint8)[labels]
    return TruthWindow(
        labels, label_class, regions, boxes, label_class, label, np.ones(labels.shape, bool)
    )


EXAMPLE = "point_density:TASK"
"""A task that lives outside of the package."""
sys.path.append(str(Path(__file__).parents[2] / "docs" / "examples"))
NAMES = [*task_names(), EXAMPLE]
every_task = pytest.mark.parametrize("name", NAMES)
classes = pytest.mark.parametrize("classes", [1, 3])


@every_task
def test_a_task_says_what_it_is(name):
    task = get_task(name)
    assert task.name == name.split(":")[0]
    assert isinstance(task, Task)
    assert task.label_image is None or task.label_image.dtype in ("uint8", "uint32")
    assert task.candidate_thresholds is None or set(task.candidate_thresholds) <= set(
        task.default_thresholds
    )
    if task.threshold_grid is not None:
        settings = task.threshold_grid.settings(spec_for(name).thresholds)
        assert len(settings) > 1
        assert all(setting.keys() == task.default_thresholds.keys() for setting in settings)


@every_task
def test_predictions_are_read_from_their_store_as_they_were_decoded(name, tmp_path):
    task, spec, source = get_task(name), spec_for(name), slide_for()
    model, cells = network(name, spec), source.frame.box.cells(LATTICE.core)
    groups = LATTICE.by_shard(cells)
    layout = Layout(source.frame, LATTICE, tuple(groups))
    store = task.storage(spec).create(tmp_path / "p", layout)
    found = dict(predict_cells(model, task, spec, source, cells, device=torch.device("cpu")))
    for shard, own in groups.items():
        receipt = store.write(shard, {cell: found[cell] for cell in reversed(own)})
        assert receipt.cell == shard
        assert store.shard_path(shard).stat().st_size == receipt.nbytes
        again = store.write(shard, {cell: found[cell] for cell in own})
        assert again == receipt, "the order of cores is seen in the file"
    again = task.storage(spec).open(tmp_path / "p")
    assert again.layout == layout
    if isinstance(store, MapStore):
        for cell, maps in found.items():
            core = LATTICE.core_box(cell)
            inside = core.intersect(source.frame.box)
            part = maps[(slice(None), *inside.slices_in(core))]
            assert np.array_equal(again.read(inside), part)
    else:
        for shard, own in groups.items():
            rows = [found[cell] for cell in own]
            assert same_prediction(again.read(shard), type(rows[0]).concatenate(rows))


@every_task
@classes
def test_decoding_gives_one_quantised_prediction_a_core(name, classes):
    task, spec = get_task(name), spec_for(name, classes)
    cells = [(0, 0), (1, 2), (0, 1)]
    found = decoded(task, outputs(network(name, spec), spec, slide_for(), cells), cells, spec)
    assert len(found) == len(cells)
    for cell, prediction in zip(cells, found, strict=True):
        core = spec.lattice.core_box(cell)
        storage = task.storage(spec)
        if isinstance(storage, MapStorage):
            assert prediction.dtype == np.uint8
            assert prediction.shape == (storage.channels, spec.lattice.core, spec.lattice.core)
        elif isinstance(prediction, Candidates):
            assert isinstance(prediction, MaskCandidates) == isinstance(storage, MaskStorage)
            assert len(prediction) > 0
            assert (prediction.class_id < classes).all()
            row, col = prediction.cell.T
            assert (
                (row >= core.row0) & (row < core.row1) & (col >= core.col0) & (col < core.col1)
            ).all()
            assert len(np.unique(prediction.cell, axis=0)) == len(prediction)
        else:
            assert isinstance(prediction, TileScores)
            assert prediction.cell.tolist() == [list(cell)]
            assert prediction.probability.shape == (1, classes)
            assert abs(int(prediction.probability.astype(int).sum()) - 65535) <= classes
            assert np.isfinite(prediction.embedding).all()


@every_task
def test_decoding_does_not_depend_on_the_place_in_the_batch(name):
    task, spec = get_task(name), spec_for(name)
    cells = [(0, 0), (1, 2), (2, 1)]
    output = outputs(network(name, spec), spec, slide_for(), cells)
    straight = decoded(task, output, cells, spec)
    order = [2, 0, 1]
    for prediction, i in zip(
        decoded(task, output[order], [cells[i] for i in order], spec), order, strict=True
    ):
        assert same_prediction(prediction, straight[i])
    for i, cell in enumerate(cells):
        assert same_prediction(decoded(task, output[i : i + 1], [cell], spec)[0], straight[i])


@every_task
def test_a_core_gets_the_same_bytes_in_any_order_and_any_company(name):
    task, spec = get_task(name), spec_for(name)
    model, source, cpu = network(name, spec), slide_for(), torch.device("cpu")
    cells = source.frame.box.cells(spec.lattice.core)
    whole = dict(predict_cells(model, task, spec, source, cells, device=cpu))
    assert list(whole) == cells
    backwards = dict(predict_cells(model, task, spec, source, cells[::-1], device=cpu))
    alone = {
        c: p
        for cell in cells[::2]
        for c, p in predict_cells(model, task, spec, source, [cell], device=cpu)
    }
    for other in (backwards, alone):
        assert all(same_prediction(other[cell], whole[cell]) for cell in other)


@every_task
@classes
@pytest.mark.parametrize("n", [0, 12])
@pytest.mark.parametrize("label", [-1, 0])
def test_the_loss_is_finite_and_every_gradient_too(name, classes, n, label):
    task, spec = get_task(name), spec_for(name, classes)
    torch.manual_seed(0)
    model = task.build(spec).train()
    shape = (64, 64)
    made = []
    for seed in (0, 1):
        crop = task.prepare(truth_for(shape, classes=classes, seed=seed, n=n, label=label), spec)
        assert isinstance(crop, Crop)
        assert crop.shape == shape
        assert all(a.shape[:2] == shape for a in crop.maps.values())
        made.append(task.targets(crop, spec))
    targets = {k: torch.from_numpy(np.stack([m[k] for m in made])) for k in made[0]}
    terms = task.loss(model(torch.randn(2, 3, *shape)), targets, spec)
    assert all(torch.isfinite(t).all() and t.shape == () for t in terms.values())
    terms["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    if n or label >= 0:
        # one class is a foregone conclusion for a softmax; everything else must be learnt from
        assert any((g != 0).any() for g in gradients) or (name == "classification" and classes == 1)


@every_task
def test_a_step_along_the_gradient_lowers_the_loss(name):
    task, spec = get_task(name), spec_for(name)
    torch.manual_seed(0)
    model = task.build(spec).train()
    crop = task.prepare(truth_for((64, 64), classes=3, label=1), spec)
    targets = {k: torch.from_numpy(np.stack([a, a])) for k, a in task.targets(crop, spec).items()}
    image = torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = task.loss(model(image), targets, spec)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def untiled(name, spec, model, source):
    """(prediction, spec) of one forward pass over the whole slide: a lattice of a single core."""
    rows, cols = (-(-side // spec.lattice.core) for side in source.frame.box.shape)
    side = max(rows, cols) * spec.lattice.core
    one = replace(spec, lattice=replace(spec.lattice, core=side, shard=side))
    return decoded(get_task(name), outputs(model, one, source, [(0, 0)]), [(0, 0)], one)[0]


def is_dense(name):
    """Whether a task answers for every place by what lies within a finite radius of it."""
    storage = get_task(name).storage(spec_for(name))
    return isinstance(storage, MapStorage) or storage == TableStorage(Candidates)


dense = pytest.mark.parametrize("name", [n for n in NAMES if is_dense(n)])


@dense
@pytest.mark.parametrize("seed", [0, 1])
def test_windows_on_the_lattice_give_what_one_pass_over_the_whole_slide_gives(name, seed):
    task, spec = get_task(name), spec_for(name)
    model, source = network(name, spec, seed), slide_for(seed)
    assert exactness(model, spec)["promise"] == "tiling-exact"
    whole = untiled(name, spec, model, source)
    cells = [(r, c) for r in range(3) for c in range(3)]
    tiled = dict(predict_cells(model, task, spec, source, cells, device=torch.device("cpu")))
    if isinstance(whole, np.ndarray):
        assert np.ptp(whole.astype(int)) > 100  # the network has something to say
        for cell in cells:
            part = whole[
                (slice(None), *spec.lattice.core_box(cell).slices_in(Box(0, 0, *whole.shape[1:])))
            ]
            difference = np.abs(part.astype(int) - tiled[cell])
            print(f"{name} {cell}: {(difference > 0).sum()} of {difference.size} values flipped")  # noqa: T201
            assert (difference > 1).mean() <= MOST_FLIPS
            assert (difference > 0).mean() <= 1e-3
    else:
        rows = [as_rows(tiled[cell]) for cell in cells]
        found, want = {k: v for r in rows for k, v in r.items()}, as_rows(whole)
        assert sum(map(len, rows)) == len(found)
        assert len(want) > 100
        assert found.keys() == want.keys()
        off = np.array([np.abs(np.array(found[k]) - want[k]).max() for k in want])
        assert off.max() <= 1  # 1/16 px, or 1/65535 of the score


def as_rows(found):
    """{(cell, class): (box, score)} of candidates."""
    columns = zip(
        found.cell.tolist(),
        found.class_id.tolist(),
        found.box.tolist(),
        found.score.tolist(),
        strict=True,
    )
    return {(tuple(cell), class_id): (*box, score) for cell, class_id, box, score in columns}


@dense
def test_a_halo_that_is_too_small_is_noticed_by_the_same_comparison(name):
    task, spec = (
        get_task(name),
        spec_for(name, lattice=Lattice(core=64, halo=8, stride=8, shard=128)),
    )
    model, source = network(name, spec), slide_for()
    assert exactness(model, spec)["promise"] == "schedule-exact"
    whole = untiled(name, replace(spec, lattice=LATTICE), model, source)
    tiled = dict(predict_cells(model, task, spec, source, [(1, 1)], device=torch.device("cpu")))[
        (1, 1)
    ]
    if isinstance(whole, np.ndarray):
        part = whole[
            (slice(None), *spec.lattice.core_box((1, 1)).slices_in(Box(0, 0, *whole.shape[1:])))
        ]
        assert (np.abs(part.astype(int) - tiled) > 1).mean() > MOST_FLIPS
    else:
        want = as_rows(whole)
        assert any(want.get(key) != value for key, value in as_rows(tiled).items())
