"""``quadrat annotations check`` and ``stats``: every kind of bad record is named by
file and place.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.record import Record
from quadrat.cli.main import main

DATA = Path(os.environ.get("QUADRAT_DATA", ""))


def feature(coordinates, name="Tumor", *, sort="Polygon", kind="annotation"):
    properties = {"objectType": kind} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": sort, "coordinates": coordinates},
        "properties": properties,
    }


def square(x, y, side):
    return [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]


BOW_TIE = [[[10, 10], [20, 20], [20, 10], [10, 20], [10, 10]]]


def project(tmp_path, *features, size=(80, 100), mpp=0.5, pipeline="", **row):
    """A manifest of one slide ``a.png`` with a GeoJSON, and a pipeline file."""
    Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    columns = {"slide": "a.png", "annotation": "a.geojson", "mpp": mpp, "annotated": "all"} | row
    (tmp_path / "slides.csv").write_text(
        ",".join(columns) + "\n" + ",".join(map(str, columns.values())) + "\n"
    )
    (tmp_path / "p.yaml").write_text(
        "task: semantic\nclasses: [{name: Tumor}, {name: Stroma}]\nmodel: {package: p}\n"
        f"data: {{manifest: slides.csv, {pipeline or 'annotations: regions'}}}\n"
    )
    return str(tmp_path / "slides.csv"), "--pipeline", str(tmp_path / "p.yaml")


def check(capsys, *arguments):
    code = main(["annotations", "check", *map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


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


@pytest.mark.parametrize(
    ("drawn", "want", "text"),
    [
        (
            [feature([3, 3], sort="Point"), feature(square(2, 2, 9))],
            "regions",
            "a point has no outline",
        ),
        (
            [feature(square(2, 2, 9), kind="detection")],
            "regions",
            "1 objects of class 'Tumor', and nothing else",
        ),
        ([feature(square(2, 2, 9))], "points", "1 regions of class 'Tumor', and nothing else"),
    ],
)
def test_nothing_of_the_pipelines_classes_is_dropped_in_silence(
    tmp_path, capsys, drawn, want, text
):
    given = project(tmp_path, *drawn, pipeline=f"annotations: {want}, point_diameter_um: 5")
    code, lines = check(capsys, *given)
    assert code == 1
    assert any("not asked for" in line and text in line for line in lines), lines


def cells(scale, n=12, side=20):
    return [
        feature(square(20 * scale + 40 * i * scale, 300 * scale, side * scale), kind="detection")
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("scale", "bad", "text"),
    [
        (1, False, "none is bad"),
        (
            4,
            True,
            "of 12 lie outside; are the coordinates px of another level, or um (1 px is 0.5 um)",
        ),
        (0.05, True, "the median diameter of 12 objects is 0.564 um at 0.5 um/px"),
        (0.5, False, "all within the first 24% x 32%"),
    ],
)
def test_a_wrong_scale_is_told_from_all_records_together(tmp_path, capsys, scale, bad, text):
    given = project(tmp_path, *cells(scale), size=(500, 1000), pipeline="annotations: objects")
    code, lines = check(capsys, *given)
    assert code == int(bad)
    assert any(text in line for line in lines), lines
    assert any("wrong scale" in line for line in lines) == (scale != 1)


def test_an_image_of_another_size_than_the_slide_is_a_wrong_scale(tmp_path, capsys):
    given = project(tmp_path, annotation="labels.png", pipeline="annotations: labels")
    labels = np.zeros((40, 50), np.uint16)
    labels[2:9, 2:9], labels[20, 20] = 1, 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    (tmp_path / "p.yaml").write_text(
        (tmp_path / "p.yaml").read_text().replace(", {name: Stroma}", "")
    )
    code, lines = check(capsys, *given)
    assert code == 1
    assert (
        "wrong scale: the file is of a picture of 50 x 40 px, the slide has 100 x 80 (2 times as "
        "large" in lines[0]
    )
    assert "label 1 (Tumor): in pieces: its pixels are in 2 pieces" in lines[1]


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


def test_annotations_of_coco_without_a_picture_are_named(tmp_path, capsys):
    annotations = [
        None,
        {"id": 5, "image_id": [1], "bbox": [0, 0, 5, 5]},
        {"image_id": "1", "bbox": [0, 0, 5, 5]},
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


def test_the_report_is_json_if_wanted(tmp_path, capsys):
    given = project(tmp_path, feature(square(2, 2, 30)), feature(BOW_TIE))
    assert main(["annotations", "check", *given, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["slides"], report["records"], report["bad"], report["notes"]) == (1, 2, 1, [])
    (finding,) = report["findings"]
    assert finding["file"].endswith("a.geojson")
    assert {k: finding[k] for k in ("slide", "place", "name", "code", "warning")} == {
        "slide": "a",
        "place": "feature 2",
        "name": "Tumor",
        "code": "self-crossing",
        "warning": False,
    }


def test_the_manifest_of_a_pipeline_is_checked_without_naming_it(tmp_path, capsys):
    given = project(tmp_path, feature(square(2, 2, 30)))
    assert check(capsys, *given[1:]) == (0, ["1 records of 1 slides: none is bad"])
    assert main(["annotations", "check"]) == 2


def test_two_regions_of_other_classes_may_share_an_outline_and_two_objects_may_not():
    ring = np.array(square(0, 0, 5)[0], float)

    def codes(*records):
        return [[p.code for p in found] for found in geometry_problems(records, size=None)]

    for kind, want in (("region", [[], []]), ("object", [[], ["duplicate"]])):
        assert codes(Record("1", "a", kind, ((ring,),)), Record("2", "b", kind, ((ring,),))) == want
    assert codes(Record("1", "a", "object", points=np.array([[1.0, 1], [1, 1]]))) == [["duplicate"]]


def test_an_outline_is_the_same_wherever_it_begins_and_whichever_way_it_runs():
    ring, hole = (np.array(square(at, at, side)[0], float) for at, side in ((0, 9), (2, 3)))
    other = np.array(square(20, 0, 5)[0], float)
    turned = np.concatenate([ring[2:], ring[1:3]])
    drawn = [
        ((ring,),),
        ((turned,),),
        ((ring[::-1],),),
        ((ring, hole),),
        ((turned, hole[::-1]),),
        ((ring,), (other,)),
        ((other,), (ring[::-1],)),
    ]
    problems = geometry_problems(
        [Record(str(i), "a", "object", parts) for i, parts in enumerate(drawn)], size=None
    )
    assert [[p.text for p in own] for own in problems] == [
        [], ["the same as 0"], ["the same as 0"], [], ["the same as 3"], [], ["the same as 5"],
    ]  # fmt: skip


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


# --- stats
# ------------------------------------------------------------------------------------------------


def stats(capsys, *arguments):
    code = main(["annotations", "stats", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_stats_count_and_measure_in_micrometres_by_slide_case_and_split(tmp_path, capsys):
    drawn = [feature(square(0, 0, s), kind="detection") for s in (10, 20)] + [
        feature(square(0, 0, 40))
    ]
    given = project(tmp_path, *drawn, case="p1", split="val")
    code, out = stats(capsys, given[0], "--json")
    report = json.loads(out)
    assert code == 0
    assert report["left_out"] == []
    for level, group in (("slide", "a"), ("case", "p1"), ("split", "val"), ("all", None)):
        objects, regions = report[level]
        assert objects.get(level) == group
        assert (objects["class"], objects["kind"], objects["count"], objects["slides"]) == (
            "Tumor",
            "object",
            2,
            1,
        )
        assert objects["area_um2"] == 500 * 0.25
        np.testing.assert_allclose(objects["diameter_median_um"], 15 * 2 / np.sqrt(np.pi) * 0.5)
        assert (regions["kind"], regions["area_um2"]) == ("region", 400)
    code, out = stats(capsys, given[0], "--by", "case")
    assert [line.split()[:5] for line in out.splitlines()[1:]] == [
        ["p1", "Tumor", "object", "1", "2"],
        ["p1", "Tumor", "region", "1", "1"],
    ]


def test_stats_without_an_mpp_are_in_pixels_and_points_have_no_size(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,c\n3,4,c\n5,z,c\n")
    (tmp_path / "b.csv").write_text("x,y,width,height,class\n1,2,3,3,c\n")
    code, out = stats(capsys, tmp_path / "a.csv", tmp_path / "b.csv", "--json")
    report = json.loads(out)
    assert code == 1
    assert len(report["left_out"]) == 1
    assert "a.csv, line 4: no geometry: '5', 'z' are not numbers; left out" in report["left_out"][0]
    boxes, points = report["all"]
    assert (boxes["count"], boxes["area_px2"], points["count"], points["area_px2"]) == (
        1,
        9,
        2,
        None,
    )
    assert (
        json.loads(stats(capsys, tmp_path / "b.csv", "--json", "--mpp", 2)[1])["all"][0]["area_um2"]
        == 36
    )
