import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, check_mpp
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame
from quadrat.slides.array import ArraySlide
from quadrat.slides.opening import open_slide
from quadrat.slides.source import source_of
from quadrat.slides.tissue import mask as tissue_module
from quadrat.slides.tissue.absorption import dark_field, glass_light
from quadrat.slides.tissue.mask import TissueMap, find_tissue, tissue_cells, whole_slide
from quadrat.slides.tissue.overview import ANALYSED, BORDER, GREY, PEN, SPECKS, classify_overview

MPP = 8.0
PINK, PURPLE, PALE, GLASS = (220, 150, 190), (130, 80, 150), (236, 214, 232), (242, 241, 243)
WEAK_BLUE, WEAK_BROWN = (222, 224, 236), (233, 224, 206)
PENS = {"blue": (40, 70, 170), "green": (40, 140, 70), "red": (205, 35, 45), "black": (35, 33, 38)}
LATTICE = Lattice(core=64, halo=16, stride=16, shard=256)


def glass(height: int = 400, width: int = 600) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1.5, (height, width, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def paint(
    image: np.ndarray, centre: tuple[int, int], radius: float, colour: tuple[int, int, int]
) -> np.ndarray:
    rows, cols = np.ogrid[: image.shape[0], : image.shape[1]]
    disc = (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2
    noise = np.random.default_rng(1).normal(0, 12, (*image.shape[:2], 1))
    image[disc] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)[disc]
    return disc


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def tissue_mask(image: np.ndarray, *, mpp: float, **options: float) -> np.ndarray:
    return np.asarray(classify_overview(image, mpp=mpp, **options) == ANALYSED)


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


def test_the_light_of_a_picture_without_glass_is_white() -> None:
    image = glass()
    paint(image, (200, 300), 1000, PURPLE)
    assert np.allclose(np.exp(glass_light(image)) - 1, 245)


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


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 60, 255), (120, 200, 0)])
def test_fluorescence_is_refused_with_what_was_seen_and_the_way_on(
    colour: tuple[int, int, int],
) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    paint(image, (200, 200), 100, colour)
    with pytest.raises(
        SlideError, match=r"scan: .*not a bright-field slide.*median grey level 0.*slide.tissue=all"
    ):
        find_tissue(ArraySlide(image, name="scan", mpp=8.0), slide_mpp=8.0)


def test_dense_tissue_that_fills_the_picture_is_no_fluorescence() -> None:
    assert dark_field(np.full((50, 50, 3), (100, 50, 130), np.uint8)) is None
    assert dark_field(glass()) is None


def slide_with_tissue() -> ArraySlide:
    image = glass(500, 700)
    paint(image, (200, 300), 120, PURPLE)
    return ArraySlide(image.repeat(4, axis=0).repeat(4, axis=1), mpp=2.0)


def test_the_tissue_of_a_slide_is_that_of_its_overview() -> None:
    slide = slide_with_tissue()
    tissue = find_tissue(slide, slide_mpp=2.0)
    assert tissue.um_per_px == 8.0
    assert tissue.area_mm2 == pytest.approx(np.pi * (120 * 0.008) ** 2, rel=0.1)


def test_cells_are_the_cores_that_touch_tissue() -> None:
    slide = slide_with_tissue()
    tissue, frame = find_tissue(slide, slide_mpp=2.0), source_of(slide, mpp=4.0).frame
    cells = tissue_cells(tissue, lattice=LATTICE, frame=frame)
    assert cells == sorted(cells)
    full = tissue.mask.repeat(2, axis=0).repeat(2, axis=1)
    for cell in frame.box.cells(LATTICE.core):
        core = LATTICE.core_box(cell).intersect(frame.box)
        assert (cell in cells) == bool(full[core.slices_in(frame.box)].any())
        assert tissue.covers(core, frame=frame) == pytest.approx(
            full[core.slices_in(frame.box)].mean(), abs=0.05
        )


def test_a_least_share_of_tissue_thins_the_cells_out() -> None:
    slide = slide_with_tissue()
    tissue, frame = find_tissue(slide, slide_mpp=2.0), source_of(slide, mpp=4.0).frame
    found = [
        set(tissue_cells(tissue, lattice=LATTICE, frame=frame, min_fraction=f))
        for f in (0.0, 0.5, 0.99)
    ]
    assert found[0] > found[1] > found[2]


