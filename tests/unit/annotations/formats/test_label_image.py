"""Label images as a source of truth."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.annotations.formats.label_image import from_array, load_label_image
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


def test_label_images_that_are_none_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(
        tmp_path / "rgb.png"
    )
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(AnnotationError, match=r"holds colours; want one channel .*mask_colours"):
        load_label_image(tmp_path / "rgb.png")
    with pytest.raises(AnnotationError, match="cannot be read"):
        load_label_image(tmp_path / "text.png")
    with pytest.raises(AnnotationError, match="value 3 has no class"):
        from_array(np.array([[3]], np.uint8), classes=["a", "b"], kind="region")


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
