"""Objects of other tools as results of a slide."""

import json

import geopandas
import numpy as np
import pytest
from PIL import Image

from helpers.runs import contents, quadrat, table
from quadrat.engine.drivers import slides_asked
from quadrat.outputs.summary import read_summary
from quadrat.pages.folder import read_run

SQUARE = [[100, 200], [140, 200], [140, 220], [100, 220], [100, 200]]
HOLED = [
    [[300, 100], [340, 100], [340, 140], [300, 140], [300, 100]],
    [[310, 110], [310, 120], [320, 120], [320, 110], [310, 110]],
]


def feature(rings, name="", *, kind="detection", shape="Polygon", **measurements):
    properties = {"objectType": kind, "measurements": measurements}
    if name:
        properties["classification"] = {"name": name}
    geometry = {"type": shape, "coordinates": rings}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """600 x 400 px with tissue in the middle."""
    rgb = np.full((400, 600, 3), 240, np.uint8)
    rgb[50:350, 60:540] = (180, 90, 150)
    path = tmp_path_factory.mktemp("slide") / "a.png"
    Image.fromarray(rgb).save(path)
    return path


def taken(tmp_path, slide, *features, out="out", words=("--mpp", 0.5)):
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return quadrat("import", path, "--slide", slide, "--out", tmp_path / out, *words)


def test_sizes_and_distances_are_those_of_the_outlines(tmp_path, slide):
    cells = feature(HOLED, "Tumor", kind="cell"), feature([SQUARE], "Other")
    done = taken(tmp_path, slide, *cells)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "results" / "a"
    rows = geopandas.read_parquet(folder / "objects.parquet")
    assert rows["class"].tolist() == ["Tumor", "Other"]  # by centroid, row by row
    assert rows["area_um2"].tolist() == [(1600 - 100) / 4, 800 / 4]
    assert rows["perimeter_um"].tolist() == [(160 + 40) / 2, 120 / 2]
    assert rows[["x0_l0", "y0_l0", "x1_l0", "y1_l0"]].to_numpy().tolist() == [
        [300, 100, 340, 140], [100, 200, 140, 220],
    ]  # fmt: skip
    x, y = rows["x_l0"].to_numpy(), rows["y_l0"].to_numpy()
    assert (x[0], y[0]) == pytest.approx(
        ((1600 * 320 - 100 * 315) / 1500, (1600 * 120 - 100 * 115) / 1500)
    )
    apart = np.hypot(x[0] - x[1], y[0] - y[1]) / 2
    assert rows["nearest_um.Other"].tolist()[0] == pytest.approx(apart)
    assert rows["nearest_um.Other"].isna().tolist() == [False, True]
    assert [g.wkt.startswith("POLYGON") for g in rows.geometry] == [True, True]
    counts = {row["class"]: row["count"] for row in table(folder / "counts.csv")}
    assert counts == {"Other": "1", "Tumor": "1", "all": "2"}
    (row,) = table(tmp_path / "out" / "results" / "summary.csv")
    assert (row["slide"], row["status"], row["count"]) == ("a", "done", "2")


def test_the_summary_says_who_made_it_and_where_the_slide_lies_is_kept_apart(tmp_path, slide):
    assert taken(tmp_path, slide, feature([SQUARE], "Tumor")).code == 0
    summary = read_summary(tmp_path / "out" / "results" / "a")
    assert summary.made_by.startswith("cells.geojson (QuPath GeoJSON, sha256 ")
    assert (summary.task, summary.frame.mpp, summary.slide_mpp.source) == (
        "instance", 0.5, "override",
    )  # fmt: skip
    assert summary.figures.area.tissue_mm2 == pytest.approx(300 * 480 * 0.25e-6, rel=0.1)
    assert slides_asked(tmp_path / "out")["a"].path == str(slide)
    assert str(tmp_path) not in (tmp_path / "out/results/a/summary.json").read_text()


