"""What of an overview is tissue, and why the rest is not."""

import numpy as np
import pytest
from scipy import ndimage

from helpers.tissue_pictures import (
    GLASS,
    MPP,
    PALE,
    PENS,
    PINK,
    PURPLE,
    WEAK_BLUE,
    WEAK_BROWN,
    glass,
    paint,
)
from quadrat.slides.tissue.overview import (
    ANALYSED,
    BORDER,
    FILLED,
    GREY,
    PEN,
    SPECKS,
    classify_overview,
    is_tissue,
)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def tissue_mask(image: np.ndarray, *, mpp: float, **options: float) -> np.ndarray:
    return is_tissue(classify_overview(image, mpp=mpp, **options))


def test_an_empty_slide_has_no_tissue() -> None:
    assert not tissue_mask(glass(), mpp=MPP).any()
    assert not tissue_mask(np.full((50, 50, 3), 255, np.uint8), mpp=MPP).any()


def test_a_slide_full_of_tissue_is_all_tissue() -> None:
    for colour in (PINK, PURPLE):
        image = glass()
        paint(image, (200, 300), 1000, colour)
        assert tissue_mask(image, mpp=MPP).all()


@pytest.mark.parametrize("colour", [PINK, PURPLE, PALE, WEAK_BLUE, WEAK_BROWN])
def test_tissue_is_found_where_it_lies(colour: tuple[int, int, int]) -> None:
    image = glass()
    disc = paint(image, (180, 250), 120, colour)
    assert iou(tissue_mask(image, mpp=MPP), disc) > 0.93


def test_pale_tissue_is_found_beside_dark_tissue() -> None:
    image = glass()
    dark, pale = paint(image, (200, 150), 90, PURPLE), paint(image, (200, 430), 90, PALE)
    assert iou(tissue_mask(image, mpp=MPP), dark | pale) > 0.9


@pytest.mark.parametrize("pen", PENS)
def test_pen_strokes_are_left_out_and_the_tissue_beside_them_is_kept(pen: str) -> None:
    image = glass()
    disc = paint(image, (200, 180), 110, PINK)
    stroke = np.zeros(image.shape[:2], bool)
    stroke[40:360, 430:460] = True
    blend = ndimage.gaussian_filter(stroke.astype(float), 1.0)[..., None]
    image = (image * (1 - blend) + np.array(PENS[pen]) * blend).astype(np.uint8)
    found = tissue_mask(image, mpp=MPP)
    assert not found[:, 400:].any()
    assert iou(found, disc) > 0.93


def test_black_borders_grey_shadows_and_dust_are_left_out() -> None:
    image = glass()
    image[:, :20] = 0
    image[350:390, 100:500] = 170
    for k in range(8):
        paint(image, (30 + 25 * k, 500), 4, PURPLE)
    disc = paint(image, (180, 250), 110, PINK)
    assert iou(tissue_mask(image, mpp=MPP), disc) > 0.93


def test_small_holes_are_closed_and_large_ones_stay_open() -> None:
    image = glass()
    paint(image, (200, 300), 160, PINK)
    image[190:200, 290:300] = GLASS
    image[120:160, 340:380] = GLASS
    found = tissue_mask(image, mpp=MPP)
    assert found[195, 295]
    assert not found[140, 360]


def test_every_pixel_that_is_not_tissue_has_the_reason_one_sees() -> None:
    image = glass()
    paint(image, (200, 300), 90, PINK)
    image[60:90, 100:300] = PENS["blue"]
    image[:, :16] = 0
    image[300:380, 450:560] = 205
    paint(image, (60, 500), 6, PURPLE)
    codes = classify_overview(image, mpp=MPP)
    places = {
        (200, 300): ANALYSED,
        (75, 200): PEN,
        (200, 5): BORDER,
        (340, 500): GREY,
        (60, 500): SPECKS,
    }
    assert {place: codes[place] for place in places} == places


@pytest.mark.parametrize("tint", [(1.0, 0.97, 0.9), (0.92, 0.96, 1.0), (0.82, 0.82, 0.82)])
def test_light_that_falls_off_and_has_a_tint_is_not_taken_for_tissue(
    tint: tuple[float, float, float],
) -> None:
    image = glass()
    disc = paint(image, (180, 250), 110, PINK)
    fall = (
        1
        - 0.3
        * np.linspace(0, 1, image.shape[1])[None, :, None]
        * np.linspace(0.5, 1, image.shape[0])[:, None, None]
    )
    assert iou(tissue_mask((image * fall * np.array(tint)).astype(np.uint8), mpp=MPP), disc) > 0.93


def test_blue_ink_across_dark_tissue_is_left_out() -> None:
    image = glass()
    paint(image, (200, 300), 150, PURPLE)
    image[180:210, 100:500] = (
        image[180:210, 100:500] * np.exp(-np.array((1.9, 1.3, 0.35)))
    ).astype(np.uint8)
    found = tissue_mask(image, mpp=MPP)
    assert not found[180:210].any()
    assert found[120, 300]


