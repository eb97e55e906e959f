"""COCO files: boxes, polygons, masks and points of the picture that is asked for."""

import json

import numpy as np
import pytest
import shapely

from helpers.annotation_files import faults, read
from quadrat.annotations.formats.coco import orphans
from quadrat.annotations.formats.reading import pictures
from quadrat.annotations.formats.rle import compress, runs_of_mask
from quadrat.annotations.record import to_annotations
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale

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


@pytest.mark.parametrize(
    ("listed", "named"), [(7, "7"), ("7", 7), ("7", "7"), ("a", "a"), ("007", "007"), (7.0, "7")]
)
def test_an_id_may_be_a_number_or_text(tmp_path, listed, named):
    image = {"id": listed, "file_name": "a.png"}
    category = {"id": listed, "name": "cell"}
    box = {"image_id": named, "category_id": named, "bbox": [0, 0, 4, 4]}
    path = coco(tmp_path, box, images=[image], categories=[category])
    assert [record.name for record in read(path, "a.png").records] == ["cell"]
    assert orphans(path) == []


@pytest.mark.parametrize(("listed", "named"), [("007", 7), ("7a", 7), (7, "7.0"), (7, "8")])
def test_text_that_is_another_id_is_not_taken_for_the_number(tmp_path, listed, named):
    image = {"id": listed, "file_name": "a.png"}
    path = coco(tmp_path, {"image_id": named, "bbox": [0, 0, 4, 4]}, images=[image])
    assert read(path, "a.png").records == ()
    assert orphans(path) == ["annotation 100"]


def test_two_pictures_of_one_number_are_refused_however_it_is_written(tmp_path):
    images = [{"id": 7, "file_name": "a.png"}, {"id": "7", "file_name": "b.png"}]
    with pytest.raises(AnnotationError, match="image numbers 1 and 2 both have the id 7"):
        read(coco(tmp_path, images=images), "a.png")
