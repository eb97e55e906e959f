import numpy as np
import pytest
import torch
from torch import nn

from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.core.predictions import Candidates
from quadrat.models.mismatch import (
    PAIRS,
    compare_objects,
    describe_promise,
    neighbours,
    seam_mismatch,
)
from quadrat.models.package import exactness
from quadrat.models.task import ModelSpec
from quadrat.tasks import get_task

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Small windows: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Noise:
    """A slide of noise at the model's mpp, without end."""

    def __init__(self, side=512):
        self.pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)

    def read(self, box):
        side = len(self.pixels)
        return self.pixels[np.arange(box.row0, box.row1) % side][
            :, np.arange(box.col0, box.col1) % side
        ]


def spec_for(task, *, halo, widths=(4, 6, 8)):
    return ModelSpec(
        task=task,
        classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
        mpp=0.5,
        lattice=Lattice(core=64, halo=halo, stride=8, shard=64),
        widths=widths,
        thresholds=dict(get_task(task).default_thresholds),
    )


def network(task, spec):
    """Random weights, livened up so that sixteen layers of averaging leave something to see."""
    torch.manual_seed(0)
    model = get_task(task).build(spec)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1.5 * module.weight[0].numel() ** -0.5)
    return model


def measure(task, *, halo, cells=((0, 0), (0, 1), (1, 0), (1, 1))):
    spec = spec_for(task, halo=halo)
    return seam_mismatch(network(task, spec), get_task(task), spec, [(Noise(), cells)], device=CPU)


def test_windows_with_little_halo_disagree_most_where_they_see_least():
    found = measure("instance", halo=8)
    assert found["pairs"] == 4
    assert found["strip_px"] == 8
    assert found["at_seam"]["values"] == 4 * 4 * 64 * 16
    assert found["at_seam"]["decisions"] == 4 * 64 * 16
    assert found["at_seam"]["mean_abs"] > 0
    assert 0 < found["at_seam"]["flipped_share"] < 0.5
    wider = measure("instance", halo=24)
    assert wider["at_seam"]["mean_abs"] < found["at_seam"]["mean_abs"]
    assert wider["in_overlap"]["mean_abs"] > wider["at_seam"]["mean_abs"]


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_windows_that_see_all_of_the_receptive_field_agree_at_the_seam(task):
    found = measure(task, halo=64)  # radius 47, strip 8: all context is there
    assert found["at_seam"]["max_abs"] <= 1 / 255 + 1e-6
    assert found["at_seam"]["flipped_share"] <= 1e-4


def test_the_places_compared_are_the_same_places_of_the_slide():
    """A network that answers with the pixels themselves has no mismatch at all, whatever the
    direction of the seam."""

    class Through(nn.Module):
        stride, out_stride = 1, 1

        def forward(self, x):
            return torch.cat([x, x[:, :1]], dim=1)

    spec = spec_for("instance", halo=16)
    found = seam_mismatch(
        Through(), get_task("instance"), spec, [(Noise(), [(3, 3), (3, 4), (4, 3)])], device=CPU
    )
    assert found["in_overlap"]["max_abs"] == 0
    assert found["in_overlap"]["flipped"] == 0
    assert found["in_overlap"]["decisions"] == 2 * 64 * 32


@pytest.mark.parametrize(("task", "halo"), [("classification", 8), ("instance", 0)])
def test_where_windows_share_no_answer_there_is_no_mismatch(task, halo):
    assert measure(task, halo=halo) is None


def test_cores_without_neighbours_have_no_mismatch():
    assert measure("instance", halo=8, cells=[(0, 0), (2, 0), (5, 5)]) is None


def test_detections_are_compared_as_objects():
    found = measure("detection", halo=8)
    assert found["at_seam"]["flipped"] <= found["at_seam"]["decisions"]
    assert found["in_overlap"]["decisions"] >= found["at_seam"]["decisions"]


def candidates(*rows):
    """Rows of x0, y0, x1, y1 (px), score, class."""
    rows = np.array(rows, np.int64).reshape(-1, 6)
    return Candidates(
        box=(rows[:, :4] * 16).astype(np.int32),
        score=rows[:, 4].astype(np.uint16),
        class_id=rows[:, 5].astype(np.uint8),
        cell=rows[:, [1, 0]].astype(np.int32),
    )


def test_an_object_flips_if_the_other_window_has_none_of_its_class_there():
    one = candidates(
        (0, 0, 10, 10, 100, 0),
        (20, 0, 30, 10, 100, 0),
        (50, 0, 60, 10, 100, 0),
        (90, 0, 99, 9, 100, 0),
    )
    other = candidates((1, 0, 11, 10, 130, 0), (20, 0, 30, 10, 100, 1), (52, 0, 62, 10, 100, 0))
    found = compare_objects(one, other, (0, 20), (0, 70))
    assert (found.decisions, found.flipped) == (4, 2)  # the second object, once for either class
    assert (found.values, found.absolute, found.largest) == (2, 30, 30)


def test_pairs_are_neighbours_once_each_and_few():
    assert list(neighbours([(1, 1), (0, 1), (0, 0), (3, 3)])) == [
        ((0, 0), (0, 1)),
        ((0, 1), (1, 1)),
    ]
    cells = [(r, c) for r in range(10) for c in range(10)]
    assert measure("semantic", halo=8, cells=cells)["pairs"] == PAIRS


def test_the_promise_is_said_in_words():
    spec = spec_for("instance", halo=48)
    assert (
        describe_promise(exactness(network("instance", spec), spec))
        == "tiling-exact: receptive radius 47 px, halo 48 px"
    )
    spec = spec_for("instance", halo=8)
    model = network("instance", spec)
    line = describe_promise(exactness(model, spec) | {"seam_mismatch": measure("instance", halo=8)})
    assert line.startswith(
        "schedule-exact (receptive radius 47 px, halo 8 px); seam mismatch of 4 pairs of windows "
        "within 8 px"
    )
    assert line.endswith("% of decisions flip")
    spec = spec_for("classification", halo=0)
    line = describe_promise(exactness(network("classification", spec), spec))
    assert line.startswith("schedule-exact (the network sees its whole window); no seam mismatch")
