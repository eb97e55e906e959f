import csv
import json
import math
import re
import uuid

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from helpers.runs import table as table_of
from quadrat.core.objects import ClassInfo, Frame, Polygons
from quadrat.core.outlines import take_polygons, trace
from quadrat.core.predictions import SCORE_MAX, TileScores
from quadrat.outputs import figures, objects, overlay, tables
from quadrat.outputs.geojson import GeoJSONWriter, coordinates_json, feature_ids
from quadrat.outputs.objects import ObjectWriter
from quadrat.stitching.features import measure, nearest_distances

CLASSES = [ClassInfo("tumour", (200, 0, 0)), ClassInfo('odd "name", µ', (0, 150, 0))]
COLORS = np.array([c.color for c in CLASSES], np.uint8)
FRAME = Frame(height=300, width=400, mpp=0.5, scale_row=2.0, scale_col=4.0)


def sample(*, seed=0, side=60):
    """Random 4-connected blobs with holes: table, polygons, nearest distances."""
    rng = np.random.default_rng(seed)
    labels, n = ndimage.label(
        ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.2) > 0.08
    )
    labels = labels.astype(np.int32)
    moments = measure(labels, n=n, origin=(10, 20))
    class_id = rng.integers(0, 2, n).astype(np.uint8)
    table = moments.table(class_id=class_id, score=rng.random(n).astype(np.float32))
    nearest = nearest_distances(moments.centroid * FRAME.mpp, class_id, 2)
    return table, trace(labels, n=n, origin=(10, 20)), nearest


def write(writer, path, parts, **options):
    with writer(path, frame=FRAME, classes=CLASSES, slide="slide-1", **options) as out:
        first_id = 1
        for table, polygons, nearest in parts:
            out.append(table, polygons, nearest=nearest, first_id=first_id)
            first_id += len(table)
    return path.read_bytes()


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


