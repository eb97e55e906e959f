import os
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quadrat.core.geometry import Box
from quadrat.slides.array import ArraySlide
from quadrat.slides.resample import WEIGHT_BITS, block_mean, separable, taps
from quadrat.slides.source import SlideSource, open_source, source_of

PICTURE = np.random.default_rng(0).integers(0, 256, (211, 307, 3), np.uint8)
MPPS = [0.5, 1.0, 1.5, 2.0, 0.6, 0.83, 1.7, 3.3, 0.3, 0.41, 12.0]


@lru_cache
def array_source(mpp: float) -> SlideSource:
    return source_of(ArraySlide(PICTURE, mpp=0.5), mpp=mpp, allow_upsampling=True)


@lru_cache
def real_source(mpp: float) -> SlideSource:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    return open_source(
        Path(folder) / "wsi" / "TCGA-CR-7395-01A-01-TS1.svs", mpp=mpp, slide_mpp=0.25
    )


def draw_parts(data: st.DataObject, source: SlideSource, largest: int) -> tuple[Box, list[Box]]:
    """A box that may reach out of the slide, and a grid of boxes that cut it up."""
    height, width = source.frame.height, source.frame.width
    row, col = data.draw(st.integers(-20, height + 5)), data.draw(st.integers(-20, width + 5))
    box = Box(
        row, col, row + data.draw(st.integers(1, largest)), col + data.draw(st.integers(1, largest))
    )
    rows = sorted(
        {box.row0, box.row1, *data.draw(st.lists(st.integers(box.row0, box.row1), max_size=4))}
    )
    cols = sorted(
        {box.col0, box.col1, *data.draw(st.lists(st.integers(box.col0, box.col1), max_size=4))}
    )
    pairs = [(r, c) for r in pairwise(rows) for c in pairwise(cols)]
    return box, [Box(r[0], c[0], r[1], c[1]) for r, c in pairs]


def assert_parts_equal_the_whole(source: SlideSource, box: Box, parts: list[Box]) -> None:
    whole = source.read(box)
    for part in parts:
        np.testing.assert_array_equal(source.read(part), whole[part.slices_in(box)])


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(MPPS))
def test_a_region_is_bit_identical_whole_or_in_parts(data: st.DataObject, mpp: float) -> None:
    source = array_source(mpp)
    assert_parts_equal_the_whole(source, *draw_parts(data, source, 150))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([0.25, 0.5, 0.4, 0.9, 1.0]))
def test_a_region_of_a_real_slide_is_bit_identical_whole_or_in_parts(
    data: st.DataObject, mpp: float
) -> None:
    source = real_source(mpp)
    assert_parts_equal_the_whole(source, *draw_parts(data, source, 200))


def test_a_region_larger_than_one_piece_is_the_same_in_pieces() -> None:
    rng = np.random.default_rng(2)
    source = source_of(
        ArraySlide(rng.integers(0, 256, (2300, 2200, 3), np.uint8), mpp=0.5), mpp=0.7
    )
    whole = source.read(source.frame.box.pad(3))
    part = Box(1400, 1430, 1600, 1560)
    np.testing.assert_array_equal(
        source.read(part), whole[part.shift(3, 3).slices_in(Box(0, 0, *whole.shape[:2]))]
    )


@example(1.0, 0)
@example(0.999999, 100)
@settings(deadline=None)
@given(st.floats(0.05, 40), st.integers(0, 3000))
def test_weights_are_whole_and_sum_to_one(ratio: float, start: int) -> None:
    found = taps(start, start + 50, ratio=ratio, size=10**6)
    assert (found.weight >= 0).all()
    assert (found.weight.sum(axis=1) == 1 << WEIGHT_BITS).all()
    assert found.index.min() >= 0
    assert found.index.max() < found.stop - found.first


@pytest.mark.parametrize("mpp", MPPS)
def test_a_flat_colour_stays_itself(mpp: float) -> None:
    colour = np.array([1, 200, 254], np.uint8)
    slide = ArraySlide(np.broadcast_to(colour, (90, 130, 3)).copy(), mpp=0.5)
    source = source_of(slide, mpp=mpp, allow_upsampling=True)
    assert (source.read(source.frame.box) == colour).all()


def test_an_integer_reduction_is_the_mean_rounded_half_up() -> None:
    source = array_source(1.5)
    box = Box(5, 7, 45, 60)
    crop = PICTURE[15:135, 21:180].reshape(40, 3, 53, 3, 3).astype(np.int64).sum(axis=(1, 3))
    np.testing.assert_array_equal(source.read(box), (2 * crop + 9) // 18)
    assert block_mean(np.array([[[0] * 3, [1] * 3]], np.uint8), 1, 2).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("cols", [1, 2, 3, 4, 8])
def test_a_block_mean_is_exact_for_every_shape_and_for_the_brightest_block(rows, cols) -> None:
    blocks = np.random.default_rng(rows * 9 + cols).integers(
        0, 256, (5, rows, 6, cols, 3), np.uint8
    )
    blocks[0] = 255
    count = rows * cols
    wanted = (2 * blocks.astype(np.int64).sum(axis=(1, 3)) + count) // (2 * count)
    found = block_mean(blocks.reshape(5 * rows, 6 * cols, 3), rows, cols)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.37, 2.004, 9.9])
def test_the_weighted_mean_is_the_sum_of_its_taps_rounded_once(ratio) -> None:
    down, across = (taps(i, i + 9, ratio=ratio, size=400) for i in (3, 11))
    shape = down.stop - down.first, across.stop - across.first, 3
    pixels = np.random.default_rng(4).integers(0, 256, shape, np.uint8)
    wanted = np.full((9, 9, 3), 1 << (2 * WEIGHT_BITS - 1), np.int64)
    for i, j in np.ndindex(9, 9):
        for s, t in np.ndindex(down.index.shape[1], across.index.shape[1]):
            share = int(down.weight[i, s]) * int(across.weight[j, t])
            wanted[i, j] += share * pixels[down.index[i, s], across.index[j, t]].astype(np.int64)
    np.testing.assert_array_equal(separable(pixels, down, across), wanted >> (2 * WEIGHT_BITS))


def test_area_resampling_is_within_a_grey_level_of_the_exact_mean() -> None:
    source = array_source(0.83)
    ratio = source.plan.ratio_row
    found = source.read(source.frame.box)

    def weights(n: int, size: int) -> np.ndarray:
        left = np.arange(n)[:, None] * ratio
        pixel = np.arange(size)[None]
        return (
            np.clip(np.minimum(left + ratio, pixel + 1) - np.maximum(left, pixel), 0, None) / ratio
        )

    down, across = weights(found.shape[0], 211), weights(found.shape[1], 307)
    exact = np.einsum("ir,rck,jc->ijk", down, PICTURE.astype(float), across, optimize=True)
    assert np.abs(found - exact).max() < 1


def test_outside_the_slide_is_white() -> None:
    for mpp in MPPS:
        source = array_source(mpp)
        frame = source.frame
        assert (source.read(Box(-9, -9, 0, 50)) == 255).all()
        assert (source.read(Box(frame.height, 0, frame.height + 4, 9)) == 255).all()
        assert (source.read(frame.box.pad(2))[:2] == 255).all()
