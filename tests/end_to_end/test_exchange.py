"""Nuclei that people outlined on a real field go in as results, and out again, unchanged: by the
commands, as a user has them."""

import json
import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import quadrat
from helpers.runs import quadrat as command
from helpers.runs import table

MPP = 0.5


@pytest.fixture(scope="module")
def field():
    """A stained field of DSB2018, and the label image of its nuclei."""
    folder = Path(os.environ.get("QUADRAT_DATA", "")) / "instances" / "dsb2018_stained"
    if not folder.is_dir():
        pytest.skip("instances/dsb2018_stained is not in QUADRAT_DATA")
    labels = sorted((folder / "labels").iterdir())[0]
    return folder / "images" / labels.name, labels, np.asarray(Image.open(labels))


@pytest.fixture(scope="module")
def run(field, tmp_path_factory):
    """The folder of results that the nuclei became."""
    image, labels, _ = field
    out = tmp_path_factory.mktemp("exchange") / "out"
    words = ("--slide", image, "--name", "field", "--mpp", MPP, "--out", out)
    done = command("import", labels, *words, "--tissue", "all", "--bad-records", "skip")
    assert done.code == 0, done.err
    return out


def test_every_nucleus_is_an_object_with_the_area_of_its_pixels(run, field):
    pixels = field[2]
    found = quadrat.open_run(run)["field"].to_geopandas()
    areas = np.bincount(pixels.ravel())[1:]
    assert len(found) == np.count_nonzero(areas)
    assert sorted(found["area_um2"] / MPP**2) == sorted(areas[areas > 0].tolist())
    (row,) = table(run / "results" / "summary.csv")
    assert float(row["tissue_mm2"]) == pytest.approx(pixels.size * MPP**2 / 1e6)


def test_masks_of_coco_are_the_pixels_that_went_in(run, field, tmp_path):
    pixels = field[2]
    assert command("export", run, "--to", "coco", "--out", tmp_path).code == 0
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.imgs[1]["file_name"] == field[0].name
    seen = np.zeros(pixels.shape, np.int64)
    for one in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(one).astype(bool)
        assert len(np.unique(pixels[mask])) == 1
        seen += mask
    assert np.array_equal(seen, pixels > 0)


def test_geojson_comes_back_as_it_went_and_a_lost_nucleus_is_found(run, field, tmp_path):
    assert command("export", run, "--to", "qupath", "--out", tmp_path / "q").code == 0
    path = tmp_path / "q" / "objects" / "field.geojson"
    words = ("--slide", field[0], "--name", "field", "--mpp", MPP, "--tissue", "all")
    assert command("import", path, *words, "--out", tmp_path / "again").code == 0
    assert command("diff", run, tmp_path / "again").code == 0
    whole = json.loads(path.read_text())
    lost = whole["features"].pop(11)
    path.write_text(json.dumps(whole))
    assert command("import", path, *words, "--out", tmp_path / "less").code == 0
    done = command("diff", run, tmp_path / "less", "--out", tmp_path / "changes")
    assert done.code == 1
    (went,) = geopandas.read_file(tmp_path / "changes" / "field.geojson").geometry
    assert list(went.exterior.coords) == [tuple(xy) for xy in lost["geometry"]["coordinates"][0]]
    manual = tmp_path / "manual.csv"
    manual.write_text(f"slide,count\nfield.png,{len(whole['features']) + 1}\n")
    values = json.loads(command("compare", tmp_path / "less", manual, "--json").out)
    assert values["classes"]["all"]["bias"]["value"] == -1


def test_a_figure_is_drawn_of_the_real_field(run, tmp_path):
    words = ("--bbox", "0,0,320,256", "--scale-bar", "--out", tmp_path / "f.png")
    done = command("figure", run, "field", *words, "--dpi", 96, "--width-mm", 84.67)
    assert done.code == 0, done.err
    count = quadrat.open_run(run)["field"].count
    assert f"{count} objects, scale bar 20 µm" in done.out
    assert Image.open(tmp_path / "f.png").size == (320, 256)
