"""QuPath GeoJSON in every layout, and what is broken of it."""

import json

import numpy as np
import pytest

from helpers.annotation_files import ring as square
from quadrat.annotations.formats.geojson import load_annotations, probabilities, read_geojson
from quadrat.core.errors import AnnotationError


def feature(coordinates, name="a", *, sort="Polygon", object_type="detection"):
    properties = {"objectType": object_type}
    if name:
        properties["classification"] = {"name": name}
    return {
        "type": "Feature",
        "geometry": {"type": sort, "coordinates": coordinates},
        "properties": properties,
    }


def written(tmp_path, features, *, layout="collection"):
    path = tmp_path / "slide.geojson"
    if layout == "collection":
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    elif layout == "list":
        path.write_text(json.dumps(features, indent=1))
    elif layout == "lines":
        path.write_text(
            '{"type":"FeatureCollection","features":[\n'
            + ",\n".join(map(json.dumps, features))
            + "\n]}\n"
        )
    else:
        path.write_text("\n".join(map(json.dumps, features)) + "\n")
    return path


@pytest.mark.parametrize("layout", ["collection", "list", "lines", "newline"])
def test_every_layout_of_geojson_gives_the_same_annotations(tmp_path, layout):
    features = [
        feature([square(0, 0, 4)], "b"),
        feature([square(10, 10, 9), square(12, 12, 2)], "a"),
        feature([[square(20, 0, 2)], [square(30, 0, 2)]], "a", sort="MultiPolygon"),
        feature([5.5, 6.5], "b", sort="Point"),
        feature([square(0, 0, 4)], None),
        feature([square(0, 0, 99)], "stroma", object_type="annotation"),
    ]
    got = load_annotations(written(tmp_path, features, layout=layout), kind="object")
    assert got.classes == ("a", "b")
    assert got.class_id.tolist() == [1, 0, 0, 0, 1]
    assert np.diff(got.polygons.polygon_starts).tolist() == [1, 2, 1, 1, 0]
    assert got.bbox.tolist() == [
        [0, 0, 4, 4],
        [10, 10, 19, 19],
        [0, 20, 2, 22],
        [0, 30, 2, 32],
        [6.5, 5.5, 6.5, 5.5],
    ]
    assert got.points_l0[4].tolist() == [5.5, 6.5]
    assert np.isnan(got.points_l0[:4]).all()


def test_objects_and_regions_of_one_file_are_kept_apart(tmp_path):
    path = written(
        tmp_path, [feature([square(0, 0, 4)]), feature([square(0, 0, 9)], object_type="annotation")]
    )
    for kind, side in (("object", 4), ("region", 9)):
        drawn = load_annotations(path, kind=kind)
        assert (drawn.kind, drawn.bbox.tolist()) == (kind, [[0, 0, side, side]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"type": "FeatureCollection", "features": [', "cut short"),
        ('{"a": 1}', "not GeoJSON"),
        ("[1]", "feature 1: not a GeoJSON Feature"),
        ("[" * 100_000 + "]" * 100_000, r"bad\.geojson: its lists are nested too deeply"),
        ('{"features": [' + "[" * 100_000, r"bad\.geojson: its lists are nested too deeply"),
        ("[" + "9" * 5000 + "]", r"bad\.geojson: holds a number of more digits than can be read"),
        (
            json.dumps([feature([10**400, 5], sort="Point")]),
            "feature 1: coordinates that are not a list of x, y pairs",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_a_broken_file_is_refused_in_a_sentence(tmp_path, text, message):
    (tmp_path / "bad.geojson").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        load_annotations(tmp_path / "bad.geojson")


def test_a_file_of_lines_that_was_cut_short_is_refused(tmp_path):
    path = written(tmp_path, [feature([square(i, 0, 4)]) for i in range(5)], layout="lines")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))
    with pytest.raises(AnnotationError, match="cut short"):
        load_annotations(path)
    path.write_text("".join(lines)[:-60])
    with pytest.raises(AnnotationError, match=r"line 6 column .* cut short"):
        load_annotations(path)
    path.write_text("".join(line.rstrip(",\n") + "\n" for line in lines[1:-1]) + '{"type": "Fea')
    with pytest.raises(AnnotationError, match="line 6 is not one whole feature"):
        load_annotations(path)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_features_that_share_or_span_lines_are_all_read_once_and_in_order(tmp_path, start):
    one, two, three, four = (json.dumps(feature([square(i, 0, 4)])) for i in range(4))
    spanning = json.dumps(feature([square(4, 0, 4)]), indent=1)
    path = tmp_path / "a.geojson"
    path.write_text(
        f'{start}{{"features":[\n\n{one},\n{two},{three},\n{four},\n{spanning}\n]}}',
        encoding="utf-8",
    )
    assert load_annotations(path).bbox[:, 1].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tail", ["]}garbage", ']}\n{"more": 1}', "]"])
def test_text_behind_a_list_of_lines_is_not_passed_over(tmp_path, tail):
    path = tmp_path / "a.geojson"
    path.write_text(
        '{"features":[\n'
        + ",\n".join(json.dumps(feature([square(i, 0, 4)])) for i in range(2))
        + f"\n{tail}\n"
    )
    with pytest.raises(AnnotationError, match=r"not valid JSON .* line [45] "):
        load_annotations(path)


