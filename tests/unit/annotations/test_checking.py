"""``quadrat annotations check``: every kind of bad record is named by file and place."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import BOW_TIE, check, feature, project, square, voc
from quadrat.annotations.truth import load_truth
from quadrat.cli.main import main
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection

DATA = Path(os.environ.get("QUADRAT_DATA", ""))


@pytest.mark.parametrize(
    ("bad", "code", "text"),
    [
        (feature(BOW_TIE), "self-crossing", "crosses itself (Self-intersection at x 15, y 15)"),
        (
            feature([[[1, 1], [5, 5], [3, 3], [1, 1]]]),
            "empty",
            "a polygon without area near x 1, y 1",
        ),
        (
            feature([square(1, 1, 9)[0], square(20, 20, 3)[0]]),
            "self-crossing",
            "Hole lies outside shell",
        ),
        (
            feature(square(300, 20, 5)),
            "outside",
            "x 300 to 305, y 20 to 25; the slide has 100 x 80 px",
        ),
        (feature([100, 20], sort="Point", kind="detection"), "outside", "a point at x 100, y 20"),
        (
            feature(square(0, 0, 5), "Tumour"),
            "unknown class",
            "'Tumour' is not one of Tumor, Stroma; did you mean 'Tumor'?",
        ),
        (feature(square(0, 0, 5), ""), "no class", "it has no class"),
        (feature(square(2, 2, 30)), "duplicate", "the same as feature 1"),
        (
            feature([[1, 1], [2, 2]], sort="LineString"),
            "no geometry",
            "geometry 'LineString' has no area",
        ),
        (
            feature(square(0, 0, 5)[0][:-1], sort="Polygon"),
            "no geometry",
            "not a list of x, y pairs",
        ),
        (
            feature([square(0, 0, 5)[0][:-1]]),
            "no geometry",
            "a ring of 4 points that is not closed",
        ),
        (feature([]), "no geometry", "a Polygon without coordinates"),
        (feature([[[0, 0], [1, None], [1, 1], [0, 0]]]), "no geometry", "not a finite number"),
        ({"type": "Feature", "geometry": None}, "no geometry", "geometry None"),
        ("nonsense", "no geometry", "not a GeoJSON Feature"),
    ],
)
def test_every_kind_of_bad_record_is_named_with_file_and_place(tmp_path, capsys, bad, code, text):
    points = isinstance(bad, dict) and (bad["geometry"] or {}).get("type") == "Point"
    good = feature([3, 3], sort="Point") if points else feature(square(2, 2, 30))
    data = "annotations: points, point_diameter_um: 5" if points else ""
    exit_code, lines = check(capsys, *project(tmp_path, good, bad, pipeline=data))
    assert exit_code == 1
    assert re.match(rf".*a\.geojson, feature 2( \(Tumor\))?: {code}: ", lines[0])
    assert text in lines[0]
    assert lines[-1] == f"2 records of 1 slides: 1 bad (1 {code})"


def test_good_annotations_pass_and_what_is_odd_is_a_warning(tmp_path, capsys):
    touching = [[[0, 0], [8, 0], [4, 4], [8, 8], [0, 8], [4, 4], [0, 0]]]
    given = project(
        tmp_path, feature(square(2, 2, 30)), feature(square(90, 70, 30)), feature(touching)
    )
    code, lines = check(capsys, *given)
    assert code == 0
    assert len(lines) == 3
    assert re.match(r"warning: .*feature 2 \(Tumor\): partly outside: x 90 to 120", lines[0])
    assert re.match(r"warning: .*feature 3 \(Tumor\): touching itself", lines[1])
    assert (
        lines[2]
        == "3 records of 1 slides: none is bad, 2 warnings (1 partly outside, 1 touching itself)"
    )


def test_without_a_pipeline_all_records_are_looked_at_and_any_class_passes(tmp_path, capsys):
    given = project(
        tmp_path,
        feature(square(2, 2, 30), "x"),
        feature(square(2, 2, 9), "y", kind="detection"),
        feature(BOW_TIE, ""),
    )
    code, lines = check(capsys, given[0])
    assert code == 1
    assert [line.split("geojson, ")[1].split(":")[0] for line in lines[:-1]] == [
        "feature 3",
        "feature 3",
    ]
    assert lines[-1] == "3 records of 1 slides: 1 bad (1 self-crossing), 1 warnings (1 no class)"


def test_what_a_pipeline_does_not_take_is_noted_and_not_judged(tmp_path, capsys):
    drawn = (
        feature(square(0, 0, 60), "ROI"),
        feature(BOW_TIE, "Ignore*"),
        feature(square(2, 2, 9), "Tumor: weak"),
    )
    code, lines = check(
        capsys, *project(tmp_path, *drawn, feature(BOW_TIE, kind="detection"), annotated="ROI")
    )
    assert code == 0
    assert [line.split("geojson: ")[-1] for line in lines] == [
        "1 of class 'Tumor: weak' taken as 'Tumor'",
        "1 of the ignored class 'Ignore*' left out",
        "1 objects of class 'Tumor' left aside, since data.annotations asks for regions",
        "2 records of 1 slides: none is bad",
    ]
    code, lines = check(capsys, *project(tmp_path, *drawn[1:], annotated="ROI"))
    assert code == 1
    assert (
        "the manifest says that 'ROI' bounds what is annotated, but the file has no region of that "
        "class" in lines[0]
    )
    code, lines = check(capsys, *project(tmp_path, drawn[2], pipeline="annotations: objects"))
    assert (
        "it has 1 regions of class 'Tumor: weak', and nothing else of the pipeline's classes, but"
        in lines[0]
    )


def test_a_pipeline_judges_the_manifest_as_training_does(tmp_path, capsys):
    given = project(
        tmp_path,
        feature(square(2, 2, 9), kind="detection"),
        pipeline="annotations: objects",
        annotated="",
        mpp="",
    )
    code, lines = check(capsys, *given)
    assert code == 1
    assert [line.split(": ")[1] for line in lines[:-1]] == ["no mpp", "not bounded"]
    assert lines[-1] == "1 records of 1 slides: 2 bad (1 no mpp, 1 not bounded)"
    manifest = Path(given[0])
    manifest.write_text(
        "slide,annotation,mpp,case,split\na.png,a.geojson,0.5,c,train\nb.png,a.geojson,0.5,c,test\n"
    )
    Image.fromarray(np.full((80, 100, 3), 99, np.uint8)).save(tmp_path / "b.png")
    project(tmp_path, feature(square(2, 2, 9)))
    manifest.write_text(
        "slide,annotation,mpp,case,split\na.png,a.geojson,0.5,c,train\nb.png,b.geojson,0.5,c,test\n"
    )
    (tmp_path / "b.geojson").write_text((tmp_path / "a.geojson").read_text())
    code, lines = check(capsys, *given)
    assert code == 1
    assert re.match(r".*slides\.csv: two sides: .*case 'c'", lines[0])


def test_labels_of_slides_are_checked_where_they_are_learnt(tmp_path, capsys):
    given = project(tmp_path, annotation="", label="tumor", pipeline="annotations: none")
    code, lines = check(capsys, *given)
    assert code == 1
    assert (
        "a.png: unknown class: the slide's label 'tumor' is none of the classes Tumor, Stroma"
        in lines[0]
    )
    assert (
        check(
            capsys, *project(tmp_path, annotation="", label="Tumor", pipeline="annotations: none")
        )[0]
        == 0
    )
    (tmp_path / "labels.csv").write_text("slide,label\na,Stroma\n")
    assert (
        check(capsys, *project(tmp_path, annotation="labels.csv", pipeline="annotations: none"))[0]
        == 0
    )
    code, lines = check(capsys, *project(tmp_path, annotation="", pipeline="annotations: regions"))
    assert "the manifest names no annotation" in lines[0]


def test_one_file_for_two_slides_is_bad_unless_it_holds_several(tmp_path, capsys):
    project(tmp_path, feature(square(2, 2, 30)))
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "slides.csv").write_text("slide,annotation\na.png,a.geojson\nb.png,a.geojson\n")
    code, lines = check(capsys, tmp_path / "slides.csv")
    assert code == 1
    assert (
        "other slide: the manifest names it for b and for a, but it holds the annotations of one "
        "slide" in lines[0]
    )
    (tmp_path / "a.csv").write_text("slide,x,y,class\na,1,2,c\nb,1,2,c\n")
    (tmp_path / "slides.csv").write_text("slide,annotation\na.png,a.csv\nb.png,a.csv\n")
    assert check(capsys, tmp_path / "slides.csv")[0] == 0


def test_files_that_name_their_slides_are_checked_slide_by_slide(tmp_path, capsys):
    whole = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 9, "width": 9} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": 10 + i, "image_id": i, "category_id": 1, "bbox": [0, 0, 5, 20 * (i == 2) + 1]}
            for i in (1, 2, 3)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(whole))
    code, lines = check(capsys, tmp_path / "a.json")
    assert code == 1
    assert "warning: " in lines[0]
    assert "annotation 12 (cell): partly outside" in lines[0]
    assert "annotation 13: other slide: its image_id is none of the file's images" in lines[1]
    assert lines[-1].startswith("2 records of 2 slides: 1 bad")


def test_tiles_are_named_and_a_file_of_nothing_else_is_bad(tmp_path, capsys):
    tile = feature(square(2, 2, 9), kind="tile")
    project(tmp_path, tile, tile, feature(square(30, 2, 9)))
    note = "2 features of the type 'tile' left out: neither objects nor regions"
    code, lines = check(capsys, tmp_path / "a.geojson")
    assert (code, lines[-1]) == (0, "1 records of 1 slides: none is bad")
    assert lines[0] == f"note: {tmp_path / 'a.geojson'}: {note}"
    project(tmp_path, tile, tile)
    code, lines = check(capsys, tmp_path / "a.geojson")
    assert code == 1
    assert f"nothing used: none of its 2 features is used: {note}" in lines[0]
    for command in (["stats"], ["export", "--to", "csv", "--out", str(tmp_path / "b.csv")]):
        assert main(["annotations", *command, str(tmp_path / "a.geojson")]) == 0
        assert f"{tmp_path / 'a.geojson'}: {note}" in capsys.readouterr().out


def test_pictures_of_a_file_that_are_no_slide_of_the_manifest_are_named(tmp_path, capsys):
    project(tmp_path)
    whole = {
        "images": [{"id": i, "file_name": f"{n}.png"} for i, n in enumerate("abcde")],
        "categories": [{"id": 1, "name": "Tumor"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5]}],
    }
    (tmp_path / "c.json").write_text(json.dumps(whole))
    (tmp_path / "c.csv").write_text("slide,x,y,class\na,1,2,Tumor\nb,1,2,Tumor\n")
    others = {
        "c.json": "4 of its 5 pictures are no slide of the manifest (b.png, c.png, d.png, ..."
    }
    others["c.csv"] = "1 of its 2 pictures are no slide of the manifest (b)"
    for file, text in others.items():
        (tmp_path / "slides.csv").write_text(f"slide,annotation,mpp\na.png,{file},0.5\n")
        code, lines = check(capsys, tmp_path / "slides.csv")
        assert code == 0
        assert lines[-2].startswith(f"warning: {tmp_path / file}: other slide: {text}")
        assert "1 warnings (1 other slide)" in lines[-1]


def test_a_voc_file_of_another_picture_is_told_by_check_and_by_training(tmp_path, capsys):
    ref = voc(tmp_path, ("Tumor", 1, 1, 9, 9))
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "z.png")
    (tmp_path / "slides.csv").write_text("slide,annotation,mpp\nz.png,a.xml,0.5\n")
    told = "the file says it is of a.png, the manifest says z.png"
    code, lines = check(capsys, tmp_path / "slides.csv")
    assert code == 0
    assert told in lines[0]
    other = SlideRef("z", str(tmp_path / "z.png"), annotation=ref.annotation)
    assert load_truth(other, DataSection(), ["Tumor"]).notes == (told,)
    assert load_truth(ref, DataSection(), ["Tumor"]).notes == ()


def painted(tmp_path, values, pipeline=""):
    """A project with a mask of the classes Tumor and Stroma."""
    given = project(tmp_path, pipeline=f"annotations: mask{pipeline}", annotation="m.png")
    Image.fromarray(values).save(tmp_path / "m.png")
    return given


def test_what_the_values_of_a_mask_are_taken_for_is_shown(tmp_path, capsys):
    values = np.zeros((80, 100), np.uint8)
    values[:4, :5], values[10:13, :5] = 1, 2
    code, lines = check(capsys, *painted(tmp_path, values))
    assert code == 0
    assert lines == [
        f"note: {tmp_path / 'm.png'}: read as a mask: value 1 is 'Tumor' (20 px), value 2 is "
        "'Stroma' (15 px)",
        "2 records of 1 slides: none is bad",
    ]
    colours = np.array([(255, 255, 255), (255, 0, 0), (0, 0, 255)], np.uint8)[values]
    code, lines = check(capsys, *painted(tmp_path, colours))
    assert code == 1
    assert "unreadable: a picture of 3 colours ((255, 255, 255): 7965 px" in lines[0]
    table = (
        ", mask_colours: [{name: Stroma, color: [255, 0, 0]}, {name: Tumor, color: [0, 0, 255]}, "
        "{name: none, color: [255, 255, 255]}]"
    )
    code, lines = check(capsys, *painted(tmp_path, colours, table))
    assert code == 0
    assert "colour 255, 0, 0 is 'Stroma' (20 px), colour 0, 0, 255 is 'Tumor' (15 px)" in lines[0]
    assert lines[-1] == "2 records of 1 slides: none is bad"


def test_a_mask_without_one_pixel_of_a_class_is_named(tmp_path, capsys):
    given = painted(tmp_path, np.zeros((80, 100), np.uint8))
    code, lines = check(capsys, *given)
    assert code == 0
    assert "m.png: empty: a class mask of no pixel that is not 0" in lines[0]
    assert lines[-1] == "0 records of 1 slides: none is bad, 1 warnings (1 empty)"
    code, lines = check(capsys, tmp_path / "m.png")
    assert "m.png: empty: a label image of no pixel" in lines[0]


def test_annotations_of_coco_without_a_picture_are_named(tmp_path, capsys):
    annotations = [
        None,
        {"id": 5, "image_id": [1], "bbox": [0, 0, 5, 5]},
        {"image_id": "2", "bbox": [0, 0, 5, 5]},
    ]
    whole = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [],
        "annotations": annotations,
    }
    (tmp_path / "a.json").write_text(json.dumps(whole))
    code, lines = check(capsys, tmp_path / "a.json")
    assert code == 1
    assert [line.split(", ")[1].split(":")[0] for line in lines[:-1]] == [
        "annotation number 1",
        "annotation 5",
        "annotation number 3",
    ]


def test_two_records_of_bccd_are_bad_and_no_more(capsys):
    folder = DATA / "detection/bccd/Annotations"
    if not folder.is_dir():
        pytest.skip("BCCD is not in QUADRAT_DATA")
    code, lines = check(capsys, *sorted(folder.glob("*.xml")))
    assert code == 1
    assert [line.split("/")[-1].split(" (")[0] for line in lines[:-1]] == [
        "BloodImage_00338.xml, object 13",
        "BloodImage_00343.xml, object 4",
    ]
    assert lines[-1] == "4888 records of 364 slides: 2 bad (2 degenerate box)"
