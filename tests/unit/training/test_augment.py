import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from helpers import fields
from quadrat.config.pipeline import Augmentation, load_pipeline, pipeline_schema
from quadrat.core.errors import ConfigError
from quadrat.models.task import Crop
from quadrat.training.augment import (
    augment_colour,
    half_extent,
    noisy,
    random_patch,
    recoloured,
    recompressed,
    refocused,
    restained,
    warp,
)
from quadrat.training.crops import cut, flipped, turned

SOME = settings(deadline=None, derandomize=True, max_examples=60)
LIMITS = {
    name: field["maximum"]
    for name, field in pipeline_schema()["$defs"]["Augmentation"]["properties"].items()
}
STRONG = Augmentation(stain=0.2, colour=0.2, blur=2, jpeg=0.5, noise=8, scale=0.3, rotate=20)
ANGLES, SCALES = st.floats(-45, 45), st.floats(0.6, 1.7)


def tissue(seed=0, shape=(64, 80)):
    """Pink and purple, smooth, with a white corner."""
    rng = np.random.default_rng(seed)
    shade = ndimage.gaussian_filter(rng.standard_normal((*shape, 1)), (3, 3, 0))
    rgb = np.array([190.0, 110, 170]) + 300 * shade * np.array([1.0, 0.7, 0.5])
    rgb[:12, :12] = 255
    return np.clip(rgb, 0, 255).astype(np.uint8)


def planted(seed=0, shape=(90, 110)):
    """A crop whose maps and boxes show the same ellipses, and an image whose red channel shows them
    too."""
    labels = fields.disjoint_ellipses(np.random.default_rng(seed), shape, n=25)
    boxes = np.array(
        [(w[0].start, w[1].start, w[0].stop, w[1].stop) for w in ndimage.find_objects(labels)],
        np.float64,
    )
    rgb = np.repeat((labels > 0).astype(np.uint8)[:, :, None] * 200, 3, axis=2)
    maps = {
        "labels": labels,
        "classes": (labels > 0).astype(np.uint8),
        "wide": labels.astype(np.int64),
    }
    return rgb, Crop(shape, maps, boxes, np.arange(len(boxes)).astype(np.uint8), label=1)


@SOME
@given(st.integers(0, 2**32 - 1))
def test_a_sample_is_a_pure_function_of_its_generator(seed):
    rgb, crop = planted()
    kept = rgb.copy()
    one, two = (
        random_patch(rgb, crop, np.random.default_rng(seed), side=48, how=STRONG) for _ in range(2)
    )
    assert np.array_equal(one[0], two[0])
    assert all(np.array_equal(one[1].maps[n], two[1].maps[n]) for n in crop.maps)
    assert np.array_equal(one[1].boxes, two[1].boxes)
    colours = [augment_colour(one[0], np.random.default_rng(seed), STRONG) for _ in range(2)]
    assert np.array_equal(colours[0], colours[1])
    assert colours[0].shape == (48, 48, 3)
    assert colours[0].dtype == np.uint8
    assert np.array_equal(rgb, kept)


def test_other_generators_give_other_colours_and_places():
    rgb, crop = planted()
    patches = [
        random_patch(rgb, crop, np.random.default_rng(seed), side=48, how=STRONG)[0]
        for seed in range(6)
    ]
    assert len({p.tobytes() for p in patches}) == 6
    assert (
        len(
            {
                augment_colour(tissue(), np.random.default_rng(seed), STRONG).tobytes()
                for seed in range(6)
            }
        )
        == 6
    )


def test_colours_take_images_whose_memory_lies_in_another_order():
    rgb = tissue()
    for view in (rgb[:, ::-1], np.rot90(rgb), rgb[::2, 1::2]):
        found = augment_colour(view, np.random.default_rng(1), STRONG)
        assert np.array_equal(
            found, augment_colour(np.ascontiguousarray(view), np.random.default_rng(1), STRONG)
        )