def test_geojson_can_be_shifted_to_what_a_viewer_shows(tmp_path):
    part = sample()
    text = write(GeoJSONWriter, tmp_path / "o.geojson", [part], origin_l0=(30.0, 7.5))
    ring = json.loads(text)["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == [part[1].xy[0, 0] * 4 - 30, part[1].xy[0, 1] * 2 - 7.5]


@given(st.lists(st.floats(-1e6, 1e9, allow_nan=False), min_size=2, max_size=12))
def test_coordinates_are_rounded_to_two_decimals_and_no_more(values):
    xy = np.array([[v, -v] for v in values])
    polygons = Polygons(
        xy=xy, ring_starts=np.array([0, 1, len(xy)]), polygon_starts=np.array([0, 2])
    )
    unit = Frame(height=1, width=1, mpp=1, scale_row=1, scale_col=1)
    (text,) = coordinates_json(polygons, unit, origin_l0=np.zeros(2))
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


def test_counts_are_those_of_the_table_and_survive_the_file(tmp_path):
    table, _, nearest = sample()
    rows = tables.count_rows(table, nearest, classes=CLASSES, frame=FRAME, tissue_mm2=0.5)
    assert [row.class_name for row in rows] == ["tumour", 'odd "name", µ', "all"]
    assert rows[0].count + rows[1].count == rows[2].count == len(table)
    assert rows[2].per_mm2 == 2 * len(table)
    assert rows[2].area_mm2 == pytest.approx(table.area_px.sum() * 0.25e-6)
    assert rows[2].covered_fraction == pytest.approx(2 * rows[2].area_mm2)
    assert rows[2].median_nearest_um == pytest.approx(np.median(nearest.min(axis=1)))
    tables.write_counts(tmp_path / "counts.csv", rows)
    with (tmp_path / "counts.csv").open(newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    assert [(b["class"], int(b["count"])) for b in back] == [(r.class_name, r.count) for r in rows]
    assert float(back[0]["median_nearest_um"]) == pytest.approx(
        rows[0].median_nearest_um, abs=5.1e-4
    )


def test_what_is_undefined_is_empty_in_counts(tmp_path):
    table, _, nearest = sample()
    rows = tables.count_rows(
        table.take(np.arange(0)), nearest[:0], classes=CLASSES, frame=FRAME, tissue_mm2=0.0
    )
    tables.write_counts(tmp_path / "counts.csv", rows)
    text = (tmp_path / "counts.csv").read_text()
    assert text.splitlines()[0] == "class,count,per_mm2,area_mm2,covered_fraction,median_nearest_um"
    assert text.splitlines()[-1] == "all,0,,0.000000,,"


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9).filter(any))
def test_written_probabilities_sum_to_exactly_one(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    classes = [ClassInfo(f"c{i}", (0, 0, 0)) for i in range(len(values))]
    tables.write_classes(path, classes, np.array(values, np.float32))
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    names, decimals = zip(*lines, strict=True)
    assert sum(round(float(d) * 10**6) for d in decimals) == 10**6
    assert list(names) == [c.name for c in classes]
    assert np.array(decimals, np.float64) == pytest.approx(np.array(values) / sum(values), abs=1e-6)


def test_probabilities_that_are_none_are_refused(tmp_path):
    for wrong in ([0.0, 0.0], [-0.1, 1.1], [math.nan, 1.0], [1.0]):
        with pytest.raises(ValueError, match="finite value"):
            tables.write_classes(tmp_path / "c.csv", CLASSES, np.array(wrong))
    assert list(tmp_path.iterdir()) == []


def test_tiles_survive_the_file_and_ties_go_to_the_first_class(tmp_path):
    probability = np.array(
        [[SCORE_MAX // 3, SCORE_MAX - SCORE_MAX // 3], [30_000, 30_000]], np.uint16
    )
    scores = TileScores(
        cell=np.array([[0, 1], [2, 3]], np.int32),
        probability=probability,
        embedding=np.zeros((2, 0), np.float16),
    )
    tables.write_tiles(tmp_path / "tiles.csv", scores, classes=CLASSES, frame=FRAME, core=128)
    back = tables.read_tiles(tmp_path / "tiles.csv")
    assert np.array_equal(back.cell, scores.cell)
    assert back.class_id.tolist() == [1, 0]
    assert back.class_names == tuple(c.name for c in CLASSES)
    assert back.box_l0.tolist() == [
        [512, 0, 1024, 256],
        [1536, 512, 1600, 600],
    ]  # clipped to the slide
    assert np.array_equal(np.floor(back.probability * SCORE_MAX + 0.5), probability)


def test_the_summary_has_a_column_for_each_figure_and_keeps_reasons(tmp_path):
    rows = [
        tables.SummaryRow(
            "a", "done", "instance", 0.5, 12.25, (("count", "7"), ("count_tumour", "3"))
        ),
        tables.SummaryRow("b", "failed", "instance", None, None, (), 'cannot be read, "truncated"'),
    ]
    tables.write_run_summary(tmp_path / "summary.csv", rows)
    header = (tmp_path / "summary.csv").read_text().splitlines()[0]
    assert header == "slide,status,task,mpp,tissue_mm2,count,count_tumour,reason"
    first, second = table_of(tmp_path / "summary.csv")
    assert (first["mpp"], first["tissue_mm2"]) == ("0.500000", "12.250000")
    assert (first["count"], first["count_tumour"], first["reason"]) == ("7", "3", "")
    assert (second["mpp"], second["tissue_mm2"], second["count"]) == ("", "", "")
    assert (second["slide"], second["status"], second["task"]) == ("b", "failed", "instance")
    assert second["reason"] == 'cannot be read, "truncated"'
    with pytest.raises(ValueError, match="fixed column"):
        tables.write_run_summary(
            tmp_path / "s", [tables.SummaryRow("a", "done", "t", None, None, (("status", "1"),))]
        )


def test_outlines_are_drawn_in_class_colours_on_the_enlarged_image():
    image = np.full((20, 30, 3), 255, np.uint8)
    square = Polygons.boxes(np.array([[5.0, 10.0, 15.0, 20.0]]))
    drawn = overlay.draw_overlay(
        image, polygons=square, class_id=np.array([1], np.uint8), colors=COLORS, width=3, zoom=2
    )
    assert drawn.shape == (40, 60, 3)
    assert tuple(drawn[20, 20]) == CLASSES[1].color
    assert (drawn[20, 30] == 255).all()
    assert (drawn[:4] == 255).all()
    untouched = overlay.draw_overlay(
        image,
        polygons=Polygons.boxes(np.zeros((0, 4))),
        class_id=np.zeros(0, np.uint8),
        colors=COLORS,
    )
    assert np.array_equal(untouched, image)


def test_tints_leave_hidden_and_unknown_classes_alone():
    image = np.full((1, 3, 3), 100, np.uint8)
    tinted = overlay.blend_classes(
        image, np.array([[0, 1, 255]], np.uint8), COLORS, alpha=0.5, hidden=(0,)
    )
    assert tinted.tolist() == [[[100, 100, 100], [50, 125, 50], [100, 100, 100]]]


def test_dots_look_the_same_in_any_order_and_ignore_what_lies_outside():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    xy = rng.uniform(-10, 60, (200, 2))
    class_id = rng.integers(0, 2, 200).astype(np.uint8)
    drawn = overlay.draw_dots(image, xy, class_id=class_id, colors=COLORS)
    order = rng.permutation(200)
    assert np.array_equal(
        overlay.draw_dots(image, xy[order], class_id=class_id[order], colors=COLORS), drawn
    )
    none = np.zeros((0, 2))
    assert np.array_equal(
        overlay.draw_dots(image, none, class_id=np.zeros(0, np.uint8), colors=COLORS, fade=0.0),
        image,
    )


def test_density_times_cell_area_is_the_count():
    rng = np.random.default_rng(4)
    centroid = rng.uniform(0, 1, (500, 2)) * (300, 400)
    density = overlay.density_map(centroid, FRAME, cell_um=40)
    assert density.shape == (4, 5)
    assert density.dtype == np.float32
    assert density.sum() * 0.04**2 == pytest.approx(500)
    assert density[0, 0] * 0.04**2 == pytest.approx(((centroid < 80).all(axis=1)).sum())


def test_colours_run_from_dark_to_light_and_are_blank_outside_the_mask():
    values = np.array([[0.0, 0.5, 1.0, np.nan, 0.7]])
    mask = np.array([[True, True, True, True, False]])
    colours = overlay.colorize(values, low=0, high=1, mask=mask)
    assert tuple(colours[0, 0]) == (68, 1, 84)
    assert tuple(colours[0, 2]) == (253, 231, 37)
    assert np.diff(colours[0, :3].astype(int).sum(axis=1)).min() > 0
    assert (colours[0, 3:] == overlay.BLANK).all()


@pytest.mark.parametrize(
    ("longest", "length"), [(130, 100), (99, 50), (1, 1), (0.3, 0.2), (2500, 2000)]
)
def test_scale_bars_have_round_lengths(longest, length):
    assert figures.nice_length_um(longest) == pytest.approx(length)


def test_pages_are_written_as_the_same_png_each_time(tmp_path):
    overview, detail = np.full((90, 60, 3), 230, np.uint8), np.full((72, 72, 3), 200, np.uint8)
    legend = [
        figures.LegendEntry(f"class {i} with a long name", (i * 20, 90, 120), "1,234")
        for i in range(12)
    ]
    for name in ("a.png", "b.png"):
        page = figures.compose_overlay(
            overview,
            detail,
            legend=legend,
            overview_mpp=32.0,
            detail_mpp=0.5,
            detail_box=(20, 20, 22, 22),
            title="Größe",
            subtitle="5 µm, 2 per mm²",
        )
        figures.save_png(page, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == page.shape[1::-1]
        assert picture.info == {}
    page = figures.compose_map(
        overview,
        np.ones((3, 2)),
        low=0,
        high=2,
        label="per mm²",
        cell_um=1000,
        overview_mpp=32.0,
        title="t",
    )
    assert page.shape[1] > 2 * 480