def test_a_slide_is_left_with_its_tissue_if_more_than_half_of_it_is_a_black_frame() -> None:
    image = glass()
    disc = paint(image, (180, 450), 90, PINK)
    image[:, :330] = 0
    assert iou(tissue_mask(image, mpp=MPP), disc) > 0.9


def test_the_margin_and_the_least_piece_are_in_micrometres_and_square_millimetres() -> None:
    image = glass()
    paint(image, (180, 200), 60, PINK)
    paint(image, (180, 450), 20, PINK)
    small = np.pi * (20 * MPP / 1000) ** 2
    both, large = (tissue_mask(image, mpp=MPP, min_mm2=small * f) for f in (0.8, 1.3))
    assert both[180, 450]
    assert not large[180, 450]
    assert large[180, 200]
    wide = tissue_mask(image, mpp=MPP, margin_um=10 * MPP)
    assert np.sqrt(wide[:, :330].sum() / np.pi) == pytest.approx(70, abs=1.5)


def test_a_higher_threshold_asks_for_denser_tissue() -> None:
    image = glass()
    paint(image, (200, 150), 90, PURPLE)
    paint(image, (200, 430), 90, PALE)
    found = tissue_mask(image, mpp=MPP, threshold=0.5)
    assert found[200, 150]
    assert not found[200, 430]


# -- what is filled


def fields(gap: int, *, count: int = 4, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Square fields of tissue in rows and columns, ``gap`` px apart, and where they lie."""
    image = glass()
    truth = np.zeros(image.shape[:2], bool)
    for row in range(count):
        for col in range(count):
            top, left = 60 + row * (side + gap), 60 + col * (side + gap)
            truth[top : top + side, left : left + side] = True
    image[truth] = np.where(np.ones((truth.sum(), 1)), PINK, 0)
    return image, truth


@pytest.mark.parametrize("gap", [3, 5, 7])
def test_fields_that_lie_close_are_apart_where_nothing_is_to_be_filled(gap: int) -> None:
    image, truth = fields(gap)
    apart = classify_overview(image, mpp=MPP, fill_um=0, hole_mm2=0)
    assert is_tissue(apart).sum() == pytest.approx(truth.sum(), rel=0.03)
    assert not (apart == FILLED).any()
    filled = classify_overview(image, mpp=MPP)
    assert is_tissue(filled).sum() > 1.1 * truth.sum()
    extra = (filled == FILLED).sum()
    assert (filled == ANALYSED).sum() == pytest.approx(truth.sum(), rel=0.03)
    assert extra == pytest.approx(is_tissue(filled).sum() - truth.sum(), abs=0.03 * truth.sum())


@pytest.mark.parametrize(("fill_um", "closed"), [(0, False), (32, False), (48, True), (64, True)])
def test_gaps_are_filled_if_they_are_narrower_than_is_asked_for(
    fill_um: float, closed: bool
) -> None:
    image, _ = fields(5)  # 40 um
    found = tissue_mask(image, mpp=MPP, fill_um=fill_um, hole_mm2=0)
    middle = found[80, 60:235]
    assert middle.all() == closed


@pytest.mark.parametrize(("hole_mm2", "closed"), [(0, False), (0.005, False), (0.01, True)])
def test_holes_are_filled_if_they_are_smaller_than_is_asked_for(
    hole_mm2: float, closed: bool
) -> None:
    image = glass()
    paint(image, (200, 300), 160, PINK)
    image[190:200, 290:300] = GLASS  # 0.0064 mm2
    found = classify_overview(image, mpp=MPP, fill_um=0, hole_mm2=hole_mm2)
    assert (found[195, 295] == FILLED) == closed
    assert is_tissue(found)[195, 295] == closed


@pytest.mark.parametrize("side", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_a_strip_of_glass_along_the_border_stays_glass(side: int, width: int) -> None:
    image = glass()
    paint(image, (200, 300), 1000, PINK)
    image = np.rot90(image, side).copy()
    image[:width, 100:-100] = GLASS  # a bay that opens to the border
    found = tissue_mask(image, mpp=MPP)
    assert found[:width, 110:-110].mean() < 0.01
    assert found[width + 2 :].all()


@pytest.mark.parametrize("size", [(20, 20), (12, 30)])
def test_a_small_piece_of_glass_in_a_corner_stays_glass(size: tuple[int, int]) -> None:
    image = glass()
    paint(image, (200, 300), 1000, PINK)
    image[: size[0], : size[1]] = GLASS
    assert size[0] * size[1] * (MPP / 1000) ** 2 < 0.05
    found = tissue_mask(image, mpp=MPP)
    assert found[: size[0] - 2, : size[1] - 2].mean() < 0.02


def test_pen_and_frame_are_not_filled() -> None:
    image = glass()
    paint(image, (200, 300), 160, PINK)
    image[190:200, 200:400] = PENS["blue"]
    found = classify_overview(image, mpp=MPP)
    assert (found[192:198, 210:390] == PEN).all()
