"""One model trained by several processes (torchrun, gloo on the CPU): what is learnt, and what a
dead process leaves."""

import json
import os
import signal

import numpy as np
import psutil
import pytest
from PIL import Image

from helpers import fields
from helpers.runs import start, table, wait_until, write_pipeline

# the smallest training that still has several windows a rank
SMALL = {
    "steps": 12,
    "batch": 4,
    "patch": 64,
    "validate_every": 4,
    "calibrate": "none",
    "checkpoint_every_s": -1.0,
}
MODEL = {"core": 64, "halo": 32, "shard": 128, "mpp": 0.5}
SIDE = 128


def pipeline_of(folder, task, **train):
    """A pipeline that learns from two small annotated pictures, and is judged on a third."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["slide,annotation,mpp,annotated,split"]
    for seed, split in enumerate(("train", "train", "val")):
        labels = fields.ellipses(np.random.default_rng(seed), (SIDE, SIDE), n=25)
        grey = np.where(labels > 0, 90, 220) + np.random.default_rng(seed).integers(
            0, 20, labels.shape
        )
        Image.fromarray(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)).save(
            folder / f"{seed}.png"
        )
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{seed}.labels.png")
        lines.append(f"{seed}.png,{seed}.labels.png,0.5,all,{split}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    data = {"annotations": "labels", "tissue": "all"}
    return write_pipeline(
        folder / "p.yaml", task, package=folder / "package", manifest=folder / "train.csv",
        classes=[{"name": "nucleus"}], model=MODEL | {"package": str(folder / "package")},
        data=data | {"manifest": str(folder / "train.csv")}, train=SMALL | train,
    )  # fmt: skip


def train(path, folder):
    """Train with the command line; the exit code, and what it said."""
    process = start("train", path, log=folder / "log.txt")
    return process.wait(timeout=300), (folder / "log.txt").read_text()


def checkpoint_of(folder):
    return json.loads((folder / "package.training" / "checkpoints" / "checkpoint.json").read_text())


def history(folder):
    """The rows of the log of losses."""
    return table(folder / "package.training" / "checkpoints" / "log.csv")


@pytest.mark.parametrize("task", ["instance", pytest.param("detection", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_learns(tmp_path, task):
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        code, said = train(pipeline_of(folder, task, processes=processes), folder)
        assert code == 0, said
        found.append(folder)
    one, two = (np.array([float(row["loss"]) for row in history(place)]) for place in found)
    assert len(one) == len(two) == SMALL["steps"]
    np.testing.assert_allclose(
        two[:3], one[:3], rtol=1e-4
    )  # rounding differs, and grows with every step
    np.testing.assert_allclose(two, one, rtol=0.05)
    for place in found:
        assert [row["step"] for row in checkpoint_of(place)["validations"]] == [4, 8, 12]


@pytest.mark.slow
def test_a_killed_process_fails_the_training_cleanly_and_the_next_one_goes_on(tmp_path):
    path = pipeline_of(tmp_path, "instance", processes=2, steps=1_000_000, validate_every=0)
    checkpoint = tmp_path / "package.training" / "checkpoints" / "checkpoint.json"
    process = start("train", path, log=tmp_path / "log.txt")
    wait_until(checkpoint.exists, process=process)
    ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if _is_rank(p)]
    assert len(ranks) == 2
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert process.wait(timeout=120) == 2
    assert "a training process of" in (tmp_path / "log.txt").read_text()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ranks)
    reached = checkpoint_of(tmp_path)["step"]
    assert 0 < reached < 4000

    again = start("train", path, log=tmp_path / "again.txt")
    wait_until(lambda: checkpoint_of(tmp_path)["step"] > reached, process=again)
    assert history(tmp_path)[0]["step"] == "0"
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == 75


@pytest.mark.slow
def test_processes_end_with_the_training_that_started_them_however_it_ends(tmp_path):
    path = pipeline_of(tmp_path, "instance", processes=2, steps=1_000_000, validate_every=0)
    checkpoint = tmp_path / "package.training" / "checkpoints" / "checkpoint.json"
    process = start("train", path, log=tmp_path / "log.txt")
    wait_until(checkpoint.exists, process=process)
    below = psutil.Process(process.pid).children(recursive=True)
    assert sum(_is_rank(p) for p in below) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(below, timeout=60)
    for left in alive:
        left.kill()
    assert not alive


def _is_rank(process):
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "quadrat.training.rank" in words and "torch.distributed.run" not in words


def test_a_batch_that_processes_cannot_share_is_refused_before_training(tmp_path):
    path = pipeline_of(tmp_path, "instance", processes=3)
    code, said = train(path, tmp_path)
    assert code == 2
    assert "train.batch is 4; it must be a multiple of train.processes (3)" in said
    assert not (tmp_path / "package.training" / "checkpoints").exists()
