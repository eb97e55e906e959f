"""What a run writes is read back by the programs of others, and the files of a slide agree with
each other."""

import itertools
import json
import uuid

import geopandas
import numpy as np
import ome_zarr_models
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image
from scipy import ndimage

from helpers.runs import quadrat, table
from quadrat.slides.source import open_source

OBJECT_TASKS = ("instance", "detection", "semantic")
LABELS = {"instance": "objects", "semantic": "classes"}
SLIDES = ("oblong", "square")


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("slide", SLIDES)
@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_geopandas_reads_the_objects_with_valid_shapes_no_crs_and_ids_in_order(
    task, slide, reference
):
    folder = reference(task) / slide
    frame = geopandas.read_parquet(folder / "objects.parquet")
    assert len(frame) > 0
    assert frame.crs is None
    assert frame.geometry.is_valid.all()
    assert frame["id"].tolist() == list(range(1, len(frame) + 1))
    about = summary(folder)
    names = [c["name"] for c in about["classes"]]
    assert [names[i] for i in frame["class_id"]] == frame["class"].astype(str).tolist()
    assert ((frame["score"] >= 0) & (frame["score"] <= 1)).all()
    scale = about["frame"]["scale_row"] * about["frame"]["scale_col"]
    mpp = about["frame"]["mpp"]
    whole = frame[frame["flags"] == 0]
    if task != "detection":  # a box may reach beyond the slide; an outline may not
        np.testing.assert_allclose(
            whole.geometry.area / scale * mpp**2, whole["area_um2"], rtol=1e-6
        )
        bounds = whole.geometry.bounds.to_numpy()
        assert (bounds >= 0).all()
        assert (bounds[:, 2] <= about["frame"]["width"] * about["frame"]["scale_col"]).all()
        assert (bounds[:, 3] <= about["frame"]["height"] * about["frame"]["scale_row"]).all()
        np.testing.assert_allclose(
            bounds, whole[["x0_l0", "y0_l0", "x1_l0", "y1_l0"]].to_numpy(), atol=1e-6
        )
    about_file = pq.read_metadata(folder / "objects.parquet").metadata
    assert json.loads(about_file[b"geo"])["columns"]["geometry"]["crs"] is None
    assert json.loads(about_file[b"quadrat"])["slide"] == slide


@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_the_geojson_has_a_feature_a_line_with_the_keys_of_qupath(task, reference):
    folder = reference(task) / "square"
    lines = (folder / "objects.geojson").read_text().splitlines()
    whole = json.loads("\n".join(lines))
    frame = geopandas.read_parquet(folder / "objects.parquet")
    assert whole["type"] == "FeatureCollection"
    assert len(whole["features"]) == len(frame)
    on_lines = [line for line in lines if '"Feature"' in line]
    assert len(on_lines) == len(frame)
    space = uuid.uuid5(uuid.NAMESPACE_URL, "quadrat:square")
    for line, feature, row in zip(on_lines, whole["features"], frame.itertuples(), strict=True):
        assert json.loads(line.rstrip(",")) == feature
        assert feature["id"] == str(uuid.uuid5(space, str(row.id)))
        assert feature["geometry"]["type"] == "Polygon"
        properties = feature["properties"]
        assert properties["objectType"] == ("annotation" if task == "semantic" else "detection")
        kind = properties["classification"]
        assert len(kind["color"]) == 3
        assert all(isinstance(v, int) and 0 <= v <= 255 for v in kind["color"])
        assert properties["measurements"]["Area µm^2"] == pytest.approx(row.area_um2, abs=1e-3)
    names = frame["class"].astype(str).tolist()
    assert [f["properties"]["classification"]["name"] for f in whole["features"]] == names
    read = geopandas.read_file(folder / "objects.geojson")
    assert len(read) == len(frame)
    assert read.geometry.is_valid.all()


