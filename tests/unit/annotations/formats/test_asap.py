"""ASAP XML."""

import pytest
import shapely

from helpers.annotation_files import faults, read, sample
from quadrat.annotations.shapes import geometry_of


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
