"""Objects as GeoJSON: what QuPath reads, and coordinates and ids that can be relied on."""

import json
import re
import uuid

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from helpers.object_parts import CLASSES, FRAME, sample, write
from quadrat.core.objects import Frame, Polygons
from quadrat.outputs.geojson import (
    GeoJSONWriter,
    append_rows,
    coordinates_json,
    feature_ids,
)
from quadrat.outputs.objects import ObjectWriter, object_columns, read_rows


@pytest.mark.parametrize("object_type", ["detection", "annotation"])
def test_geojson_is_one_feature_a_line_with_what_qupath_reads(tmp_path, object_type):
    table, polygons, nearest = sample()
    text = write(
        GeoJSONWriter, tmp_path / "o.geojson", [(table, polygons, nearest)], object_type=object_type
    ).decode()
    lines = text.splitlines()
    features = json.loads(text)["features"]
    assert len(lines) == len(table) + 2
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == features
    space = uuid.uuid5(uuid.NAMESPACE_URL, "quadrat:slide-1")
    for i, feature in enumerate(features):
        geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
        properties = feature["properties"]
        assert feature["id"] == str(uuid.uuid5(space, str(i + 1)))
        assert geometry.is_valid
        assert geometry.area == table.area_px[i] * 8
        assert properties["objectType"] == object_type
        info = CLASSES[table.class_id[i]]
        assert properties["classification"] == {"name": info.name, "color": list(info.color)}
        score, area, perimeter = properties["measurements"].values()
        assert score == pytest.approx(table.score[i], abs=5.1e-5)
        assert area == pytest.approx(table.area_px[i] / 4, abs=5.1e-4)
        assert perimeter == pytest.approx(table.perimeter_px[i] / 2, abs=5.1e-4)
    assert list(features[0]["properties"]["measurements"])[1:] == ["Area µm^2", "Perimeter µm"]


@given(st.lists(st.floats(-1e6, 1e9, allow_nan=False), min_size=2, max_size=12))
def test_coordinates_are_rounded_to_two_decimals_and_no_more(values):
    xy = np.array([[v, -v] for v in values])
    polygons = Polygons(
        xy=xy, ring_starts=np.array([0, 1, len(xy)]), polygon_starts=np.array([0, 2])
    )
    unit = Frame(height=1, width=1, mpp=1, scale_row=1, scale_col=1)
    (text,) = coordinates_json(polygons, unit)
    found = np.array([point for ring in json.loads(text) for point in ring])
    assert found == pytest.approx(xy, abs=0.005 + 1e-6)
    numbers = re.findall(r"[^\[\],]+", text.decode())
    assert all(re.fullmatch(r"-?\d+(\.\d?[1-9])?", number) for number in numbers)


def test_feature_ids_differ_between_slides_and_not_between_runs():
    ids = np.arange(1, 4)
    assert list(feature_ids("a", ids)) == list(feature_ids("a", ids))
    assert not set(feature_ids("a", ids)) & set(feature_ids("b", ids))


def test_an_object_without_outline_or_score_is_not_written_to_geojson(tmp_path):
    table, polygons, nearest = sample()
    hollow = Polygons(
        xy=np.zeros((0, 2)),
        ring_starts=np.zeros(1, np.int64),
        polygon_starts=np.zeros(len(table) + 1, np.int64),
    )
    with GeoJSONWriter(tmp_path / "o", frame=FRAME, classes=CLASSES, slide="s") as out:
        with pytest.raises(ValueError, match="object 1 has no outline"):
            out.append(table, hollow, nearest=nearest, first_id=1)
        table.score[2] = np.nan
        with pytest.raises(ValueError, match="score of object 3"):
            out.append(table, polygons, nearest=nearest, first_id=1)


@pytest.mark.parametrize("kind", ["detection", "annotation"])
def test_rows_of_a_table_give_the_bytes_that_the_run_wrote(tmp_path, kind):
    parts = [sample()]
    own = write(GeoJSONWriter, tmp_path / "own.geojson", parts, object_type=kind)
    write(ObjectWriter, tmp_path / "o.parquet", parts)
    rows = read_rows(tmp_path / "o.parquet", [*object_columns(FRAME), "geometry"])
    again = GeoJSONWriter(
        tmp_path / "again.geojson", frame=FRAME, classes=CLASSES, slide="slide-1", object_type=kind
    )
    with again as writer:
        append_rows(writer, rows.slice(0, 5), FRAME, first_id=1)
        append_rows(writer, rows.slice(5), FRAME, first_id=6)
    assert (tmp_path / "again.geojson").read_bytes() == own