@pytest.mark.parametrize("source", ["streamed", "stored"])
def test_the_image_is_delivered_on_request_and_holds_the_pixels_of_the_slide(
    source, lab, reference, tmp_path
):
    done = quadrat(
        "run",
        lab.pipeline("semantic"),
        lab.slides[0],
        "--out",
        tmp_path,
        "--set",
        "outputs.image=true",
        "--set",
        f"run.source={source}",
    )
    assert done.code == 0, done.err
    folder = tmp_path / "results" / "oblong"
    frame = summary(folder)["frame"]
    group = zarr.open_group(folder / "slide.ome.zarr", mode="r")
    ome_zarr_models.v05.Image.from_zarr(group)
    assert group["0"].shape[-2:] == (frame["height"], frame["width"])
    below = [a.shape for _, a in sorted(group.arrays())]
    for above, shape in itertools.pairwise(below):
        assert shape[-2:] == tuple(-(-n // 2) for n in above[-2:])
    entry = group.attrs["ome"]["multiscales"][0]
    scale = entry["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-2:] == [frame["mpp"], frame["mpp"]]
    assert len(entry["datasets"]) == len(below)
    pixels = np.moveaxis(group["0"][:], 0, 2)
    with open_source(lab.slides[0], mpp=frame["mpp"]) as slide:
        direct = slide.read(slide.frame.box)
    held = (pixels < 255).any(axis=2)
    assert held.mean() > 0.3
    np.testing.assert_array_equal(pixels[held], direct[held])
    plain = reference("semantic") / "oblong"
    assert (plain / "counts.csv").read_bytes() == (folder / "counts.csv").read_bytes()
    assert (plain / "overlay.png").read_bytes() == (folder / "overlay.png").read_bytes()


@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_labels_are_valid_ome_zarr_under_an_overview_of_the_slide(task, reference):
    folder = reference(task) / "oblong"
    frame = summary(folder)["frame"]
    if task not in LABELS:
        assert not (folder / "slide.ome.zarr").exists()
        return
    group = zarr.open_group(folder / "slide.ome.zarr", mode="r")
    ome_zarr_models.v05.Image.from_zarr(group)
    assert 400 < max(group["0"].shape) <= 1100
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        scale, *shift = dataset["coordinateTransformations"]
        corner = (shift[0]["translation"][-1] if shift else 0.0) - scale["scale"][-1] / 2
        assert corner == pytest.approx(-frame["mpp"] / 2), (
            "the corners of image and labels coincide"
        )
    labels = group["labels"]
    assert labels.attrs["ome"]["labels"] == [LABELS[task]]
    ome_zarr_models.v05.Labels.from_zarr(labels)
    image = labels[LABELS[task]]
    ome_zarr_models.v05.ImageLabel.from_zarr(image)
    assert image["0"].shape == (frame["height"], frame["width"])
    for name, array in image.arrays():  # a pyramid by nearest or mode invents no value
        assert set(np.unique(array[:])) <= set(np.unique(image["0"][:])), name


@pytest.mark.parametrize("slide", SLIDES)
def test_ids_and_areas_of_the_label_image_are_those_of_the_table(slide, reference):
    folder = reference("instance") / slide
    frame = geopandas.read_parquet(folder / "objects.parquet")
    labels = zarr.open_array(folder / "slide.ome.zarr" / "labels" / "objects" / "0", mode="r")[:]
    ids, pixels = np.unique(labels[labels > 0], return_counts=True)
    assert set(ids.tolist()) <= set(frame["id"])
    hidden = frame[~frame["id"].isin(ids)]
    assert (hidden["flags"] & 2 > 0).all(), "an object that no pixel shows must say so"
    mpp = summary(folder)["frame"]["mpp"]
    rows = frame.set_index("id").loc[ids]
    shown = pixels * mpp**2
    plain = (rows["flags"] == 0).to_numpy()
    assert plain.sum() > 10
    np.testing.assert_allclose(shown[plain], rows["area_um2"].to_numpy()[plain], rtol=1e-9)
    assert (shown <= rows["area_um2"].to_numpy() * (1 + 1e-9)).all()
    boxes = ndimage.find_objects(labels)
    l0 = rows[["y0_l0", "y1_l0", "x0_l0", "x1_l0"]].to_numpy() * 0.5 / mpp
    found = np.array(
        [[b[0].start, b[0].stop, b[1].start, b[1].stop] for b in (boxes[i - 1] for i in ids)]
    )
    np.testing.assert_allclose(found[plain], l0[plain], atol=1e-6)


@pytest.mark.parametrize("slide", SLIDES)
@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_counts_are_those_of_the_table(task, slide, reference):
    folder = reference(task) / slide
    frame = geopandas.read_parquet(folder / "objects.parquet")
    about = summary(folder)
    tissue = about["tissue_mm2"]
    rows = table(folder / "counts.csv")
    assert [row["class"] for row in rows] == [c["name"] for c in about["classes"]] + ["all"]
    for row in rows:
        own = frame if row["class"] == "all" else frame[frame["class"].astype(str) == row["class"]]
        assert int(row["count"]) == len(own)
        assert float(row["per_mm2"]) == pytest.approx(len(own) / tissue, rel=1e-4, abs=1e-3)
        assert float(row["area_mm2"]) == pytest.approx(own["area_um2"].sum() / 1e6, abs=2e-6)
        assert float(row["covered_fraction"]) == pytest.approx(
            own["area_um2"].sum() / 1e6 / tissue, rel=1e-4, abs=1e-5
        )
        nearest = [c for c in frame.columns if c.startswith("nearest_um.")]
        near = own[nearest].min(axis=1) if row["class"] == "all" else own["nearest_same_um"]
        assert (row["median_nearest_um"] == "") == (len(near.dropna()) == 0)
        if row["median_nearest_um"]:
            assert float(row["median_nearest_um"]) == pytest.approx(
                near.dropna().median(), abs=2e-3
            )


@pytest.mark.parametrize("slide", SLIDES)
def test_the_slides_probabilities_sum_to_one_and_are_the_mean_of_its_tiles(slide, reference):
    folder = reference("classification") / slide
    classes = {row["class"]: row["probability"] for row in table(folder / "classes.csv")}
    assert sum(round(float(p) * 1_000_000) for p in classes.values()) == 1_000_000
    tiles = table(folder / "tiles.csv")
    about = summary(folder)
    assert len(tiles) == about["cores"]
    for name, p in classes.items():
        assert float(p) == pytest.approx(np.mean([float(t[f"p_{name}"]) for t in tiles]), abs=3e-6)
    cells = [(int(t["row"]), int(t["col"])) for t in tiles]
    assert cells == sorted(set(cells))
    for tile in tiles:
        best = max(classes, key=lambda name: float(tile[f"p_{name}"]))
        assert float(tile[f"p_{tile['class']}"]) == float(tile[f"p_{best}"])
        assert float(tile["x1_l0"]) <= about["frame"]["width"] * about["frame"]["scale_col"] + 0.01
        assert float(tile["y1_l0"]) <= about["frame"]["height"] * about["frame"]["scale_row"] + 0.01
    assert about["class"] == max(classes, key=lambda name: float(classes[name]))


@pytest.mark.parametrize("slide", SLIDES)
def test_areas_of_regions_are_those_of_the_class_map(slide, reference):
    folder = reference("semantic") / slide
    about = summary(folder)
    mpp = about["frame"]["mpp"]
    frame = geopandas.read_parquet(folder / "objects.parquet")
    classes = zarr.open_array(folder / "slide.ome.zarr" / "labels" / "classes" / "0", mode="r")[:]
    least = about["thresholds"]["min_area_um2"]
    for number, info in enumerate(about["classes"]):
        mask = classes == number + 1
        parts, n = ndimage.label(mask)  # 4-connected
        areas = np.sort(np.bincount(parts.ravel())[1:] * mpp**2) if n else np.zeros(0)
        rows = np.sort(frame.loc[frame["class"].astype(str) == info["name"], "area_um2"].to_numpy())
        np.testing.assert_allclose(rows, areas[areas >= least], rtol=1e-9, err_msg=info["name"])
    assert (frame["area_um2"] >= least).all()


@pytest.mark.parametrize("task", [*OBJECT_TASKS, "classification"])
def test_the_pictures_open_and_hold_no_metadata(task, reference):
    second = {
        "classification": "heatmap.png",
        "instance": "density.png",
        "detection": "density.png",
    }
    for name in ("overlay.png", *([second[task]] if task in second else [])):
        with Image.open(reference(task) / "square" / name) as picture:
            picture.load()
            assert picture.mode == "RGB"
            assert picture.format == "PNG"
            assert not picture.info
            assert min(picture.size) > 300
