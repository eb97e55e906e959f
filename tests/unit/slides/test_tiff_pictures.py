"""Which picture of a TIFF is the slide, and which pages are its levels, whatever their order."""

import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from helpers.tiffs import picture
from quadrat.core.errors import SlideError
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.tiff_pictures import is_reduction

SLIDE = picture(256, 320)
MACRO = picture(60, 150, seed=9)
TILE = (64, 64)


def halved(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor]
    return blocks.reshape(height, factor, width, factor, 3).mean((1, 3)).round().astype(np.uint8)


LEVELS = (SLIDE, halved(SLIDE, 2), halved(SLIDE, 4))
SIZES = [(256, 320), (128, 160), (64, 80)]


def written(path: Path, *pages: tuple[np.ndarray, dict[str, Any]], ome: bool = False) -> Path:
    with tifffile.TiffWriter(path, ome=ome) as out:
        for pixels, options in pages:
            common = {"photometric": "rgb"} | ({} if ome else {"metadata": None})
            out.write(pixels, **common | options)
    return path


def image(pixels: np.ndarray, name: str, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    return pixels, {"tile": TILE, "metadata": {"Name": name, "axes": "YXS"}} | options


def sizes(slide: Slide) -> list[tuple[int, int]]:
    return [level.box.shape for level in slide.levels]


def shows_the_slide(slide: Slide) -> bool:
    return bool((slide.read(0, slide.levels[0].box) == SLIDE).all())


@pytest.mark.parametrize("order", permutations(range(3)))
@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("tile", [TILE, None])
def test_the_largest_page_is_the_slide_and_the_others_are_its_levels_in_any_order(
    tmp_path: Path, order: tuple[int, ...], flagged: bool, tile: tuple[int, int] | None
) -> None:
    pages = [(LEVELS[at], {"tile": tile, "subfiletype": int(flagged and at > 0)}) for at in order]
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert sizes(slide) == SIZES
        assert shows_the_slide(slide)
        for level, pixels in enumerate(LEVELS):
            np.testing.assert_array_equal(slide.read(level, slide.levels[level].box), pixels)


@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("first", [False, True])
def test_a_page_that_is_no_reduction_of_the_slide_is_no_level(
    tmp_path: Path, flag: int, first: bool
) -> None:
    pages = [(SLIDE, {"tile": TILE}), (LEVELS[1], {"tile": TILE, "subfiletype": 1})]
    pages.insert(0 if first else 1, (MACRO, {"tile": TILE, "subfiletype": flag}))
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert sizes(slide) == SIZES[:2]
        assert shows_the_slide(slide)
        assert any("(150 x 60 px)" in note for note in slide.info.notes) or not first


@pytest.mark.parametrize("flag", [0, 1])
def test_a_page_as_large_as_a_level_that_shows_something_else_is_no_level_and_it_is_said(
    tmp_path: Path, flag: int
) -> None:
    other = halved(picture(256, 320, seed=7), 2)
    pages = [(SLIDE, {"tile": TILE}), (other, {"tile": TILE, "subfiletype": flag})]
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert sizes(slide) == SIZES[:1]
        assert any("shows something else: 160 x 128 px" in note for note in slide.info.notes)


def test_levels_of_every_second_pixel_are_levels(tmp_path: Path) -> None:
    noisy = np.random.default_rng(1).integers(0, 256, SLIDE.shape, np.uint8)
    mixed = ((SLIDE.astype(int) * 3 + noisy) // 4).astype(np.uint8)
    pages = [(np.ascontiguousarray(mixed[::k, ::k]), {"tile": TILE}) for k in (1, 2, 4)]
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert sizes(slide) == SIZES


@pytest.mark.parametrize("name", ["macro", "label", "Thumbnail image", "overview"])
def test_an_ome_image_that_is_no_slide_by_its_name_or_size_is_listed(
    tmp_path: Path, name: str
) -> None:
    large = np.kron(MACRO, np.ones((8, 8, 1), np.uint8))
    file = written(tmp_path / "a.ome.tif", image(large, name), image(SLIDE, "scan"), ome=True)
    with open_slide(file) as slide:
        assert shows_the_slide(slide)
        assert slide.info.associated == (name,)


@pytest.mark.parametrize("name", ["CD68 macrophages 40x", "unlabelled", "overviews"])
def test_a_word_inside_another_word_says_nothing_of_a_picture(tmp_path: Path, name: str) -> None:
    small = image(halved(picture(200, 320, seed=3), 4), "Image 2")
    with open_slide(written(tmp_path / "a.ome.tif", small, image(SLIDE, name), ome=True)) as slide:
        assert shows_the_slide(slide)


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize("flag", [0, 1])
def test_pictures_of_like_size_and_the_same_shape_are_refused_unless_one_is_a_level(
    tmp_path: Path, ome: bool, flag: int
) -> None:
    core, other = picture(250, 250), picture(200, 200, seed=5)
    pages = [
        (pixels, {"tile": TILE, "subfiletype": flag * at})
        for at, pixels in enumerate((core, other))
    ]
    images = [image(core, "core A"), image(other, "core B")]
    file = written(tmp_path / "a.ome.tif", *(images if ome else pages), ome=ome)
    with pytest.raises(SlideError, match=r"2 pictures of like size: 0.* \(250 x 250 px\), 1"):
        open_slide(file)
    with open_slide(file, scene="1") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), other)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_of_several_pages_of_the_size_of_a_level_the_one_that_shows_the_slide_is_it(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    pages = (SLIDE, LEVELS[1], halved(picture(256, 320, seed=7), 2))
    file = written(tmp_path / "a.tif", *((pages[at], {"tile": TILE}) for at in order))
    with open_slide(file) as slide:
        assert sizes(slide) == SIZES[:2]
        np.testing.assert_array_equal(slide.read(1, slide.levels[1].box), LEVELS[1])
        assert any(f"others: {order.index(2)} (160 x 128 px)" in note for note in slide.info.notes)


def test_the_image_of_ome_is_known_by_its_plane_and_not_by_its_place_in_the_list(
    tmp_path: Path,
) -> None:
    def described(number: int, name: str, ifd: int, size: tuple[int, int], um: float) -> str:
        sides = f'SizeX="{size[1]}" SizeY="{size[0]}" SizeC="3" SizeZ="1" SizeT="1"'
        return (
            f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" '
            f'DimensionOrder="XYCZT" Type="uint8" {sides} PhysicalSizeX="{um}" '
            f'PhysicalSizeY="{um}"><Channel ID="Channel:{number}" SamplesPerPixel="3"/>'
            f'<TiffData IFD="{ifd}" PlaneCount="1"/></Pixels></Image>'
        )

    small = picture(128, 160, seed=9)
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        + described(0, "slide", 1, SLIDE.shape[:2], 0.5)
        + described(1, "other", 0, small.shape[:2], 8.0)
        + "</OME>"
    )
    pages = [(small, {"tile": TILE, "description": xml}), (SLIDE, {"tile": TILE})]
    with open_slide(written(tmp_path / "a.ome.tif", *pages)) as slide:
        assert shows_the_slide(slide)
        assert slide.mpp == (0.5, 0.5)


