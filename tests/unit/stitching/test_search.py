import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import fields
from quadrat.core.geometry import Box
from quadrat.stitching.ownership import SeedRule, decode_shard
from quadrat.stitching.search import component_holds

FEW = settings(deadline=None, derandomize=True, max_examples=200)
RULE = SeedRule(foreground=128, seed=128, min_area_px=1, cap_px=20)
"""A cap far below the objects' size."""
SIDE = 80


def holds(maps, start, tile, seen=None):
    return component_holds(
        fields.reader(maps, seen),
        start,
        slide=Box(0, 0, *maps.shape[1:]),
        mask=lambda m: m[0] > 0,
        wanted=lambda m, box: m[1] > 0,
        tile=tile,
    )


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.sampled_from([0.45, 0.6, 0.7]))
def test_a_component_is_followed_to_its_end_with_tiles_of_any_size(seed, tile, density):
    rng = np.random.default_rng(seed)
    mask = rng.random((33, 41)) < density
    mask[0, 0] = True
    wanted = rng.random(mask.shape) < 0.004
    labels, _ = ndimage.label(mask)
    for row, col in np.argwhere(mask)[:: max(1, mask.sum() // 5)]:
        want = bool((wanted & (labels == labels[row, col])).any())
        assert holds(np.stack([mask, wanted]).astype(np.uint8), (int(row), int(col)), tile) == want


def test_the_search_ends_where_it_finds_and_reads_no_tile_twice():
    maps = np.zeros((2, 64, 640), np.uint8)
    maps[0, 30:34] = 1
    seen = []
    assert not holds(maps, (30, 0), 64, seen)
    assert seen == [(64, 64)] * 10
    maps[1, 31, 100] = 1
    seen.clear()
    assert holds(maps, (30, 0), 64, seen)
    assert len(seen) <= 3


def in_shards(maps, side=SIDE, rule=RULE):
    slide = Box(0, 0, *maps.shape[1:])
    found = []
    for r, c in slide.cells(side):
        core = Box(r * side, c * side, (r + 1) * side, (c + 1) * side)
        decoded = decode_shard(fields.reader(maps), core, slide=slide, rule=rule)
        found += [
            (tuple(a), f)
            for a, f in zip(decoded.anchors.tolist(), decoded.flags.tolist(), strict=True)
        ]
    return found


def anchors(maps, rule=RULE):
    slide = Box(0, 0, *maps.shape[1:])
    return sorted(
        map(
            tuple, decode_shard(fields.reader(maps), slide, slide=slide, rule=rule).anchors.tolist()
        )
    )


def giant(kind):
    """Foreground of one object much larger than a shard and its cap."""
    mask = np.zeros((500, 700), bool)
    if kind == "u":
        mask[20:480, 20:40] = mask[30:480, 640:660] = mask[460:480, 20:660] = True
    elif kind == "ring":
        mask |= fields.ellipse(mask.shape, (250, 350), (240, 330)) & ~fields.ellipse(
            mask.shape, (250, 350), (225, 315)
        )
    elif kind == "comb":
        mask[400:480, 10:690] = True
        for i, col in enumerate(range(20, 680, 90)):
            mask[10 + 7 * (i % 3) : 400, col : col + 8] = True
    else:
        mask[10:490, 10:690] = True
    return mask


@settings(FEW, max_examples=24)
@given(st.sampled_from(["u", "ring", "comb", "blob"]), st.booleans(), st.integers(30, 140))
def test_a_giant_without_a_seed_is_counted_once_and_flagged(kind, seeded_elsewhere, side):
    maps = np.zeros((2, 500, 700), np.uint8)
    maps[0][giant(kind)] = 255
    if (
        seeded_elsewhere
    ):  # one far corner holds its only seed: no shard that does not see it may count the giant
        row, col = np.argwhere(giant(kind))[-1]
        maps[1, row, col] = 255
    found = in_shards(maps, side)
    assert sorted(anchor for anchor, _ in found) == anchors(maps)
    assert len(found) == 1
    assert found[0][1] == 1


@settings(FEW, max_examples=16)
@given(st.sampled_from(["u", "ring", "comb", "blob"]), st.integers(30, 140))
def test_a_giant_whose_seed_is_giant_too_is_counted_once_and_flagged(kind, side):
    maps = np.zeros((2, 500, 700), np.uint8)
    maps[:, giant(kind)] = 255
    assert [anchor for anchor, _ in in_shards(maps, side)] == anchors(maps)


@settings(FEW, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(25, 90), st.sampled_from([2.0, 5.0]))
def test_percolating_noise_above_the_cap_is_counted_exactly(seed, side, smooth):
    maps = fields.noisy_maps(np.random.default_rng(seed), (220, 260), smooth=smooth, levels=64)
    rule = SeedRule(foreground=110, seed=140, min_area_px=1, cap_px=10)
    assert sorted(anchor for anchor, _ in in_shards(maps, side, rule)) == anchors(maps, rule)
