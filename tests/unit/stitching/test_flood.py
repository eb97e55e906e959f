import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from helpers import fields
from quadrat.stitching.flood import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    components_inside,
    components_of,
    flood,
)

FEW = settings(deadline=None, derandomize=True, max_examples=200)
SEEDS = st.integers(0, 2**32 - 1)


def labelled(components, shape):
    """The label array of components."""
    out = np.zeros(shape, np.int32)
    for row, col0, col1, label in zip(
        components.row, components.col0, components.col1, components.label, strict=True
    ):
        out[row, col0:col1] = label
    return out


@FEW
@given(SEEDS, st.integers(1, 30), st.integers(1, 30), st.integers(0, 255))
def test_components_of_runs_are_those_of_scipy_numbered_by_their_first_pixels(
    seed, height, width, level
):
    channel = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    found = components_of(channel, level)
    want, count = ndimage.label(channel >= level)
    assert len(found) == count
    assert np.array_equal(labelled(found, channel.shape), want)
    for label in range(1, count + 1):
        rows, cols = np.nonzero(want == label)
        assert found.first_pixels()[label - 1].tolist() == [rows[0], cols[0]]
        touches = (
            rows.min() == 0,
            rows.max() == height - 1,
            cols.min() == 0,
            cols.max() == width - 1,
        )
        bits = sum(bit for bit, on in zip((TOP, BOTTOM, LEFT, RIGHT), touches, strict=True) if on)
        assert found.sides[label - 1] == bits


@FEW
@given(SEEDS, st.sampled_from([0.6, 1.2, 3.0]), st.sampled_from([4, 16, 256]))
def test_the_flood_is_skimages_watershed_down_to_every_tie(seed, smooth, levels):
    maps = fields.noisy_maps(np.random.default_rng(seed), (40, 47), smooth=smooth, levels=levels)
    clumps = components_of(maps[0], 115)
    seeds, clump_of = components_inside(maps[1], 140, clumps)
    foreground = labelled(clumps, maps[0].shape)
    markers, count = ndimage.label((maps[1] >= 140) & (foreground > 0))
    assert np.array_equal(labelled(seeds, markers.shape), markers)
    assert np.array_equal(clump_of, [foreground[markers == i + 1][0] for i in range(count)])
    bare = ~np.isin(foreground, clump_of) & (foreground > 0)
    markers = np.where(bare, foreground + count, markers)
    depth = 255 - maps[1].astype(float)
    depth[markers > 0] = np.arange(-np.count_nonzero(markers), 0)
    want = watershed(depth, markers, mask=foreground > 0)
    got = flood(maps[1], clumps, seeds, clump_of, np.ones(len(clumps), bool))
    assert np.array_equal(got[1:-1, 1:-1], want)
    assert not any(side.any() for side in (got[0], got[-1], got[:, 0], got[:, -1]))


@FEW
@given(SEEDS)
def test_clumps_that_are_not_wanted_stay_empty_and_change_no_other(seed):
    rng = np.random.default_rng(seed)
    maps = fields.noisy_maps(rng, (40, 47), smooth=1.2, levels=16)
    clumps = components_of(maps[0], 115)
    seeds, clump_of = components_inside(maps[1], 140, clumps)
    wanted = rng.random(len(clumps)) < 0.5
    every = flood(maps[1], clumps, seeds, clump_of, np.ones(len(clumps), bool))[1:-1, 1:-1]
    some = flood(maps[1], clumps, seeds, clump_of, wanted)[1:-1, 1:-1]
    keep = np.concatenate([[False], wanted])[labelled(clumps, every.shape)]
    assert np.array_equal(some, np.where(keep, every, 0))


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_and_a_full_block_are_none_and_one(value):
    maps = np.full((2, 5, 9), value, np.uint8)
    clumps = components_of(maps[0], 128)
    seeds, clump_of = components_inside(maps[1], 128, clumps)
    labels = flood(maps[1], clumps, seeds, clump_of, np.ones(len(clumps), bool))
    assert (len(clumps), len(seeds)) == ((1, 1) if value else (0, 0))
    assert (labels[1:-1, 1:-1] == (1 if value else 0)).all()