def test_a_level_that_cannot_be_read_is_left_out_and_the_slide_is_read(tmp_path: Path) -> None:
    pages = [
        (SLIDE, {"tile": TILE}),
        (np.moveaxis(LEVELS[1], -1, 0), {"tile": TILE, "planarconfig": "separate"}),
        (LEVELS[2], {"tile": TILE}),
    ]
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert sizes(slide) == [SIZES[0], SIZES[2]]


def test_the_mpp_is_that_of_the_picture_that_is_shown(tmp_path: Path) -> None:
    def sized(um: float) -> dict[str, float]:
        return {f"PhysicalSize{axis}": um for axis in "XY"}

    macro = image(MACRO, "first", metadata={"axes": "YXS"} | sized(20.0))
    scan = image(SLIDE, "second", metadata={"axes": "YXS"} | sized(0.5))
    with open_slide(written(tmp_path / "a.ome.tif", macro, scan, ome=True)) as slide:
        assert slide.mpp == (0.5, 0.5)


def test_pyramid_levels_that_are_images_of_their_own_are_levels(tmp_path: Path) -> None:
    images = [image(LEVELS[at], f"resolution {at}") for at in (2, 0, 1)]
    with open_slide(written(tmp_path / "a.ome.tif", *images, ome=True)) as slide:
        assert sizes(slide) == SIZES
        assert shows_the_slide(slide)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    other = picture(250, 300, seed=2)
    return written(tmp_path / "a.ome.tif", image(SLIDE, "A"), image(other, "B"), ome=True)


