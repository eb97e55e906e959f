"""Objects as GeoParquet, and what holds for both files of objects."""

import json

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.object_parts import CLASSES, FRAME, sample, write
from quadrat.core.outlines import take_polygons
from quadrat.outputs import objects
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter


def cut(part, at):
    table, polygons, nearest = part
    index = [np.arange(at), np.arange(at, len(table))]
    return [(table.take(i), take_polygons(polygons, i), nearest[i]) for i in index]


def test_geopandas_reads_every_column_of_the_objects_and_no_crs(tmp_path):
    table, polygons, nearest = sample()
    write(ObjectWriter, tmp_path / "o.parquet", [(table, polygons, nearest)])
    found = geopandas.read_parquet(tmp_path / "o.parquet")
    n = len(table)
    assert found.crs is None
    assert found.id.tolist() == list(range(1, n + 1))
    assert found["class"].tolist() == [CLASSES[c].name for c in table.class_id]
    assert np.array_equal(found.area_um2, table.area_px * 0.25)
    assert np.array_equal(found.perimeter_um, table.perimeter_px * 0.5)
    assert np.array_equal(found.x_l0, table.centroid[:, 1] * 4)
    assert np.array_equal(found.y_l0, table.centroid[:, 0] * 2)
    bounds = found.geometry.bounds
    assert np.array_equal(
        found[["x0_l0", "y0_l0", "x1_l0", "y1_l0"]], bounds[["minx", "miny", "maxx", "maxy"]]
    )
    assert found.geometry.is_valid.all()
    assert np.array_equal(found.geometry.area, table.area_px * 8)
    assert np.array_equal(
        found.nearest_same_um, nearest[np.arange(n), table.class_id], equal_nan=True
    )
    assert np.array_equal(found["nearest_um.tumour"], nearest[:, 0], equal_nan=True)


def test_the_parquet_schema_and_geo_metadata_are_as_documented(tmp_path):
    part = sample()
    write(ObjectWriter, tmp_path / "o.parquet", [part])
    schema = pq.read_schema(tmp_path / "o.parquet")
    assert [f"{f.name} {f.type}" for f in schema] == [
        "id int64",
        "class dictionary<values=string, indices=int32, ordered=0>",
        "class_id uint8",
        "score float",
        *(
            f"{name} double"
            for name in (
                "area_um2",
                "perimeter_um",
                "x_l0",
                "y_l0",
                "x0_l0",
                "y0_l0",
                "x1_l0",
                "y1_l0",
            )
        ),
        "flags uint8",
        "nearest_same_um float",
        "nearest_um.tumour float",
        'nearest_um.odd "name", µ float',
        "geometry binary",
    ]
    geo = json.loads(pq.read_metadata(tmp_path / "o.parquet").metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert (column["encoding"], column["geometry_types"], column["crs"]) == (
        "WKB",
        ["Polygon"],
        None,
    )
    xy = part[1].xy * (4, 2)
    assert column["bbox"] == [*xy.min(axis=0), *xy.max(axis=0)]


@pytest.mark.parametrize("writer", [ObjectWriter, GeoJSONWriter])
@pytest.mark.parametrize("at", [0, 1, 17])
def test_bytes_do_not_depend_on_how_objects_are_handed_over(tmp_path, monkeypatch, writer, at):
    monkeypatch.setattr(objects, "ROW_GROUP", 10)
    part = sample()
    assert len(part[0]) > 25
    whole = write(writer, tmp_path / "whole", [part])
    assert write(writer, tmp_path / "parts", cut(part, at)) == whole
    assert write(writer, tmp_path / "again", [part]) == whole


@pytest.mark.parametrize("writer", [ObjectWriter, GeoJSONWriter])
def test_a_failure_while_writing_leaves_no_file(tmp_path, writer):
    path = tmp_path / "file"

    def fail_half_way():
        with writer(path, frame=FRAME, classes=CLASSES, slide="s") as out:
            table, polygons, nearest = sample()
            out.append(table, polygons, nearest=nearest, first_id=1)
            assert not path.exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", [ObjectWriter, GeoJSONWriter])
def test_parts_that_do_not_agree_are_refused(tmp_path, writer):
    table, polygons, nearest = sample()
    with writer(tmp_path / "file", frame=FRAME, classes=CLASSES, slide="s") as out:
        with pytest.raises(ValueError, match="came with"):
            out.append(table, take_polygons(polygons, np.arange(3)), nearest=nearest, first_id=1)
        with pytest.raises(ValueError, match="came with"):
            out.append(table, polygons, nearest=nearest[:, :1], first_id=1)
        with pytest.raises(ValueError, match="ids start at 1"):
            out.append(table, polygons, nearest=nearest, first_id=0)


def test_a_slide_without_objects_gives_files_that_open(tmp_path):
    write(ObjectWriter, tmp_path / "o.parquet", [])
    assert len(geopandas.read_parquet(tmp_path / "o.parquet")) == 0
    assert json.loads(write(GeoJSONWriter, tmp_path / "o.geojson", []))["features"] == []


def test_rows_are_taken_by_index_over_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "ROW_GROUP", 4)
    part = sample()
    path, n = tmp_path / "o.parquet", len(part[0])
    write(ObjectWriter, path, [part])
    assert objects.row_groups(path) == -(-n // 4) > 2
    index = np.array([0, 3, 4, n - 1])
    assert objects.take_rows(path, ["id"], index)["id"].to_pylist() == [1, 4, 5, n]
    assert objects.take_rows(path, ["id"], np.zeros(0, np.int64)).num_rows == 0
