"""The truth of a crop moves with its pixels: boxes stay where the map shows them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.models.task import Crop
from quadrat.training.crops import cut, flipped, turned

SOME = settings(deadline=None, derandomize=True, max_examples=80)


def planted_crop(rng, shape, n=12):
    """A crop with boxes of whole pixels, apart, and the map in which they are drawn, each with its
    own number."""
    image = np.zeros(shape, np.int32)
    boxes = []
    for _ in range(n):
        row0, col0 = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
        row1, col1 = row0 + rng.integers(1, 9), col0 + rng.integers(1, 9)
        if row1 <= shape[0] and col1 <= shape[1] and not image[row0:row1, col0:col1].any():
            boxes.append((row0, col0, row1, col1))
            image[row0:row1, col0:col1] = len(boxes)
    box_class = np.arange(len(boxes)).astype(np.uint8)
    return Crop(
        shape, {"drawn": image}, np.array(boxes, np.float64).reshape(-1, 4), box_class, label=1
    )


def drawn(crop):
    out = np.zeros(crop.shape, np.int32)
    for (row0, col0, row1, col1), number in zip(
        crop.boxes.astype(int), crop.box_class, strict=True
    ):
        out[max(0, row0) : max(0, row1), max(0, col0) : max(0, col1)] = number + 1
    return out


SHAPES = st.tuples(st.integers(8, 40), st.integers(8, 40))


@SOME
@given(st.integers(0, 2**32 - 1), SHAPES, st.lists(st.booleans(), max_size=7))
def test_flipped_and_turned_boxes_stay_where_the_map_shows_them(seed, shape, moves):
    crop = planted_crop(np.random.default_rng(seed), shape)
    image = crop.maps["drawn"]
    for flip in moves:
        crop, image = (flipped(crop), image[:, ::-1]) if flip else (turned(crop), np.rot90(image))
        assert crop.shape == image.shape == crop.maps["drawn"].shape
        assert np.array_equal(crop.maps["drawn"], image)
        assert np.array_equal(drawn(crop), image)
        assert (crop.boxes[:, 2:] > crop.boxes[:, :2]).all()
        assert crop.label == 1


@SOME
@given(st.integers(0, 2**32 - 1), SHAPES)
def test_two_flips_and_four_turns_are_no_change(seed, shape):
    crop = planted_crop(np.random.default_rng(seed), shape)
    for same in (flipped(flipped(crop)), turned(turned(turned(turned(crop))))):
        assert same.shape == crop.shape
        assert np.array_equal(same.boxes, crop.boxes)
        assert np.array_equal(same.maps["drawn"], crop.maps["drawn"])


@SOME
@given(st.integers(0, 2**32 - 1), SHAPES, st.data())
def test_a_cut_keeps_the_boxes_whose_centre_is_inside_where_the_map_shows_them(seed, shape, data):
    crop = planted_crop(np.random.default_rng(seed), shape)
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    height, width = (
        data.draw(st.integers(1, shape[0] - row)),
        data.draw(st.integers(1, shape[1] - col)),
    )
    part = cut(crop, row, col, height, width)
    image = crop.maps["drawn"][row : row + height, col : col + width]
    assert np.array_equal(part.maps["drawn"], image)
    kept = set((part.box_class + 1).tolist())
    assert np.array_equal(drawn(part), np.where(np.isin(image, list(kept)), image, 0))
    centre = (crop.boxes[:, :2] + crop.boxes[:, 2:]) / 2 - [row, col]
    want = [
        n
        for n, (y, x) in zip(crop.box_class, centre, strict=True)
        if 0 <= y < height and 0 <= x < width
    ]
    assert sorted(kept) == [n + 1 for n in want]


def test_crops_without_boxes_move_too():
    crop = Crop((6, 8), {"drawn": np.arange(48).reshape(6, 8)})
    for moved in (flipped(crop), turned(crop), cut(crop, 1, 2, 3, 4)):
        assert moved.boxes.shape == (0, 4)
        assert moved.maps["drawn"].shape == moved.shape
