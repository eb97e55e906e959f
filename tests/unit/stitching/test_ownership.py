from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import fields
from quadrat.core.geometry import Box
from quadrat.core.objects import FLAG_CAPPED
from quadrat.stitching import ownership
from quadrat.stitching.ownership import FIRST_MARGIN, SeedRule, decode_shard

SHAPE = (60, 72)
RULE = SeedRule(foreground=128, seed=128, min_area_px=1, cap_px=1000)
FEW = settings(deadline=None, derandomize=True, max_examples=60)


def listed(decoded):
    """Every object as (anchor, area, pixels, flags); pixels as bytes of their slide coordinates in
    raster order."""
    found = []
    for i, where in enumerate(ndimage.find_objects(decoded.labels)):
        assert where is not None, f"object {i + 1} has no pixels"
        rows, cols = np.nonzero(decoded.labels[where] == i + 1)
        rows = rows + where[0].start + decoded.box.row0
        cols = cols + where[1].start + decoded.box.col0
        pixels = np.stack([rows, cols]).astype(np.int64)
        found.append(
            (
                tuple(decoded.anchors[i].tolist()),
                pixels.shape[1],
                pixels.tobytes(),
                int(decoded.flags[i]),
            )
        )
    assert len(found) == len(decoded.anchors) == len(decoded.flags)
    return found


def whole(maps, rule=RULE):
    slide = Box(0, 0, *maps.shape[1:])
    return listed(decode_shard(fields.reader(maps), slide, slide=slide, rule=rule))


def in_shards(maps, side, rule=RULE, margin=FIRST_MARGIN):
    """All objects, shard by shard; checks that each shard gives its own in canonical order."""
    slide = Box(0, 0, *maps.shape[1:])
    found = []
    with mock.patch.object(ownership, "FIRST_MARGIN", margin):
        for row, col in slide.cells(side):
            core = Box(row * side, col * side, (row + 1) * side, (col + 1) * side)
            decoded = decode_shard(fields.reader(maps), core, slide=slide, rule=rule)
            anchors = [tuple(a) for a in decoded.anchors.tolist()]
            assert anchors == sorted(anchors)
            assert all(
                core.row0 <= r < core.row1 and core.col0 <= c < core.col1 for r, c in anchors
            )
            assert np.array_equal(decoded.maps, fields.reader(maps)(decoded.box))
            found += listed(decoded)
    return found


def no_difference(maps, side, rule=RULE, margin=FIRST_MARGIN):
    want, got = whole(maps, rule), in_shards(maps, side, rule, margin)
    assert len(got) == len(want)
    assert sorted(got) == sorted(want)


@pytest.mark.parametrize("kind", fields.KINDS)
@pytest.mark.parametrize(("side", "margin"), [(16, 2), (40, 8), (33, 64), (64, 1)])
def test_shards_of_any_size_decode_what_the_whole_slide_decodes(kind, side, margin):
    labels = fields.fields(SHAPE, seed=1)[kind]
    maps = fields.maps_of(labels, fields.random_classes(labels, 2, 0), n_classes=2)
    no_difference(maps, side, margin=margin)


@FEW
@given(
    st.integers(0, 2**32 - 1),
    st.integers(11, 50),
    st.sampled_from([1, 3, 8, 64]),
    st.integers(0, 90),
)
def test_crowded_ellipses_are_the_same_objects_in_any_cut(seed, side, margin, n):
    labels = fields.ellipses(np.random.default_rng(seed), SHAPE, n=n)
    no_difference(
        fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1),
        side,
        margin=margin,
    )


@FEW
@given(
    st.integers(0, 2**32 - 1),
    st.integers(11, 50),
    st.sampled_from([1, 5, 64]),
    st.sampled_from([0.7, 1.5, 4.0]),
    st.sampled_from([4, 16, 256]),
)
def test_maps_full_of_plateaus_and_ties_are_the_same_objects_in_any_cut(
    seed, side, margin, smooth, levels
):
    maps = fields.noisy_maps(np.random.default_rng(seed), SHAPE, smooth=smooth, levels=levels)
    rule = SeedRule(foreground=115, seed=140, min_area_px=1, cap_px=1000)
    no_difference(maps, side, rule, margin)


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(11, 50), st.integers(1, 60))
def test_small_objects_are_dropped_alike_in_any_cut(seed, side, least):
    labels = fields.ellipses(np.random.default_rng(seed), SHAPE, n=50, radius=(1, 7))
    maps = fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1)
    rule = SeedRule(foreground=128, seed=128, min_area_px=least, cap_px=1000)
    no_difference(maps, side, rule, margin=2)
    assert all(area >= least for _, area, _, _ in whole(maps, rule))


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9))
def test_the_place_on_the_slide_moves_objects_and_changes_nothing_else(seed, down, right):
    maps = fields.noisy_maps(np.random.default_rng(seed), (60, 64), smooth=1.2, levels=16)
    maps = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    rule = SeedRule(foreground=115, seed=140, min_area_px=1, cap_px=1000)
    moved = np.pad(maps, ((0, 0), (down, 0), (right, 0)))
    # another object far away must not matter either: it changes the queue of the flood, not the
    # clump
    moved = np.pad(moved, ((0, 0), (0, 9), (0, 9)))
    moved[:, -4:, -4:] = 255
    want = {((r + down, c + right), area) for (r, c), area, _, _ in whole(maps, rule)}
    corner = (moved.shape[1] - 4, moved.shape[2] - 4)
    assert {(anchor, area) for anchor, area, _, _ in whole(moved, rule)} == want | {(corner, 16)}


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(11, 50))
def test_disjoint_ellipses_are_counted_exactly_and_keep_every_pixel(seed, side):
    labels = fields.disjoint_ellipses(np.random.default_rng(seed), SHAPE, n=60, radius=(4, 8))
    maps = fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1)
    found = in_shards(maps, side, margin=4)
    planted = [
        np.stack(np.nonzero(labels == i + 1)).astype(np.int64).tobytes()
        for i in range(labels.max())
    ]
    assert sorted(pixels for _, _, pixels, _ in found) == sorted(planted)


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 1), (-1, -1), (1, 1)])
def test_discs_on_seams_and_corners_and_one_pixel_off_are_counted_once(shift):
    labels = fields.on_seams((128, 160), pitch=32, radius=6, shift=shift)
    maps = fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1)
    assert len(in_shards(maps, 32)) == labels.max()
    assert len(in_shards(maps, 16, margin=1)) == labels.max()


