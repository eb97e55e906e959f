"""Export: whatever is written is read back as the same classes, kinds and geometry."""

import geopandas
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from helpers.annotation_files import export
from quadrat.annotations.exporting import write_coco, write_csv, write_geojson
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.formats.table import Entry, to_table, write_parquet
from quadrat.annotations.record import Record, Sheet, box_record

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