def test_a_list_of_lines_under_another_key_is_not_taken_for_the_features(tmp_path):
    path = tmp_path / "a.geojson"
    other, own = (json.dumps(feature([square(x, 0, 4)])) for x in (7, 1))
    path.write_text(f'{{"undone":[\n{other},\n{other}\n],"features":[{own}]}}')
    assert load_annotations(path).bbox[:, 1].tolist() == [1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TMACoreObject", None),
        ("PathTileObject", None),
        ("PathCellObject", "object"),
        ("PathAnnotationObject", "region"),
    ],
)
def test_old_qupath_files_say_what_a_feature_is_by_its_id(tmp_path, name, kind):
    path = tmp_path / "a.geojson"
    path.write_text(
        json.dumps(
            [{"id": name, "type": "Feature", "geometry": feature([square(0, 0, 4)])["geometry"]}]
        )
    )
    assert [r.kind for r in read_geojson(path).records] == ([] if kind is None else [kind])


@pytest.mark.parametrize("sort", ["LineString", None])
def test_a_geometry_without_area_is_refused(tmp_path, sort):
    path = written(tmp_path, [feature([square(0, 0, 4)], sort=sort)])
    with pytest.raises(AnnotationError, match="feature 1: geometry"):
        load_annotations(path)


def test_an_open_ring_is_refused(tmp_path):
    path = written(tmp_path, [feature([square(0, 0, 4)[:-1]])])
    with pytest.raises(AnnotationError, match="not closed"):
        load_annotations(path)


def collection(*geometries):
    return feature([], "a") | {
        "geometry": {"type": "GeometryCollection", "geometries": list(geometries)}
    }


def test_the_geometries_of_a_collection_are_the_parts_of_one_object(tmp_path):
    one = {"type": "Polygon", "coordinates": [square(0, 0, 9), square(2, 2, 3)]}
    two = {"type": "MultiPolygon", "coordinates": [[square(20, 0, 2)], [square(30, 0, 2)]]}
    inner = {"type": "GeometryCollection", "geometries": [two]}
    (record,) = read_geojson(written(tmp_path, [collection(one, inner)])).records
    assert [len(part) for part in record.parts] == [2, 1, 1]
    assert (record.name, record.kind, record.fault) == ("a", "object", None)
    assert load_annotations(written(tmp_path, [collection(one, inner)])).objects == 1
    points = [{"type": "Point", "coordinates": [k, 7]} for k in (3, 4)]
    (record,) = read_geojson(written(tmp_path, [collection(*points)])).records
    assert record.points.tolist() == [[3, 7], [4, 7]]


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (collection(), "a GeometryCollection without geometries"),
        (collection({"type": "LineString"}), "geometry 'LineString' has no area"),
        (
            collection(
                {"type": "Polygon", "coordinates": [square(0, 0, 9)]},
                {"type": "Point", "coordinates": [1, 1]},
            ),
            "of outlines and points: one feature is one or the other",
        ),
    ],
)
def test_a_collection_that_is_no_one_thing_is_a_bad_record(tmp_path, geometry, text):
    (record,) = read_geojson(written(tmp_path, [geometry])).records
    assert text in record.fault.text


def test_every_feature_is_a_record_or_is_named(tmp_path):
    sorts = ["Annotation", "DETECTION", "tile", "tile", "TMA core", "blob", "PathRootObject"]
    drawn = [feature([square(9 * i, 0, 4)], object_type=s) for i, s in enumerate(sorts)]
    nested = feature([square(0, 9, 4)]) | {"childObjects": [feature([square(1, 9, 2)]), drawn[2]]}
    sheet = read_geojson(written(tmp_path, [*drawn, nested]))
    assert [(r.place, r.kind) for r in sheet.records] == [
        ("feature 1", "region"),
        ("feature 2", "object"),
        ("feature 6", None),
        ("feature 8", "object"),
        ("feature 8, child 1", "object"),
    ]
    assert sheet.records[2].fault.code == "unknown type"
    assert "its objectType is 'blob'" in sheet.records[2].fault.text
    assert sheet.left_out == 5
    assert sheet.notes == (
        "3 features of the type 'tile' left out: neither objects nor regions",
        "1 features of the type 'TMA core' left out: neither objects nor regions",
        "1 features of the type 'PathRootObject' left out: neither objects nor regions",
    )


def test_children_that_are_no_list_or_are_nested_without_end_are_bad_records(tmp_path):
    (_, child) = read_geojson(
        written(tmp_path, [feature([square(0, 0, 4)]) | {"childObjects": 7}])
    ).records
    assert (child.place, child.fault.text) == ("feature 1, childObjects", "not a GeoJSON Feature")
    deep = feature([square(0, 0, 4)])
    for _ in range(60):
        deep = feature([square(0, 0, 4)]) | {"childObjects": [deep]}
    records = read_geojson(written(tmp_path, [deep])).records
    assert len(records) == 52
    assert records[-1].fault.text == "not a GeoJSON Feature"


def test_probabilities_are_those_of_the_measurements_old_and_new(tmp_path):
    new, old, none = (feature([square(0, 0, 9)]) for _ in range(3))
    new["properties"]["measurements"] = {"Area": 3, "Detection probability": 0.25}
    old["properties"]["measurements"] = [{"name": "Probability", "value": 1}]
    new["childObjects"] = [old]
    assert probabilities(written(tmp_path, [none, new])) == {
        "feature 2": 0.25, "feature 2, child 1": 1.0,
    }  # fmt: skip
    new["properties"]["measurements"] = {"Probability": 7}
    with pytest.raises(AnnotationError, match="feature 1: its probability is 7, not 0 to 1"):
        probabilities(written(tmp_path, [new]))
