"""Packages for other programs, and back."""

import numpy as np
import pytest
import torch
import yaml

from helpers import annotated, foreign
from helpers.runs import quadrat
from quadrat.models.inference import normalise
from quadrat.models.package import load_package
from quadrat.tasks import build_network


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {task: annotated.write_package(folder / task, task) for task in TASKS}


TASKS = ("semantic", "instance", "classification", "detection")


def given(spec, count=2):
    side = spec.lattice.window
    image = foreign.discs(side, side, count=20)
    return torch.from_numpy(np.stack([image] * count))


@pytest.mark.parametrize("task", TASKS[:3])
def test_a_package_goes_out_and_comes_back_with_the_same_answer(task, packages, tmp_path):
    out = tmp_path / "out"
    done = quadrat("models", "export", packages[task], "--to", "bioimage.io", "--out", out)
    assert done.code == 0, done.err
    back = quadrat("models", "import", out, "--out", tmp_path / "back")
    assert back.code == 0, back.err
    assert "test_input.npy: answered as test_output.npy" in back.out
    one, other = (load_package(p, build_network) for p in (packages[task], tmp_path / "back"))
    assert other.spec.class_names == one.spec.class_names
    assert other.spec.thresholds == one.spec.thresholds
    assert other.spec.lattice.core == one.spec.lattice.core
    rgb = given(one.spec)
    with torch.inference_mode():
        first, second = (p.model(normalise(rgb, p.spec)) for p in (one, other))
    k = first.shape[1] if task != "classification" else len(one.spec.classes)
    if task == "instance":
        assert torch.allclose(torch.sigmoid(first[:, :2]), torch.sigmoid(second[:, :2]), atol=1e-4)
        first, second = first[:, 2:], second[:, 2:]
    one_way, back_again = (torch.softmax(v[:, :k], dim=1) for v in (first, second))
    assert torch.allclose(one_way, back_again, atol=1e-4)


def test_a_description_has_what_other_programs_need(packages, tmp_path):
    quadrat(
        "models", "export", packages["semantic"], "--to", "bioimage.io", "--out", tmp_path / "o"
    )
    about = yaml.safe_load((tmp_path / "o" / "rdf.yaml").read_text())
    assert about["config"]["quadrat"]["decoder"] == "argmax"
    assert [axis["type"] for axis in about["inputs"][0]["axes"]] == [
        "batch", "channel", "space", "space",
    ]  # fmt: skip
    for name in ("network.pt", "test_input.npy", "test_output.npy", "README.md", "LICENSE.md"):
        assert (tmp_path / "o" / name).is_file()


def test_torchscript_takes_pixels_as_they_are_and_gives_probabilities(packages, tmp_path):
    out = tmp_path / "out"
    done = quadrat("models", "export", packages["semantic"], "--to", "torchscript", "--out", out)
    assert done.code == 0, done.err
    package = load_package(packages["semantic"], build_network)
    rgb = given(package.spec, count=3)
    script = torch.jit.load(out / "network.pt")
    with torch.inference_mode():
        found = script(rgb.permute(0, 3, 1, 2).float())
        wanted = torch.softmax(package.model(normalise(rgb, package.spec)), dim=1)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert yaml.safe_load((out / "card.yaml").read_text())["activation"] == "probabilities"


def test_onnx_answers_the_same(packages, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs quadrat[onnx]")
    pytest.importorskip("onnx", reason="ONNX needs quadrat[onnx]")
    out = tmp_path / "out"
    done = quadrat("models", "export", packages["semantic"], "--to", "onnx", "--out", out)
    assert done.code == 0, done.err
    package = load_package(packages["semantic"], build_network)
    rgb = given(package.spec, count=3)
    session = onnxruntime.InferenceSession(out / "network.onnx")
    (found,) = session.run(None, {"image": rgb.permute(0, 3, 1, 2).float().numpy()})
    with torch.inference_mode():
        wanted = torch.softmax(package.model(normalise(rgb, package.spec)), dim=1)
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


def test_what_cannot_be_written_is_refused_with_the_reason(packages, tmp_path):
    refused = quadrat(
        "models", "export", packages["detection"], "--to", "torchscript", "--out", tmp_path / "x"
    )
    assert refused.code == 2
    assert "detection" in refused.err
    (tmp_path / "there").mkdir()
    taken = quadrat(
        "models", "export", packages["semantic"], "--to", "torchscript", "--out", tmp_path / "there"
    )
    assert taken.code == 2
    assert "name a folder that is not" in taken.err
