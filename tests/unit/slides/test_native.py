import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import tiffs
from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box, plan_read
from quadrat.slides import native as native_module
from quadrat.slides import openslide as openslide_module
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.source import SlideSource
from quadrat.slides.tile_codec import TileCodec, ycbcr_to_rgb

PICTURE = tiffs.picture()
KINDS = ("jpeg", "jpeg_rgb", "jpeg2000", "jpeg2000_ycbcr", "zlib", "lzw", "none")
JPEG = ("jpeg", "jpeg_rgb", "jpeg2000", "jpeg2000_ycbcr")
LOST = Box(256, 384, 384, 512)
"""Tile (2, 3) of level 0, the 19th of 8 columns of 128 px."""
LOST_TILE = 19


@pytest.fixture
def openslide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openslide_module, "NATIVE_VENDORS", ())


def reference(path: Path, level: int, box: Box) -> np.ndarray:
    with openslide.OpenSlide(str(path)) as slide:
        down = 2**level
        rgba = np.asarray(
            slide.read_region((box.col0 * down, box.row0 * down), level, (box.width, box.height))
        )
    return openslide_module.on_white(rgba)


def read(path: Path, level: int, box: Box) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(level, box)


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


def test_a_codec_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="webp"):
        TileCodec.from_json({"kind": "webp", "colorspace": "rgb", "tables": ""})


@pytest.mark.parametrize("kind", JPEG)
def test_a_stream_cut_short_or_zeroed_raises_and_never_gives_pixels(
    tmp_path: Path, kind: str
) -> None:
    with open_slide(tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)) as slide:
        grid = slide.tiles(0)
        assert grid is not None
        data, codec = grid.data(1, 1), grid.codec
    middle = len(data) // 2
    assert codec.flaw(data) is None
    for bad in (
        b"",
        bytes(len(data)),
        data[:100],
        data[:middle],
        data[:middle] + bytes(len(data) - middle),
    ):
        assert codec.flaw(bad) is not None
        with pytest.raises(ValueError, match=r"\w"):
            codec.decode(bad)


