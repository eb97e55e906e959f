"""On a CUDA device: runs give the CPU's answer within rounding, and a training learns what it
learns on the CPU. `make test PYTEST_ARGS="-m gpu"` runs these where there is a device."""

import json

import numpy as np
import pytest
import torch

from helpers.runs import MASKS, TASKS, quadrat, table, write_pipeline

CUDA = "cuda"
RELATIVE = 0.02
"""How far counts and areas may be from the CPU's: the device may round products to ten bits (TF32),
so a pixel near a threshold can fall on its other side."""
ABSOLUTE = {"count": 2, "area": 2e-4, "p_": 0.02}
"""On top of that, by what a figure's name begins with: objects, mm2, probability."""
LOSS = 0.02
"""How far the losses of the first steps may be from the CPU's, relative."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def run(lab, task, device, out):
    """(device of the run, figures by name) of one slide."""
    done = quadrat(
        "run", lab.pipeline(task), lab.slide, "--out", out, "--set", f"run.device={device}"
    )
    assert done.code == 0, done.err
    summary = json.loads((out / "results" / "square" / "summary.json").read_text())
    (row,) = table(out / "results" / "summary.csv")
    figures = {k: float(v) for k, v in row.items() if k.startswith(("count", "p_"))}
    if task != "classification":
        for counted in table(out / "results" / "square" / "counts.csv"):
            figures[f"area {counted['class']}"] = float(counted["area_mm2"])
    return summary["device"], figures


@pytest.mark.parametrize("task", [*TASKS, MASKS])
def test_a_run_on_cuda_gives_the_figures_of_the_cpu(task, lab, tmp_path):
    _, want = run(lab, task, "cpu", tmp_path / "cpu")
    device, found = run(lab, task, CUDA, tmp_path / "cuda")
    assert device.startswith(CUDA)
    assert found.keys() == want.keys()
    assert any(value > 0 for value in want.values())
    for name, value in want.items():
        slack = next(slack for begin, slack in ABSOLUTE.items() if name.startswith(begin))
        assert abs(found[name] - value) <= slack + RELATIVE * value, name


@pytest.mark.parametrize("task", TASKS)
def test_the_first_steps_on_cuda_have_the_losses_of_the_cpu(task, lab, tmp_path):
    losses = {}
    for device in ("cpu", CUDA):
        package = tmp_path / device / "package"
        pipeline = write_pipeline(
            tmp_path / device / "p.yaml",
            task,
            package=package,
            manifest=lab.manifest,
            train={"steps": 4},
        )
        done = quadrat("train", pipeline, "--set", f"run.device={device}")
        assert done.code == 0, done.err
        losses[device] = np.array([float(row["loss"]) for row in table(package / "training.csv")])
    assert len(losses["cpu"]) == 4
    np.testing.assert_allclose(losses[CUDA], losses["cpu"], rtol=LOSS)