def test_the_same_objects_in_another_order_are_the_same_bytes(tmp_path, slide):
    cells = [
        feature(
            [[[x + 9 * i, y] for x, y in SQUARE]], "ab"[i % 2], **{"Detection probability": 0.5}
        )
        for i in range(20)
    ]
    assert taken(tmp_path, slide, *cells, out="one").code == 0
    assert taken(tmp_path, slide, *reversed(cells), out="two").code == 0
    one, two = (contents(tmp_path / out / "results" / "a") for out in ("one", "two"))
    for name in ("objects.parquet", "objects.geojson", "counts.csv"):
        assert one[name] == two[name]
    done = quadrat("diff", tmp_path / "one", tmp_path / "two")
    assert (done.code, done.out.splitlines()[-1]) == (0, "equal")


def test_what_quadrat_wrote_is_read_back_as_it_was(tmp_path, slide):
    cells = feature([SQUARE], "Tumor", **{"Detection probability": 0.25}), feature(HOLED, "Other")
    assert taken(tmp_path, slide, *cells).code == 0
    again = tmp_path / "out/results/a/objects.geojson"
    done = quadrat("import", again, "--slide", slide, "--out", tmp_path / "two", "--mpp", 0.5)
    assert done.code == 0
    assert quadrat("diff", tmp_path / "out", tmp_path / "two").code == 0


def test_points_get_a_size_and_regions_are_regions(tmp_path, slide):
    point = feature([100, 200], shape="Point")
    refused = taken(tmp_path, slide, point)
    assert (refused.code, "a point; give points a size with --point-um" in refused.err) == (2, True)
    assert not (tmp_path / "out").exists()
    assert taken(tmp_path, slide, point, words=("--mpp", 0.5, "--point-um", 8)).code == 0
    summary = read_summary(tmp_path / "out" / "results" / "a")
    assert (summary.task, summary.figures.answer.counts[0].area_mm2) == ("detection", 64e-6)
    assert summary.figures.answer.counts[0].class_name == "object"
    done = taken(tmp_path, slide, feature([SQUARE], "Tumor", kind="annotation"), out="regions")
    assert (done.code, "its 1 regions were imported" in done.out) == (0, True)
    assert read_summary(tmp_path / "regions" / "results" / "a").task == "semantic"


def test_work_in_pixels_has_no_um(tmp_path, slide):
    assert taken(tmp_path, slide, feature([SQUARE]), words=("--mpp", "px")).code == 0
    (row,) = table(tmp_path / "out/results/summary.csv")
    assert (row["tissue_mpx"], row["count"]) == ("0.240000", "1")
    (one, _) = table(tmp_path / "out/results/a/counts.csv")
    assert one["area_mpx"] == "0.000800"


BOW_TIE = [[[100, 100], [140, 140], [140, 100], [100, 140], [100, 100]]]
FAR = [[[x + 5000, y] for x, y in SQUARE]]