@pytest.mark.parametrize("kind", JPEG)
def test_a_stream_damaged_inside_is_an_error_or_what_openslide_makes_of_it(
    tmp_path: Path, kind: str
) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    offset, nbytes = tiffs.place_of(path, 0, 9)
    sound = path.read_bytes()[offset : offset + nbytes]
    rng = np.random.default_rng(3)
    errors = 0
    for at in rng.integers(nbytes // 3, nbytes - 70, 12):
        bad = sound[:at] + rng.bytes(60) + sound[at + 60 :]
        tiffs.overwrite(path, offset, bad)
        try:
            ours = read(path, 0, Box(128, 128, 256, 256))
        except DamagedTileError:
            errors += 1
        else:  # some damage leaves a valid stream; OpenSlide also passes over some that we find
            np.testing.assert_array_equal(ours, reference(path, 0, Box(128, 128, 256, 256)))
    assert errors > 6 or kind.startswith("jpeg2000")  # a codestream has no check of its own


def test_ycbcr_in_jpeg_2000_is_rgb_as_openslide_has_it_for_all_pairs_of_chroma(
    tmp_path: Path,
) -> None:
    blue, red = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    tiles = [
        np.stack([np.full((256, 256), luma), blue, red], axis=-1).astype(np.uint8)
        for luma in (0, 90, 128, 255)
    ]
    streams = (
        imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=False, reversible=True)
        for tile in tiles
    )
    common = {
        "dtype": np.uint8,
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": 33003,
        "metadata": None,
    }
    note = tiffs.APERIO.format(height=512, width=512, tile=256)
    tifffile.imwrite(tmp_path / "a.svs", streams, shape=(512, 512, 3), description=note, **common)
    for tile, (row, col) in zip(tiles, [(0, 0), (0, 256), (256, 0), (256, 256)], strict=True):
        np.testing.assert_array_equal(
            ycbcr_to_rgb(tile),
            reference(tmp_path / "a.svs", 0, Box(row, col, row + 256, col + 256)),
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


def swapped_colours(page: object) -> TileCodec | None:
    codec = original_codec(page)
    return codec and replace(codec, colorspace="rgb" if codec.colorspace == "ycbcr" else "ycbcr")


original_codec = native_module._codec


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000"])
def test_the_self_check_refuses_other_colours_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(native_module, "_codec", swapped_colours)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    with open_slide(path) as slide:
        assert slide.info.reader.startswith("openslide 4")
        assert "native tiles refused: level 0: the tile at" in slide.info.reader
        assert slide.tiles(0) is None
        np.testing.assert_array_equal(
            slide.read(0, slide.levels[0].box), reference(path, 0, slide.levels[0].box)
        )


def test_the_self_check_looks_at_the_last_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = native_module.native_level

    def wrong_at_the_end(page: object) -> native_module.NativeLevel | None:
        level = original(page)
        if level is None:
            return None
        last = len(level.counts) - 1
        return replace(
            level, decode=lambda data, index: level.decode(data, index) ^ np.uint8(index == last)
        )

    monkeypatch.setattr(native_module, "native_level", wrong_at_the_end)
    with open_slide(tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")) as slide:
        assert (
            "native tiles refused: level 0: the tile at Box(row0=640, col0=896" in slide.info.reader
        )


def test_a_level_that_the_self_check_refuses_stays_with_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = native_module.native_level

    def wrong_when_small(page: object) -> native_module.NativeLevel | None:
        level = original(page)
        if level is None or level.size == (700, 900):
            return level
        return replace(level, decode=lambda data, index: level.decode(data, index) ^ np.uint8(1))

    monkeypatch.setattr(native_module, "native_level", wrong_when_small)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    with open_slide(path) as slide:
        assert re.match(
            r"native tiles; openslide 4\S* for level 1 \(native tiles refused: level 1: the tile",
            slide.info.reader,
        )
        assert slide.tiles(0) is not None
        assert slide.tiles(1) is None
        np.testing.assert_array_equal(
            slide.read(1, slide.levels[1].box), reference(path, 1, slide.levels[1].box)
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


@pytest.fixture(scope="module")
def two_lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiffs.write(tmp_path_factory.mktemp("lost") / "a.svs", PICTURE, kind="jpeg")
    for tile in (LOST_TILE, 47):
        tiffs.zero_tile(path, 0, tile)
    return path


def cut(box: Box, rows: list[float], cols: list[float]) -> list[Box]:
    """The box cut at these shares of its sides."""
    down = sorted({box.row0, box.row1, *(box.row0 + int(share * box.height) for share in rows)})
    across = sorted({box.col0, box.col1, *(box.col0 + int(share * box.width) for share in cols)})
    return [Box(r0, c0, r1, c1) for r0, r1 in pairwise(down) for c0, c1 in pairwise(across)]


SHARES = st.lists(st.floats(0, 1), max_size=3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mpp=st.sampled_from([0.5, 1.5, 0.685, 0.4]), rows=SHARES, cols=SHARES)
def test_marked_damage_is_the_same_however_reads_are_cut(
    two_lost: Path, mpp: float, rows: list[float], cols: list[float]
) -> None:
    with open_slide(two_lost) as slide:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=mpp, slide="a", allow_upsampling=True)
        whole, parts = (SlideSource(slide, plan, damaged="mark") for _ in range(2))
        seen = whole.frame.box.pad(7)
        pixels = whole.read(seen)
        for box in cut(seen, rows, cols):
            np.testing.assert_array_equal(parts.read(box), pixels[box.slices_in(seen)])
        assert parts.damage == whole.damage == sorted(whole.damage)
        assert len(whole.damage) == 2


@pytest.mark.parametrize("mpp", [0.5, 1.5, 0.685, 0.4])
def test_marked_damage_is_white_and_nothing_else_differs(
    two_lost: Path, tmp_path: Path, mpp: float
) -> None:
    sound = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    with open_slide(two_lost) as slide, open_slide(sound) as good:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=mpp, slide="a", allow_upsampling=True)
        marked, whole = SlideSource(slide, plan, damaged="mark"), SlideSource(good, plan)
        ours, want = marked.read(marked.frame.box), whole.read(whole.frame.box)
        inside = np.zeros(want.shape[:2], bool)
        for box in marked.damage:
            inside[box.slices_in(marked.frame.box)] = True
            if box.width > 8:  # the other one is the last tile's 4 px
                assert (ours[box.pad(-4).slices_in(marked.frame.box)] == 255).all()
        np.testing.assert_array_equal(ours[~inside], want[~inside])
        if mpp == 0.5:
            assert marked.damage == [LOST, Box(640, 896, 700, 900)]
        with pytest.raises(DamagedTileError):
            SlideSource(slide, plan).read(marked.frame.box)


@pytest.mark.usefixtures("openslide_alone")
def test_marked_damage_is_the_same_through_openslide(two_lost: Path) -> None:
    with open_slide(two_lost) as slide:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=0.5, slide="a")
        source = SlideSource(slide, plan, damaged="mark")
        source.read(Box(0, 0, 300, 900))
        assert source.damage == [LOST]
        source.read(source.frame.box)
        assert source.damage == [LOST, Box(640, 896, 700, 900)]
        assert pickle.loads(pickle.dumps(source)).damage == source.damage
