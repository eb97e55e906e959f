"""What all end-to-end tests share: two phantoms, five fixed packages, a cluster, reference runs.

The packages were trained once, for a few steps, on a phantom (tests/fixed): training them anew for
every session would take longer than all runs. What training does is tested in test_training.py.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from helpers.runs import MASKS, TASKS, quadrat, write_pipeline
from quadrat.engine.cluster import open_executor
from quadrat.phantom import PhantomSpec, write_phantom

NAMES = ("oblong", "square")
FIXED = Path(__file__).parents[1] / "fixed" / "packages"
NUCLEI = [{"name": "lymphocyte"}, {"name": "epithelial"}, {"name": "stromal"}]


@dataclass(frozen=True)
class Lab:
    """A folder with slides, a training manifest, and the pipelines and packages of all tasks."""

    folder: Path

    @property
    def slides(self):
        return [self.folder / f"{name}.tiff" for name in NAMES]

    @property
    def slide(self):
        return self.slides[1]

    @property
    def manifest(self):
        return self.folder / "train.csv"

    def pipeline(self, task):
        return self.folder / "pipelines" / f"{task}.yaml"

    def package(self, task):
        return self.folder / "packages" / task


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder that all processes of a parallel session (`pytest -n`) have in common."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def once(folder, make):
    """A folder that the first process that asks for it fills, while the others wait."""
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            part = folder.with_suffix(".part")
            make(part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def lab(shared):
    return Lab(once(shared / "lab", make_lab))


def make_lab(folder):
    lab = Lab(folder)
    folder.mkdir()
    for seed, (name, height, tissue) in enumerate(
        ((NAMES[0], 2000, 0.4), (NAMES[1], 2048, 0.6)), start=11
    ):
        spec = PhantomSpec(
            name=name,
            height=height,
            width=2048,
            seed=seed,
            dominant="tumour",
            tissue_fraction=tissue,
        )
        write_phantom(lab.folder, spec=spec)
    lab.manifest.write_text(
        "slide,annotation,annotated,split,case\n"
        f"{NAMES[0]}.tiff,{NAMES[0]}.truth.geojson,all,train,case 1\n"
    )
    final = Lab(folder.with_suffix(""))  # where it will lie when it is complete
    for task in (*TASKS, MASKS):
        shutil.copytree(FIXED / task, lab.package(task))
        classes = {"classes": NUCLEI} if task == MASKS else {}
        write_pipeline(
            lab.pipeline(task),
            task,
            package=final.package(task),
            manifest=final.manifest,
            **classes,
        )


@pytest.fixture(scope="session")
def cluster():
    with open_executor(workers=2, threads=1) as executor:
        yield executor


class References:
    """Uninterrupted serial runs of both slides, a work unit a shard: made when first asked for,
    then only read."""

    def __init__(self, lab, folder):
        self._lab, self._folder = lab, folder

    def __call__(self, task):
        def run(out):
            done = quadrat("run", self._lab.pipeline(task), *self._lab.slides, "--out", out)
            assert done.code == 0, done.err

        return once(self._folder / f"reference_{task}", run) / "results"


@pytest.fixture(scope="session")
def reference(lab, shared):
    return References(lab, shared)
