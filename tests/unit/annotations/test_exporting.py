"""Export: whatever is written is read back as the same classes, kinds and geometry."""

import json

import geopandas
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from quadrat.annotations.exporting import write_coco, write_csv, write_geojson
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.formats.table import Entry, to_table, write_parquet
from quadrat.annotations.record import Record, Sheet, box_record
from quadrat.cli.main import main

floats = st.floats(-1e5, 1e5, allow_nan=False, allow_subnormal=False)
names = st.sampled_from(["Tumor", "Tumor: Positive", "b,\"c'", "é μ", "0012"])
kinds = st.sampled_from(["object", "region", None])


@st.composite
def rings(draw):
    corners = draw(st.lists(st.tuples(floats, floats), min_size=3, max_size=6))
    return np.array([*corners, corners[0]])


@st.composite
def drawn_records(draw, *, holes=True):
    name, kind = draw(names), draw(kinds)
    sort = draw(st.sampled_from(["polygon", "point", "box"]))
    if sort == "point":
        return Record("1", name, kind, points=np.array([draw(st.tuples(floats, floats))]))
    if sort == "box":
        x, y = draw(st.tuples(floats, floats))
        width, height = draw(st.tuples(st.integers(1, 99), st.integers(1, 99)))
        return box_record("1", name, (x, y, x + width, y + height), kind=kind)
    parts = draw(
        st.lists(st.lists(rings(), min_size=1, max_size=2 if holes else 1), min_size=1, max_size=2)
    )
    return Record("1", name, kind, tuple(tuple(part) for part in parts))


def same(found, want, *, boxes=True):
    assert [(r.name, r.kind) for r in found] == [(r.name, r.kind) for r in want]
    for f, w in zip(found, want, strict=True):
        assert f.fault is None
        assert (not boxes) or f.box == w.box
        np.testing.assert_array_equal(f.points, w.points)
        assert len(f.parts) == len(w.parts)
        for p, q in zip(f.parts, w.parts, strict=True):
            assert len(p) == len(q)
            for a, b in zip(p, q, strict=True):
                np.testing.assert_array_equal(a, b)


def sheet(*records):
    return Sheet("in.x", "x", records, (80, 100))


quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.lists(drawn_records(), max_size=4))
def test_parquet_csv_and_geojson_give_back_the_same_records(tmp_path, drawn):
    entry = Entry("slide 1", sheet(*drawn), "case", "val")
    write_geojson(tmp_path / "a.geojson", entry)
    same(read_sheet(tmp_path / "a.geojson", choice=Choice()).records, drawn, boxes=False)
    write_csv(tmp_path / "a.csv", [entry])
    same(read_sheet(tmp_path / "a.csv", choice=Choice()).records, drawn)
    if drawn:
        write_parquet(tmp_path / "a.parquet", to_table([entry, Entry("other", sheet(*drawn[:1]))]))
        found = read_sheet(tmp_path / "a.parquet", choice=Choice(picture="slide 1.svs"))
        same(found.records, drawn)
        assert {r.place for r in found.records} == {"1"}


@quick
@given(st.lists(drawn_records(holes=False), max_size=4))
@example([Record("1", "Tumor", "object", ((np.zeros((5, 2)),),))])
def test_coco_gives_back_the_same_records(tmp_path, drawn):
    write_coco(
        tmp_path / "a.json",
        [Entry("s", sheet(*drawn)), Entry("t", sheet())],
        pictures=["s.png", "t.png"],
    )
    found = read_sheet(tmp_path / "a.json", choice=Choice(picture="s.png")).records
    assert [(r.name, r.kind, len(r.parts)) for r in found] == [
        (r.name, r.kind, len(r.parts)) for r in drawn
    ]
    for f, w in zip(found, drawn, strict=True):
        for p, q in zip(f.parts, w.parts, strict=True):
            np.testing.assert_allclose(
                p[0], q[0], rtol=1e-12, atol=1e-9
            )  # a box is written as corner and size
    assert read_sheet(tmp_path / "a.json", choice=Choice(picture="t.png")).records == ()


def square(x, y, side):
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]], float)


def labels(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "labels.png")
    return tmp_path / "labels.png"


def export(path, to, out, *more):
    return main(["annotations", "export", str(path), "--to", to, "--out", str(out), *more])


def test_exported_coco_is_what_pycocotools_reads(tmp_path):
    values = np.zeros((20, 30), np.uint16)
    values[2:9, 3:12], values[4:6, 5:8], values[12:15, 20:29] = (
        1,
        0,
        2,
    )  # the first has a hole, so it is written as a mask
    (tmp_path / "p.yaml").write_text(
        "task: instance\nclasses: [{name: nucleus}]\nmodel: {package: p}\ndata: {annotations: "
        "labels}\n"
    )
    assert (
        export(
            labels(tmp_path, values),
            "coco",
            tmp_path / "a.json",
            "--pipeline",
            str(tmp_path / "p.yaml"),
        )
        == 0
    )
    coco = COCO(tmp_path / "a.json")
    found = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds())]
    np.testing.assert_array_equal(found[0], values == 1)
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "nucleus"}]
    assert coco.loadAnns([2])[0]["bbox"] == [20, 12, 9, 3]
    again = read_sheet(tmp_path / "a.json", choice=Choice())
    assert [len(part) for r in again.records for part in r.parts] == [2, 1]


def test_a_hole_that_is_not_along_pixels_is_refused_for_coco(tmp_path, capsys):
    entry = Entry(
        "s", sheet(Record("feature 3", "a", "region", ((square(0, 0, 9), square(2.5, 2, 3)),)))
    )
    write_geojson(tmp_path / "a.geojson", entry)
    assert export(tmp_path / "a.geojson", "coco", tmp_path / "a.json") == 2
    assert "the size of a is not known" in capsys.readouterr().err
    with pytest.raises(
        Exception, match=r"feature 3: a polygon with a hole, which COCO cannot write"
    ):
        write_coco(tmp_path / "a.json", [entry], pictures=["s.png"])


def test_exported_parquet_is_what_geopandas_reads(tmp_path):
    entry = Entry(
        "s",
        sheet(Record("feature 3", "a", "region", ((square(0, 0, 9), square(2, 2, 3)),))),
        "p1",
        "val",
    )
    write_geojson(tmp_path / "a.geojson", entry)
    assert export(tmp_path / "a.geojson", "parquet", tmp_path / "a.parquet") == 0
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert frame.crs is None
    assert frame.columns.tolist() == [
        "slide",
        "case",
        "split",
        "source",
        "format",
        "place",
        "class",
        "kind",
        "shape",
        "crowd",
        "geometry",
    ]
    assert frame.geometry.area.tolist() == [72]
    assert frame[["slide", "place", "class", "kind", "shape"]].values.tolist() == [
        ["a", "feature 1", "a", "region", "polygon"]
    ]


def test_an_outline_of_any_number_of_vertices_comes_back_from_a_table(tmp_path):
    turn = np.linspace(0, 2 * np.pi, 9001)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1) * 1e4
    ring[-1] = ring[0]
    drawn = [Record("1", "a", "region", ((ring,),))]
    write_csv(tmp_path / "a.csv", [Entry("s", sheet(*drawn))])
    assert (
        len((tmp_path / "a.csv").read_text()) > 2 * 131072
    )  # twice what the csv module takes for one cell
    same(read_sheet(tmp_path / "a.csv", choice=Choice()).records, drawn)


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
