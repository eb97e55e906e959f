"""Pictures that are to be turned are shown as viewers show them, and read in any part."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from helpers.tiffs import picture
from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides.opening import open_slide
from quadrat.slides.orientation import ORIENTATION, Orientation

PICTURE = np.random.default_rng(4).integers(0, 256, (40, 70, 3), np.uint8)


def shown(value: int) -> np.ndarray:
    """The picture as Pillow, which viewers follow, turns it."""
    exif = Image.Exif()
    exif[ORIENTATION] = value
    image = Image.fromarray(PICTURE)
    image.getexif()[ORIENTATION] = value
    return np.asarray(ImageOps.exif_transpose(image))


def written(path: Path, value: int, **options: object) -> Path:
    if path.suffix == ".tif":
        tags = [(ORIENTATION, 3, 1, value, True)]
        tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, extratags=tags, **options)
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = value
        Image.fromarray(PICTURE).save(path, exif=exif, quality=100, subsampling=0)
    return path


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_flat_picture_is_shown_as_viewers_show_it_whole_and_in_parts(
    tmp_path: Path, kind: str, value: int
) -> None:
    want = shown(value).astype(int)
    with open_slide(written(tmp_path / f"a.{kind}", value)) as slide:
        whole = slide.levels[0].box
        assert whole.shape == want.shape[:2]
        pixels = slide.read(0, whole).astype(int)
        assert np.abs(pixels - want).max() <= (0 if kind != "jpg" else 12)
        part = Box(7, 11, 30, 38)
        np.testing.assert_array_equal(slide.read(0, part), pixels[part.slices_in(whole)])
        assert slide.tiles(0) is None or value == 1
        assert [f"orientation ({value})" in note for note in slide.info.notes] == [True] * (
            value != 1
        )


@pytest.mark.parametrize("value", range(2, 9))
def test_a_tiled_picture_that_is_turned_is_refused(tmp_path: Path, value: int) -> None:
    """OpenSlide turns each tile by itself, other programs turn the whole or nothing."""
    with pytest.raises(SlideError, match=f"a tiled picture with the orientation {value}, which"):
        open_slide(written(tmp_path / "a.tif", value, tile=(16, 16)))


def test_an_orientation_that_nobody_knows_is_upright(tmp_path: Path) -> None:
    assert Orientation(9).is_upright
    with open_slide(written(tmp_path / "a.png", 9)) as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), PICTURE)


def test_a_smaller_level_is_turned_with_the_picture(tmp_path: Path) -> None:
    file, tags = tmp_path / "a.tif", [(ORIENTATION, 3, 1, 6, True)]
    with tifffile.TiffWriter(file) as out:
        smooth = picture(40, 70)
        for pixels in (smooth, smooth[::2, ::2]):
            out.write(pixels, photometric="rgb", metadata=None, extratags=tags)
    with open_slide(file) as slide:
        assert [level.box.shape for level in slide.levels] == [(70, 40), (35, 20)]
        np.testing.assert_array_equal(
            slide.read(1, slide.levels[1].box), np.rot90(smooth[::2, ::2], -1)
        )


def test_the_mpp_of_rows_and_columns_turns_with_the_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    written(file, 6, resolution=(20000, 40000), resolutionunit="CENTIMETER")
    with open_slide(file) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.25))
