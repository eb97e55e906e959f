"""Annotations: reading the formats, and exact rasterisation that does not depend on the crop."""

import json

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.formats import label_image
from quadrat.annotations.formats.geojson import load_annotations, read_geojson
from quadrat.annotations.formats.label_image import from_array, load_label_image
from quadrat.annotations.formats.pixel_records import read_pixels
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.core.objects import Polygons


def feature(coordinates, name="a", *, sort="Polygon", object_type="detection"):
    properties = {"objectType": object_type}
    if name:
        properties["classification"] = {"name": name}
    return {
        "type": "Feature",
        "geometry": {"type": sort, "coordinates": coordinates},
        "properties": properties,
    }


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


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


def of_shapes(shapes, class_id=None, classes=("a", "b", "c")):
    """Annotations of shapely polygons."""
    rings = [
        [np.array(p.exterior.coords), *(np.array(r.coords) for r in p.interiors)] for p in shapes
    ]
    flat = [ring for polygon in rings for ring in polygon]
    polygons = Polygons(
        xy=np.concatenate(flat) if flat else np.zeros((0, 2)),
        ring_starts=np.cumsum([0, *map(len, flat)]),
        polygon_starts=np.cumsum([0, *map(len, rings)]),
    )
    ids = np.arange(len(shapes)) % 3 if class_id is None else np.array(class_id)
    return Annotations.of(polygons, ids, classes=classes, kind="object")


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


def test_pixel_edge_polygons_are_filled_exactly_with_their_holes():
    shape = shapely.Polygon(square(1, 2, 6), [square(3, 4, 2)])
    labels, class_id = of_shapes([shape]).instances(Box(0, 0, 10, 10), Scale(1, 1))
    want = np.zeros((10, 10), int)
    want[2:8, 1:7] = 1
    want[4:6, 3:5] = 0
    np.testing.assert_array_equal(labels, want)
    assert class_id.tolist() == [0]
    assert labels.dtype == np.int32


def test_neighbours_that_share_an_edge_leave_no_gap_and_do_not_overlap():
    left = shapely.Polygon([(0, 0), (5.3, 0), (9.1, 20), (0, 20), (0, 0)])
    right = shapely.Polygon([(5.3, 0), (20, 0), (20, 20), (9.1, 20), (5.3, 0)])
    box = Box(0, 0, 20, 20)
    apart = [of_shapes([s]).regions(box, Scale(1.0, 1.0)) for s in (left, right)]
    np.testing.assert_array_equal(apart[0] + apart[1], np.ones((20, 20)))


def test_later_objects_cover_earlier_ones_and_hidden_ones_have_no_id():
    shapes = [
        shapely.Polygon(square(2, 2, 2)),
        shapely.Polygon(square(0, 0, 6)),
        shapely.Polygon(square(5, 5, 3)),
    ]
    labels, class_id = of_shapes(shapes).instances(Box(0, 0, 8, 8), Scale(1, 1))
    assert class_id.tolist() == [1, 2]
    assert labels[3, 3] == 1
    assert labels[5, 5] == 2
    classes = of_shapes(shapes).regions(Box(0, 0, 8, 8), Scale(1.0, 1.0))
    assert (classes[3, 3], classes[5, 5], classes[0, 7]) == (2, 3, 0)
    assert classes.dtype == np.uint8


def random_annotations(seed, n=12):
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        radius = rng.uniform(2, 14, len(angle))
        centre = rng.uniform(-5, 65, 2)
        shell = centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        if rng.random() < 0.3:
            shell = np.round(shell)  # vertices and edges on pixel corners are where rules differ
        holes = [centre + (shell - centre) * 0.4] if rng.random() < 0.5 else []
        shapes.append(shapely.Polygon(shell, holes))
    return of_shapes(shapes), shapes


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0), (1.37, 1.37), (0.5, 0.75)])
def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre(scale):
    annotations, shapes = random_annotations(3)
    box = Box(-3, 2, 57, 60)
    got = annotations.regions(box, Scale(*scale))
    x = (np.arange(box.col0, box.col1) + 0.5) * scale[1]
    y = (np.arange(box.row0, box.row1) + 0.5) * scale[0]
    grid_x, grid_y = np.meshgrid(x, y)
    want, on_edge = np.zeros(box.shape, int), np.zeros(box.shape, bool)
    for k, shape in enumerate(shapes):
        if not shape.is_valid:
            on_edge |= shapely.contains_xy(
                shape.convex_hull, grid_x, grid_y
            )  # even-odd has its own view of crossings
            continue
        want[shapely.contains_xy(shape, grid_x, grid_y)] = k % 3 + 1
        on_edge |= shapely.dwithin(shape.boundary, shapely.points(grid_x, grid_y), 1e-9)
    np.testing.assert_array_equal(got[~on_edge], want[~on_edge])
    assert (~on_edge).mean() > 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 59),
    st.integers(1, 59),
    st.sampled_from([1.0, 2.0, 1 / 3, 1.37, 4.0000031]),
)
def test_pieces_are_the_same_parts_of_the_whole(seed, row, col, scale):
    annotations, _ = random_annotations(seed)
    whole_box = Box(-4, -4, 60, 60)
    whole = annotations.regions(whole_box, Scale(scale, scale))
    labels, class_id = annotations.instances(whole_box, Scale(scale, scale))
    for box in (Box(-4, -4, row, col), Box(-4, col, row, 60), Box(row, -4, 60, 60)):
        part = whole[box.slices_in(whole_box)]
        np.testing.assert_array_equal(annotations.regions(box, Scale(scale, scale)), part)
        got, got_class = annotations.instances(box, Scale(scale, scale))
        want = labels[box.slices_in(whole_box)]
        present = np.unique(want[want > 0])
        np.testing.assert_array_equal(
            got, np.where(want > 0, np.searchsorted(present, want) + 1, 0)
        )
        np.testing.assert_array_equal(got_class, class_id[present - 1])