def test_strength_zero_changes_nothing():
    rgb, rng = tissue(), np.random.default_rng(0)
    assert np.array_equal(augment_colour(rgb, rng, Augmentation()), rgb)
    assert np.array_equal(restained(rgb, rng, strength=0), rgb)
    assert np.array_equal(recoloured(rgb, rng, strength=0), rgb)
    assert np.array_equal(refocused(rgb, rng, sigma=0), rgb)
    assert np.array_equal(noisy(rgb, rng, deviation=0), rgb)


@pytest.mark.parametrize("change", [restained, recoloured])
def test_tiny_strengths_change_hardly_anything(change):
    rgb = tissue()
    found = change(rgb, np.random.default_rng(0), strength=1e-6).astype(int)
    assert abs(found - rgb).max() <= 1


@pytest.mark.parametrize("name", list(LIMITS))
def test_strengths_out_of_bounds_are_refused_with_the_limit(name):
    for value in (-0.1, LIMITS[name] * 1.01):
        with pytest.raises(ConfigError, match=f"{name} is .* to {LIMITS[name]:g}"):
            load_pipeline("nuclei", [f"train.augment.{name}={value}"])
    for value in (-0.1, LIMITS[name] * 1.01, float("nan")):
        with pytest.raises(ValidationError, match=name):
            Augmentation(**{name: value})


@SOME
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.5))
def test_another_staining_keeps_white_white_and_changes_tissue(seed, strength):
    rgb = tissue()
    found = restained(rgb, np.random.default_rng(seed), strength=strength)
    assert (found[:12, :12] == 255).all()
    assert not np.array_equal(found, rgb)


def test_more_haematoxylin_makes_nuclei_darker_and_leaves_pure_eosin_alone():
    class Drawn:
        """A generator that draws more haematoxylin and nothing else."""

        def __init__(self):
            self.values = [np.array([3.0, 0, 0]), np.zeros(3), np.zeros(3)]

        def standard_normal(self, size):
            return self.values.pop(0)

    from skimage.color import rgb_from_hed

    pure = np.exp(-np.outer([0.8, 0.8], np.ones(3)) * rgb_from_hed[:2]) * 256 - 1
    rgb = np.rint(pure).astype(np.uint8)[None]
    found = restained(rgb, Drawn(), strength=0.1).astype(int)
    assert (found[0, 0] < rgb[0, 0] - 5).all()
    assert abs(found[0, 1] - rgb[0, 1]).max() <= 1


@SOME
@given(st.integers(0, 2**32 - 1))
def test_hue_and_saturation_leave_greys_grey(seed):
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    found = recoloured(grey, np.random.default_rng(seed), strength=0.3).astype(int)
    assert np.ptp(found, axis=2).max() <= 1
    assert (np.diff(found[0, :, 0]) >= 0).all()


def test_focus_blurs_some_samples_sharpens_some_and_leaves_most():
    rgb = tissue(3)
    rough = lambda image: float(np.abs(np.diff(image.astype(int), axis=0)).mean())  # noqa: E731
    found = [
        rough(refocused(rgb, np.random.default_rng(seed), sigma=2.0)) - rough(rgb)
        for seed in range(200)
    ]
    shares = [
        sum(f < 0 for f in found) / 200,
        sum(f > 0 for f in found) / 200,
        sum(f == 0 for f in found) / 200,
    ]
    assert 0.2 < shares[0] < 0.4
    assert 0.1 < shares[1] < 0.3
    assert shares[2] > 0.4


def test_noise_has_the_stated_deviation():
    flat = np.full((200, 200, 3), 128, np.uint8)
    found = noisy(flat, np.random.default_rng(0), deviation=6.0)
    assert abs(found.std() - 6) < 0.2
    assert abs(found.mean() - 128) < 0.2


def test_lower_quality_leaves_less_of_an_image():
    rgb = noisy(tissue(), np.random.default_rng(0), deviation=8)
    error = [abs(recompressed(rgb, quality=q).astype(int) - rgb).mean() for q in (40, 70, 95)]
    assert error[0] > error[1] > error[2] > 0
    assert np.array_equal(recompressed(rgb, quality=60), recompressed(rgb, quality=60))


