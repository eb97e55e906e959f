import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.geometry import Box, Scale, check_mpp, plan_read, pyramid_levels
from quadrat.core.objects import Frame

coordinates = st.integers(-(10**5), 10**5)
sides = st.integers(0, 10**4)
boxes = st.builds(
    lambda r, c, h, w: Box(r, c, r + h, c + w), coordinates, coordinates, sides, sides
)


@given(boxes, boxes)
def test_an_intersection_lies_in_both_boxes_or_is_empty(a: Box, b: Box) -> None:
    common = a.intersect(b)
    assert common.empty or (a.contains(common) and b.contains(common))
    assert a.union(b).contains(a)
    assert a.union(b).contains(b)


@given(
    st.builds(
        lambda r, c, h, w: Box(r, c, r + h, c + w),
        coordinates,
        coordinates,
        *[st.integers(1, 3000)] * 2,
    )
)
def test_cells_cover_a_box_and_none_is_superfluous(box: Box) -> None:
    cells = [Box(r, c, r + 1, c + 1).scale_out(700, 700) for r, c in box.cells(700)]
    assert sum(cell.intersect(box).area for cell in cells) == box.area
    assert all(not cell.intersect(box).empty for cell in cells)


@given(boxes, st.integers(1, 64))
def test_scaling_out_by_a_factor_and_its_inverse_gives_the_box_back(box: Box, factor: int) -> None:
    assert box.scale_out(factor, factor).scale_out(1 / factor, 1 / factor) == box


@given(boxes, st.floats(0.01, 100))
def test_scaling_out_never_loses_ground(box: Box, factor: float) -> None:
    scaled = box.scale_out(factor, factor)
    assert scaled.row0 <= box.row0 * factor + 1e-5
    assert scaled.row1 >= box.row1 * factor - 1e-5


def test_a_box_with_a_negative_side_is_refused() -> None:
    with pytest.raises(ValueError, match="negative side"):
        Box(0, 0, -1, 5)


factors = st.floats(0.2, 70)
scales = st.builds(Scale, factors, factors)


@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 4), min_size=1).map(np.array),
    scales,
    st.sampled_from((2, 4)),
)
def test_grid_and_level_0_coordinates_convert_into_each_other(
    places: np.ndarray, scale: Scale, columns: int
) -> None:
    xy = places[:, :columns]
    there = scale.to_l0(xy)
    np.testing.assert_allclose(scale.from_l0(there), xy, rtol=1e-12, atol=1e-9)
    for column in range(columns):  # x by the columns' factor, y by the rows'
        factor = scale.row if column % 2 else scale.col
        np.testing.assert_array_equal(there[:, column], xy[:, column] * factor)


@given(boxes, scales)
def test_a_box_its_corners_and_its_pixel_centres_lie_at_the_same_level_0_place(
    box: Box, scale: Scale
) -> None:
    x0, y0, x1, y1 = scale.box_l0(box)
    corners = np.array([[box.col0, box.row0, box.col1, box.row1]], np.float64)
    assert scale.to_l0(corners).tolist() == [[x0, y0, x1, y1]]
    rows, cols = scale.centres_l0(box)
    assert (len(rows), len(cols)) == box.shape
    for centres, low, factor in ((rows, y0, scale.row), (cols, x0, scale.col)):
        if len(centres):
            assert centres[0] == pytest.approx(low + factor / 2)
            np.testing.assert_allclose(np.diff(centres), factor, rtol=1e-6)


@given(scales, scales)
def test_one_frame_is_measured_in_pixels_of_another(fine: Scale, coarse: Scale) -> None:
    xy = np.array([[3.0, 5.0]])
    ratio = coarse.per(fine)
    np.testing.assert_allclose(ratio.to_l0(xy), fine.from_l0(coarse.to_l0(xy)), rtol=1e-12)
    frames = [Frame(7, 9, 1.0, scale.row, scale.col) for scale in (coarse, fine)]
    rows, cols = frames[0].centres_in(frames[1])
    np.testing.assert_allclose(rows, (np.arange(7) + 0.5) * ratio.row, rtol=1e-12)
    np.testing.assert_allclose(cols, (np.arange(9) + 0.5) * ratio.col, rtol=1e-12)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_factor_is_refused(factor: float) -> None:
    for scale in ((1.0, factor), (factor, 1.0)):
        with pytest.raises(ValueError, match="two positive finite numbers"):
            Scale(*scale)


