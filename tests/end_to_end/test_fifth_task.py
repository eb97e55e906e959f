"""A task outside of the package, one file and one YAML under docs/examples: it trains, runs and is
stitched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from helpers.runs import FOR_ALL, contents, difference, merged, quadrat
from quadrat.core.lattice import Lattice
from quadrat.outputs.summary import read_summary
from quadrat.phantom import PhantomSpec, write_phantom
from quadrat.store.predictions import MapStorage

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CHANGES = {
    "model": {"core": 128, "halo": 32, "shard": 256},
    "train": {"steps": 150, "patch": 96, "lr": 5e-3},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a phantom, the example's pipeline made small, and its package after a few
    steps."""
    folder = tmp_path_factory.mktemp("fifth")
    spec = PhantomSpec(
        name="field", height=2000, width=2100, seed=3, dominant="tumour", tissue_fraction=0.3
    )
    write_phantom(folder, spec=spec)
    (folder / "train.csv").write_text(
        "slide,annotation,annotated\nfield.tiff,field.truth.geojson,all\n"
    )
    shutil.copy(EXAMPLES / "point_density.py", folder)
    content = yaml.safe_load((EXAMPLES / "point_density.yaml").read_text())
    places = {"model": {"package": str(folder / "package")}, "data": {"manifest": "train.csv"}}
    for layer in (FOR_ALL, CHANGES, places):
        content = merged(content, layer)
    (folder / "points.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        done = quadrat("train", folder / "points.yaml")
        assert done.code == 0, done.err
        yield folder


def run(folder, out, *words):
    done = quadrat("run", folder / "points.yaml", folder / "field.tiff", "--out", out, *words)
    assert done.code == 0, done.err
    return out / "results"


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """The folder of a run that kept its predictions."""
    out = tmp_path_factory.mktemp("finished")
    run(trained, out, "--set", 'run.keep=["predictions"]')
    return out


def losses(folder):
    lines = (folder / "package" / "training.csv").read_text().splitlines()
    place = lines[0].split(",").index("loss")
    return [float(line.split(",")[place]) for line in lines[1:]]


def test_it_learns(trained):
    found = losses(trained)
    assert len(found) == 150
    assert np.mean(found[-10:]) < 0.7 * np.mean(found[:10])


def test_it_finds_about_as_many_points_as_were_planted_with_all_outputs_of_objects(
    trained, finished
):
    results = finished / "results" / "field"
    features = json.loads((trained / "field.truth.geojson").read_text())["features"]
    planted = sum(f["properties"]["objectType"] == "detection" for f in features)
    found = pq.read_table(results / "objects.parquet").num_rows
    assert 0.7 * planted < found < 1.4 * planted
    assert read_summary(results).task == "point_density"
    names = {path.name for path in results.iterdir()}
    assert {"objects.geojson", "counts.csv", "overlay.png", "density.png"} <= names


def test_the_points_are_the_peaks_of_the_whole_map_at_once(finished):
    from point_density import REACH_UM, peaks

    store = MapStorage(3).open(finished / "run" / "work" / "field" / "predictions")
    frame = store.layout.frame
    assert len(store.layout.shards) > 6
    assert store.layout.lattice == Lattice(core=128, halo=32, stride=8, shard=256)
    row, col = peaks(
        store.read(frame.box),
        frame.box,
        reach=round(REACH_UM / frame.mpp),
        least=round(0.4 * 255),
        width=frame.width,
    )
    table = pq.read_table(finished / "results" / "field" / "objects.parquet")
    x, y = (table[name].to_numpy() for name in ("x_l0", "y_l0"))
    written = np.stack([y / frame.scale_row, x / frame.scale_col], axis=1) - 0.5
    order = np.lexsort((written[:, 1].round(), written[:, 0].round()))
    want = np.stack([row, col], axis=1)
    np.testing.assert_allclose(written[order], want, atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "run.shards_per_unit=3", "--set", "run.source=stored"),
        ("--cluster", "local", "--set", "run.workers=2"),
    ],
)
def test_any_schedule_gives_the_same_bytes(trained, finished, tmp_path, words):
    other = run(trained, tmp_path, *words)
    assert difference(contents(other), contents(finished / "results")) == []