@pytest.mark.parametrize(
    "length", [FIRST_MARGIN - 1, FIRST_MARGIN, FIRST_MARGIN + 1, 3 * FIRST_MARGIN]
)
def test_the_block_grows_just_when_an_object_leaves_the_first_margin(length):
    shape = (40, 400)
    labels = fields.empty(shape)
    labels[10:20, 30 : 40 + length] = 1  # from the core [0, 40) it reaches ``length`` px out
    maps = fields.maps_of(labels, np.zeros(1, np.uint8), n_classes=1)
    seen = []
    slide = Box(0, 0, *shape)
    decoded = decode_shard(fields.reader(maps, seen), Box(0, 0, 40, 40), slide=slide, rule=RULE)
    # a clump that only touches the border is not known to end there
    assert (len(seen) > 1) == (length >= FIRST_MARGIN)
    assert (decoded.labels > 0).sum() == (labels > 0).sum()
    assert decoded.flags.tolist() == [0]


def test_a_chain_longer_than_many_shards_is_whole_in_each_of_them():
    labels = fields.chain((64, 700), row=30, radius=8, step=15)
    maps = fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1)
    assert ndimage.label(maps[0])[1] == 1
    found = in_shards(maps, 64)
    assert len(found) == labels.max()
    assert sorted(found) == sorted(whole(maps))
    assert all(flags == 0 for *_, flags in found)


def test_what_is_cut_at_the_cap_is_flagged_and_still_counted_once():
    labels = fields.chain((64, 1000), row=30, radius=8, step=15)
    maps = fields.maps_of(labels, fields.random_classes(labels, 1, 0), n_classes=1)
    maps[:, 62, 990] = 255  # and one that is whole
    seen = []
    slide = Box(0, 0, *maps.shape[1:])
    rule = SeedRule(foreground=128, seed=128, min_area_px=1, cap_px=100)
    decode_shard(fields.reader(maps, seen), Box(0, 448, 64, 512), slide=slide, rule=rule)
    # it grew, read only what was new, and stopped at the cap
    assert seen[:3] == [(64, 64 + 2 * 64), (64, 100 - 64), (64, 100 - 64)]
    found = in_shards(maps, 64, rule)
    assert sorted(anchor for anchor, *_ in found) == sorted(anchor for anchor, *_ in whole(maps))
    assert {flags for anchor, _, _, flags in found if anchor != (62, 990)} == {FLAG_CAPPED}
    assert [flags for anchor, _, _, flags in found if anchor == (62, 990)] == [0]


def test_a_cap_below_the_first_margin_is_no_error():
    labels = fields.full((50, 300))
    maps = fields.maps_of(labels, np.zeros(1, np.uint8), n_classes=1)
    rule = SeedRule(foreground=128, seed=128, min_area_px=1, cap_px=0)
    slide = Box(0, 0, 50, 300)
    (anchor,) = [anchor for anchor, *_ in whole(maps, rule)]
    parts = [
        decode_shard(fields.reader(maps), Box(0, c, 50, c + 50), slide=slide, rule=rule)
        for c in range(0, 300, 50)
    ]
    assert [tuple(a) for part in parts for a in part.anchors.tolist()] == [anchor]
    assert {flag for part in parts for flag in part.flags.tolist()} == {FLAG_CAPPED}


def test_a_clump_without_a_seed_is_one_object_anchored_at_its_first_pixel():
    maps = np.zeros((2, 40, 40), np.uint8)
    maps[0, 10:20, 5:30] = 200
    maps[0, 9, 12] = 200
    maps[1] = 10
    found = in_shards(maps, 8, margin=1)
    assert [(anchor, area) for anchor, area, _, _ in found] == [((9, 12), 251)]


def test_two_clumps_that_meet_at_a_corner_only_are_two_objects():
    maps = np.zeros((2, 40, 40), np.uint8)
    maps[:, 10:20, 10:20] = 255
    maps[:, 20:30, 20:30] = 255
    for side in (10, 20, 13):
        assert sorted((anchor, area) for anchor, area, _, _ in in_shards(maps, side, margin=1)) == [
            ((10, 10), 100),
            ((20, 20), 100),
        ]


def test_thresholds_include_their_own_value():
    maps = np.zeros((2, 8, 8), np.uint8)
    maps[0, 2:4, 2:4] = 128
    maps[0, 6, 6] = 127
    assert [area for _, area, _, _ in whole(maps)] == [4]
