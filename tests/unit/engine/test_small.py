"""Slides that are done before workers were ready are done without any."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from quadrat.cli import runs
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import small
from quadrat.engine.small import are_small

PIPELINE = load_pipeline("nuclei")


def slide(folder, side=64, name="a", mpp=0.5):
    path = folder / f"{name}.png"
    if not path.exists():
        Image.fromarray(np.full((side, side, 3), 200, np.uint8)).save(path)
    return SlideRef(path=str(path), name=name, mpp=mpp)


def test_a_few_small_slides_are_small_until_they_have_too_many_px_at_the_models_scale(tmp_path):
    assert are_small(PIPELINE, [slide(tmp_path, 1000, name) for name in "abcdefgh"])
    assert not are_small(PIPELINE, [slide(tmp_path, 1000, name) for name in "abcdefghi"])
    assert are_small(PIPELINE, [slide(tmp_path, 2800, "x")])
    assert not are_small(PIPELINE, [slide(tmp_path, 2800, "x"), slide(tmp_path, 1000, "b")])
    assert not are_small(PIPELINE, [slide(tmp_path, 2800, "x", mpp=1.0)])
    assert are_small(PIPELINE, [slide(tmp_path, 2800, "x", mpp=0.25)])
    assert not are_small(PIPELINE, [])


def test_what_cannot_be_opened_is_left_to_a_worker(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for path in (broken, tmp_path / "missing.png", tmp_path):
        assert not are_small(PIPELINE, [replace(slide(tmp_path), path=str(path))])
    assert not are_small(PIPELINE, [slide(tmp_path, mpp=None)])


def test_a_file_that_may_hold_a_large_slide_is_not_even_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(small, "SMALL_BYTES", 10)
    monkeypatch.setattr(small, "open_source", None)
    assert not are_small(PIPELINE, [slide(tmp_path)])


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, 0),
        ({"workers": 3}, 3),
        ({"overrides": ("run.workers=2",)}, 2),
        ({"cluster": "local", "workers": 1}, 1),
        ({"cluster": "serial"}, 0),
    ],
)
def test_workers_are_started_for_small_slides_where_they_are_asked_for(
    tmp_path, monkeypatch, options, workers
):
    asked = {}
    monkeypatch.setattr("quadrat.engine.run.run", lambda *_, **more: asked.update(more))
    chosen = runs.Options(**options)
    runs._take(chosen.pipeline("nuclei"), [slide(tmp_path)], chosen, until="results", infer=True)
    assert asked["workers"] == workers


@pytest.mark.parametrize("name", ["nuclei", "cells"])
def test_inference_imports_neither_torchvision_nor_dynamo_nor_dask_nor_pandas(tmp_path, name):
    """Seconds and hundreds of MB for a process that needs nothing of them."""
    program = (
        "import sys, json\n"
        "from quadrat.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, sorted(sys.modules)]))\n"
    )
    words = ["run", name, slide(tmp_path).path, "--mpp", "0.5", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--set", "slide.tissue=all"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert "torch" in modules
    for unwanted in ("torchvision", "torch._dynamo", "torch._inductor", "distributed", "pandas"):
        assert unwanted not in modules
