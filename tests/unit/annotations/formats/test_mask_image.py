"""Masks: what a value or a colour means is stated, cannot be mistaken, or is refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.annotations.formats.mask_image import mask_of
from quadrat.annotations.formats.pixels import read_pixels
from quadrat.core.errors import AnnotationError

ONE, TWO = ["Tumor"], ["Tumor", "Stroma"]
NUMBERS = np.zeros((8, 9), np.uint8)
NUMBERS[1:3, 1:5], NUMBERS[4:6, 3:6] = 1, 2
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
COLOURED = np.array([(0, 0, 0), RED, GREEN], np.uint8)[NUMBERS]


def read(path, classes, *, threshold=None, colours=None):
    return mask_of(
        read_pixels(path), classes=classes, threshold=threshold, colours=colours or {}, path=path
    )


def png(path, values, palette=None, mode=None):
    image = Image.fromarray(values, "P" if palette else None)
    if palette:
        image.putpalette([channel for colour in palette for channel in colour])
    (image.convert(mode) if mode else image).save(path)
    return path


def foreground(tmp_path, sort):
    """A file in which value 1 of ``NUMBERS`` is the foreground."""
    one = (NUMBERS == 1).astype(np.uint8)
    tif = tmp_path / "a.tif"
    if sort == "1 bit png":
        return png(tmp_path / "a.png", one * 255, mode="1")
    if sort == "white on black palette":
        return png(tmp_path / "a.png", one, [(0, 0, 0), WHITE])
    if sort == "white before black in the palette":
        return png(tmp_path / "a.png", 1 - one, [WHITE, (0, 0, 0)])
    if sort == "rgb":
        return png(tmp_path / "a.png", np.dstack([one * 255] * 3))
    if sort == "grey with alpha":
        return png(tmp_path / "a.png", np.dstack([one * 255, np.full_like(one, 255)]))
    if sort == "soft edges":
        return png(tmp_path / "a.png", one * 220 + np.arange(9, dtype=np.uint8) * (1 - one))
    if sort == "1 bit tiff":
        tifffile.imwrite(tif, one.astype(bool))
    else:
        tifffile.imwrite(tif, one.astype(sort) * np.iinfo(sort).max)
    return tif


@pytest.mark.parametrize(
    "sort",
    [
        "1 bit png", "1 bit tiff", "white on black palette", "white before black in the palette",
        "rgb", "grey with alpha", "soft edges", "uint8", "uint16", "uint32",
    ],
)  # fmt: skip
def test_white_of_black_and_white_is_the_only_class(tmp_path, sort):
    mask = read(foreground(tmp_path, sort), ONE)
    np.testing.assert_array_equal(mask.numbers, NUMBERS == 1)
    assert mask.foreground
    assert mask.meaning.endswith("is 'Tumor' (8 px)")


@pytest.mark.parametrize("sort", ["png", "palette png", "palette tiff", "uint16", "bool of one"])
def test_numbers_up_to_the_last_class_are_class_numbers(tmp_path, sort):
    path, palette = tmp_path / "a.tif", [(0, 0, 0), RED, GREEN]
    if "png" in sort:
        path = png(tmp_path / "a.png", NUMBERS, palette if "palette" in sort else None)
    elif sort == "palette tiff":
        colormap = np.zeros((3, 256), np.uint16)
        colormap[:, :3] = np.array(palette).T * 257
        tifffile.imwrite(path, NUMBERS, photometric="palette", colormap=colormap)
    else:
        tifffile.imwrite(path, NUMBERS.astype(np.uint16))
    mask = read(path, TWO)
    np.testing.assert_array_equal(mask.numbers, NUMBERS)
    assert mask.meaning == "value 1 is 'Tumor' (8 px), value 2 is 'Stroma' (6 px)"
    assert not mask.foreground


@pytest.mark.parametrize(
    ("values", "palette", "classes", "message"),
    [
        (NUMBERS, None, ONE, r"of no class \(2: 6 px\); the classes are numbered 1 to 1 \(Tumor\)"),
        ((NUMBERS > 0) * 7, None, ONE, r"of no class \(7: 14 px\).* data\.mask_threshold"),
        ((NUMBERS > 0) * 255, None, TWO, r"of no class \(255: 14 px\)"),
        (np.where(NUMBERS == 2, 255, NUMBERS), None, ONE, r"of no class \(255: 6 px\)"),
        (NUMBERS * 85, None, TWO, r"of no class \(85: 8 px, 170: 6 px\).*data\.mask_colours"),
        (
            np.where(NUMBERS == 2, 3, NUMBERS),
            [(0, 0, 0), RED, (1, 2, 3), GREEN],
            TWO,
            r"3 \(colour 0, 255, 0\): 6 px",
        ),
        (
            COLOURED,
            None,
            TWO,
            r"a picture of 3 colours \(\(0, 0, 0\): 58 px, \(255, 0, 0\): 8 px, ",
        ),
    ],
)
def test_values_that_may_mean_anything_are_named_and_refused(
    tmp_path, values, palette, classes, message
):
    path = png(tmp_path / "a.png", values.astype(np.uint8), palette)
    with pytest.raises(AnnotationError, match=rf"a\.png: .*{message}"):
        read(path, classes)


TABLE = {RED: "Tumor", GREEN: "Stroma"}


@pytest.mark.parametrize("sort", ["rgb", "rgba", "palette", "tiff", "planes of a tiff", "white"])
def test_a_table_says_which_colour_is_which_class(tmp_path, sort):
    path, colours = tmp_path / "a.tif", TABLE
    if sort == "tiff":
        tifffile.imwrite(path, COLOURED)
    elif sort == "planes of a tiff":
        tifffile.imwrite(
            path, np.moveaxis(COLOURED, -1, 0), photometric="rgb", planarconfig="separate"
        )
    elif sort == "rgba":  # what is transparent is of no class, whatever its colour
        alpha = np.where(NUMBERS > 0, 255, 0).astype(np.uint8)
        odd = np.where(NUMBERS[..., None] > 0, COLOURED, 77).astype(np.uint8)
        path = png(tmp_path / "a.png", np.dstack([odd, alpha]))
    elif sort == "palette":
        path = png(tmp_path / "a.png", NUMBERS, [(0, 0, 0), RED, GREEN])
    elif sort == "white":
        odd = np.where(NUMBERS[..., None] > 0, COLOURED, 255).astype(np.uint8)
        path, colours = png(tmp_path / "a.png", odd), TABLE | {WHITE: "none"}
    else:
        path = png(tmp_path / "a.png", COLOURED)
    mask = read(path, TWO, colours=colours)
    np.testing.assert_array_equal(mask.numbers, NUMBERS)
    assert "colour 255, 0, 0 is 'Tumor' (8 px), colour 0, 255, 0 is 'Stroma' (6 px)" in mask.meaning


def test_two_colours_may_be_one_class_and_greys_and_black_may_be_classes(tmp_path):
    mask = read(png(tmp_path / "a.png", COLOURED), ONE, colours=dict.fromkeys(TABLE, "Tumor"))
    np.testing.assert_array_equal(mask.numbers, NUMBERS > 0)
    grey = png(tmp_path / "b.png", NUMBERS * 85)
    mask = read(grey, TWO, colours={(85, 85, 85): "Stroma", (170, 170, 170): "Tumor"})
    np.testing.assert_array_equal(mask.numbers, np.array([0, 2, 1])[NUMBERS])
    mask = read(png(tmp_path / "a.png", COLOURED), ["a", "b", "c"], colours={
        (0, 0, 0): "c", RED: "a", GREEN: "b"
    })  # fmt: skip
    np.testing.assert_array_equal(mask.numbers, np.array([3, 1, 2])[NUMBERS])


def test_colours_that_are_not_in_the_table_are_named(tmp_path):
    with pytest.raises(
        AnnotationError,
        match=r"a\.png: colours that are not in data\.mask_colours \(\(0, 255, 0\): 6 px\); add",
    ):
        read(png(tmp_path / "a.png", COLOURED), TWO, colours={RED: "Tumor"})
    half = np.dstack([COLOURED, np.full(NUMBERS.shape, 128, np.uint8)])
    with pytest.raises(AnnotationError, match="half transparent"):
        read(png(tmp_path / "b.png", half), TWO, colours=TABLE)
    tifffile.imwrite(tmp_path / "a.tif", COLOURED.astype(np.uint16), photometric="rgb")
    with pytest.raises(AnnotationError, match="more than 8 bits a channel"):
        read(tmp_path / "a.tif", TWO, colours=TABLE)


def test_a_threshold_that_is_stated_is_obeyed(tmp_path):
    path = png(tmp_path / "a.png", NUMBERS)
    mask = read(path, TWO, threshold=1)
    np.testing.assert_array_equal(mask.numbers, NUMBERS == 2)
    assert mask.meaning == "what is above 1 is 'Tumor' (6 px)"
    with pytest.raises(AnnotationError, match=r"highest value of this mask is 2, .*\(127\)"):
        read(path, TWO, threshold=127)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_mask_of_nothing_is_read_as_such(tmp_path, name):
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, NUMBERS * 0)
    else:
        Image.fromarray(NUMBERS * 0).save(tmp_path / name)
    for classes in (ONE, TWO):
        assert not read(tmp_path / name, classes).numbers.any()