def test_several_scenes_of_like_size_are_refused_with_their_names(scenes: Path) -> None:
    with pytest.raises(
        SlideError,
        match=r"2 pictures of like size: 0 'A' \(320 x 256 px\), 1 'B' \(300 x 250 px\); choose "
        r"one with --scene",
    ):
        open_slide(scenes)


@pytest.mark.parametrize(
    ("scene", "size"), [("A", (256, 320)), ("1", (250, 300)), ("B", (250, 300))]
)
def test_a_scene_is_chosen_by_name_or_number_and_the_choice_is_pickled(
    scenes: Path, scene: str, size: tuple[int, int]
) -> None:
    with open_slide(scenes, scene=scene) as slide, pickle.loads(pickle.dumps(slide)) as again:
        assert sizes(slide) == sizes(again) == [size]
        np.testing.assert_array_equal(
            slide.read(0, slide.levels[0].box), again.read(0, slide.levels[0].box)
        )


@pytest.mark.parametrize("scene", ["C", "2", "-1"])
def test_a_scene_that_is_not_there_is_refused_with_those_that_are(scenes: Path, scene: str) -> None:
    with pytest.raises(SlideError, match=rf"no pictures are called '{scene}'; it holds 0 'A'"):
        open_slide(scenes, scene=scene)


def test_a_format_with_one_picture_has_no_scenes(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(MACRO).save(tmp_path / "a.png")
    with pytest.raises(SlideError, match="PNG is read as one picture, so it has no scene 'x'"):
        open_slide(tmp_path / "a.png", scene="x")


def test_a_stack_of_pictures_is_refused_and_one_of_them_can_be_chosen(tmp_path: Path) -> None:
    pages = [(picture(64, 80, seed=seed), {}) for seed in range(12)]
    file = written(tmp_path / "a.tif", *pages)
    with pytest.raises(SlideError, match=r"12 pictures of like size: .* and 4 more; choose one"):
        open_slide(file)
    with open_slide(file, scene="7") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), pages[7][0])


def test_a_mask_of_the_slide_is_not_another_slide(tmp_path: Path) -> None:
    mask = (SLIDE[..., 0] > 99).astype(np.uint8)
    pages = (SLIDE, {}), (mask, {"photometric": "minisblack"})
    with open_slide(written(tmp_path / "a.tif", *pages)) as slide:
        assert shows_the_slide(slide)
        assert sizes(slide) == SIZES[:1]


@pytest.mark.parametrize(
    ("small", "large", "is_one"),
    [
        ((2221, 1000), (4443, 2000), True),
        ((2222, 1000), (4443, 2000), True),
        ((100, 100), (6400, 6437), True),
        ((128, 160), (256, 320), True),
        ((128, 150), (256, 320), False),
        ((256, 160), (256, 320), False),
        ((256, 320), (256, 320), False),
        ((512, 640), (256, 320), False),
    ],
)
def test_a_reduction_has_one_factor_for_both_sides_up_to_a_pixel(
    small: tuple[int, int], large: tuple[int, int], is_one: bool
) -> None:
    assert is_reduction(small, large) == is_one
