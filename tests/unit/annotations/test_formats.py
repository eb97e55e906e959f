"""Every format gives the same records: classes, places and geometry in level-0 px, and names what
it cannot read."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pycocotools.mask as coco_mask
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from quadrat.annotations.formats import delimited
from quadrat.annotations.formats.pictures import same_pictures
from quadrat.annotations.formats.reading import Choice, pictures, read_sheet
from quadrat.annotations.formats.rle import compress, decompress, mask_of, runs_of_mask
from quadrat.annotations.outlines import mask_parts
from quadrat.annotations.record import Record, to_annotations
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Frame
from quadrat.store.ome_zarr import create_label_image

DATA = Path(os.environ.get("QUADRAT_DATA", ""))


def read(path, picture="", **choice):
    return read_sheet(Path(path), choice=Choice(picture=picture, **choice))


def summary(sheet):
    return [
        (r.place, r.name, r.kind, None if r.fault else geometry_of(r).wkt) for r in sheet.records
    ]


def faults(sheet):
    return {r.place: r.fault.text for r in sheet.records if r.fault}


def sample(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in QUADRAT_DATA")
    return path


# --- COCO
# ------------------------------------------------------------------------------------------------

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]


def coco(tmp_path, *annotations, images=None, categories=None):
    whole = {
        "images": images
        or [
            {"id": 7, "file_name": "sub/a.png", "width": 20, "height": 10},
            {"id": 8, "file_name": "b.png"},
        ],
        "categories": categories or [{"id": 3, "name": "cell"}, {"id": 4, "name": "gland"}],
        "annotations": [
            {"id": 100 + i, "image_id": 7, "category_id": 3} | a for i, a in enumerate(annotations)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(whole))
    return path


def test_coco_boxes_polygons_masks_and_points_are_taken_from_the_picture_that_is_asked_for(
    tmp_path,
):
    mask = np.zeros((10, 20), bool)
    mask[1:4, 2:6] = True
    runs = runs_of_mask(mask)
    path = coco(
        tmp_path,
        {"bbox": [2, 1, 4, 3]},
        {"segmentation": [SQUARE, [10, 1, 12, 1, 12, 4]], "bbox": [2, 1, 10, 3]},
        {
            "segmentation": {"size": [10, 20], "counts": runs.tolist()},
            "category_id": 4,
            "iscrowd": 1,
        },
        {"segmentation": {"size": [10, 20], "counts": compress(runs)}},
        {"keypoints": [3.5, 4, 2], "num_keypoints": 1},
        {"image_id": 8, "bbox": [0, 0, 1, 1]},
    )
    sheet = read(path, "a.png")
    assert (sheet.size, sheet.picture) == ((10, 20), "sub/a.png")
    assert [r.place for r in sheet.records] == [f"annotation {i}" for i in range(100, 105)]
    assert [r.name for r in sheet.records] == ["cell", "cell", "gland", "cell", "cell"]
    assert [r.crowd for r in sheet.records] == [False, False, True, False, False]
    want = shapely.box(2, 1, 6, 4)
    for k in (0, 2, 3):
        assert geometry_of(sheet.records[k]).equals(want)
    assert len(sheet.records[1].parts) == 2
    assert sheet.records[4].points.tolist() == [[3.5, 4]]
    assert len(read(path, "b.png").records) == 1
    assert pictures(path) == ["sub/a.png", "b.png"]


def test_parts_of_one_coco_object_are_one_object_with_one_label_one_box_and_one_centre(tmp_path):
    sheet = read(
        coco(
            tmp_path,
            {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [10, 0, 14, 0, 14, 2, 10, 2]]},
            {"bbox": [5, 5, 2, 2]},
        ),
        "a.png",
    )
    drawn = to_annotations(sheet.records, [0, 0], classes=("cell",), kind="object")
    assert (len(drawn), drawn.objects) == (3, 2)
    whole = Box(0, 0, 10, 20)
    labels, class_id = drawn.instances(whole, Scale(1.0, 1.0))
    assert labels[0, 0] == labels[0, 13] == 1
    assert labels[5, 5] == 2
    assert class_id.tolist() == [0, 0]
    assert drawn.boxes(whole, Scale(1.0, 1.0))[0].tolist() == [[0, 0, 14, 2], [5, 5, 7, 7]]
    assert drawn.boxes(Box(0, 5, 1, 6), Scale(1.0, 1.0))[0].tolist() == [
        [0, 0, 14, 2]
    ]  # between its parts
    np.testing.assert_allclose(
        drawn.points(whole, Scale(1.0, 1.0))[0], [[(4 * 1 + 8 * 12) / 12, 1], [6, 6]]
    )


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ({"bbox": [1, 1, 0, 5]}, "a box of 0 x 5 px"),
        ({"bbox": [1, 1, 5]}, "a bbox of 3 numbers"),
        ({"segmentation": [[1, 1, 2, 2]]}, "a polygon of 2 points"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, "a polygon of 5 numbers"),
        (
            {"segmentation": {"size": [10, 20], "counts": [5, 5]}},
            "runs of 10 pixels for a picture of 20 x 10",
        ),
        ({"segmentation": {"size": [10, 20], "counts": "~~"}}, "the character '~'"),
        ({"segmentation": {"size": [10, 20], "counts": [200]}}, "without a pixel"),
        ({}, "neither segmentation nor bbox nor keypoints"),
        ({"bbox": [10**400, 1, 2, 3]}, "a bbox that is not a list of finite numbers"),
        (
            {"segmentation": {"size": [20, 10], "counts": [5, 5, 190]}},
            "a run-length mask of 10 x 20 px; its picture has 20 x 10",
        ),
    ],
)
def test_a_bad_coco_annotation_is_named_by_its_id(tmp_path, annotation, text):
    assert text in faults(read(coco(tmp_path, annotation), "a.png"))["annotation 100"]


def test_a_run_length_mask_too_large_to_unpack_is_named(tmp_path):
    mask = {"segmentation": {"size": [10**6, 10**6], "counts": [0, 10**12]}}
    path = coco(tmp_path, mask, images=[{"id": 7, "file_name": "a.png"}])
    assert "1073741824 px are the limit" in faults(read(path))["annotation 100"]


def test_a_category_that_is_a_list_is_an_unknown_one(tmp_path):
    assert (
        read(coco(tmp_path, {"category_id": [3], "bbox": [0, 0, 1, 1]}), "a.png").records[0].name
        == "category [3]"
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": [{"file_name": "a"}]}, "image number 1 has no id"),
        ({"images": [{"id": 7, "file_name": None}]}, "image number 1 has no file_name"),
        (
            {"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]},
            "image numbers 1 and 2 both have the id 7",
        ),
        ({"categories": [{"id": [3], "name": "cell"}]}, "category number 1 has no id"),
        (
            {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]},
            "category numbers 1 and 2 both have the id 3",
        ),
        (
            {"annotations": [{"id": 1}, None, {"id": 1}]},
            "annotation numbers 1 and 3 both have the id 1",
        ),
    ],
)
def test_coco_entries_that_cannot_be_told_apart_are_refused(tmp_path, change, text):
    whole = {"images": [], "annotations": [], "categories": []} | change
    (tmp_path / "a.json").write_text(json.dumps(whole))
    with pytest.raises(AnnotationError, match=rf"a\.json: {text}"):
        read(tmp_path / "a.json")


def test_coco_files_that_cannot_serve_a_slide_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"none of its 2 pictures .* may be c\.png"):
        read(coco(tmp_path), "c.png")
    with pytest.raises(AnnotationError, match=r"2 of its 2 pictures .* may be meant"):
        read(coco(tmp_path))
    with pytest.raises(AnnotationError, match="have the file name of another"):
        read(coco(tmp_path, images=[{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]), "a")
    assert (
        read(coco(tmp_path, {"category_id": 99, "bbox": [0, 0, 1, 1]}), "a.png").records[0].name
        == "category 99"
    )


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=17)))
def test_run_lengths_are_those_of_pycocotools(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    runs = runs_of_mask(mask)
    assert decompress(theirs).tolist() == runs.tolist()
    assert compress(runs) == theirs
    part, (row, col) = mask_of(runs, mask.shape)
    whole = np.zeros_like(mask)
    whole[row : row + part.shape[0], col : col + part.shape[1]] = part
    np.testing.assert_array_equal(whole, mask)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_the_outline_of_a_mask_filled_again_is_the_mask(mask):
    record = Record("a", "x", "region", mask_parts(mask))
    drawn = to_annotations([record], [0], classes=("x",), kind="region")
    filled = drawn.regions(Box(0, 0, *mask.shape), Scale(1.0, 1.0))
    np.testing.assert_array_equal(filled > 0, mask)


# --- XML
# ------------------------------------------------------------------------------------------------


def asap(tmp_path, *annotations):
    path = tmp_path / "asap.xml"
    items = "".join(
        f'<Annotation Name="{n}" Type="{sort}" PartOfGroup="{group}" Color="#73d216"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, x, y in points)
        + "</Coordinates></Annotation>"
        for n, (sort, group, points) in enumerate(annotations)
    )
    path.write_text(
        '<?xml version="1.0"?>\n'
        f"<ASAP_Annotations><Annotations>{items}</Annotations></ASAP_Annotations>"
    )
    return path


def test_asap_polygons_rectangles_and_dots_are_read_with_decimal_commas_in_their_order(tmp_path):
    corners = [(1, "4,5", "1"), (0, "1,5", "1"), (2, "4,5", "3"), (3, "1,5", "3")]
    path = asap(
        tmp_path,
        ("Polygon", "Tumor", corners),
        ("Rectangle", "Tumor", corners),
        ("Dot", "Cell", [(0, "2,25", "7")]),
    )
    sheet = read(path)
    assert sheet.format == "ASAP XML"
    assert [(r.place, r.name, r.kind, r.box) for r in sheet.records] == [
        ("annotation 1 '0'", "Tumor", None, False),
        ("annotation 2 '1'", "Tumor", None, True),
        ("annotation 3 '2'", "Cell", None, False),
    ]
    assert sheet.records[0].parts[0][0].tolist() == [
        [1.5, 1],
        [4.5, 1],
        [4.5, 3],
        [1.5, 3],
        [1.5, 1],
    ]
    assert geometry_of(sheet.records[1]).equals(shapely.box(1.5, 1, 4.5, 3))
    assert sheet.records[2].points.tolist() == [[2.25, 7]]


@pytest.mark.parametrize(
    ("sort", "points", "text"),
    [
        ("Spline", [(0, 1, 1), (1, 2, 2), (2, 3, 1)], "a spline: its outline is not in the file"),
        ("Polygon", [(0, 1, 1), (1, 2, 2)], "a Polygon of 2 points"),
        ("Polygon", [(0, 1, "x"), (1, 2, 2)], "not a number"),
        ("Measurement", [(0, 1, 1), (1, 2, 2)], "a Measurement of 2 points"),
    ],
)
def test_a_bad_asap_annotation_is_named(tmp_path, sort, points, text):
    assert text in faults(read(asap(tmp_path, (sort, "Tumor", points))))["annotation 1 '0'"]


def test_the_real_asap_sample_is_read(tmp_path):
    sheet = read(sample("wsi/generic_tiff_asap/example.xml"))
    assert [(r.place, r.name) for r in sheet.records] == [("annotation 1 'Annotation 0'", "")]
    assert sheet.one_class
    outline = geometry_of(sheet.records[0])
    assert outline.is_valid
    assert outline.exterior.coords[0] == (543.020264, 335.044464)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ("", "it has no bndbox"),
        ("<bndbox><xmin>1</xmin></bndbox>", "is not four numbers"),
        (
            "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>4</xmax><ymax>9</ymax></bndbox>",
            "xmin 4, ymin 4, xmax 4, ymax 9",
        ),
    ],
)
def test_a_bad_voc_object_is_named(tmp_path, box, text):
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><name>x</name>{box}</object></annotation>"
    )
    assert text in faults(read(tmp_path / "a.xml"))["object 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "not well-formed XML"),
        ("<html></html>", "none of the formats that quadrat reads"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation></annotation>', "declares a document type"),
        ("", "the file is empty"),
        ("\0\1\2", "none of the formats"),
        (
            "<annotation>" + "<size><width>inf</width><height>9</height></size></annotation>",
            "a picture of inf x 9 px",
        ),
        ("PK\3\4", r"an archive .* unpack it"),
        ("hello world\n", "neither a header nor points"),
        ('{"a": 1}', "not GeoJSON"),
        ('{"images": [], "annotations": {}}', "no COCO file"),
    ],
)
def test_a_file_of_no_format_is_refused_in_a_sentence(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize(
    "text", ["x,y,class\n1,2,ö\n", '[{"a": "ö"}]', '{"images": [], "categories": [{"name": "ö"}]}']
)
def test_text_of_another_encoding_is_refused_with_the_remedy(tmp_path, text, encoding):
    (tmp_path / "a.txt").write_text(text, encoding=encoding)
    with pytest.raises(AnnotationError, match=r"a\.txt: .*UTF-(16|8) text.*; save it as UTF-8"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "start",
    [
        "<annotation\n verified='yes'>",
        "<!-- by hand -->" * 9999 + "<annotation>",
        "<?xml version='1.0'?><annotation\t>",
    ],
)
def test_the_root_of_an_xml_file_is_found_wherever_it_stands(tmp_path, start):
    (tmp_path / "a.xml").write_text(f"{start}<filename>a.png</filename></annotation>")
    assert read(tmp_path / "a.xml").picture == "a.png"
    (tmp_path / "b.xml").write_text("<annotation/>")
    assert read(tmp_path / "b.xml").format == "Pascal VOC"


@pytest.mark.parametrize("packed", [gzip, bz2, lzma])
def test_a_compressed_file_is_refused_with_the_remedy(tmp_path, packed):
    (tmp_path / "a.geojson.gz").write_bytes(packed.compress(b"[]"))
    with pytest.raises(AnnotationError, match="unpack it"):
        read(tmp_path / "a.geojson.gz")


def test_a_missing_file_and_an_ordinary_folder_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read(tmp_path / "none.xml")
    with pytest.raises(AnnotationError, match="no OME-Zarr"):
        read(tmp_path)


# --- tables
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("x,y,class\n1.5,2,a\n", "POINT (1.5 2)"),
        ("Class\tY\tX\na\t2\t1.5\n", "POINT (1.5 2)"),
        ("x;y;class\n1,5;2;a\n", "POINT (1.5 2)"),
        ("1.5 2 a\n", "POINT (1.5 2)"),
        ("x0,y0,x1,y1,class\n1,2,4,6,a\n", shapely.box(1, 2, 4, 6).normalize().wkt),
        ("class,xmin,ymin,xmax,ymax\na,1,2,4,6\n", shapely.box(1, 2, 4, 6).normalize().wkt),
        ("x,y,width,height,class\n1,2,3,4,a\n", shapely.box(1, 2, 4, 6).normalize().wkt),
        (
            'wkt,class\n"POLYGON ((0 0, 1 0, 1 1, 0 0))",a\n',
            shapely.Polygon([(0, 0), (1, 0), (1, 1)]).normalize().wkt,
        ),
    ],
)
def test_tables_of_points_boxes_and_outlines_are_read_by_their_header(tmp_path, text, want):
    (tmp_path / "a.csv").write_text(text)
    (record,) = read(tmp_path / "a.csv").records
    kind = None if text.startswith("wkt") else "object"  # an outline may be an area
    assert (record.name, record.kind, record.place) == (
        "a",
        kind,
        "line 1" if text.startswith("1.5") else "line 2",
    )
    assert geometry_of(record).normalize().wkt == want


def test_a_table_of_several_slides_gives_the_lines_of_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("slide,x,y,class\ndir/a_0.98.png,1,2,c\nb,3,4,c\na_0.98.png,5,6,c\n")
    with pytest.raises(AnnotationError, match=r"2 of its 3 pictures .* may be a_0\.98\.svs"):
        read(path, "a_0.98.svs")
    path.write_text(path.read_text().replace("dir/", ""))
    assert [r.place for r in read(path, "a_0.98.png").records] == ["line 2", "line 4"]
    assert [r.place for r in read(path, "b.svs").records] == ["line 3"]
    assert pictures(path) == ["a_0.98.png", "b"]
    with pytest.raises(AnnotationError, match=r"none of its 2 pictures .* may be c"):
        read(path, "c.svs")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("1,2", "2 columns"),
        ("a,2,c", "'a', '2' are not numbers"),
        ("nan,2,c", "are not numbers"),
        ("1,inf,c", "are not numbers"),
    ],
)
def test_a_bad_line_of_a_table_is_named(tmp_path, line, text):
    (tmp_path / "a.csv").write_text(f"x,y,class\n1,2,c\n{line}\n")
    assert text in faults(read(tmp_path / "a.csv"))["line 3"]


def test_comments_stand_before_the_header_and_a_slide_may_begin_like_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# made by hand\n\n#\nslide,x,y,class\n#1.svs,1,2,c\n#2.svs,3,4,c\n")
    assert pictures(path) == ["#1.svs", "#2.svs"]
    assert [r.place for r in read(path, "#2.svs").records] == ["line 6"]


@pytest.mark.parametrize("text", ["10,20,30,40,Tumor\n", "1 2 a\n3 4 a b\n"])
def test_more_columns_than_a_point_has_need_a_header(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(
        AnnotationError,
        match=r"a\.csv: line [12] has [45] columns, but .*; name the columns .* x0, y0, x1, y1",
    ):
        read(tmp_path / "a.csv")


def test_slide_labels_are_no_table_of_points(tmp_path):
    (tmp_path / "a.csv").write_text("slide,label\na,x\n")
    with pytest.raises(
        AnnotationError, match=r"a\.csv: a table of slide labels .* data\.annotations: none"
    ):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "wkt", ["POLYGON ((0 inf, 1 0, 1 1, 0 inf))", "POINT (nan 5)", "MULTIPOINT ((1 1), (inf 1))"]
)
def test_an_outline_or_a_point_that_is_not_finite_is_bad(tmp_path, wkt):
    (tmp_path / "a.csv").write_text(f'wkt,class\n"{wkt}",c\n')
    assert "a coordinate that is not a finite number" in faults(read(tmp_path / "a.csv"))["line 2"]


def test_a_class_may_hold_any_sign_that_only_unicode_takes_for_the_end_of_a_line(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,a\u2028b\n", encoding="utf-8")
    assert [r.name for r in read(tmp_path / "a.csv").records] == ["a\u2028b"]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ({"slide": [None, "a"]}, "1 rows without a value in the column 'slide'"),
        ({"kind": ["object", None]}, "1 rows without a value in the column 'kind'"),
        (
            {
                "geometry": [
                    shapely.to_wkb(shapely.Point(1, 1)),
                    shapely.to_wkb(shapely.Point(np.nan, 1)),
                ]
            },
            "p 2 of slide a .* finite",
        ),
        ({"geometry": [b"xx", b""]}, "p 1 of slide a makes no sense"),
    ],
)
def test_rows_of_a_parquet_table_that_make_no_sense_are_named(tmp_path, rows, text):
    good = {key: ["x", "x"] for key in ("source", "format", "class")} | {
        "slide": ["a", "a"],
        "place": ["p 1", "p 2"],
        "kind": ["object", "object"],
        "shape": ["point", "point"],
        "crowd": [False, False],
        "geometry": [shapely.to_wkb(shapely.Point(1, 1))] * 2,
    }
    pq.write_table(pa.table(good | rows), tmp_path / "a.parquet")
    with pytest.raises(AnnotationError, match=rf"a\.parquet: {text}"):
        [read(tmp_path / "a.parquet", name) for name in pictures(tmp_path / "a.parquet")]


def test_a_table_that_serves_many_slides_is_parsed_once_and_again_when_it_has_changed(
    tmp_path, monkeypatch
):
    path, looks = tmp_path / "a.csv", []
    monkeypatch.setattr(delimited, "read_text", lambda path: looks.append(path) or path.read_text())
    path.write_text("slide,x,y,class,label\n" + "".join(f"s{i}.png,{i},2,c,c\n" for i in range(9)))
    assert [read(path, f"s{i}.svs").records[0].points[0, 0] for i in range(9)] == list(range(9))
    assert len(looks) == 1
    assert {delimited.label_of(path, f"s{i}.svs") for i in range(9)} == {"c"}
    assert len(looks) == 2
    path.write_text("slide,x,y,class\nother.png,1,2,c\n")
    with pytest.raises(AnnotationError, match="none of its 1 pictures"):
        read(path, "s1.svs")


def test_a_table_without_classes_is_of_the_only_class_there_is(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert read(tmp_path / "a.csv").one_class


def test_a_table_without_a_header_may_be_row_column_and_a_numbered_class(tmp_path):
    (tmp_path / "a.txt").write_text("10 20 1\n30 40 2\n")
    records = read(
        tmp_path / "a.txt", classes=("a", "b"), layout="y x class", first_class=1
    ).records
    assert [(r.name, geometry_of(r).wkt) for r in records] == [
        ("a", "POINT (20 10)"),
        ("b", "POINT (40 30)"),
    ]


def test_the_real_points_of_brca_are_read_as_row_column_and_number():
    folder = sample("detection/brca_m2c/labels")
    classes, counts = (
        ("lymphocyte", "tumour", "stromal"),
        dict.fromkeys(("lymphocyte", "tumour", "stromal"), 0),
    )
    for path in sorted(folder.glob("*.txt")):
        for record in read(path, classes=classes, layout="y x class", first_class=1).records:
            assert record.fault is None
            counts[record.name] += 1
    assert counts == {"lymphocyte": 2725, "tumour": 7245, "stromal": 4351}


# --- pictures
# ------------------------------------------------------------------------------------------------


def label_picture():
    values = np.zeros((12, 15), np.uint16)
    values[1:4, 2:7], values[2, 3], values[6:9, 6:9], values[9:11, 9:11] = 300, 0, 7, 7
    return values


def ome_zarr(folder, values):
    frame = Frame(height=values.shape[0], width=values.shape[1], mpp=0.5, scale_row=1, scale_col=1)
    level = create_label_image(folder, "nuclei", frame=frame, dtype="uint16", chunk=8, shard=16)
    for row in range(0, values.shape[0], 16):
        for col in range(0, values.shape[1], 16):
            level.write_shard((row // 16, col // 16), values[row : row + 16, col : col + 16])
    return folder


@pytest.mark.parametrize(
    "sort", ["png", "tiff", "png without its suffix", "zarr", "label folder of zarr"]
)
def test_label_images_give_a_record_a_label_whatever_holds_them(tmp_path, sort):
    values, path = label_picture(), tmp_path / "labels.png"
    if sort == "tiff":
        path = tmp_path / "labels.tif"
        tifffile.imwrite(path, values)
    elif "zarr" in sort:
        path = ome_zarr(tmp_path / "a.zarr", values) / ("labels/nuclei" if "folder" in sort else "")
    else:
        path = tmp_path / ("labels" if "without" in sort else "labels.png")
        Image.fromarray(values).save(path, format="png")
    sheet = read(path)
    assert sheet.size == (12, 15)
    assert [(r.place, r.name, r.kind, len(r.parts)) for r in sheet.records] == [
        ("label 7", "", "object", 2),
        ("label 300", "", "object", 1),
    ]
    assert [geometry_of(r).area for r in sheet.records] == [13, 14]
    assert sheet.one_class


def test_masks_are_told_from_label_images_and_class_masks_by_what_is_asked(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 1:4], mask[4:, 5:], mask[0, 7] = 255, 128, 90
    Image.fromarray(mask).save(tmp_path / "a.png")
    assert [(r.place, r.kind, geometry_of(r).area) for r in read(tmp_path / "a.png").records] == [
        ("piece 1", "region", 6),
        ("piece 2", "region", 6),
    ]
    assert len(read(tmp_path / "a.png", pixels="labels").records) == 3
    Image.fromarray(mask // 100).save(tmp_path / "b.png")
    named = read(tmp_path / "b.png", pixels="mask", threshold=None, classes=("gland",)).records
    assert [(r.place, r.name, geometry_of(r).area) for r in named] == [
        ("value 1", "gland", 6),
        ("value 2", "value 2", 6),
    ]


def test_zarr_folders_without_one_label_image_are_refused(tmp_path):
    ome_zarr(tmp_path / "a.zarr", label_picture())
    frame = Frame(height=12, width=15, mpp=0.5, scale_row=1, scale_col=1)
    create_label_image(
        tmp_path / "a.zarr", "glands", frame=frame, dtype="uint16", chunk=8, shard=16
    )
    with pytest.raises(
        AnnotationError, match=r"2 label images in it .*glands, .*nuclei.*name the folder of one"
    ):
        read(tmp_path / "a.zarr")


def test_real_label_images_and_masks_are_read():
    labels = sorted(sample("instances/dsb2018_stained/labels").glob("*.png"))[:5]
    for path in labels:
        sheet = read(path)
        assert len(sheet.records) == len(np.unique(np.asarray(Image.open(path)))) - 1
    path = sorted(sample("classification_segmentation/ebhi_seg/normal/label").glob("*.png"))[0]
    sheet = read(path)
    assert sheet.format == "mask"
    assert (
        sum(geometry_of(r).area for r in sheet.records)
        == (np.asarray(Image.open(path).convert("L")) > 127).sum()
    )


# --- names
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "picture", "want"),
    [
        (["a.png", "b.png"], "a.png", ["a.png"]),
        (["C:\\x\\a.png", "b"], "/y/a.png", ["C:\\x\\a.png"]),
        (["a", "b"], "a.svs", ["a"]),
        (["a_0.98", "a_0"], "a_0.98.png", ["a_0.98"]),
        (["a.jpg", "b.jpg"], "a.svs", ["a.jpg"]),
        (["x/a.png", "y/a.png"], "y/a.png", ["y/a.png"]),
        (["x/a.png", "y/a.png"], "a.png", ["x/a.png", "y/a.png"]),
        (["x/a.png", "y/a.png"], "/data/set/y/a.png", ["y/a.png"]),
        (["/data/set/y/a.png", "y/a.png"], "/data/set/y/a.png", ["/data/set/y/a.png"]),
        (["normal_a", "b"], "/data/normal/a.png", ["normal_a"]),
        ([""], "a.png", []),
        (["s.1", "s.2"], "s.png", []),
        (["s.1", "s.2"], "s.1.png", ["s.1"]),
        (["s.1.tif", "s.2.tif"], "s.2.svs", ["s.2.tif"]),
        (["case"], "/data/case.1", []),
        (["x/y/a.png", "b.png", "y/a.png"], "/x/y/a.png", ["x/y/a.png", "y/a.png"]),
    ],
)
def test_the_nearest_file_name_means_the_slide(names, picture, want):
    assert same_pictures(names, picture, called="normal_a") == want


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12))
def test_compressed_runs_are_the_runs_again(runs):
    assert decompress(compress(runs)).tolist() == runs
