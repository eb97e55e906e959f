"""Deep zoom: every px of a slide is in one tile, and lies where level 0 has it."""

import io

import numpy as np
import pytest
from PIL import Image

from quadrat.core.geometry import pyramid_levels
from quadrat.pages import deep_zoom
from quadrat.pages.deep_zoom import TILE, DeepZoom, levels_of
from quadrat.slides.array import ArraySlide


class Pyramid(ArraySlide):
    """An array with a second level that is three times smaller, as some scanners have it."""

    def __init__(self, rgb):
        super().__init__(rgb, mpp=0.5)
        height, width = rgb.shape[0] // 3, rgb.shape[1] // 3
        self.small = rgb[: height * 3, : width * 3].reshape(height, 3, width, 3, 3).mean((1, 3))
        sizes = [rgb.shape[:2], (height, width)]
        self.levels = pyramid_levels(sizes)
        self.reads = []

    def read(self, level, box):
        self.reads.append((level, box))
        if level == 0:
            return super().read(0, box)
        return self.small[box.row0 : box.row1, box.col0 : box.col1].astype(np.uint8)


@pytest.fixture
def rgb():
    y, x = np.mgrid[0:1300, 0:1700]
    return np.stack([x * 255 // 1700, y * 255 // 1300, (x + y) % 256], axis=2).astype(np.uint8)


def test_the_tiles_of_the_finest_level_are_the_slide(rgb):
    zoom = DeepZoom(ArraySlide(rgb, mpp=0.5))
    assert zoom.levels == levels_of(1700, 1300) == 12
    out = np.zeros_like(rgb)
    for row in range(3):
        for col in range(4):
            tile = zoom.tile(11, col, row)
            out[row * TILE :, col * TILE :][: tile.shape[0], : tile.shape[1]] = tile
    np.testing.assert_array_equal(out, rgb)
    assert zoom.tile(11, 4, 0) is None
    assert zoom.tile(12, 0, 0) is None


@pytest.mark.parametrize("kind", [ArraySlide, Pyramid])
@pytest.mark.parametrize("level", [7, 8, 9, 10])
def test_coarser_tiles_show_every_place_where_it_is(rgb, kind, level):
    slide = kind(rgb) if kind is Pyramid else ArraySlide(rgb, mpp=0.5)
    zoom, factor = DeepZoom(slide), 1 << (11 - level)
    tile = zoom.tile(level, 0, 0).astype(float)
    # a tile that ends with the slide is stretched to whole px, as a viewer squeezes it again
    height, width = (min(TILE * factor, side) for side in (1300, 1700))
    rows, cols = np.indices(tile.shape[:2]) + 0.5
    x, y = cols * width / tile.shape[1], rows * height / tile.shape[0]
    # red and green are ramps: they say from which place a px comes; floored, they are half less.
    # A level that was rounded down ends early, by less than a px of it.
    early = 0 if kind is ArraySlide else 2
    assert np.abs(tile[..., 0] + 0.5 - x * 255 / 1700).max() < 1 + early * 255 / 1700
    assert np.abs(tile[..., 1] + 0.5 - y * 255 / 1300).max() < 1 + early * 255 / 1300


@pytest.mark.parametrize("level", [5, 6])
def test_tiles_that_begin_between_px_of_a_level_are_not_moved(monkeypatch, level):
    monkeypatch.setattr(deep_zoom, "TILE", 10)
    y, x = np.mgrid[0:192, 0:240]
    zoom = DeepZoom(Pyramid(np.stack([x, y, x], axis=2).astype(np.uint8)))
    factor = 1 << (8 - level)
    for row in range(1, 192 // factor // 10 - 1):
        for col in range(1, 240 // factor // 10 - 1):
            tile = zoom.tile(level, col, row).astype(float)
            rows, cols = (np.indices((10, 10)) + 0.5) * factor
            assert np.abs(tile[..., 0] + 0.5 - cols - col * 10 * factor).max() < 0.9
            assert np.abs(tile[..., 1] + 0.5 - rows - row * 10 * factor).max() < 0.9


def test_a_slide_without_small_levels_is_read_in_bounded_pieces(rgb, monkeypatch):
    whole = DeepZoom(ArraySlide(rgb, mpp=0.5)).tile(8, 0, 0)
    monkeypatch.setattr(deep_zoom, "PIECE_PX", 500)
    slide = Pyramid(rgb)
    slide.levels = slide.levels[:1]
    pieces = DeepZoom(slide).tile(8, 0, 0)
    assert max(max(box.shape) for _, box in slide.reads) <= 512
    assert np.abs(pieces.astype(int) - whole)[..., :2].max() <= 1


def test_a_tile_is_sent_as_jpeg(rgb):
    data = DeepZoom(ArraySlide(rgb, mpp=0.5)).jpeg(11, 3, 2)
    assert Image.open(io.BytesIO(data)).size == (1700 - 3 * TILE, 1300 - 2 * TILE)


def test_the_whole_slide_is_one_px_at_last(rgb):
    assert DeepZoom(ArraySlide(rgb, mpp=0.5)).tile(0, 0, 0).shape == (1, 1, 3)