@pytest.mark.parametrize(
    ("features", "words", "told"),
    [
        ([], (), "there is no object in it"),
        ([feature(BOW_TIE)], (), "1 of 1 objects cannot be used (feature 1: a polygon that cross"),
        ([feature(FAR)], (), "lie outside; are the coordinates px of another level"),
        ([feature([[SQUARE], HOLED], shape="MultiPolygon")], (), "2 parts, but an object has one"),
        ([feature([SQUARE], "Tumour")], ("--classes", "Tumor", "Other"), "did you mean 'Tumor'?"),
    ],
)  # fmt: skip
def test_objects_that_cannot_be_used_are_refused_in_one_sentence(
    tmp_path, slide, features, words, told
):
    done = taken(tmp_path, slide, *features, words=("--mpp", 0.5, *words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err
    assert not (tmp_path / "out").exists()


def test_bad_objects_are_left_out_on_request_and_the_summary_says_so(tmp_path, slide):
    done = taken(
        tmp_path, slide, feature([SQUARE]), feature(BOW_TIE),
        words=("--mpp", 0.5, "--bad-records", "skip"),
    )  # fmt: skip
    assert done.code == 0
    (note,) = read_summary(tmp_path / "out" / "results" / "a").notes
    assert note.startswith("1 of 2 objects of cells.geojson left out (feature 2: ")


def test_a_folder_has_one_set_of_classes_and_a_slide_one_result(tmp_path, slide):
    assert taken(tmp_path, slide, feature([SQUARE], "Tumor")).code == 0
    assert "there are results of the slide 'a'" in taken(tmp_path, slide, feature([SQUARE])).err
    other = ("--mpp", 0.5, "--name", "b")
    assert "is none of Tumor" in taken(tmp_path, slide, feature([SQUARE], "x"), words=other).err
    assert taken(tmp_path, slide, feature([SQUARE], "Tumor"), words=other).code == 0
    again = taken(tmp_path, slide, feature([SQUARE], "Tumor"), words=("--mpp", 0.25, "--overwrite"))
    assert again.code == 0
    assert read_summary(tmp_path / "out" / "results" / "a").frame.mpp == 0.25


def test_a_slide_without_scale_or_a_file_that_is_none_is_named(tmp_path, slide):
    done = taken(tmp_path, slide, feature([SQUARE]), words=())
    assert (done.code, "--mpp" in done.err) == (2, True)
    done = quadrat("import", tmp_path / "none", "--slide", slide, "--out", tmp_path / "x")
    assert done.code == 2


def test_all_of_a_slide_is_analysed_on_request(tmp_path, slide):
    done = taken(tmp_path, slide, feature([SQUARE]), words=("--mpp", 0.5, "--tissue", "all"))
    assert done.code == 0, done.err
    area = read_summary(tmp_path / "out" / "results" / "a").figures.area
    assert area.tissue_mm2 == pytest.approx(400 * 600 * 0.25e-6)


def test_coco_and_label_images_are_imported_as_well(tmp_path, slide):
    labels = np.zeros((400, 600), np.uint16)
    labels[100:120, 200:240], labels[200:210, 300:310] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    words = ("--slide", slide, "--mpp", 0.5, "--out")
    done = quadrat("import", tmp_path / "labels.png", *words, tmp_path / "a")
    assert done.code == 0, done.err
    rows = geopandas.read_parquet(tmp_path / "a/results/a/objects.parquet")
    assert rows["area_um2"].tolist() == [200, 25]
    assert quadrat("export", tmp_path / "a", "--to", "coco").code == 0
    coco = tmp_path / "a" / "export" / "coco" / "coco.json"
    done = quadrat("import", coco, *words, tmp_path / "b")
    assert done.code == 0, done.err
    assert quadrat("diff", tmp_path / "a", tmp_path / "b").code == 0


def test_other_commands_read_imported_results_as_those_of_a_run(tmp_path, slide):
    cells = feature([SQUARE], "Tumor"), feature(HOLED, "Other")
    assert taken(tmp_path, slide, *cells).code == 0
    region = feature(
        [[[80, 180], [160, 180], [160, 240], [80, 240], [80, 180]]], "Roi", kind="annotation"
    )
    (tmp_path / "rois").mkdir()
    roi = {"type": "FeatureCollection", "features": [region]}
    (tmp_path / "rois" / "a.geojson").write_text(json.dumps(roi))
    done = quadrat("measure", tmp_path / "out", "--rois", tmp_path / "rois")
    assert done.code == 0, done.err
    rows = table(tmp_path / "out" / "measurements.csv")
    found = {
        (r["region_class"] or r["region"], r["class"], r["measure"]): float(r["value"])
        for r in rows
        if r["measure"] in ("count", "per_mm2") and r["value"]
    }
    assert found["whole slide", "Tumor", "count"] == found["Roi", "Tumor", "count"] == 1
    assert found["Roi", "Other", "count"] == 0
    assert found["Roi", "Tumor", "per_mm2"] == pytest.approx(1 / (80 * 60 * 0.25e-6))
    with read_run(tmp_path / "out").slides["a"].open() as opened:
        assert opened.path == str(slide)
    done = quadrat("report", tmp_path / "out")
    assert done.code == 0, done.err
