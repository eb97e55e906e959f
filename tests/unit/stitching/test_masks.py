from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from quadrat.core.geometry import Box
from quadrat.core.predictions import MaskCandidates, mask_boxes
from quadrat.core.runs import paint
from quadrat.stitching import masks as module
from quadrat.stitching.masks import outlines, pack, paste

SOME = settings(deadline=None, derandomize=True, max_examples=60)


def boxes_for(rng, n, *, extent=2000, largest=500):
    corner = rng.integers(-extent, extent, (n, 2))
    return np.concatenate([corner, corner + rng.integers(16, largest, (n, 2))], axis=1).astype(
        np.int32
    )


def blobs(rng, n, smooth=4.0):
    """Mask probabilities of some structure, uint8 (n, 28, 28)."""
    noise = ndimage.gaussian_filter(rng.standard_normal((n, 28, 28)), (0, smooth, smooth))
    return np.clip(127 + 90 * noise / (noise.std() if n else 1.0), 0, 255).astype(np.uint8)


def candidates(seed, n, smooth=4.0):
    """Candidates with masks; those without a pixel are left out."""
    rng = np.random.default_rng(seed)
    box = boxes_for(rng, n)
    area, starts, bits = paste(blobs(rng, n, smooth), box)
    found = MaskCandidates(
        box=box,
        score=rng.integers(0, 65536, n).astype(np.uint16),
        class_id=rng.integers(0, 3, n).astype(np.uint8),
        cell=np.stack([np.arange(n), np.arange(n)], axis=1).astype(np.int32),
        area=area,
        flags=rng.integers(0, 2, n).astype(np.uint8),
        starts=starts,
        bits=bits,
    )
    return found.take(np.flatnonzero(area))


def unpacked(found, i):
    row0, col0, row1, col1 = mask_boxes(found.box)[i]
    bits = np.unpackbits(found.bits[found.starts[i] : found.starts[i + 1]])[
        : (row1 - row0) * (col1 - col0)
    ]
    return bits.reshape(row1 - row0, col1 - col0).astype(bool)


def pasted(probability, box):
    """The definition: bilinear at pixel centres (scipy), inside the box, the largest component."""
    x0, y0, x1, y1 = box.astype(float) / 16
    row0, col0, row1, col1 = mask_boxes(box[None])[0]
    y, x = np.arange(row0, row1) + 0.5, np.arange(col0, col1) + 0.5
    v, u = (y - y0) / (y1 - y0) * 28 - 0.5, (x - x0) / (x1 - x0) * 28 - 0.5
    grid = np.meshgrid(v, u, indexing="ij")
    value = ndimage.map_coordinates(probability.astype(float), grid, order=1, mode="nearest")
    inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    whole = inside & (value >= 127.5)
    labels, count = ndimage.label(whole)
    if count == 0:
        return whole, value
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]), value


@SOME
@given(st.integers(0, 2**32 - 1))
def test_a_mask_laid_into_its_box_is_what_interpolation_at_pixel_centres_gives(seed):
    rng = np.random.default_rng(seed)
    box, probability = boxes_for(rng, 4), blobs(rng, 4)
    area, starts, bits = paste(probability, box)
    for i in range(4):
        want, value = pasted(probability[i], box[i])
        if (np.abs(value - 127.5) < 1e-6).any():
            continue  # a value on the very threshold: rounding decides
        found = (
            np.unpackbits(bits[starts[i] : starts[i + 1]])[: want.size]
            .reshape(want.shape)
            .astype(bool)
        )
        assert np.array_equal(found, want)
        assert area[i] == want.sum()


def test_of_equal_parts_the_first_in_raster_order_stays_and_an_empty_mask_has_no_area():
    probability = np.zeros((2, 28, 28), np.uint8)
    probability[0, 2:8, 2:8] = probability[0, 20:26, 20:26] = 255
    area, _, bits = paste(probability, np.array([[0, 0, 28 * 16, 28 * 16]] * 2, np.int32))
    assert area.tolist() == [36, 0]
    mask = np.unpackbits(bits)[: 28 * 28].reshape(28, 28)
    assert mask[2:8, 2:8].all()
    assert mask.sum() == 36


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([30, 4096]))
def test_table_outline_and_runs_of_every_mask_agree_with_its_bits(seed, n, rows):
    found = candidates(seed, n, smooth=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CANVAS_ROWS", rows)  # one canvas or many
        table, polygons, runs = outlines(found)
    assert len(table) == len(polygons) == len(found)
    shapes = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, polygons.xy, (polygons.ring_starts, polygons.polygon_starts)
    )
    for i, (row0, col0, row1, col1) in enumerate(mask_boxes(found.box)):
        mask = unpacked(found, i)
        assert table.area_px[i] == mask.sum() == found.area[i] == shapes[i].area
        r, c = np.nonzero(mask)
        assert table.bbox[i].tolist() == [
            row0 + r.min(),
            col0 + c.min(),
            row0 + r.max() + 1,
            col0 + c.max() + 1,
        ]
        assert table.centroid[i] == pytest.approx([row0 + r.mean() + 0.5, col0 + c.mean() + 0.5])
        x0, y0, x1, y1 = shapes[i].bounds
        assert table.bbox[i].tolist() == [y0, x0, y1, x1]
        own = runs.take(runs.object == i)
        box = Box(int(row0), int(col0), int(row1), int(col1))
        assert np.array_equal(paint(own, np.arange(1, len(found) + 1), box) > 0, mask)
    assert np.array_equal(table.flags, found.flags)
    assert np.array_equal(table.anchor, found.cell)


def test_taking_and_joining_candidates_keeps_every_mask_with_its_box():
    found = candidates(3, 30)
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = found.take(order)
    for i, j in enumerate(order):
        assert np.array_equal(unpacked(shuffled, i), unpacked(found, j))
    back = MaskCandidates.concatenate(
        [shuffled.take(np.arange(5)), shuffled.take(np.arange(5, len(found)))]
    ).take(np.argsort(order))
    for name in (*MaskCandidates.COLUMNS, "starts", "bits"):
        assert np.array_equal(getattr(back, name), getattr(found, name))


def test_candidates_whose_bits_do_not_fit_their_boxes_are_refused():
    found = candidates(0, 4)
    with pytest.raises(ValueError, match=r"MaskCandidates\.bits"):
        replace(found, bits=found.bits[:-1])
    with pytest.raises(ValueError, match=r"MaskCandidates\.starts"):
        replace(found, box=found.box + np.array([0, 0, 64, 64], np.int32))
    with pytest.raises(ValueError, match=r"MaskCandidates\.area"):
        replace(found, area=found.area.astype(np.int64))


@pytest.mark.parametrize("seed", range(5))
def test_packed_masks_are_their_pixels_and_of_several_parts_the_largest(seed):
    rng = np.random.default_rng(seed)
    corner, side = rng.integers(-30, 30, (20, 2)), rng.integers(1, 20, (20, 2))
    bounds = np.concatenate([corner, corner + side], axis=1)
    images = [(rng.random(tuple(one)) < 0.6).astype(np.uint8) for one in side]
    box, area, starts, bits = pack(np.concatenate([i.ravel() for i in images]), bounds)
    assert np.array_equal(mask_boxes(box), bounds)
    for i, image in enumerate(images):
        own = np.unpackbits(bits[starts[i] : starts[i + 1]])[: image.size].reshape(image.shape)
        parts, count = ndimage.label(image)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        want = parts == np.argmax(sizes) + 1 if count else np.zeros(image.shape, bool)
        assert np.array_equal(own, want)
        assert area[i] == want.sum()
