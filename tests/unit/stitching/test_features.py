import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from skimage.measure import label, perimeter_crofton, regionprops

from quadrat.stitching.features import (
    Moments,
    measure,
    measure_piece,
    nearest_distances,
)

LABELS = arrays(
    np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)
)


def components(classes):
    labels = label(classes, connectivity=1, background=0).astype(np.int32)
    return labels, int(labels.max())


def same(a: Moments, b: Moments):
    for name in Moments.__slots__:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@settings(deadline=None)
@given(LABELS)
def test_area_centroid_box_and_perimeter_agree_with_scikit_image(labels):
    found = measure(labels, n=4, origin=(0, 0))
    for region in regionprops(labels):
        i = region.label - 1
        assert found.area_px[i] == region.area
        assert found.centroid[i] == pytest.approx(np.array(region.centroid) + 0.5, abs=1e-12)
        assert tuple(found.bbox[i]) == region.bbox
        assert tuple(found.first[i]) == tuple(np.argwhere(labels == region.label)[0])
        assert found.perimeter_px[i] == pytest.approx(
            perimeter_crofton(labels == region.label), abs=1e-9
        )


@settings(deadline=None)
@given(LABELS, st.data())
def test_pieces_of_any_cut_add_up_to_the_whole(labels, data):
    height, width = labels.shape
    values = np.arange(labels.size, dtype=np.uint16).reshape(labels.shape)
    row, col = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    padded = np.pad(labels, 1)
    total = Moments.zeros(4)
    boxes = [
        (0, row, 0, col),
        (0, row, col, width),
        (row, height, 0, col),
        (row, height, col, width),
    ]
    for r0, r1, c0, c1 in data.draw(st.permutations(boxes)):
        piece = padded[r0 : r1 + 2, c0 : c1 + 2]
        total = total + measure_piece(
            piece, n=4, origin=(7 + r0, 9 + c0), values=values[r0:r1, c0:c1]
        )
    same(total, measure(labels, n=4, origin=(7, 9), values=values))


@settings(deadline=None)
@given(arrays(np.uint8, (9, 9), elements=st.integers(0, 2)), st.integers(0, 9), st.integers(0, 9))
def test_regions_labelled_piece_by_piece_add_up_to_regions_labelled_at_once(classes, row, col):
    padded = np.pad(classes, 1)
    whole, n = components(padded)
    want = measure_piece(whole, n=n, origin=(0, 0), classes=padded)
    total = Moments.zeros(n)
    for r0, r1, c0, c1 in ((0, row, 0, col), (0, row, col, 9), (row, 9, 0, col), (row, 9, col, 9)):
        window = np.s_[r0 : r1 + 2, c0 : c1 + 2]
        labels, count = components(padded[window])
        piece = measure_piece(labels, n=count, origin=(r0, c0), classes=padded[window])
        region = np.array([whole[window][labels == i + 1][0] - 1 for i in range(count)], np.intp)
        total = total + piece.scatter(region, n=n)
    same(total, want)


@settings(deadline=None)
@given(LABELS)
def test_pieces_scattered_onto_one_object_are_its_sum(labels):
    parts = measure(labels, n=4, origin=(3, 5))
    joined = parts.scatter(np.array([1, 0, 1, 1]), n=2)
    area = np.bincount(labels.ravel(), minlength=5)
    assert joined.area.tolist() == [area[2], area[1] + area[3] + area[4]]
    for i, own in enumerate((labels == 2, np.isin(labels, (1, 3, 4)))):
        if own.any():
            assert tuple(joined.first[i]) == tuple(np.argwhere(own)[0] + np.array([3, 5]))
            pixels = np.argwhere(own) + np.array([3, 5])
            assert joined.bbox[i].tolist() == [*pixels.min(axis=0), *(pixels.max(axis=0) + 1)]


def test_the_perimeter_of_discs_is_right_within_three_percent_on_average():
    rng = np.random.default_rng(1)
    rows, cols = np.indices((60, 60)) + 0.5
    for radius in (4, 6, 8, 12, 20):
        ratios = []
        for row, col in 30 + rng.random((25, 2)):
            disc = ((rows - row) ** 2 + (cols - col) ** 2 < radius**2).astype(np.int32)
            ratios.append(
                measure(disc, n=1, origin=(0, 0)).perimeter_px[0] / (2 * math.pi * radius)
            )
        assert abs(np.mean(ratios) - 1) < 0.03, radius


def test_centroids_far_from_the_origin_lose_no_digit():
    labels = np.ones((3, 2), np.int32)
    found = measure(labels, n=1, origin=(200_000, 300_000))
    assert found.centroid.tolist() == [[200_001.5, 300_001.0]]


def test_an_object_without_pixels_has_no_centroid_and_no_place_in_a_table():
    found = measure(np.array([[2]], np.uint32), n=2, origin=(0, 0))
    assert np.isnan(found.centroid[0]).all()
    with pytest.raises(ValueError, match="object 0 has no pixels"):
        found.table(class_id=np.zeros(2, np.uint8), score=np.ones(2, np.float32))


def test_the_table_takes_the_first_pixel_as_anchor():
    found = measure(np.array([[0, 1], [1, 1]], np.int32), n=1, origin=(10, 20))
    table = found.table(class_id=np.array([2], np.uint8), score=np.array([0.5], np.float32))
    assert table.anchor.tolist() == [[10, 21]]
    assert table.bbox.tolist() == [[10, 20, 12, 22]]


@pytest.mark.parametrize("value", [-1, 3])
def test_labels_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=f"labels holds {value}"):
        measure(np.array([[value]], np.int32), n=2, origin=(0, 0))


def test_mean_values_are_those_of_the_pixels():
    labels, values = np.array([[1, 1, 2]], np.int32), np.array([[10, 20, 7]], np.uint8)
    assert measure(labels, n=2, origin=(0, 0), values=values).mean_value.tolist() == [15, 7]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32))
def test_nearest_distances_agree_with_all_pairs(n, seed):
    rng = np.random.default_rng(seed)
    points, class_id = (
        rng.integers(0, 12, (n, 2)).astype(float),
        rng.integers(0, 3, n).astype(np.uint8),
    )
    pairs = cdist(points, points) if n else np.zeros((0, 0))
    np.fill_diagonal(pairs, np.inf)
    want = np.stack([pairs[:, class_id == c].min(axis=1, initial=np.inf) for c in range(4)], axis=1)
    want[np.isinf(want)] = np.nan
    found = nearest_distances(points, class_id, 4)
    assert found.dtype == np.float32
    assert found == pytest.approx(want, nan_ok=True, rel=1e-6)
