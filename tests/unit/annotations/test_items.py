"""The slides and files that are looked at: those of a manifest, or those that the files name."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.annotation_files import check, export, feature, project, read, square
from quadrat.cli.main import main
from quadrat.config.pipeline import load_pipeline
from quadrat.training.plan import training_manifest


def test_files_and_slides_that_cannot_be_read_are_named(tmp_path, capsys):
    given = project(tmp_path, feature(square(2, 2, 30)))
    (tmp_path / "a.geojson").write_text("[{")
    (tmp_path / "a.png").unlink()
    code, lines = check(capsys, given[0])
    assert code == 1
    assert "a.geojson: unreadable: not valid JSON" in lines[0]
    assert "a.geojson: unreadable: the slide: " in lines[1]
    assert main(["annotations", "check", str(tmp_path / "none.json")]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "encoding", "text"),
    [
        ("Slides,annotation", "utf-8", "has no column 'slide' (its columns: slides, annotation)"),
        ("slide;anotation", "utf-8", "unknown column 'anotation'"),
        ("Slide,Annotation,Größe", "latin-1", "not UTF-8 text"),
        ("slide,annotation", "utf-16", "UTF-16 text; save it as UTF-8"),
        ("file,annotation", "utf-8", "has no column 'slide' (its columns: file, annotation)"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_of_a_manifest(
    tmp_path, capsys, header, encoding, text
):
    (tmp_path / "slides.csv").write_text(f"{header}\na.png,a.geojson\n", encoding=encoding)
    assert main(["annotations", "check", str(tmp_path / "slides.csv")]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "slide,x,y,class\na,1,2,c\n",
        "<annotation></annotation>",
        "Image,Class,x,y\na,c,1,2\n",
        "1 2 a\n",
    ],
)
def test_annotations_are_not_taken_for_a_manifest(tmp_path, capsys, text):
    (tmp_path / "a.csv").write_text(text)
    assert check(capsys, tmp_path / "a.csv")[0] == 0


def test_a_manifest_and_a_table_of_slide_labels_are_given_alone(tmp_path, capsys):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text("slide,label\na,x\n")
    assert main(["annotations", "check", *map(str, paths)]) == 2
    assert (
        "a.csv: its columns are those of a manifest (or of slide labels), which is given alone"
        in capsys.readouterr().err
    )


def test_slides_that_a_table_tells_apart_by_a_number_are_not_one(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("slide,x,y,class\ns.1,1,2,c\ns.2,z,2,c\n")
    assert main(["annotations", "check", str(tmp_path / "a.csv"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["slides"], report["findings"][0]["slide"]) == (2, "s.2")


def test_points_in_um_are_read_with_the_mpp_of_the_slide_the_manifest_or_the_option(
    tmp_path, capsys
):
    picture = np.full((80, 100, 3), 200, np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.tsv").write_text(
        "Image\tClass\tCentroid X µm\tCentroid Y µm\na.png\tc\t40\t30\n"
    )
    for column, options, x in ((0.5, [], 80), (0.5, ["--mpp", "2"], 80), ("", ["--mpp", "2"], 20)):
        (tmp_path / "slides.csv").write_text(f"slide,annotation,mpp\na.png,a.tsv,{column}\n")
        more = [*options, "--overwrite"]
        assert export(tmp_path / "slides.csv", "csv", tmp_path / "b.csv", *more) == 0
        assert read(tmp_path / "b.csv").records[0].points.tolist() == [[x, x * 3 / 4]]
    (tmp_path / "slides.csv").write_text("slide,annotation\na.png,a.tsv\n")
    code, lines = check(capsys, tmp_path / "slides.csv")
    assert code == 1
    assert "a.tsv: unreadable: its coordinates are in um" in "".join(lines)


def test_the_scale_of_all_slides_may_stand_in_the_pipeline(tmp_path, capsys):
    cell = feature(square(2, 2, 30), kind="detection")
    given = project(tmp_path, cell, pipeline="annotations: objects", mpp="")
    assert "no mpp" in "".join(check(capsys, *given)[1])
    given = project(tmp_path, cell, pipeline="annotations: objects, mpp: 0.5", mpp="")
    assert check(capsys, *given) == (0, ["1 records of 1 slides: none is bad"])
    assert [ref.mpp for ref in training_manifest(load_pipeline(given[2]))] == [0.5]
    given = project(tmp_path, cell, pipeline="annotations: objects, mpp: 40", mpp="")
    code, lines = check(capsys, *given)
    assert code == 1
    assert "wrong scale: the median diameter of 1 objects is 1.35e+03 um at 40 um/px" in lines[0]
    given = project(tmp_path, cell, pipeline="annotations: objects, mpp: 40", mpp=0.5)
    assert check(capsys, *given)[0] == 0  # the row of a slide counts before it


def test_an_mpp_of_the_command_line_stands_in_for_what_a_slide_states(tmp_path, capsys):
    cell = feature(square(2, 2, 30), kind="detection")
    given = project(tmp_path, cell, pipeline="annotations: objects", mpp="")
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.full((80, 100, 3), 200, np.uint8),
        photometric="rgb",
        resolution=(40_000, 20_000),  # 0.25 and 0.5 um/px
        resolutionunit="CENTIMETER",
    )
    manifest = tmp_path / "slides.csv"
    manifest.write_text(manifest.read_text().replace("a.png", "a.tif"))
    code, lines = check(capsys, *given)
    assert code == 1
    assert "give one with --mpp VALUE" in lines[0]
    assert check(capsys, *given, "--mpp", "0.5")[0] == 0
    assert "wrong scale" in check(capsys, *given, "--mpp", "40")[1][0]


def test_annotations_of_pixel_work_are_judged_and_measured_in_pixels(tmp_path, capsys):
    cell = feature(square(2, 2, 30), kind="detection")
    manifest, *given = project(tmp_path, cell, pipeline="annotations: objects", mpp=0.001)
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(pipeline.read_text().replace("{package: p}", "{package: p, mpp: px}"))
    assert check(capsys, manifest, *given) == (0, ["1 records of 1 slides: none is bad"])
    assert main(["annotations", "stats", manifest, *given]) == 0
    assert "area_px2" in capsys.readouterr().out
    assert main(["annotations", "stats", manifest, "--mpp", "px"]) == 0
    assert "area_px2" in capsys.readouterr().out
    for option, unit in (("0.5", "px"), ("px", "0.5")):
        text = pipeline.read_text()
        pipeline.write_text(text.replace("mpp: px", f"mpp: {unit}"))
        assert main(["annotations", "check", manifest, *given, "--mpp", option]) == 2
        told = capsys.readouterr().err
        assert f"--mpp is {option}, but model.mpp of p is {unit}: one is in um" in told