def test_what_is_analysed_and_what_is_left_out_add_up_to_the_slide() -> None:
    image = glass(401, 603)
    paint(image, (200, 300), 90, PINK)
    image[60:90, 100:300] = PENS["green"]
    image[:, :16] = 0
    image[300:380, 450:560] = 205
    paint(image, (60, 500), 6, PURPLE)
    tissue = find_tissue(ArraySlide(image, mpp=8.0), slide_mpp=8.0)
    assert {part.reason for part in tissue.excluded} == {
        "glass",
        "shadow, dust",
        "pen",
        "dark border",
        "specks",
    }
    assert tissue.area_mm2 + sum(part.mm2 for part in tissue.excluded) == pytest.approx(
        tissue.slide_mm2
    )
    whole_mm2 = 401 * 603 * 0.008**2
    rim_mm2 = (401 + 603) * 8e-3 * tissue.um_per_px / 1000
    assert whole_mm2 - rim_mm2 <= tissue.slide_mm2 <= whole_mm2


def test_an_empty_slide_says_what_is_there_instead_of_tissue() -> None:
    tissue = find_tissue(ArraySlide(glass(), mpp=8.0), slide_mpp=8.0)
    assert not tissue.mask.any()
    assert [part.reason for part in tissue.excluded] == ["glass"]
    assert tissue.account() == "0.00 of 15.36 mm2 analysed; glass 15.36"


def test_the_overview_of_a_huge_slide_gets_coarser_and_not_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tissue_module, "OVERVIEW_MAX_PX", 100_000)
    image = glass(500, 900)
    disc = paint(image, (200, 300), 150, PINK)
    found = find_tissue(ArraySlide(image, mpp=8.0), slide_mpp=8.0)
    assert found.mask.size <= 100_000
    assert found.area_mm2 == pytest.approx(disc.sum() * 64e-6, rel=0.05)


def test_codes_and_frame_are_all_that_must_be_kept_of_a_map() -> None:
    tissue = find_tissue(slide_with_tissue(), slide_mpp=2.0)
    again = TissueMap.of_codes(tissue.codes, frame=tissue.frame)
    assert np.array_equal(again.mask, tissue.mask)
    assert again.excluded == tissue.excluded
    bare = TissueMap(tissue.mask, tissue.frame)
    assert [part.reason for part in bare.excluded] == ["glass"]
    assert np.array_equal(TissueMap.of_codes(bare.codes, frame=bare.frame).mask, bare.mask)


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (65, 130), (9000, 200)])
def test_everything_is_tissue_of_a_whole_slide(size: tuple[int, int]) -> None:
    frame = Frame(height=size[0], width=size[1], mpp=0.5, scale_row=2.0, scale_col=2.0)
    tissue = whole_slide(frame)
    assert tissue_cells(tissue, lattice=LATTICE, frame=frame, min_fraction=0.9) == frame.box.cells(
        LATTICE.core
    )
    assert tissue.area_mm2 == pytest.approx(size[0] * size[1] * 0.25e-6, rel=0.01)


def test_cores_beyond_the_last_whole_mask_pixel_are_judged_by_it() -> None:
    mask = np.zeros((2, 2), bool)
    mask[1, 1] = True
    tissue = TissueMap(
        mask=mask, frame=Frame(height=2, width=2, mpp=16, scale_row=32, scale_col=32)
    )
    frame = Frame(height=65, width=65, mpp=0.5, scale_row=1.0, scale_col=1.0)
    assert tissue_cells(tissue, lattice=LATTICE, frame=frame) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tissue.pixels_of(Box(64, 64, 65, 65), frame) == Box(1, 1, 2, 2)


def test_a_map_whose_mask_and_frame_disagree_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        TissueMap(
            mask=np.ones((2, 3), bool),
            frame=Frame(height=3, width=3, mpp=8, scale_row=1, scale_col=1),
        )
    with pytest.raises(ValueError, match="reasons"):
        TissueMap(np.ones((1, 2), bool), Frame(1, 2, 8.0, 1.0, 1.0), np.array([[0, 1]], np.uint8))


@pytest.mark.parametrize(
    ("file", "mpp", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", None, 0.35, 0.48),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.25, 0.65, 0.75),
        ("generic_tiff_asap/example.tif", None, 0.17, 0.25),
        ("dicom_camelyon_jpeg", None, 0.26, 0.40),
    ],
)
def test_real_slides_have_as_much_tissue_as_one_sees(
    file: str, mpp: float | None, low: float, high: float
) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    with open_slide(Path(folder) / "wsi" / file, mpp=mpp) as slide:
        tissue = find_tissue(slide, slide_mpp=check_mpp(slide.mpp, slide=slide.name))
    assert low <= tissue.mask.mean() <= high


def test_the_real_fluorescence_slide_is_refused() -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    with (
        open_slide(Path(folder) / "wsi" / "test3-TRITC-2-560.ndpi") as slide,
        pytest.raises(SlideError, match="bright-field"),
    ):
        find_tissue(slide, slide_mpp=check_mpp(slide.mpp, slide=slide.name))
