"""Objects as files of other tools, read back as those tools read them."""

import csv
import json
import re

import numpy as np
import pandas
import pytest
import shapely
from pycocotools.coco import COCO

from helpers.planted_runs import FRAME, random_boxes, write_slide
from helpers.runs import contents, quadrat
from quadrat.core.errors import ConfigError
from quadrat.core.objects import ClassInfo
from quadrat.exchange.exporting import export_run
from quadrat.exchange.qupath import groovy_text
from quadrat.outputs.results import read_results

BOXES = {"a": random_boxes(50, 1), "b": random_boxes(7, 2)}
KINDS = {name: np.arange(len(boxes)) % 2 for name, boxes in BOXES.items()}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of two slides, and one without objects."""
    folder = tmp_path_factory.mktemp("exported") / "out"
    for name, boxes in BOXES.items():
        write_slide(folder, name, boxes, KINDS[name])
    write_slide(folder, "none", [])
    return folder


def test_csv_has_every_column_and_the_outline(tmp_path, out):
    export_run(out, "csv", folder=tmp_path / "csv")
    rows = pandas.read_csv(tmp_path / "csv" / "a.csv")
    assert len(rows) == 50
    assert rows["class"].tolist() == ["ab"[k] for k in KINDS["a"]]
    drawn = shapely.bounds(shapely.from_wkt(rows["wkt"].to_numpy()))
    assert np.array_equal(drawn, BOXES["a"] * 2)
    assert rows["nearest_um.b"].notna().all()
    assert len(pandas.read_csv(tmp_path / "csv" / "none.csv")) == 0


def test_napari_reads_points_and_shapes_with_its_own_columns(tmp_path, out):
    export_run(out, "napari", folder=tmp_path / "n", named=["a"])
    with (tmp_path / "n" / "a.points.csv").open(newline="") as stream:
        head, *lines = csv.reader(stream)
    assert head[:3] == ["index", "axis-0", "axis-1"]  # what makes napari take it for points
    middle = (BOXES["a"][:, [1, 0]] + BOXES["a"][:, [3, 2]]) - 0.5  # times 2 / 2; pixel centres
    assert np.array_equal(np.array([line[1:3] for line in lines], float), middle)
    with (tmp_path / "n" / "a.shapes.csv").open(newline="") as stream:
        head, *lines = csv.reader(stream)
    assert head == ["index", "shape-type", "vertex-index", "axis-0", "axis-1"]
    index = np.array([line[0] for line in lines], int)
    assert {line[1] for line in lines} == {"polygon"}
    assert index.max() + 1 == 1 + np.count_nonzero(np.diff(index))  # napari asks for this
    assert [int(line[2]) for line in lines[:5]] == [0, 1, 2, 3, 0]
    first = np.array([line[3:] for line in lines[:4]], float)
    x0, y0, x1, y1 = BOXES["a"][0] * 2 - 0.5
    assert (first.min(axis=0).tolist(), first.max(axis=0).tolist()) == ([y0, x0], [y1, x1])
    assert not (tmp_path / "n" / "b.points.csv").exists()


def test_coco_has_one_number_a_class_over_all_slides(tmp_path, out):
    export_run(out, "coco", folder=tmp_path / "c")
    coco = COCO(str(tmp_path / "c" / "coco.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["a", "b"]
    assert [(i["file_name"], i["width"], i["height"]) for i in coco.loadImgs(coco.getImgIds())] == [
        ("a", 800, 600), ("b", 800, 600), ("none", 800, 600),
    ]  # fmt: skip
    own = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    x0, y0, x1, y1 = BOXES["a"].T * 2
    assert np.array_equal([one["bbox"] for one in own], np.stack([x0, y0, x1 - x0, y1 - y0], 1))


def test_omero_gets_the_type_of_each_column(tmp_path, out):
    export_run(out, "omero-csv", folder=tmp_path / "o")
    for name, rows in (("objects.csv", 57), ("counts.csv", 9)):
        types, *table = (tmp_path / "o" / name).read_text().splitlines()
        head, *lines = csv.reader(table)
        assert (types[:9], len(lines)) == ("# header ", rows)
        kinds = dict(zip(head, types[9:].split(","), strict=True))
        assert (kinds["image_name"], kinds["class"]) == ("s", "s")
        for line in lines:
            for column, text in zip(head, line, strict=True):
                _ = {"s": str, "l": int, "d": float}[kinds[column]](text)


def test_qupath_gets_outlines_classes_with_colours_and_a_script_that_loads_them(tmp_path, out):
    export_run(out, "qupath", folder=tmp_path / "it's \\ $q")
    folder = tmp_path / "it's \\ $q"
    about = json.loads((folder / "index.json").read_text())
    assert about["classes"] == [
        {"name": "a", "color": [228, 26, 28]}, {"name": "b", "color": [55, 126, 184]},
    ]  # fmt: skip
    assert [one["objects"] for one in about["slides"]] == [
        "objects/a.geojson", "objects/b.geojson", "objects/none.geojson",
    ]  # fmt: skip
    features = json.loads((folder / "objects/a.geojson").read_text())["features"]
    drawn = [shapely.geometry.shape(one["geometry"]).bounds for one in features]
    assert np.array_equal(drawn, BOXES["a"] * 2)
    script = (folder / "load_into_qupath.groovy").read_text()
    assert groovy_text(str(folder)) in script
    code = re.sub(r"//.*|'(\\.|[^'\\])*'|\"[^\"]*\"", "", script)
    for opening, closing in ("()", "[]", "{}"):
        assert code.count(opening) == code.count(closing)
    assert '"' not in code
    assert "'" not in code


def test_regions_are_annotations_in_qupath(tmp_path):
    write_slide(tmp_path / "out", "a", BOXES["b"], task="semantic")
    export_run(tmp_path / "out", "qupath", folder=tmp_path / "q")
    (one, *_) = json.loads((tmp_path / "q/objects/a.geojson").read_text())["features"]
    assert one["properties"]["objectType"] == "annotation"


def test_groovy_text_has_nothing_that_groovy_would_replace():
    assert groovy_text("a'b\\c$d\n") == "'a\\'b\\\\c$d\\n'"


def test_a_copy_of_the_runs_own_geojson_is_taken_where_there_is_one(tmp_path):
    folder = write_slide(tmp_path / "out", "a", BOXES["a"])
    (folder / "objects.geojson").write_text("its own")
    export_run(tmp_path / "out", "qupath", folder=tmp_path / "q")
    assert (tmp_path / "q" / "objects" / "a.geojson").read_text() == "its own"


def test_anndata_holds_figures_classes_and_places(tmp_path, out):
    anndata = pytest.importorskip("anndata", reason="the extra anndata is not installed")
    export_run(out, "anndata", folder=tmp_path / "h")
    made = anndata.read_h5ad(tmp_path / "h" / "a.h5ad")
    assert made.shape[0] == 50
    assert list(made.var_names[:3]) == ["score", "area_um2", "perimeter_um"]
    assert made.obs["class"].tolist() == ["ab"[k] for k in KINDS["a"]]
    assert np.array_equal(made.obsm["spatial"], BOXES["a"][:, :2] + BOXES["a"][:, 2:])
    assert made.uns["quadrat"]["mpp_l0"] == FRAME.mpp_l0
    assert anndata.read_h5ad(tmp_path / "h" / "none.h5ad").shape[0] == 0


def test_spatialdata_is_read_back_by_its_own_library(tmp_path, out):
    spatialdata = pytest.importorskip("spatialdata", reason="the extra is not installed")
    for _ in range(2):
        export_run(out, "spatialdata", folder=tmp_path / "s", named=["a"], overwrite=True)
    made = spatialdata.read_zarr(tmp_path / "s" / "a.zarr")
    assert np.array_equal(made["objects"].bounds.to_numpy(), BOXES["a"] * 2)
    assert made["table"].obs["id"].tolist() == made["objects"].index.tolist()
    um = spatialdata.transformations.get_transformation(made["objects"], "um")
    assert um.to_affine_matrix(("x", "y"), ("x", "y"))[0, 0] == FRAME.mpp_l0
    elements, table = spatialdata.join_spatialelement_table(
        sdata=made, spatial_element_names="objects", table_name="table"
    )
    assert len(elements["objects"]) == len(table) == 50


@pytest.mark.parametrize("to", ["qupath", "csv", "coco", "napari", "omero-csv"])
def test_the_same_run_is_always_written_with_the_same_bytes(tmp_path, out, to):
    target = tmp_path / "x"
    export_run(out, to, folder=target)
    first = contents(target)
    export_run(out, to, folder=target, overwrite=True)
    assert contents(target) == first


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, out, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'quadrat\[spatialdata\]'"):
        export_run(out, "spatialdata", folder=tmp_path / "s")


def test_the_command_says_what_it_wrote_and_replaces_nothing_unasked(tmp_path):
    run = tmp_path / "out"
    write_slide(run, "a", BOXES["a"])
    done = quadrat("export", run, "--to", "csv")
    assert (done.code, done.out) == (0, f"50 objects of 1 slides: {run / 'export' / 'csv'}\n")
    assert "is not empty; choose another --out" in quadrat("export", run, "--to", "csv").err
    assert quadrat("export", run, "--to", "csv", "--overwrite").code == 0
    assert quadrat("export", run, "--to", "csv", "--slide", "x", "--overwrite").code == 2
    assert quadrat("export", tmp_path / "nothing", "--to", "csv").code == 2
    assert list(read_results(run)) == ["a"]


def test_names_with_marks_of_csv_are_kept(tmp_path):
    odd = (ClassInfo('a, "b"', (1, 2, 3)),)
    write_slide(tmp_path / "out", "s", BOXES["b"], classes=odd)
    export_run(tmp_path / "out", "csv", folder=tmp_path / "c")
    assert set(pandas.read_csv(tmp_path / "c" / "s.csv")["class"]) == {'a, "b"'}