def test_compression_is_done_to_the_stated_share_of_samples():
    rgb = tissue()
    how = Augmentation(jpeg=0.25)
    changed = sum(
        not np.array_equal(augment_colour(rgb, np.random.default_rng(s), how), rgb)
        for s in range(200)
    )
    assert 30 < changed < 70


@SOME
@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_without_zoom_and_turn_a_patch_is_cut_out_of_whole_pixels(seed, draw):
    rgb, crop = planted(seed)
    patch, found = random_patch(rgb, crop, np.random.default_rng(draw), side=40, how=Augmentation())
    rng = np.random.default_rng(draw)
    row, col = int(rng.integers(0, 90 - 40 + 1)), int(rng.integers(0, 110 - 40 + 1))
    want = cut(crop, row, col, 40, 40)
    assert np.array_equal(patch, rgb[row : row + 40, col : col + 40])
    assert all(np.array_equal(found.maps[n], want.maps[n]) for n in crop.maps)
    assert np.allclose(found.boxes, want.boxes)
    assert np.array_equal(found.box_class, want.box_class)
    assert found.label == want.label == 1
    assert found.shape == (40, 40)


def test_a_quarter_turn_is_numpy_s_and_a_half_turn_two_flips():
    rgb, crop = planted(shape=(64, 64))
    for angle, want_rgb, want in (
        (90.0, np.rot90(rgb), turned(crop)),
        (180.0, rgb[::-1, ::-1], turned(turned(crop))),
        (-90.0, np.rot90(rgb, -1), turned(turned(turned(crop)))),
    ):
        found_rgb, found = warp(rgb, crop, side=64, centre=(32, 32), angle=angle, scale=1.0)
        assert (
            abs(found_rgb.astype(int) - want_rgb).max() <= 1
        )  # the bilinear weights are cut off, not rounded
        assert all(np.array_equal(found.maps[n], want.maps[n]) for n in crop.maps)
        assert np.allclose(found.boxes, want.boxes)
    assert flipped(crop).shape == crop.shape


@SOME
@given(st.integers(0, 50), ANGLES, SCALES)
def test_label_maps_keep_their_values_and_type_and_agree_with_each_other(seed, angle, scale):
    rgb, crop = planted(seed)
    _, found = warp(rgb, crop, side=64, centre=(45, 55), angle=angle, scale=scale)
    for name, before in crop.maps.items():
        after = found.maps[name]
        assert after.shape == (64, 64)
        assert after.dtype == before.dtype
        assert set(np.unique(after)) <= set(np.unique(before)) | {0}
    assert np.array_equal(found.maps["labels"] > 0, found.maps["classes"] > 0)


@SOME
@given(st.integers(0, 50), ANGLES, SCALES, st.tuples(st.floats(20, 70), st.floats(20, 90)))
def test_pixels_follow_the_maps(seed, angle, scale, centre):
    rgb, crop = planted(seed)
    image, found = warp(rgb, crop, side=64, centre=centre, angle=angle, scale=scale)
    inside = ndimage.binary_erosion(found.maps["labels"] > 0, iterations=2)
    white = (image == 255).all(axis=2)
    outside = ndimage.binary_erosion((found.maps["labels"] == 0) & ~white, iterations=2)
    assert (image[inside] > 150).all()
    # a pixel between tissue and the white beyond it mixes both; elsewhere background is black
    assert (image[outside & ~ndimage.binary_dilation(white, iterations=3)] < 50).all()


@SOME
@given(ANGLES, SCALES, st.tuples(st.integers(4, 24), st.integers(4, 24)))
def test_boxes_follow_a_painted_rectangle_within_a_pixel(angle, scale, extent):
    shape = (200, 200)
    box = (100 - extent[0], 100 - extent[1], 100 + extent[0], 100 + extent[1])
    labels = np.zeros(shape, np.int32)
    labels[box[0] : box[2], box[1] : box[3]] = 1
    crop = Crop(shape, {"labels": labels}, np.array([box], np.float64), np.zeros(1, np.uint8))
    rgb = np.zeros((*shape, 3), np.uint8)
    _, found = warp(
        rgb, crop, side=160, centre=(103.3, 96.8), angle=angle, scale=scale, outline="rectangle"
    )
    rows, cols = ndimage.find_objects(found.maps["labels"])[0]
    seen = [rows.start, cols.start, rows.stop, cols.stop]
    assert np.abs(found.boxes[0] - seen).max() <= 1.0


