"""Label images and masks as they lie in files: their values are exact, or they are refused."""

import struct
from zlib import compress, crc32

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.annotations.formats import pixels
from quadrat.annotations.formats.label_image import load_label_image
from quadrat.annotations.formats.pixel_records import read_picture
from quadrat.annotations.shapes import geometry_of
from quadrat.core.errors import AnnotationError


def test_a_label_image_of_more_pixels_than_pillow_opens_by_itself_is_read(tmp_path, monkeypatch):
    values = np.zeros((40, 50), np.uint8)
    values[3, 4] = 9
    Image.fromarray(values).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_label_image(tmp_path / "a.png").ids.tolist() == [9]
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
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
def test_jpeg_is_refused_where_values_are_numbers_and_not_where_it_is_black_and_white(
    tmp_path, name
):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    if name == "a.jpg":
        Image.fromarray(mask).save(tmp_path / name, quality=80)
    else:
        tifffile.imwrite(tmp_path / name, mask, tile=(64, 64), compression="jpeg")
    for kind in ("object", "region"):
        with pytest.raises(AnnotationError, match=rf"{name}: compressed as JPEG"):
            load_label_image(tmp_path / name, kind=kind)
    for choice in ({}, {"meaning": "mask", "classes": ["a"]}):
        (piece,) = read_picture(tmp_path / name, **choice).records
        assert (piece.place, geometry_of(piece).area) == ("piece 1", 32 * 32)
    for choice in (
        {"meaning": "labels"},
        {"meaning": "mask", "classes": ["a", "b"]},
        {"meaning": "mask", "classes": ["a"], "colours": {(255, 255, 255): "a"}},
    ):
        with pytest.raises(AnnotationError, match="compressed as JPEG"):
            read_picture(tmp_path / name, **choice)


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


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 30, 40), {}),
        ((30, 40, 1), {}),
        ((1, 1, 30, 40), {"ome": True, "metadata": {"axes": "ZCYX"}}),
        ((1, 30, 40), {"imagej": True, "metadata": {"axes": "ZYX"}}),
        ((1, 30, 40), {"volumetric": True, "tile": (1, 16, 16)}),
        ((3, 30, 40), {"photometric": "rgb", "planarconfig": "separate"}),
        ((30, 40, 3), {"photometric": "rgb"}),
    ],
)
def test_a_tiff_with_axes_of_one_or_of_equal_colours_is_one_picture(tmp_path, shape, options):
    plane = np.random.default_rng(0).integers(0, 9, (30, 40)).astype(np.uint8)
    values = np.empty(shape, np.uint8)
    values[...] = plane[..., None] if shape[-1] in (1, 3) else plane
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    found = pixels.read_pixels(tmp_path / "a.tif").values
    np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize(
    ("sort", "message"),
    [
        ("float", r"float32\(4, 5\) is not a label image; want one channel of whole numbers"),
        ("negative", r"int16\(4, 5\) is not a label image"),
        ("two channels", "2 channels that are not red, green and blue"),
        ("inks", "4 channels that are not red, green and blue"),
        ("cmyk", "pixel mode CMYK"),
    ],
)
def test_pictures_that_are_neither_numbers_nor_colours_are_refused(tmp_path, sort, message):
    path, values = tmp_path / "a.tif", np.full((4, 5), -1)
    if sort == "cmyk":
        path = tmp_path / "a.jpg"
        Image.new("CMYK", (5, 4)).save(path)
    elif sort == "float":
        tifffile.imwrite(path, values.astype(np.float32))
    elif sort == "negative":
        tifffile.imwrite(path, values.astype(np.int16))
    elif sort == "inks":
        tifffile.imwrite(path, np.zeros((4, 5, 4), np.uint8), photometric="separated")
    else:
        tifffile.imwrite(
            path, np.zeros((4, 5, 2), np.uint8), photometric="minisblack", planarconfig="contig"
        )
    with pytest.raises(AnnotationError, match=message):
        pixels.read_pixels(path)


def test_an_index_beyond_the_palette_of_a_png_is_black(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", 3, 1, 8, 3, 0, 0, 0)  # 3 x 1 px, 8 bits, with a palette
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", bytes([0, 0, 0, 200, 10, 10]))]
    parts += [chunk(b"IDAT", compress(bytes([0, 0, 1, 255]))), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    found = pixels.read_pixels(tmp_path / "a.png")
    assert found.values.tolist() == [[0, 1, 255]]
    assert found.palette[found.values].tolist() == [[[0, 0, 0], [200, 10, 10], [0, 0, 0]]]


@pytest.mark.parametrize("factor", [1, 257])
def test_a_palette_of_a_tiff_has_the_colours_that_viewers_show(tmp_path, factor):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1:3] = [[255, 0], [0, 255], [0, 7]]
    values = np.array([[0, 1], [2, 1]], np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        photometric="palette",
        colormap=(colours * factor).astype(np.uint16),
    )
    palette = pixels.read_pixels(tmp_path / "a.tif").palette
    assert palette[1:3].tolist() == [[255, 0, 0], [0, 255, 7]]