def test_objects_in_a_box_are_those_whose_extent_meets_it():
    annotations = of_shapes([shapely.Polygon(square(0, 0, 4)), shapely.Polygon(square(10, 10, 4))])
    for box, left in (
        (Box(0, 0, 20, 20), [0, 10]),
        (Box(4, 4, 10, 10), []),
        (Box(3, 3, 11, 11), [0, 10]),
    ):
        assert annotations.boxes(box, Scale(1.0, 1.0))[0][:, 0].tolist() == left


def test_boxes_and_points_come_in_grid_px_with_full_extent():
    annotations = of_shapes(
        [shapely.Polygon(square(4, 8, 8)), shapely.Polygon(square(100, 100, 8))]
    )
    boxes, class_id = annotations.boxes(Box(0, 0, 3, 3), Scale(4.0, 2.0))
    assert boxes.tolist() == [[2, 2, 6, 4]]
    assert class_id.tolist() == [0]
    assert annotations.points(Box(0, 0, 3, 3), Scale(4.0, 2.0))[0].tolist() == []
    assert annotations.points(Box(3, 4, 4, 5), Scale(4.0, 2.0))[0].tolist() == [[4, 3]]


def test_the_point_of_a_polygon_is_its_centre_of_area_without_its_holes():
    shapes = [
        shapely.Polygon(square(0, 0, 8), [square(0.5, 0.5, 3)]),
        shapely.Polygon(square(0, 0, 6)[::-1]),
    ]
    xy, _ = of_shapes(shapes).points(Box(0, 0, 9, 9), Scale(1.0, 1.0))
    np.testing.assert_allclose(xy, [list(s.centroid.coords[0]) for s in shapes])


def test_a_label_image_and_the_polygons_of_its_pixels_give_the_same_crops():
    values = np.zeros((30, 40), np.uint16)
    values[3:9, 4:10], values[9:14, 4:20], values[20:30, 30:40] = 700, 5, 65535
    source = from_array(values, classes=["nucleus"])
    assert source.ids.tolist() == [5, 700, 65535]
    shapes = [shapely.box(4, 9, 20, 14), shapely.box(4, 3, 10, 9), shapely.box(30, 20, 40, 30)]
    polygons = of_shapes(shapes, [0, 0, 0], ("nucleus",))
    for box in (Box(0, 0, 30, 40), Box(-5, -5, 10, 12), Box(8, 2, 50, 50)):
        for scale in (Scale(1.0, 1.0), Scale(2.0, 2.0), Scale(1.3, 0.7)):
            for got, want in zip(
                source.instances(box, scale), polygons.instances(box, scale), strict=True
            ):
                np.testing.assert_array_equal(got, want)
            for got, want in zip(source.boxes(box, scale), polygons.boxes(box, scale), strict=True):
                np.testing.assert_allclose(got, want)
            np.testing.assert_allclose(source.points(box, scale)[0], polygons.points(box, scale)[0])
            np.testing.assert_array_equal(source.regions(box, scale), polygons.regions(box, scale))


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", np.uint8), ("a.png", np.uint16), ("a.tiff", np.uint32)]
)
def test_label_images_of_8_16_and_32_bits_are_read(tmp_path, name, dtype):
    values = np.zeros((5, 6), dtype)
    values[1:3, 1:3] = np.iinfo(dtype).max
    if name.endswith("png"):
        Image.fromarray(values).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, values)
    got = load_label_image(tmp_path / name)
    assert got.ids.tolist() == [np.iinfo(dtype).max]
    assert got.labels.sum() == 4


