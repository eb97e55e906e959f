"""Work in pixels (``model.mpp: px``): from pictures without a scale to an evaluation, and no file
that is written on the way names a um."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml
from PIL import Image

from helpers import annotated
from helpers.runs import quadrat
from quadrat.models.package import load_package, save_package
from quadrat.outputs.summary import read_summary
from quadrat.store.array import ShardedArray
from quadrat.tasks import build_network

TASKS = ("instance", "instance_masks", "detection", "semantic", "classification")
OF_UM = re.compile(r"(?<![A-Za-z])um2?(?![A-Za-z])|[µμ]m|mm2|mm²|\bmm\b|micromet")
OF_MPP = re.compile(r"(?<!model\.)\bmpp\b")
OWN_NAMES = ("pipeline.yaml", "checkpoint.json", "journal.jsonl")
"""The keys of a pipeline keep their names, in the file and in what a training compares with it; and
the receipts of unfinished work name figures as the code does."""
SMALL = {
    "model.core": 64,
    "model.shard": 128,
    "model.widths": [8, 12, 16],
    "train.steps": 6,
    "train.batch": 2,
    "train.patch": 64,
    "train.warmup": 1,
    "train.precision": "fp32",
    "train.validate_every": 3,
    "run.cluster": "serial",
    "run.device": "cpu",
    "run.keep": ["tiles", "predictions"],
    "outputs.image": True,
}
OWN = {
    "instance": {"model.halo": 48, "thresholds.seed": 0.3, "thresholds.foreground": 0.3},
    "instance_masks": {"model.halo": 32, "model.stride": 8, "thresholds.score": 0.05},
    "detection": {"model.halo": 48, "thresholds.score": 0.05},
    "semantic": {"model.halo": 48},
    "classification": {"model.halo": 0},
}


LOW = {
    "instance": {"seed": 0.2, "foreground": 0.2, "min_area_um2": 3.0, "cap_um": 60.0},
    "detection": {"score": 0.2},
    "semantic": {"min_area_um2": 12.0},
    "classification": {},
}
"""Thresholds at which networks of random weights find something."""


def write_pictures(folder, task):
    """Ten pictures without a scale and what is drawn in them, as `init` takes them."""
    names = [f"p{i}" for i in range(10)]
    if task == "classification":
        for i, name in enumerate(names):
            of = folder / annotated.NAMES[i % 2]
            annotated.write_images(of, [name], task=task)
            rgb = np.array(Image.open(of / f"{name}.png"))
            rgb[i, i] = i  # no two are alike
            Image.fromarray(rgb).save(of / f"{name}.png")
            (of / "slides.csv").unlink()
            (of / f"{name}.geojson").unlink()
        return ()
    kind = "instance" if task == "instance_masks" else task
    annotated.write_images(folder, names, task=kind)
    (folder / "slides.csv").unlink()
    return ("--annotations", folder)


def settings(task, **more):
    values = SMALL | OWN[task] | more
    return [w for key, value in values.items() for w in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="module", params=TASKS)
def place(request, tmp_path_factory, monkeypatch_module):
    """All that the commands write, and what they print, from pictures to an evaluation."""
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    monkeypatch_module.chdir(folder)
    drawn = write_pictures(folder / "pictures", task)
    said = []

    def does(*words):
        done = quadrat(*words)
        assert done.code == 0, f"{words}\n{done.out}\n{done.err}"
        said.append(done.out + done.err)

    does("init", task, "--slides", "pictures", *drawn, "--out", "mine", "--mpp", "px")
    manifest = Path("mine/manifest.csv")
    with manifest.open() as stream:
        rows = [row | {"annotated": "all"} for row in csv.DictReader(stream)]
    assert "mpp" not in rows[0]
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for command in ("check", "stats"):
        does("annotations", command, "mine/manifest.csv", "--pipeline", "mine/pipeline.yaml")
    does("train", "mine/pipeline.yaml", *settings(task))
    pictures = sorted(Path("pictures").rglob("*.png"))[:2]
    does("run", "mine/pipeline.yaml", *pictures, "--out", "out", *settings(task))
    does("tile", "mine/pipeline.yaml", pictures[0], "--out", "tiles", *settings(task))
    how = ("--split", "test", "--out", "evaluated", "--pictures")
    does("evaluate", "mine/pipeline.yaml", *how, *settings(task))
    does("evaluate", "mine/pipeline.yaml", *how, "--json", *settings(task))
    if task != "classification":
        does("seams", next(Path("out/results").glob("*/summary.json")).parent)
        does("seams", "--json", next(Path("out/results").glob("*/summary.json")).parent)
    does("inspect", pictures[0], "--mpp", "px", "--pictures", "looks")
    does("inspect", pictures[0], "--mpp", "px", "--json")
    return task, folder, said


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def texts_of(file):
    """What a file says in words: its text, or the names and metadata of a parquet file."""
    if file.suffix == ".parquet":
        schema = pq.read_schema(file)
        return [*schema.names, *(v.decode() for v in (schema.metadata or {}).values())]
    try:
        return [file.read_text(encoding="utf-8")]
    except UnicodeDecodeError:
        return []


def test_no_file_that_is_written_and_no_line_that_is_printed_names_a_um(place):
    _, folder, said = place
    files = [f for f in folder.rglob("*") if f.is_file() and f.name not in OWN_NAMES]
    files = [f for f in files if f.parent.name != "asked"]  # the pipeline again
    read = {file: texts_of(file) for file in files}
    found = [
        f"{file.relative_to(folder)}: {text[max(0, at.start() - 60) : at.end() + 20]!r}"
        for file, texts in read.items()
        for text in texts
        for at in (*OF_UM.finditer(text), *OF_MPP.finditer(text))
    ]
    assert not found, "\n".join(found)
    kinds = {file.suffix for file, texts in read.items() if texts}
    assert {".json", ".csv", ".md", ".jsonl"} <= kinds, "there was something to read"
    printed = [line for text in said for line in text.splitlines() if "work is in pixels" in line]
    assert printed
    for text in said:
        assert not OF_UM.search(text), text


def test_lengths_and_areas_of_results_are_named_by_pixels(place):
    task, folder, _ = place
    results = sorted((folder / "out" / "results").glob("*/summary.json"))
    assert len(results) == 2
    for file in results:
        values, summary = json.loads(file.read_text()), read_summary(file.parent)
        assert values["frame"] == {
            "height": annotated.SIDE,
            "width": annotated.SIDE,
            "scale_row": 1.0,
            "scale_col": 1.0,
            "unit": "px",
        }
        assert summary.frame.mpp == 1.0
        assert values["slide_mpp"] == {"value": None, "source": "not used: model.mpp is px"}
        assert values["tissue_mpx"] == pytest.approx(annotated.SIDE**2 / 1e6)
        if task != "classification":
            header = (file.parent / "counts.csv").read_text().splitlines()[0]
            want = "class,count,per_mpx,area_mpx,covered_fraction,median_nearest_px"
            assert header == want
            names = pq.read_schema(file.parent / "objects.parquet").names
            assert {"area_px2", "perimeter_px", "nearest_same_px", "nearest_px.a"} <= set(names)
        if (file.parent / "slide.ome.zarr").exists():
            group = json.loads((file.parent / "slide.ome.zarr" / "zarr.json").read_text())
            (image,) = group["attributes"]["ome"]["multiscales"]
            assert [axis for axis in image["axes"] if "unit" in axis] == []
            (scale,) = image["datasets"][0]["coordinateTransformations"]
            assert scale["scale"][-2:] == [1.0, 1.0]
    with (folder / "out" / "results" / "summary.csv").open() as stream:
        assert "tissue_mpx" in csv.DictReader(stream).fieldnames


def test_the_package_and_the_evaluation_state_pixels(place):
    task, folder, _ = place
    (card,) = (folder / "packages").glob("*/card.json")
    spec = json.loads(card.read_text())["spec"]
    assert spec["unit"] == "px"
    assert "mpp" not in spec
    metrics = json.loads((folder / "evaluated" / "evaluation" / "metrics.json").read_text())
    assert metrics["settings"]["distance_px"] == 6.0
    if task == "semantic":
        header = (folder / "evaluated" / "evaluation" / "per_slide.csv").read_text().splitlines()[0]
        assert "annotated_mpx" in header


@pytest.mark.parametrize("task", ["instance", "detection", "semantic", "classification"])
def test_a_picture_of_one_um_a_px_has_the_same_numbers_in_um_and_in_px(task, tmp_path):
    manifest = annotated.write_images(tmp_path / "images", ["a", "b"], task=task)
    package = load_package(annotated.write_package(tmp_path / "p", task), build_network)
    done = {}
    for unit in ("um", "px"):
        spec = replace(package.spec, mpp=1.0, unit=unit)
        save_package(tmp_path / unit, package.model, spec, about={})
        file = annotated.write_pipeline(tmp_path / f"{unit}.yaml", task, tmp_path / unit, manifest)
        content = yaml.safe_load(file.read_text())
        content["model"]["mpp"] = 1.0 if unit == "um" else "px"
        content["slide"] = {"tissue": "all"}
        content["outputs"] = {"image": True}
        content["thresholds"] = LOW[task]
        file.write_text(yaml.safe_dump(content))
        ways = ("--mpp", "1") if unit == "um" else ()
        pictures = [tmp_path / "images" / f"{name}.png" for name in "ab"]
        ran = quadrat("run", file, *pictures, "--out", tmp_path / "out" / unit, *ways)
        assert ran.code == 0, ran.err
        done[unit] = tmp_path / "out" / unit / "results"
    for name in "ab":
        um, px = done["um"] / name, done["px"] / name
        assert sorted(p.name for p in um.iterdir()) == sorted(p.name for p in px.iterdir())
        one, other = read_summary(um), read_summary(px)
        assert in_um(other.figures) == one.figures
        assert other.thresholds == one.thresholds
        assert replace(other.frame, unit="um") == one.frame
        assert other.fingerprint != one.fingerprint
        for table in um.glob("*.csv"):
            mine = table.read_text().splitlines()
            assert (px / table.name).read_text().splitlines()[1:] == mine[1:]
            assert len(mine) > 1
        if task != "classification":
            a, b = (pq.read_table(f / "objects.parquet") for f in (um, px))
            assert len(a) > 0
            assert [c.to_pylist() for c in b.columns] == [c.to_pylist() for c in a.columns]
            assert b.column_names == [_in_px(n) for n in a.column_names]
            one, other = (json.loads((f / "objects.geojson").read_text()) for f in (um, px))
            for x, y in zip(one["features"], other["features"], strict=True):
                assert x["geometry"] == y["geometry"]
                sizes = x["properties"]["measurements"], y["properties"]["measurements"]
                assert list(sizes[0].values()) == list(sizes[1].values())
                assert list(sizes[1])[1:] == ["Area px^2", "Perimeter px"]
        for level in um.glob("slide.ome.zarr/labels/*/0"):
            again = px / level.relative_to(um)
            arrays = [ShardedArray.open(p, mode="r") for p in (level, again)]
            assert np.array_equal(*(array.read(array.box) for array in arrays))


def in_um(figures):
    """Figures with the report on seams in um: a picture of 1 um a px has the same."""
    seams = getattr(figures.answer, "seams", None)
    if seams is None:
        return figures
    assert seams.unit == "px"
    return replace(figures, answer=replace(figures.answer, seams=replace(seams, unit="um")))


def _in_px(name):
    return name.replace("um2", "px2").replace("_um", "_px")


@pytest.fixture(scope="module")
def detections(tmp_path_factory):
    """(folder, pipelines, manifest) of a detector in um and the same in px; never changed."""
    folder = tmp_path_factory.mktemp("detections")
    manifest = annotated.write_images(folder / "images", ["a", "b"], task="detection")
    package = load_package(annotated.write_package(folder / "p", "detection"), build_network)
    files = {}
    for unit, mpp in (("um", 1.0), ("px", "px")):
        spec = replace(package.spec, mpp=1.0, unit=unit)
        about = {"training": annotated.ABOUT}
        save_package(folder / unit, package.model, spec, about=about)
        file = folder / f"{unit}.yaml"
        annotated.write_pipeline(file, "detection", folder / unit, manifest)
        content = yaml.safe_load(file.read_text())
        content["model"]["mpp"] = mpp
        content["slide"] = {"tissue": "all"}
        content["thresholds"] = LOW["detection"]
        file.write_text(yaml.safe_dump(content))
        files[unit] = file
    return folder, files, manifest


def test_what_a_slide_or_a_manifest_states_of_a_scale_is_not_used_and_that_is_said(
    detections, tmp_path
):
    folder, files, _ = detections
    rgb = np.asarray(Image.open(folder / "images" / "a.png"))
    Image.fromarray(rgb).save(tmp_path / "a.png")
    tifffile.imwrite(
        tmp_path / "b.tif",
        rgb,
        photometric="rgb",
        resolution=(40_000, 20_000),  # not even one mpp
        resolutionunit="CENTIMETER",
    )
    (tmp_path / "m.csv").write_text("slide,mpp\na.png,0.25\nb.tif,\n")
    (tmp_path / "plain.csv").write_text("slide\na.png\n")
    ran = quadrat("run", files["px"], "--manifest", tmp_path / "m.csv", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    said = "what slides and manifest state of a scale is not used"
    assert said in ran.err
    assert said in (tmp_path / "out" / "run" / "log.jsonl").read_text()
    one, other = (read_summary(tmp_path / "out" / "results" / name) for name in "ab")
    assert one.figures == other.figures
    assert one.slide_mpp == other.slide_mpp
    assert one.slide_mpp.value is None
    again = quadrat(
        "run", files["px"], "--manifest", tmp_path / "plain.csv", "--out", tmp_path / "out"
    )
    assert "finished before" in again.err


def test_the_summary_of_a_folder_of_both_units_mixes_no_figures(detections, tmp_path):
    folder, files, _ = detections
    for unit, name, ways in (("um", "a", ["--mpp", 1]), ("px", "b", [])):
        picture = folder / "images" / f"{name}.png"
        assert quadrat("run", files[unit], picture, "--out", tmp_path, *ways).code == 0
    with (tmp_path / "results" / "summary.csv").open() as stream:
        a, b = csv.DictReader(stream)
    area = f"{annotated.SIDE**2 / 1e6:.6f}"
    assert (a["mpp"], a["tissue_mm2"], a["tissue_mpx"]) == ("1.000000", area, "")
    assert (b["mpp"], b["tissue_mm2"], b["tissue_mpx"]) == ("", "", area)
    refused = quadrat("run", files["px"], folder / "images" / "a.png", "--out", tmp_path)
    assert "results of another model, setting or file" in refused.err


@pytest.mark.parametrize(("pipeline", "package"), [("um", "px"), ("px", "um")])
def test_units_do_not_meet(detections, tmp_path, pipeline, package):
    folder, files, manifest = detections
    other = ("--set", f"model.package={folder / package}")
    picture, out = folder / "images" / "a.png", tmp_path / "out"
    done = quadrat("run", files[pipeline], picture, "--out", out, *other)
    assert done.code == 2
    assert f"{folder / package} works in" in done.err
    assert done.err.count("\n") == 1
    made = quadrat("run", files[package], "--manifest", manifest, "--out", tmp_path / "made")
    assert made.code == 0, made.err
    ways = ("--results", tmp_path / "made" / "results", "--allow-seen", "--out", tmp_path / "e")
    done = quadrat("evaluate", files[pipeline], *ways)
    assert done.code == 2
    assert "figures of both cannot be pooled" in done.err
    assert not (tmp_path / "e").exists()


def test_a_training_in_pixels_without_its_thresholds_is_refused_before_anything(
    detections, tmp_path
):
    _, files, _ = detections
    content = yaml.safe_load(files["px"].read_text()) | {"task": "instance", "thresholds": {}}
    images = annotated.write_images(tmp_path / "i", ["a", "b"], task="instance", split="train")
    content["data"]["manifest"] = str(images)
    content["model"]["package"] = str(tmp_path / "new")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    done = quadrat("train", tmp_path / "p.yaml")
    assert done.code == 2
    assert "p: thresholds.min_area_um2 is not stated; where model.mpp is px" in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "p.yaml"]
