"""Label images and masks as records, whatever holds them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.annotation_files import read, sample
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import AnnotationError
from quadrat.core.objects import Frame
from quadrat.store.ome_zarr import create_label_image


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
    sheet = read(tmp_path / "b.png", pixels="mask", classes=("gland", "duct"))
    assert [(r.place, r.name, geometry_of(r).area) for r in sheet.records] == [
        ("class 1", "gland", 6),
        ("class 2", "duct", 6),
    ]
    assert sheet.notes == ("read as a mask: value 1 is 'gland' (6 px), value 2 is 'duct' (6 px)",)
    table = {(1, 1, 1): "duct", (2, 2, 2): "gland"}
    other = read(tmp_path / "b.png", pixels="mask", classes=("gland", "duct"), colours=table)
    assert [(r.place, r.name) for r in other.records] == [("class 1", "gland"), ("class 2", "duct")]
    assert [len(one.records) for one in (read(tmp_path / "b.png"), other)] == [2, 2]


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