def test_a_mask_is_parted_into_objects_or_taken_as_a_class(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[0, 0] = mask[1, 1] = mask[3, 4:] = 255
    Image.fromarray(np.stack([mask] * 3, axis=-1)).save(tmp_path / "mask.png")
    assert len(load_label_image(tmp_path / "mask.png", threshold=127).ids) == 3
    region = load_label_image(
        tmp_path / "mask.png", classes=["gland"], kind="region", threshold=127
    )
    assert region.regions(Box(0, 0, 4, 6), Scale(1.0, 1.0)).sum() == 4
    with pytest.raises(AnnotationError, match="holds regions"):
        region.instances(Box(0, 0, 4, 6), Scale(1.0, 1.0))


def test_label_images_that_are_none_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(
        tmp_path / "rgb.png"
    )
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(AnnotationError, match="want one channel"):
        load_label_image(tmp_path / "rgb.png")
    with pytest.raises(AnnotationError, match="cannot be read"):
        load_label_image(tmp_path / "text.png")
    with pytest.raises(AnnotationError, match="value 3 has no class"):
        from_array(np.array([[3]], np.uint8), classes=["a", "b"], kind="region")


def test_a_label_image_of_more_pixels_than_pillow_opens_by_itself_is_read(tmp_path, monkeypatch):
    values = np.zeros((40, 50), np.uint8)
    values[3, 4] = 9
    Image.fromarray(values).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_label_image(tmp_path / "a.png").ids.tolist() == [9]
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(label_image, "MAX_PIXELS", 1000)
    with pytest.raises(
        AnnotationError,
        match=r"50 x 40 px is more than the 1000 px .* convert it to TIFF or OME-Zarr",
    ):
        load_label_image(tmp_path / "a.png")


def refusal(path):
    """What is said of a file that is refused; "" for one that is read."""
    try:
        load_label_image(path)
    except AnnotationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("codec", ["png", "lzw", "zlib"])
def test_a_damaged_label_image_is_refused_wherever_it_is_damaged(tmp_path, codec):
    rng = np.random.default_rng(0)
    values, path = rng.integers(0, 99, (30, 40)).astype(np.uint16), tmp_path / f"a.{codec}"
    if codec == "png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, compression=codec)
    whole, found = path.read_bytes(), []
    for place in np.concatenate(
        [np.arange(8, 30), rng.integers(60, len(whole), 60), len(whole) - 1 - np.arange(60)]
    ):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        found.append(refusal(path))
    assert all(text.startswith(f"{path}: ") for text in found if text)
    assert np.count_nonzero(found) > 50


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_labels_compressed_as_jpeg_are_refused_and_masks_with_a_threshold_are_not(tmp_path, name):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    if name == "a.jpg":
        Image.fromarray(mask).save(tmp_path / name, quality=80)
    else:
        tifffile.imwrite(tmp_path / name, mask, tile=(64, 64), compression="jpeg")
    for kind in ("object", "region"):
        with pytest.raises(AnnotationError, match=rf"{name}: compressed as JPEG"):
            load_label_image(tmp_path / name, kind=kind)
    assert load_label_image(tmp_path / name, threshold=127).labels.sum() == 32 * 32
    assert [r.place for r in read_pixels(tmp_path / name).records] == ["piece 1"]
    for choice in ({"meaning": "labels"}, {"meaning": "mask", "threshold": None}):
        with pytest.raises(AnnotationError, match="compressed as JPEG"):
            read_pixels(tmp_path / name, **choice)


@pytest.mark.parametrize("sort", ["pages", "imagej", "pages of two types"])
def test_a_tiff_of_several_label_images_is_refused(tmp_path, sort):
    path = tmp_path / "a.tif"
    if sort == "imagej":
        tifffile.imwrite(path, np.zeros((3, 30, 40), np.uint16), imagej=True)
    else:
        with tifffile.TiffWriter(path) as tiff:
            for dtype in (np.uint16, np.uint8 if "types" in sort else np.uint16):
                tiff.write(np.zeros((30, 40), dtype))
    with pytest.raises(AnnotationError, match=r"a\.tif: holds [23] pictures of one size"):
        load_label_image(path)


@pytest.mark.parametrize("levels", ["pages", "subifds"])
def test_the_levels_of_a_pyramid_are_no_other_label_images(tmp_path, levels):
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=levels == "subifds") as tiff:
        tiff.write(values, subifds=2 if levels == "subifds" else None)
        for step in (2, 4):
            tiff.write(values[::step, ::step], subfiletype=1)
    assert load_label_image(tmp_path / "a.tif").ids.tolist() == list(range(1, 1200))


@pytest.mark.parametrize("tile", [None, (32, 16)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0), (0.125, 0.125), (1.1, 1.1)])
def test_a_crop_of_a_label_image_takes_the_pixel_under_each_centre(tmp_path, tile, scale):
    values = np.random.default_rng(1).integers(0, 99, (100, 70)).astype(np.uint32)
    values[:32, :16] = 0
    tifffile.imwrite(
        tmp_path / "a.tiff", values, tile=tile, rowsperstrip=None if tile else 7, compression="zlib"
    )
    shape = round(100 / scale[0]) + 3, round(70 / scale[1])
    names = [str(k) for k in range(1, 99)]
    image = load_label_image(tmp_path / "a.tiff", classes=names, kind="region")
    got = image.regions(Box(0, 0, *shape), Scale(*scale))
    rows = np.floor((np.arange(shape[0]) + 0.5) * scale[0]).astype(int)
    cols = np.floor((np.arange(shape[1]) + 0.5) * scale[1]).astype(int)
    np.testing.assert_array_equal(got, np.pad(values, 40)[np.ix_(rows + 40, cols + 40)])