@SOME
@given(ANGLES, SCALES, st.tuples(st.floats(4, 24), st.floats(4, 24)))
def test_boxes_follow_a_painted_ellipse_within_a_pixel(angle, scale, radii):
    r, c = np.mgrid[:200, :200] + 0.5
    labels = ((((r - 100) / radii[0]) ** 2 + ((c - 100) / radii[1]) ** 2) <= 1).astype(np.int32)
    box = (100 - radii[0], 100 - radii[1], 100 + radii[0], 100 + radii[1])
    crop = Crop((200, 200), {"labels": labels}, np.array([box]), np.zeros(1, np.uint8))
    rgb = np.zeros((200, 200, 3), np.uint8)
    _, found = warp(rgb, crop, side=160, centre=(103.3, 96.8), angle=angle, scale=scale)
    rows, cols = ndimage.find_objects(found.maps["labels"])[0]
    seen = [rows.start, cols.start, rows.stop, cols.stop]
    assert np.abs(found.boxes[0] - seen).max() <= max(
        1.0, 1.2 * scale
    )  # nearest: half a source pixel a side, on tips


def test_round_things_keep_the_size_of_their_box_when_they_turn():
    crop = Crop((100, 100), {}, np.array([[40.0, 40, 60, 60]]), np.zeros(1, np.uint8))
    rgb = np.zeros((100, 100, 3), np.uint8)
    _, found = warp(rgb, crop, side=80, centre=(50, 50), angle=33.0, scale=1.5)
    assert np.allclose(found.boxes, [[25, 25, 55, 55]])


def test_boxes_whose_centre_leaves_the_patch_are_dropped_with_their_class():
    crop = Crop(
        (100, 100),
        {},
        np.array([[0.0, 0, 8, 8], [45, 45, 55, 55], [48, 85, 52, 89]]),
        np.array([7, 8, 9], np.uint8),
    )
    _, found = warp(
        np.zeros((100, 100, 3), np.uint8), crop, side=60, centre=(50, 50), angle=10.0, scale=1.0
    )
    assert found.box_class.tolist() == [8]
    _, found = warp(
        np.zeros((100, 100, 3), np.uint8), crop, side=60, centre=(50, 50), angle=0.0, scale=0.5
    )
    assert found.box_class.tolist() == [7, 8, 9]


def test_beyond_the_window_is_white_and_filled():
    rgb, crop = planted()
    image, found = warp(rgb, crop, side=64, centre=(0, 0), angle=20.0, scale=1.0, fill=9)
    assert (image[0, 0] == 255).all()
    assert found.maps["labels"][0, 0] == found.maps["classes"][0, 0] == 9


@SOME
@given(st.integers(0, 2**32 - 1))
def test_patches_stay_inside_where_there_is_room(seed):
    crop = Crop((140, 150), {"here": np.ones((140, 150), np.uint8)})
    rgb = np.zeros((140, 150, 3), np.uint8)
    assert half_extent(64, angle=20, scale=1 / 1.3) * 2 < 140
    image, found = random_patch(rgb, crop, np.random.default_rng(seed), side=64, how=STRONG)
    assert (found.maps["here"] == 1).all()
    assert image.max() == 0


def test_patches_as_large_as_their_window_are_turned_about_its_middle():
    rgb, crop = planted(shape=(64, 64))
    image, found = random_patch(
        rgb, crop, np.random.default_rng(0), side=64, how=Augmentation(rotate=15)
    )
    assert image.shape == (64, 64, 3)
    assert (image[0, 0] == 255).all()
    assert found.maps["labels"][32, 32] == crop.maps["labels"][32, 32]
