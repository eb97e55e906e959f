import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from quadrat.geometry import Box, check_mpp
from quadrat.grid import Lattice
from quadrat.results import Frame
from quadrat.slides import ArraySlide, open_slide
from quadrat.slides.source import source_of
from quadrat.tissue import TissueMap, find_tissue, tissue_cells, tissue_mask, whole_slide

MPP = 8.0
PINK, PURPLE, PALE, GLASS = (220, 150, 190), (130, 80, 150), (236, 214, 232), (242, 241, 243)
PENS = {"blue": (40, 70, 170), "green": (40, 140, 70), "red": (205, 35, 45), "black": (35, 33, 38)}
LATTICE = Lattice(core=64, halo=16, stride=16, shard=256)


def glass(height: int = 400, width: int = 600) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1.5, (height, width, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def paint(image: np.ndarray, centre: tuple[int, int], radius: float, colour: tuple[int, int, int]) -> np.ndarray:
    rows, cols = np.ogrid[: image.shape[0], : image.shape[1]]
    disc = (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2
    noise = np.random.default_rng(1).normal(0, 12, (*image.shape[:2], 1))
    image[disc] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)[disc]
    return disc


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_an_empty_slide_has_no_tissue() -> None:
    assert not tissue_mask(glass(), mpp=MPP).any()
    assert not tissue_mask(np.full((50, 50, 3), 255, np.uint8), mpp=MPP).any()


def test_a_slide_full_of_tissue_is_all_tissue() -> None:
    for colour in (PINK, PURPLE):
        image = glass()
        paint(image, (200, 300), 1000, colour)
        assert tissue_mask(image, mpp=MPP).all()


@pytest.mark.parametrize("colour", [PINK, PURPLE, PALE])
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


def test_a_dark_field_slide_has_no_tissue_that_absorption_could_tell() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[50:150, 50:150, 0] = 60
    assert not tissue_mask(image, mpp=MPP).any()


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
        assert tissue.covers(core, frame=frame) == pytest.approx(full[core.slices_in(frame.box)].mean(), abs=0.05)


def test_a_least_share_of_tissue_thins_the_cells_out() -> None:
    slide = slide_with_tissue()
    tissue, frame = find_tissue(slide, slide_mpp=2.0), source_of(slide, mpp=4.0).frame
    found = [set(tissue_cells(tissue, lattice=LATTICE, frame=frame, min_fraction=f)) for f in (0.0, 0.5, 0.99)]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (65, 130), (9000, 200)])
def test_everything_is_tissue_of_a_whole_slide(size: tuple[int, int]) -> None:
    frame = Frame(height=size[0], width=size[1], mpp=0.5, scale_row=2.0, scale_col=2.0)
    tissue = whole_slide(frame)
    assert tissue_cells(tissue, lattice=LATTICE, frame=frame, min_fraction=0.9) == frame.box.cells(LATTICE.core)
    assert tissue.area_mm2 == pytest.approx(size[0] * size[1] * 0.25e-6, rel=0.01)


def test_cores_beyond_the_last_whole_mask_pixel_are_judged_by_it() -> None:
    mask = np.zeros((2, 2), bool)
    mask[1, 1] = True
    tissue = TissueMap(mask=mask, frame=Frame(height=2, width=2, mpp=16, scale_row=32, scale_col=32))
    frame = Frame(height=65, width=65, mpp=0.5, scale_row=1.0, scale_col=1.0)
    assert tissue_cells(tissue, lattice=LATTICE, frame=frame) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tissue.pixels_of(Box(64, 64, 65, 65), frame) == Box(1, 1, 2, 2)


def test_a_map_whose_mask_and_frame_disagree_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        TissueMap(mask=np.ones((2, 3), bool), frame=Frame(height=3, width=3, mpp=8, scale_row=1, scale_col=1))


@pytest.mark.parametrize(
    ("file", "mpp", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", None, 0.35, 0.48),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.25, 0.65, 0.75),
        ("generic_tiff_asap/example.tif", None, 0.18, 0.27),
        ("dicom_camelyon_jpeg", None, 0.19, 0.28),
        ("test3-TRITC-2-560.ndpi", None, 0.0, 0.0),
    ],
)
def test_real_slides_have_as_much_tissue_as_one_sees(file: str, mpp: float | None, low: float, high: float) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    with open_slide(Path(folder) / "wsi" / file, mpp=mpp) as slide:
        tissue = find_tissue(slide, slide_mpp=check_mpp(slide.mpp, slide=slide.name))
    assert low <= tissue.mask.mean() <= high
