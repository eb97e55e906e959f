"""Label images and masks as they lie in files: their values are exact, or they are refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.annotations.formats import label_image
from quadrat.annotations.formats.label_image import from_array, load_label_image
from quadrat.annotations.formats.pixel_records import read_pixels
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale


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