def test_the_far_corner_of_the_grid_is_the_far_corner_of_level_0() -> None:
    plan = plan_read(pyramid_levels([(4000, 6000)]), slide_mpp=0.25, mpp=0.5, slide="s")
    assert Scale(plan.scale_row, plan.scale_col).box_l0(plan.box) == (0, 0, 6000, 4000)


def test_rounded_level_sizes_give_whole_downsamples() -> None:
    levels = pyramid_levels([(2967, 2220), (1483, 1110), (741, 555), (370, 277), (46, 34), (1, 1)])
    assert [level.down_row for level in levels[:5]] == [1, 2, 4, 8, 64]
    assert all(level.down_row == level.down_col for level in levels[:5])


def test_a_factor_of_three_is_found_and_an_odd_one_is_kept_an_axis() -> None:
    three, odd = pyramid_levels([(9000, 6001), (3000, 2000), (1800, 1300)])[1:]
    assert (three.down_row, three.down_col) == (3, 3)
    assert (odd.down_row, odd.down_col) == (5.0, 6001 / 1300)


@pytest.mark.parametrize(
    ("mpp", "level", "ratio", "real"),
    [
        (0.25, 0, 1.0, 0.25),
        (0.5, 0, 2.0, 0.5),
        (1.0, 1, 1.0, 1.0),
        (0.96, 1, 1.0, 1.0),
        (2.0, 1, 2.0, 2.0),
        (0.3, 0, 1.2, 0.3),
        (1.3, 0, 5.0, 1.25),
        (1.37, 1, 1.37, 1.37),
    ],
)
def test_the_plan_takes_the_nearest_finer_level(
    mpp: float, level: int, ratio: float, real: float
) -> None:
    plan = plan_read(
        pyramid_levels([(8000, 8000), (2000, 2000)]), slide_mpp=0.25, mpp=mpp, slide="s"
    )
    assert (plan.level, plan.ratio_row, plan.mpp) == (
        level,
        pytest.approx(ratio),
        pytest.approx(real),
    )
    assert plan.scale_row == pytest.approx(real / 0.25)
    assert plan.height == int(8000 * 0.25 / real + 1e-9)


def test_detail_is_not_invented_unless_allowed() -> None:
    levels = pyramid_levels([(1000, 1000)])
    with pytest.raises(SlideError, match=r"has only 0\.5"):
        plan_read(levels, slide_mpp=0.5, mpp=0.25, slide="s")
    plan = plan_read(levels, slide_mpp=0.5, mpp=0.25, slide="s", allow_upsampling=True)
    assert (plan.ratio_row, plan.height) == (0.5, 2000)


def test_an_impossible_model_mpp_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="outside"):
        plan_read(pyramid_levels([(10, 10)]), slide_mpp=0.5, mpp=400, slide="s")


@pytest.mark.parametrize(
    "mpp", [None, (352.9, 352.9), (0.0, 0.5), (float("nan"), 0.5), (0.5, 0.25)]
)
def test_an_mpp_that_would_have_to_be_guessed_is_refused_with_the_way_to_mend_it(
    mpp: tuple[float, float] | None,
) -> None:
    with pytest.raises(SlideError, match=r"s\.svs.*--mpp VALUE or the manifest's column 'mpp'"):
        check_mpp(mpp, slide="s.svs")


def test_a_hairs_breadth_between_the_axes_is_averaged() -> None:
    assert check_mpp((28.968, 28.969), slide="s") == pytest.approx(28.9685)
