import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from helpers import tiffs
from helpers.tiffs import JPEG, LOST, LOST_TILE, reference
from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box
from quadrat.slides import openslide as openslide_module
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.tile_codec import TileCodec

PICTURE = tiffs.picture()
KINDS = ("jpeg", "jpeg_rgb", "jpeg2000", "jpeg2000_ycbcr", "zlib", "lzw", "none")


@pytest.mark.parametrize("kind", KINDS)
def test_native_tiles_are_openslides_pixels_edge_tiles_included(tmp_path: Path, kind: str) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    with open_slide(path) as slide:
        assert slide.info.reader == "native tiles"
        for index, level in enumerate(slide.levels):
            np.testing.assert_array_equal(
                slide.read(index, level.box), reference(path, index, level.box)
            )


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_that_can_be_moved_decode_to_what_is_read(tmp_path: Path, kind: str) -> None:
    with open_slide(tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)) as slide:
        grid = slide.tiles(1)
        if kind not in JPEG:
            assert grid is None
            return
        assert grid is not None
        assert grid.tile == (128, 128)
        codec = TileCodec.from_json(grid.codec.to_json())
        assert codec == grid.codec
        for row, col in ((0, 0), (2, 3)):
            place = (
                Box(row, col, row + 1, col + 1).scale_out(128, 128).intersect(slide.levels[1].box)
            )
            pixels = codec.decode(grid.data(row, col))
            assert (pixels.shape, pixels.dtype) == ((128, 128, 3), np.uint8)
            np.testing.assert_array_equal(
                pixels[: place.height, : place.width], slide.read(1, place)
            )


def test_the_tag_says_what_a_jpeg_holds_and_not_the_streams_own_marker(tmp_path: Path) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    for level in (0, 1):
        tiffs.state_photometric(path, level, 2)
    with open_slide(path) as slide:  # wrong colours, and the reference's own
        assert slide.info.reader == "native tiles"
        np.testing.assert_array_equal(
            slide.read(0, slide.levels[0].box), reference(path, 0, slide.levels[0].box)
        )


def lost_by(slide: Slide, box: Box) -> tuple[int, Box]:
    with pytest.raises(
        DamagedTileError, match=r"the tile at .* is damaged .*slide\.damaged=mark"
    ) as caught:
        slide.read(0, box)
    other = pickle.loads(pickle.dumps(caught.value))
    assert (str(other), other.level, other.box) == (
        str(caught.value),
        caught.value.level,
        caught.value.box,
    )
    return caught.value.level, Box(*caught.value.box)


def check_one_lost_tile(path: Path) -> None:
    whole = reference(path.with_name("sound.svs"), 0, Box(0, 0, 700, 900))
    with open_slide(path) as slide:
        for box in (LOST, Box(0, 0, 700, 900), Box(383, 511, 384, 512), Box(256, 384, 257, 385)):
            assert lost_by(slide, box) == (0, LOST)
        for box in (
            Box(0, 0, 256, 900),
            Box(256, 512, 700, 900),
            Box(384, 0, 700, 900),
            Box(200, 0, 700, 384),
        ):
            np.testing.assert_array_equal(
                slide.read(0, box), whole[box.slices_in(Box(0, 0, 700, 900))]
            )
        assert slide.read(1, slide.levels[1].box).shape == (350, 450, 3)


@pytest.mark.parametrize("kind", JPEG)
def test_a_damaged_tile_is_lost_alone_through_native_tiles(tmp_path: Path, kind: str) -> None:
    tiffs.write(tmp_path / "sound.svs", PICTURE, kind=kind)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    tiffs.zero_tile(path, 0, LOST_TILE)
    check_one_lost_tile(path)
    with open_slide(path) as slide:
        assert slide.info.reader == "native tiles"
        grid = slide.tiles(0)
        assert grid is not None
        with pytest.raises(DamagedTileError):
            grid.data(2, 3)


@pytest.mark.usefixtures("openslide_alone")
@pytest.mark.parametrize("kind", JPEG)
def test_a_damaged_tile_is_lost_alone_through_openslide(tmp_path: Path, kind: str) -> None:
    tiffs.write(tmp_path / "sound.svs", PICTURE, kind=kind)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    tiffs.zero_tile(path, 0, LOST_TILE)
    check_one_lost_tile(path)


def test_a_damaged_tile_among_the_checked_ones_does_not_cost_the_native_reader(
    tmp_path: Path,
) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    for tile in (0, 47):
        tiffs.zero_tile(path, 0, tile)
    with open_slide(path) as slide:
        assert slide.info.reader == "native tiles"
        assert lost_by(slide, Box(690, 0, 700, 900)) == (0, Box(640, 896, 700, 900))


@pytest.mark.parametrize("aperio", [True, False])
@pytest.mark.parametrize("level", [0, 1])
def test_a_tile_of_no_bytes_is_what_openslide_draws_whichever_reader_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aperio: bool, level: int
) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg", aperio=aperio)
    tiffs.drop_tile(path, level, 9)
    with open_slide(path) as slide:
        assert slide.info.reader.startswith("native tiles")
        assert slide.tiles(level) is None
        ours = [slide.read(index, one.box) for index, one in enumerate(slide.levels)]
    monkeypatch.setattr(openslide_module, "NATIVE_VENDORS", ())
    with open_slide(path) as slide:
        for index, one in enumerate(slide.levels):
            np.testing.assert_array_equal(slide.read(index, one.box), ours[index])
            np.testing.assert_array_equal(reference(path, index, one.box), ours[index])


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_that_changes_while_it_is_read_is_an_error_and_not_wrong_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        monkeypatch.setattr(openslide_module, "NATIVE_VENDORS", ())
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    with open_slide(path) as slide:
        slide.read(0, Box(0, 0, 9, 9))
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        with pytest.raises(
            SlideError, match=r"a\.svs: the file was changed while it was read"
        ) as caught:
            slide.read(0, Box(600, 600, 700, 700))
        assert not isinstance(caught.value, DamagedTileError)


def test_threads_read_the_same_pixels(tmp_path: Path) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    boxes = [
        Box(row, col, row + 200, col + 150)
        for row in range(0, 500, 100)
        for col in range(0, 700, 100)
    ]
    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
        for box, pixels in zip(
            boxes * 3, pool.map(lambda box: slide.read(0, box), boxes * 3), strict=True
        ):
            np.testing.assert_array_equal(pixels, slide.read(0, box))


def test_native_tiles_are_openslides_pixels_where_openslide_does_not_shift(wsi: Path) -> None:
    with open_slide(wsi / "CMU-1-Small-Region.svs") as slide:
        theirs = openslide.OpenSlide(str(wsi / "CMU-1-Small-Region.svs"))
        box = Box(1000, 700, 1700, 1650)
        want = np.asarray(theirs.read_region((box.col0, box.row0), 0, (box.width, box.height)))[
            ..., :3
        ]
        np.testing.assert_array_equal(slide.read(0, box), want)


def test_a_level_that_openslide_shifts_is_read_unshifted(wsi: Path) -> None:
    file = wsi / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(file) as slide, tifffile.TiffFile(file) as tiff:
        want = tiff.pages[2].asarray()
        np.testing.assert_array_equal(slide.read(1, slide.levels[1].box), want)
