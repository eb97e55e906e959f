import os
from pathlib import Path

import numpy as np
import pytest

from helpers.tissue_pictures import PENS, PINK, PURPLE, glass, paint
from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, check_mpp
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame
from quadrat.slides.array import ArraySlide
from quadrat.slides.opening import open_slide
from quadrat.slides.source import source_of
from quadrat.slides.tissue import mask as tissue_module
from quadrat.slides.tissue.mask import (
    OUTSIDE_INCLUSION,
    USER_EXCLUSION,
    TissueMap,
    find_tissue,
    tissue_cells,
    whole_slide,
)
from quadrat.slides.tissue.overview import ANALYSED, FILLED

LATTICE = Lattice(core=64, halo=16, stride=16, shard=256)


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


def test_what_is_filled_is_a_part_of_the_tissue_and_stays_so_when_it_is_kept() -> None:
    image = glass(500, 700)
    disc = paint(image, (200, 300), 120, PURPLE)
    image[195:205, 290:310] = 242  # a hole of 0.0128 mm2
    slide = ArraySlide(image, mpp=8.0)
    filled = find_tissue(slide, slide_mpp=8.0)
    bare = find_tissue(slide, slide_mpp=8.0, fill_um=0, hole_mm2=0)
    assert filled.filled_mm2 == pytest.approx(0.0128, rel=0.3)
    assert bare.filled_mm2 == 0
    assert filled.area_mm2 - bare.area_mm2 == pytest.approx(filled.filled_mm2, abs=0.001)
    assert filled.area_mm2 == pytest.approx(disc.sum() * 64e-6, rel=0.02)
    assert "(0.01 of them filled)" in filled.account()
    assert "filled" not in bare.account()
    for tissue in (filled, bare):
        whole = tissue.area_mm2 + sum(part.mm2 for part in tissue.excluded)
        assert whole == pytest.approx(tissue.slide_mm2)
        again = TissueMap.of_codes(tissue.codes, frame=tissue.frame)
        assert (again.area_mm2, again.filled_mm2) == (tissue.area_mm2, tissue.filled_mm2)


def test_filled_tissue_that_the_user_excludes_is_excluded_by_the_user() -> None:
    frame = Frame(height=1, width=4, mpp=1000.0, scale_row=1.0, scale_col=1.0)
    codes = np.array([[FILLED, FILLED | USER_EXCLUSION, OUTSIDE_INCLUSION | FILLED, ANALYSED]])
    tissue = TissueMap.of_codes(codes.astype(np.uint8), frame=frame)
    assert (tissue.area_mm2, tissue.filled_mm2) == (2, 1)
    assert [(part.reason, part.mm2) for part in tissue.excluded] == [
        ("user exclusion", 1),
        ("outside user inclusion", 1),
    ]
