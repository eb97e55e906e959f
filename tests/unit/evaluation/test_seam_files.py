import json
from dataclasses import replace

import numpy as np
import pytest
import shapely

from helpers.runs import quadrat
from helpers.seam_fields import clustered_boxes, octagons, pieces, table_of
from helpers.summaries import OBJECTS, SEAMS, summary_of
from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.objects import ClassInfo, Frame, Polygons
from quadrat.core.records import from_json, to_json
from quadrat.core.seams import SeamFigures
from quadrat.evaluation.seam_files import read_objects, read_seams, seams_text
from quadrat.outputs.geojson import GeoJSONWriter
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import write_summary

SIDE = 2048
FRAME = Frame(height=SIDE, width=SIDE, mpp=0.5, scale_row=2.0, scale_col=2.0)
CLASSES = [ClassInfo("a", (1, 2, 3))]


@pytest.fixture(scope="module")
def boxes():
    return clustered_boxes(np.random.default_rng(0), clusters=150, per_cluster=20, side=SIDE)


def nearest(table):
    return np.full((len(table), 1), np.nan, np.float32)


def write_result(folder, bbox, polygons, *, seams=None):
    folder.mkdir(exist_ok=True)
    shapes = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, polygons.xy, (polygons.ring_starts, polygons.polygon_starts)
    )
    table = replace(table_of(bbox), area_px=shapely.area(shapes))
    with ObjectWriter(
        folder / "objects.parquet", frame=FRAME, classes=CLASSES, slide="s"
    ) as writer:
        writer.append(table, polygons, nearest(table), first_id=1)
    write_summary(folder, summary_of(FRAME, answer=replace(OBJECTS, seams=seams)))
    return folder


def write_geojson(path, bbox, polygons):
    table = table_of(bbox)
    with GeoJSONWriter(path, frame=FRAME, classes=CLASSES, slide="s") as writer:
        writer.append(table, polygons, nearest(table), first_id=1)
    return path


def test_a_result_folder_shows_the_report_of_its_summary(tmp_path, boxes):
    folder = write_result(tmp_path / "s", boxes, octagons(boxes), seams=SEAMS)
    assert read_seams(folder, tile=None, origin=(0, 0), mpp=None) == SEAMS


def test_another_tools_geojson_cut_into_tiles_is_found_out_at_its_tiles_only(tmp_path, boxes):
    cut, _ = pieces(boxes, core=256, origin=(30, 70))
    path = write_geojson(tmp_path / "other.geojson", cut, Polygons.boxes(cut))
    report = read_seams(path, tile=512, origin=(140, 60), mpp=0.25)  # x, y; 2 level-0 px a grid px
    assert report.sign_of_seams
    assert report.straight_edges.near > 0.95
    assert report.density.low > 1.2
    elsewhere = read_seams(path, tile=512, origin=(0, 330), mpp=0.25)
    assert elsewhere.straight_edges.near < 0.3
    assert not elsewhere.sign_of_seams, elsewhere.verdict


def test_table_and_geojson_of_one_result_give_one_report(tmp_path, boxes):
    folder = write_result(tmp_path / "s", boxes, octagons(boxes))
    path = write_geojson(tmp_path / "s.geojson", boxes, octagons(boxes))
    options = {"tile": 512, "origin": (0, 0)}
    one, other = read_seams(folder, mpp=None, **options), read_seams(path, mpp=0.25, **options)
    for name in ("density", "straight_edges", "duplicates"):
        for figure in (
            "near",
            "inside",
            "objects",
        ):  # coordinates are rounded to 0.01 px, which may move one over a line
            found, want = (getattr(getattr(r, name), figure) for r in (other, one))
            assert found == pytest.approx(want, rel=0.02)
    assert one.seams == other.seams


