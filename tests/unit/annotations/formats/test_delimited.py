"""Tables of points, boxes and outlines as text: what their header and their lines say."""

import pytest
import shapely

from helpers.annotation_files import faults, read, sample
from quadrat.annotations.formats.reading import pictures
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import AnnotationError


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


QUPATH = (
    "Image\tObject ID\tObject type\tName\tClassification\tParent\tROI\tCentroid X {0}\t"
    "Centroid Y {0}\tNucleus: Area {0}^2\n"
)


def measured(tmp_path, *lines, unit="µm"):
    path = tmp_path / "measurements.tsv"
    path.write_text(QUPATH.format(unit) + "".join("\t".join(line) + "\n" for line in lines))
    return path


def cell(x, y, name="Tumor", sort="Cell", image="a.svs"):
    return (image, "7f0c", sort, "", name, "Root object (Image)", "Polygon", x, y, "31.5")


@pytest.mark.parametrize("unit", ["µm", "μm", "um"])  # the micro sign, the Greek letter, none
def test_a_table_of_measurements_in_um_is_points_in_px(tmp_path, unit):
    lines = cell("10", "20.5"), cell("5.25", "1", "Tumor: Positive", "Detection")
    sheet = read(measured(tmp_path, *lines, unit=unit), "a.svs", mpp=0.25)
    assert [r.points.tolist() for r in sheet.records] == [[[40, 82]], [[21, 4]]]
    assert [(r.name, r.kind, r.place) for r in sheet.records] == [
        ("Tumor", "object", "line 2"),
        ("Tumor: Positive", "object", "line 3"),
    ]
    assert sheet.notes == (
        f"coordinates are in um (column 'Centroid X {unit}'): taken as px of 0.25 um",
    )


def test_a_table_of_measurements_in_px_needs_no_mpp_and_one_in_um_does(tmp_path):
    (record,) = read(measured(tmp_path, cell("10", "20.5"), unit="px")).records
    assert record.points.tolist() == [[10, 20.5]]
    with pytest.raises(
        AnnotationError, match=r"in um \(column 'Centroid X µm'\), and nobody states .* column mpp"
    ):
        read(measured(tmp_path, cell("10", "20.5")))


def test_a_table_of_measurements_in_um_is_refused_in_pixel_work(tmp_path):
    with pytest.raises(AnnotationError, match=r"in um \(.*, but model\.mpp is px.* in px$"):
        read(measured(tmp_path, cell("10", "20.5")), mpp="px")
    (record,) = read(measured(tmp_path, cell("10", "20.5"), unit="px"), mpp="px").records
    assert record.points.tolist() == [[10, 20.5]]


def test_of_a_table_of_measurements_only_detections_and_cells_are_points(tmp_path):
    sorts = ["Annotation", "Tile", "Tile", "TMA core", "PathDetectionObject", "Blob"]
    sheet = read(measured(tmp_path, *(cell("1", "2", sort=s) for s in sorts)), mpp=0.25)
    assert [r.place for r in sheet.records] == ["line 6", "line 7"]
    assert faults(sheet) == {"line 7": "its type is 'Blob'; want a detection or a cell"}
    assert sheet.left_out == 4
    assert [note.split(":")[0] for note in sheet.notes[1:]] == [
        "1 lines of the type 'Annotation' left out",
        "2 lines of the type 'Tile' left out",
        "1 lines of the type 'TMA core' left out",
    ]


def test_a_table_of_measurements_may_be_of_several_images_and_have_decimal_commas(tmp_path):
    path = measured(tmp_path, cell("10,5", "20"), cell("1", "2", "", image="b.svs"))
    assert pictures(path) == ["a.svs", "b.svs"]
    assert read(path, "a.svs", mpp=0.5).records[0].points.tolist() == [[21, 40]]
    assert read(path, "b.svs", mpp=0.5).records[0].name == ""


def test_an_empty_first_cell_of_a_table_of_tabs_is_a_cell(tmp_path):
    (tmp_path / "a.tsv").write_text("name\tx\ty\tz\n\t1\t2\t3\na\t4\t5\t6\n\t\n")
    records = read(tmp_path / "a.tsv").records
    assert [(r.name, r.points.tolist()) for r in records] == [("", [[1, 2]]), ("a", [[4, 5]])]
