"""The bytes of `results/` are those that were recorded: five fixed packages on one phantom.

A change of the code that is not meant to change results leaves this test green, and unchanged.
Bytes also depend on the libraries that compute and write them and on the CPU's instruction set, so
the record names its own; elsewhere the test skips, saying what differs. A change that is meant:
`python tests/end_to_end/test_unchanged_results.py` writes the record anew, and CHANGELOG says what
changed.
"""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # when run as a program
from helpers.runs import contents, difference, quadrat

FIXED = Path(__file__).parents[1] / "fixed"
RECORD = FIXED / "results.json"
TASKS = ("classification", "detection", "instance", "instance_masks", "semantic")
LIBRARIES = (
    "imagecodecs",
    "matplotlib",
    "numba",
    "numpy",
    "openslide-python",
    "pillow",
    "pyarrow",
    "scikit-image",
    "scipy",
    "shapely",
    "tifffile",
    "torch",
    "torchvision",
    "zarr",
)


def made_with():
    """What the bytes depend on beside quadrat itself."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return versions | {
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def write_slide(folder):
    """The phantom that all five packages are run on."""
    done = quadrat(
        "phantom",
        "--out",
        folder,
        "--name",
        "field",
        "--size",
        2000,
        2048,
        "--seed",
        5,
        "--tissue",
        0.3,
    )
    assert done.code == 0, done.err
    return folder / "field.tiff"


def results_of(task, slide, folder):
    """sha256 of every file under results/; of summary.json one a key, so that a changed key is
    named."""
    pipelines = folder / "fixed"
    if not pipelines.exists():
        shutil.copytree(FIXED, pipelines)
    done = quadrat("run", pipelines / f"{task}.yaml", slide, "--out", folder / task)
    assert done.code == 0, done.err
    found = contents(folder / task / "results")
    del found["field/summary.json"]
    summary = json.loads((folder / task / "results" / "field" / "summary.json").read_text())
    for key, value in summary.items():
        found[f"field/summary.json {key}"] = hashlib.sha256(
            json.dumps(value, sort_keys=True).encode()
        ).hexdigest()
    return found


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("phantom"))


@pytest.mark.parametrize("task", TASKS)
def test_results_have_the_bytes_that_were_recorded(task, slide, tmp_path):
    record = json.loads(RECORD.read_text())
    other = {name: (here, record["made_with"].get(name)) for name, here in made_with().items()}
    other = {name: pair for name, pair in other.items() if pair[0] != pair[1]}
    if other:
        pytest.skip(f"the recorded bytes were made with others than here (here, record): {other}")
    found = results_of(task, slide, tmp_path)
    assert difference(found, record["results"][task]) == []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        slide_file = write_slide(Path(name))
        results = {task: results_of(task, slide_file, Path(name)) for task in TASKS}
    RECORD.write_text(
        json.dumps({"made_with": made_with(), "results": results}, indent=1, sort_keys=True) + "\n"
    )