def test_objects_are_read_back_as_they_were_written(tmp_path, boxes):
    folder = write_result(tmp_path / "s", boxes, Polygons.boxes(boxes))
    table, parts = read_objects(folder / "objects.parquet", FRAME)
    assert np.array_equal(table.bbox, boxes * 2)
    assert np.allclose(table.area_px, 4 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert sum(len(part()[1]) for part in parts) == len(boxes)


def test_features_without_a_class_and_multipolygons_count(tmp_path):
    squares = [
        shapely.box(x, y, x + 9, y + 9) for x in range(0, 1000, 40) for y in range(0, 1000, 40)
    ]
    shapes = [*squares[1:], shapely.MultiPolygon([squares[0], shapely.box(2000, 2000, 2009, 2009)])]
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(s), "properties": {}}
        for s in shapes
    ]
    path = tmp_path / "bare.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    report = read_seams(path, tile=100, origin=(0, 0), mpp=0.5)
    assert report.seams > 100
    assert report.density.objects > 30


def test_an_empty_file_has_no_seams(tmp_path):
    path = tmp_path / "empty.geojson"
    path.write_text('{"type":"FeatureCollection","features":[]}')
    report = read_seams(path, tile=100, origin=(0, 0), mpp=0.5)
    assert report.verdict.startswith("there are no seams")
    folder = write_result(tmp_path / "s", np.zeros((0, 4)), Polygons.boxes(np.zeros((0, 4))))
    assert read_seams(folder, tile=100, origin=(0, 0), mpp=None).seams == 0


def test_what_is_missing_is_named_with_its_remedy(tmp_path, boxes):
    path = write_geojson(tmp_path / "g.geojson", boxes, octagons(boxes))
    with pytest.raises(ConfigError, match="--tile"):
        read_seams(path, tile=None, origin=(0, 0), mpp=0.5)
    with pytest.raises(ConfigError, match="--mpp"):
        read_seams(path, tile=100, origin=(0, 0), mpp=None)
    with pytest.raises(ConfigError, match="--tile is -1"):
        read_seams(path, tile=-1, origin=(0, 0), mpp=0.5)
    with pytest.raises(ConfigError, match="--tile is 8 px; it must be at least 32"):
        read_seams(path, tile=8, origin=(0, 0), mpp=0.5)
    folder = write_result(tmp_path / "s", boxes, octagons(boxes))
    with pytest.raises(QuadratError, match="state --tile"):
        read_seams(folder, tile=None, origin=(0, 0), mpp=None)
    (folder / "objects.parquet").write_bytes(b"x")
    with pytest.raises(QuadratError, match=r"objects\.parquet"):
        read_seams(folder, tile=512, origin=(0, 0), mpp=None)
    (folder / "summary.json").unlink()
    with pytest.raises(QuadratError, match=r"summary\.json"):
        read_seams(folder, tile=None, origin=(0, 0), mpp=None)


def test_the_command_prints_a_table_or_json(tmp_path, boxes):
    cut, _ = pieces(boxes, core=256)
    path = write_geojson(tmp_path / "other.geojson", cut, Polygons.boxes(cut))
    words = ("seams", path, "--tile", "512", "--origin", "0", "0", "--mpp", "0.25")
    done = quadrat(*words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("density near seams is ")
    assert " seams, every 512 px" in lines[1]
    assert len(lines) == 6
    report = from_json(SeamFigures, json.loads(quadrat(*words, "--json").out))
    assert seams_text(report).splitlines() == lines
    refused = quadrat("seams", path)
    assert refused.code == 2
    assert "--tile" in refused.err
    assert quadrat("seams", tmp_path / "none").code == 2


def test_a_result_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(QuadratError, match="there is no result"):
        read_seams(tmp_path / "none", tile=None, origin=(0.0, 0.0), mpp=None)


def test_the_report_of_pixel_work_speaks_of_px(boxes, tmp_path):
    polygons = octagons(boxes)
    path = tmp_path / "s.geojson"
    write_geojson(path, boxes, polygons)
    um, px = (read_seams(path, tile=512, origin=(0, 0), mpp=mpp) for mpp in (1.0, "px"))
    assert replace(px, unit="um") == um
    assert "objects per Mpx" in seams_text(px)
    assert seams_text(px).splitlines()[1].endswith(" px")
    assert from_json(SeamFigures, to_json(px, unit="px")) == px
    assert "near_px" in to_json(px, unit="px")
    folder = write_result(tmp_path / "r", boxes, polygons)
    with pytest.raises(ConfigError, match=r"--mpp is px, but the lengths of .* are in um"):
        read_seams(folder, tile=512, origin=(0, 0), mpp="px")
