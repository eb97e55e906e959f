"""``quadrat annotations``: the pages that are printed, the files that are written."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import BOW_TIE, check, export, feature, project, square
from quadrat.cli.main import main


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


def test_a_manifest_is_exported_with_cases_and_splits_into_one_file_or_a_file_a_slide(
    tmp_path, capsys
):
    for name in "ab":
        Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("1 2 c\n3 4 c\n")
    (tmp_path / "slides.csv").write_text(
        "slide,annotation,case,split\na.png,a.txt,p1,val\nb.png,b.txt,,\n"
    )
    assert export(tmp_path / "slides.csv", "csv", tmp_path / "all.csv") == 0
    rows = (tmp_path / "all.csv").read_text().splitlines()
    assert rows[1].split(",")[:3] == ["a", "p1", "val"]
    assert rows[3].split(",")[:3] == ["b", "b", "train"]
    assert rows[1].split(",")[9:11] == ["1.0", "2.0"]
    assert "4 records of 2 slides" in capsys.readouterr().out
    assert export(tmp_path / "slides.csv", "geojson", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.geojson", "b.geojson"]
    assert export(tmp_path / "slides.csv", "geojson", tmp_path / "out") == 2
    assert "exists; choose another --out, or say --overwrite" in capsys.readouterr().err
    assert export(tmp_path / "slides.csv", "geojson", tmp_path / "out", "--overwrite") == 0
    assert export(tmp_path / "slides.csv", "coco", tmp_path / "all.json") == 0
    images = json.loads((tmp_path / "all.json").read_text())["images"]
    assert [(i["file_name"], i["width"], i["height"]) for i in images] == [
        ("a.png", 100, 80),
        ("b.png", 100, 80),
    ]


@pytest.mark.parametrize(
    ("to", "name"), [("csv", "a.csv"), ("geojson", "a.geojson"), ("coco", "a.json")]
)
def test_an_export_never_replaces_the_file_that_it_reads(tmp_path, capsys, to, name):
    (tmp_path / "source.csv").write_text("x,y,class\n1,2,c\n")
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "slides.csv").write_text("slide,annotation\na.png,source.csv\n")
    assert (
        export(tmp_path / "slides.csv", to, tmp_path if to == "geojson" else tmp_path / name) == 0
    )
    (tmp_path / "slides.csv").write_text(f"slide,annotation\na.png,{name}\n")
    before = (tmp_path / name).read_bytes()
    assert (
        export(
            tmp_path / "slides.csv",
            to,
            tmp_path if to == "geojson" else tmp_path / "x" / ".." / name,
            "--overwrite",
        )
        == 2
    )
    assert f"{name}: what is to be exported is read from it" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def test_records_without_a_geometry_are_left_out_and_named(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,c\nz,2,c\n")
    assert export(tmp_path / "a.csv", "csv", tmp_path / "out.csv") == 1
    out = capsys.readouterr().out
    assert "a.csv, line 3: no geometry: 'z', '2' are not numbers; left out" in out
    assert "1 records of 1 slides" in out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
