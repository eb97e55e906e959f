"""Windows through the network: alone on a CPU, in batches of one size elsewhere, in the precision
that is asked for where the processor has it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from quadrat.core.errors import QuadratError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.numerics import computes_bf16
from quadrat.models import inference
from quadrat.models.inference import batch_of, forward, predict_groups
from quadrat.models.lane import AHEAD, Landing, Lane
from quadrat.models.package import load_package
from quadrat.tasks import build_network, get_task

ROOT = Path(__file__).parents[3]
PACKAGES = [
    *sorted((ROOT / "tests" / "fixed" / "packages").iterdir()),
    *sorted((ROOT / "pipelines" / "packages").iterdir()),
]
CPU = torch.device("cpu")
SIDE = 96
"""Of the windows here, px: kernels are the same as for larger ones, and the tests short."""


def package(folder, *, inference):
    loaded = load_package(folder, build_network)
    torch.set_num_threads(1)
    return loaded.model.to(memory_format=torch.channels_last), replace(
        loaded.spec, inference=inference
    )


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else list(output.tensors())


def pixels(windows, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (windows, side, side, 3), np.uint8)


class Picture:
    """A slide of noise, white around it, that remembers in which order it was read."""

    def __init__(self, side):
        self.rgb, self.reads = pixels(1, side)[0], []

    def read(self, box):
        self.reads.append(box)
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        whole = Box(0, 0, *self.rgb.shape[:2])
        inside = box.intersect(whole)
        out[inside.slices_in(box)] = self.rgb[inside.slices_in(whole)]
        return out


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__slots__)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_the_company_of_a_window_changes_its_answer_by_no_more_than_rounding(folder, precision):
    """And by rounding it does, which is why a batch has one size: with AVX512 the classifier (a
    product of as many rows as windows) and two of the U-Nets at this size of window differ in their
    last bits between one window and several in fp32."""
    if precision == "bf16" and not computes_bf16("cpu"):
        pytest.skip("this processor does not compute in bf16")
    model, spec = package(folder, inference=precision)
    windows = torch.from_numpy(pixels(5))
    with torch.inference_mode():
        alone = [tensors(forward(model, windows[i : i + 1], spec)) for i in range(5)]
        for size in (2, 5):
            together = tensors(forward(model, windows[:size], spec))
            for i in range(size):
                for one, all_of_them in zip(alone[i], together, strict=True):
                    torch.testing.assert_close(one[0], all_of_them[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("folder", PACKAGES[:5], ids=lambda folder: folder.name)
def test_on_a_cpu_every_window_is_computed_alone_and_nothing_is_padded(folder, monkeypatch):
    model, spec = package(folder, inference="fp32")
    seen = []
    model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    source = Picture(2 * spec.lattice.core)
    cells = [(0, 0), (0, 1), (1, 0)]
    task = get_task(spec.task)
    (found,) = predict_groups(model, task, spec, source, [cells], device=CPU)
    assert seen == [1, 1, 1]
    (again,) = predict_groups(model, task, spec, source, [cells[::-1]], device=CPU)
    assert all(same(found[cell], again[cell]) for cell in cells)


def test_elsewhere_batches_have_one_size_and_the_last_is_padded_with_white():
    model, spec = package(PACKAGES[2], inference="fp32")
    seen = []
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
    source, task = Picture(4 * spec.lattice.core), get_task(spec.task)
    groups = [[(0, 0), (0, 1), (1, 0), (1, 1), (3, 3)], [(2, 2)]]
    padded = list(predict_groups(model, task, spec, source, groups, device=CPU, batch=3))
    assert {tuple(shape) for shape in seen} == {(3, 3, spec.lattice.window, spec.lattice.window)}
    assert len(seen) == 3
    assert len(source.reads) == 6, "what pads is not read"
    plain = list(predict_groups(model, task, spec, source, groups, device=CPU))
    assert [list(found) for found in padded] == groups
    for one, other in zip(padded, plain, strict=True):
        assert all(same(one[cell], other[cell]) for cell in one)


def test_the_batch_of_a_gpu_depends_on_the_window_alone_unless_it_is_stated():
    large, small = (Lattice(core=core, halo=112, stride=16, shard=core) for core in (1056, 32))
    assert batch_of("cpu", large) == batch_of("cpu", large, 7) == 1
    assert batch_of("cuda", large) == 2
    assert batch_of("cuda", small) == inference.PASS_WINDOWS
    assert batch_of("cuda", Lattice(core=8192, halo=0, stride=1, shard=8192)) == 1
    assert batch_of("cuda", large, 7) == 7


def test_bf16_differs_from_fp32_by_its_rounding_and_is_given_back_as_fp32(monkeypatch):
    if not computes_bf16("cpu"):
        pytest.skip("this processor does not compute in bf16")
    model, spec = package(PACKAGES[2], inference="fp32")
    windows = torch.from_numpy(pixels(1))
    with torch.inference_mode():
        full = forward(model, windows, spec)
        half = forward(model, windows, replace(spec, inference="bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert float((full - half).abs().mean()) < 0.02 * float(full.abs().mean())


def test_where_the_processor_has_no_bf16_the_network_computes_in_fp32(monkeypatch):
    monkeypatch.setattr(inference, "computes_bf16", lambda device: False)
    model, spec = package(PACKAGES[2], inference="fp32")
    windows = torch.from_numpy(pixels(1))
    with torch.inference_mode():
        full = forward(model, windows, spec)
        asked = forward(model, windows, replace(spec, inference="bf16"))
    assert torch.equal(full, asked)


class Slow(Lane):
    """A lane on which answers arrive only when somebody waits for them, as on a GPU."""

    def __init__(self, device):
        super().__init__(device)
        self.ahead, self.waited = AHEAD, []

    def down(self, answer):
        here = super().down(answer).answer

        class Arrives:
            def synchronize(event):
                self.waited.append(answer)

        return Landing(here, Arrives())


@pytest.mark.parametrize("folder", PACKAGES[:5], ids=lambda folder: folder.name)
@pytest.mark.parametrize("readers", [1, 3])
def test_answers_that_arrive_late_are_decoded_in_order_and_are_the_same(
    folder, readers, monkeypatch
):
    model, spec = package(folder, inference="fp32")
    source, task = Picture(3 * spec.lattice.core), get_task(spec.task)
    groups = [[(0, 0), (0, 1), (1, 0)], [], [(2, 2)], [(1, 1), (2, 0), (2, 1)], []]
    plain = list(predict_groups(model, task, spec, source, groups, device=CPU))
    lanes = []
    monkeypatch.setattr(inference, "Lane", lambda device: lanes.append(Slow(device)) or lanes[-1])
    late = list(predict_groups(model, task, spec, source, groups, device=CPU, readers=readers))
    assert [list(found) for found in late] == groups
    for one, other in zip(plain, late, strict=True):
        assert all(same(one[cell], other[cell]) for cell in one)
    assert len(lanes[0].waited) >= 7


def test_an_answer_that_is_not_finite_is_noticed_however_late_it_arrives(monkeypatch):
    model, spec = package(PACKAGES[2], inference="fp32")
    source, task = Picture(2 * spec.lattice.core), get_task(spec.task)
    calls = []

    def spoil(module, given, output):
        calls.append(len(calls))
        return output * float("nan") if len(calls) == 2 else output

    model.register_forward_hook(spoil)
    monkeypatch.setattr(inference, "Lane", Slow)
    groups = [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]]
    found = predict_groups(model, task, spec, source, groups, device=CPU)
    assert list(next(found)) == [(0, 0)]
    with pytest.raises(QuadratError, match=r"NaN or infinity near core \(0, 1\)"):
        next(found)


def test_reading_never_runs_far_ahead_of_the_network():
    model, spec = package(PACKAGES[2], inference="fp32")
    source, task, ahead = Picture(4 * spec.lattice.core), get_task(spec.task), []
    model.register_forward_hook(lambda *_: ahead.append(len(source.reads) - len(ahead)))
    cells = [(row, col) for row in range(4) for col in range(4)]
    list(predict_groups(model, task, spec, source, [cells], device=CPU, readers=2))
    assert max(ahead) <= 2 + 2
