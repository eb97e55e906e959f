import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, perimeter_crofton, regionprops

from helpers import fields
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.outlines import concatenate_polygons, trace
from quadrat.stitching.features import measure
from quadrat.stitching.regions import polygon_perimeters, region_part, region_parts

SOME = settings(deadline=None, derandomize=True, max_examples=100)
CLASSES = arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 3)
)


def merged(parts, *, shard_px, least=0.0):
    """All regions of parts that are in memory."""
    found = region_parts(sorted(parts), parts.__getitem__, shard_px=shard_px, min_area_px=least)
    tables, outlines = zip(*(make() for make in found), strict=True) if found else ((), ())
    return ObjectTable.concatenate(list(tables)), concatenate_polygons(list(outlines))


def in_shards(classes, side, *, score=None, order=None, least=0.0, shard_px=None):
    """The regions of a class map cut in shards of ``side`` px."""
    score = np.full(classes.shape, 255, np.uint8) if score is None else score
    around = np.pad(classes, 1)
    parts = {}
    for row0, col0, row1, col1 in fields.squares(classes.shape, side):
        parts[(row0 // side, col0 // side)] = region_part(
            around[row0 : row1 + 2, col0 : col1 + 2],
            score[row0:row1, col0:col1],
            origin=(row0, col0),
        )
    if order is not None:
        parts = {cell: parts[cell] for cell in order(list(parts))}
    return merged(parts, shard_px=shard_px or 10**6, least=least)


def whole(classes, **options):
    return in_shards(classes, 10**6, **options)


def same(a, b):
    for name in ObjectTable.__slots__:
        assert np.array_equal(getattr(a[0], name), getattr(b[0], name)), name
    for name in Polygons.__slots__:
        assert np.array_equal(getattr(a[1], name), getattr(b[1], name)), name


@SOME
@given(CLASSES, st.integers(1, 21), st.randoms(use_true_random=False))
def test_shards_of_any_size_in_any_order_give_the_table_and_outlines_of_the_whole(
    classes, side, random
):
    score = np.arange(classes.size, dtype=np.uint32).astype(np.uint8).reshape(classes.shape)
    cut = in_shards(
        classes, side, score=score, order=lambda cells: random.sample(cells, len(cells))
    )
    same(cut, whole(classes, score=score))


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
def test_large_blobs_are_the_same_regions_in_any_cut(seed, side):
    noise = fields.noisy_maps(np.random.default_rng(seed), (70, 90), smooth=2.5)[0]
    classes = np.digitize(noise, [110, 130, 150]).astype(np.uint8)
    same(in_shards(classes, side), whole(classes))


@pytest.mark.parametrize("kind", fields.KINDS)
@pytest.mark.parametrize("side", [1, 9, 16])
def test_hard_fields_are_the_same_regions_in_any_cut(kind, side):
    classes = (fields.fields((50, 60), seed=2)[kind] % 4).astype(np.uint8)
    same(in_shards(classes, side), whole(classes))


@SOME
@given(CLASSES, st.integers(1, 21))
def test_regions_are_the_components_that_scikit_image_counts(classes, side):
    table, _ = in_shards(classes, side)
    props = regionprops(label(classes, connectivity=1, background=0))
    want = sorted(
        (int(p.area), *map(int, p.bbox), int(classes[tuple(p.coords[0])]) - 1) for p in props
    )
    found = zip(table.area_px, table.bbox, table.class_id, strict=True)
    assert sorted((int(a), *map(int, b), int(c)) for a, b, c in found) == want


@SOME
@given(CLASSES, st.integers(1, 21))
def test_perimeters_are_those_of_scikit_image_and_of_the_sums_of_the_whole(classes, side):
    table, polygons = in_shards(classes, side)
    labels = label(classes, connectivity=1, background=0).astype(np.int32)
    anchor = {tuple(a): i for i, a in enumerate(table.anchor.tolist())}
    sums = measure(labels, n=int(labels.max()), origin=(0, 0))
    for i, first in enumerate(sums.first.tolist()):
        found = table.perimeter_px[anchor[tuple(first)]]
        assert found == pytest.approx(sums.perimeter_px[i], abs=1e-9)
        assert found == pytest.approx(perimeter_crofton(labels == i + 1), abs=1e-9)
    assert np.array_equal(polygon_perimeters(polygons), table.perimeter_px)


@pytest.mark.parametrize("radius", [5, 12, 40])
def test_the_perimeter_of_a_disc_is_near_the_circle_and_the_same_in_any_cut(radius):
    side = 2 * radius + 8
    disc = fields.ellipse((side, side), (side / 2, side / 2), (radius, radius)).astype(np.uint8)
    found = {float(in_shards(disc, cut)[0].perimeter_px[0]) for cut in (3, 7, radius, side)}
    assert len(found) == 1
    assert found.pop() == pytest.approx(2 * np.pi * radius, rel=0.04)


@SOME
@given(CLASSES, st.integers(1, 21))
def test_score_is_the_mean_of_the_region_and_the_anchor_its_first_pixel(classes, side):
    score = np.random.default_rng(0).integers(0, 256, classes.shape).astype(np.uint8)
    table, _ = in_shards(classes, side, score=score)
    labels = label(classes, connectivity=1, background=0)
    for i, anchor in enumerate(table.anchor.tolist()):
        inside = labels == labels[tuple(anchor)]
        assert anchor == np.argwhere(inside)[0].tolist()
        assert table.score[i] == pytest.approx(score[inside].mean() / 255, abs=1e-6)
        assert table.centroid[i] == pytest.approx(np.argwhere(inside).mean(axis=0) + 0.5)


@SOME
@given(CLASSES, st.integers(1, 21), st.integers(0, 30))
def test_small_regions_are_dropped_after_the_merge_and_not_before(classes, side, least):
    cut, all_of_them = in_shards(classes, side, least=least), whole(classes)[0]
    same(cut, whole(classes, least=least))
    assert len(cut[0]) == (all_of_them.area_px >= max(1, least)).sum()


@SOME
@given(CLASSES, st.integers(1, 7))
def test_regions_stand_in_order_of_the_shard_of_their_anchor(classes, side):
    table, polygons = in_shards(classes, side, shard_px=side)
    key = [(r // side, c // side, r, c) for r, c in table.anchor.tolist()]
    assert key == sorted(key)
    for i in range(len(table)):  # outlines follow the same order
        ring = polygons.xy[polygons.ring_starts[polygons.polygon_starts[i]] :][0]
        assert (ring[1], ring[0]) == tuple(table.anchor[i])


@SOME
@given(CLASSES)
def test_outlines_are_those_of_tracing_the_whole(classes):
    labels = label(classes, connectivity=1, background=0).astype(np.int32)
    n = int(labels.max())
    first = measure(labels, n=n, origin=(0, 0)).first
    rank = np.zeros(n + 1, np.int32)
    rank[np.lexsort((first[:, 1], first[:, 0])) + 1] = np.arange(1, n + 1)
    want = trace(rank[labels], n=n, origin=(0, 0))
    table, polygons = in_shards(classes, 5)
    assert len(table) == n
    for name in Polygons.__slots__:
        assert np.array_equal(getattr(polygons, name), getattr(want, name)), name


def test_no_shards_and_empty_shards_give_no_regions():
    for table, polygons in (
        merged({}, shard_px=8),
        in_shards(np.zeros((9, 9), np.uint8), 4),
    ):
        assert len(table) == len(polygons) == 0


def test_a_shard_that_was_never_analysed_cuts_a_region_in_two():
    classes = np.ones((4, 12), np.uint8)
    classes[:, 4:8] = 0  # what a view gives where no core was analysed
    around = np.pad(classes, 1)
    score = np.full((4, 4), 255, np.uint8)
    parts = {
        (0, i): region_part(around[:, 4 * i : 4 * i + 6], score, origin=(0, 4 * i)) for i in (0, 2)
    }
    table, _ = merged(parts, shard_px=4)
    assert table.area_px.tolist() == [16, 16]
