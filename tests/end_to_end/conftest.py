"""What all end-to-end tests share: two phantoms, four packages trained for a few steps, a cluster,
reference runs."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.runs import MASKS, TASKS, quadrat, write_pipeline
from quadrat.engine.cluster import open_executor
from quadrat.phantom import PhantomSpec, write_phantom

NAMES = ("oblong", "square")


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
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
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
    for task in TASKS:
        write_pipeline(lab.pipeline(task), task, package=lab.package(task), manifest=lab.manifest)
    done = quadrat("train", *(lab.pipeline(task) for task in TASKS))
    assert done.code == 0, done.err
    return lab


@pytest.fixture(scope="session")
def mask_lab(lab):
    """The lab with a package of a mask model as well."""
    nuclei = [{"name": "lymphocyte"}, {"name": "epithelial"}, {"name": "stromal"}]
    write_pipeline(
        lab.pipeline(MASKS),
        MASKS,
        package=lab.package(MASKS),
        manifest=lab.manifest,
        classes=nuclei,
    )
    done = quadrat("train", lab.pipeline(MASKS))
    assert done.code == 0, done.err
    return lab


@pytest.fixture(scope="session")
def cluster():
    with open_executor("dask", workers=2, threads=1) as executor:
        yield executor


class References:
    """Uninterrupted serial runs of both slides, a work unit a shard: made when first asked for,
    then only read."""

    def __init__(self, lab, folder):
        self._lab, self._folder = lab, folder

    def __call__(self, task):
        out = self._folder / task
        if not out.exists():
            done = quadrat("run", self._lab.pipeline(task), *self._lab.slides, "--out", out)
            assert done.code == 0, done.err
        return out / "results"


@pytest.fixture(scope="session")
def reference(lab, tmp_path_factory):
    return References(lab, tmp_path_factory.mktemp("reference"))
