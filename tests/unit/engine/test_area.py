"""The account of a slide's area."""

from dataclasses import replace

import numpy as np
import pytest

from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.engine.area import DAMAGED, analysed_area
from quadrat.engine.work import SlidePlan
from quadrat.slides.tissue.mask import TissueMap
from quadrat.slides.tissue.overview import FILLED

FRAME = Frame(height=64, width=64, mpp=0.5, scale_row=2.0, scale_col=4.0)
COARSE = Frame(height=16, width=16, mpp=2.0, scale_row=8.0, scale_col=16.0)
PX_MM2 = (2.0 / 1000) ** 2


@pytest.fixture
def work(tiny):
    """Cores of 16 px, of which the left two columns are analysed; tissue in the upper half."""
    mask = np.zeros((16, 16), bool)
    mask[:8] = True
    tissue = TissueMap(mask, COARSE)
    plan = SlidePlan(
        name="a",
        frame=FRAME,
        cells=tuple((row, col) for row in range(4) for col in range(2)),
        tissue_mm2=tissue.area_mm2,
        tissue_frame=COARSE,
        reader="native",
        format="tiff",
        slide_mpp=0.25,
        mpp_source="file",
        excluded=(("glass", 0.5),),
    )
    work = tiny.work()
    work.save_plan(plan, tissue)
    return work


def test_without_damage_the_account_is_the_plans(work):
    plan = work.load_plan()
    area = analysed_area(work, plan, ())
    assert (area.analysed_mm2, area.excluded, area.lost) == (plan.tissue_mm2, plan.excluded, ())


def test_tissue_in_a_damaged_tile_was_not_analysed(work):
    plan = work.load_plan()
    tile = Box(0, 0, 16, 16)  # 4 x 4 px of the mask
    area = analysed_area(work, plan, (tile, tile))
    assert area.lost == (tile,)
    assert area.analysed_mm2 == pytest.approx(plan.tissue_mm2 - 16 * PX_MM2)
    assert area.excluded == (("glass", 0.5), (DAMAGED, pytest.approx(16 * PX_MM2)))


def test_what_is_filled_in_a_damaged_tile_is_not_analysed_either(work):
    tissue = work.load_tissue()
    codes = tissue.codes.copy()
    codes[2:6, 2:5] = FILLED  # 12 px, of which 4 (2 x 2) lie in the tile
    work.save_plan(
        replace(work.load_plan(), filled_mm2=12 * PX_MM2), TissueMap.of_codes(codes, frame=COARSE)
    )
    plan = work.load_plan()
    assert analysed_area(work, plan, ()).filled_mm2 == 12 * PX_MM2
    area = analysed_area(work, plan, (Box(0, 0, 16, 16),))
    assert area.analysed_mm2 == pytest.approx(plan.tissue_mm2 - 16 * PX_MM2)
    assert area.filled_mm2 == pytest.approx(8 * PX_MM2)
    assert area.figures(FRAME).tissue_filled_mm2 == round(8 * PX_MM2, 6)


def test_overlapping_tiles_and_glass_are_not_counted_twice(work):
    plan = work.load_plan()
    tiles = (Box(0, 0, 16, 16), Box(0, 8, 16, 24), Box(48, 0, 64, 16))
    area = analysed_area(work, plan, tiles)
    assert area.lost == tiles
    assert area.analysed_mm2 == pytest.approx(plan.tissue_mm2 - 4 * 6 * PX_MM2)


def test_damage_that_no_analysed_window_touches_is_left_out(work):
    plan, halo = work.load_plan(), work.spec.lattice.halo
    far = Box(0, 32 + halo, 8, 64)
    assert analysed_area(work, plan, (far,)).lost == ()
    near = Box(0, 32 + halo - 1, 8, 64)
    assert analysed_area(work, plan, (near,)).lost == (near,)


def test_results_state_the_area_rounded_and_boxes_in_level_0_px(work):
    plan = replace(work.load_plan(), excluded=(("glass", 1 / 3),))
    figures = analysed_area(work, plan, (Box(2, 3, 4, 8),)).figures(FRAME)
    assert figures.damaged_tiles_l0 == ((12.0, 4.0, 32.0, 8.0),)
    assert figures.excluded_mm2["glass"] == 0.333333
    assert figures.tissue_mm2 == round(figures.tissue_mm2, 6)
