"""A slide seen at the model's mpp: which mpp is taken, and what becomes of damaged places."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import tiffs
from helpers.tiffs import LOST, LOST_TILE
from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box, check_mpp, plan_read
from quadrat.slides.opening import open_slide
from quadrat.slides.source import SlideSource, open_source

PICTURE = tiffs.picture()
SHARES = st.lists(st.floats(0, 1), max_size=3)


def test_a_slide_without_mpp_is_refused_until_one_is_given(wsi: Path) -> None:
    file = wsi / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(file) as slide, pytest.raises(SlideError, match=r"TCGA-CR-7395.*--mpp"):
        check_mpp(slide.mpp, slide=slide.name)
    with pytest.raises(SlideError, match="--mpp"):
        open_source(file, mpp=0.5)
    with open_source(file, mpp=0.5, slide_mpp=0.25) as source:
        assert (source.plan.level, source.frame.mpp) == (1, 0.5)


def test_an_absurd_mpp_is_refused(wsi: Path) -> None:
    with pytest.raises(SlideError, match=r"352\.\d+ um/px is outside"):
        open_source(wsi / "small_HE_levels.tiff", mpp=0.5, slide_mpp=352.8)
    with pytest.raises(SlideError, match="states no mpp"):  # 28.35 px/cm: 72 dots per inch
        open_source(wsi / "small_HE_levels.tiff", mpp=0.5)


@pytest.fixture(scope="module")
def two_lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiffs.write(tmp_path_factory.mktemp("lost") / "a.svs", PICTURE, kind="jpeg")
    for tile in (LOST_TILE, 47):
        tiffs.zero_tile(path, 0, tile)
    return path


def cut(box: Box, rows: list[float], cols: list[float]) -> list[Box]:
    """The box cut at these shares of its sides."""
    down = sorted({box.row0, box.row1, *(box.row0 + int(share * box.height) for share in rows)})
    across = sorted({box.col0, box.col1, *(box.col0 + int(share * box.width) for share in cols)})
    return [Box(r0, c0, r1, c1) for r0, r1 in pairwise(down) for c0, c1 in pairwise(across)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mpp=st.sampled_from([0.5, 1.5, 0.685, 0.4]), rows=SHARES, cols=SHARES)
def test_marked_damage_is_the_same_however_reads_are_cut(
    two_lost: Path, mpp: float, rows: list[float], cols: list[float]
) -> None:
    with open_slide(two_lost) as slide:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=mpp, slide="a", allow_upsampling=True)
        whole, parts = (SlideSource(slide, plan, damaged="mark") for _ in range(2))
        seen = whole.frame.box.pad(7)
        pixels = whole.read(seen)
        for box in cut(seen, rows, cols):
            np.testing.assert_array_equal(parts.read(box), pixels[box.slices_in(seen)])
        assert parts.damage == whole.damage == sorted(whole.damage)
        assert len(whole.damage) == 2


@pytest.mark.parametrize("mpp", [0.5, 1.5, 0.685, 0.4])
def test_marked_damage_is_white_and_nothing_else_differs(
    two_lost: Path, tmp_path: Path, mpp: float
) -> None:
    sound = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    with open_slide(two_lost) as slide, open_slide(sound) as good:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=mpp, slide="a", allow_upsampling=True)
        marked, whole = SlideSource(slide, plan, damaged="mark"), SlideSource(good, plan)
        ours, want = marked.read(marked.frame.box), whole.read(whole.frame.box)
        inside = np.zeros(want.shape[:2], bool)
        for box in marked.damage:
            inside[box.slices_in(marked.frame.box)] = True
            if box.width > 8:  # the other one is the last tile's 4 px
                assert (ours[box.pad(-4).slices_in(marked.frame.box)] == 255).all()
        np.testing.assert_array_equal(ours[~inside], want[~inside])
        if mpp == 0.5:
            assert marked.damage == [LOST, Box(640, 896, 700, 900)]
        with pytest.raises(DamagedTileError):
            SlideSource(slide, plan).read(marked.frame.box)


@pytest.mark.usefixtures("openslide_alone")
def test_marked_damage_is_the_same_through_openslide(two_lost: Path) -> None:
    with open_slide(two_lost) as slide:
        plan = plan_read(slide.levels[:1], slide_mpp=0.5, mpp=0.5, slide="a")
        source = SlideSource(slide, plan, damaged="mark")
        source.read(Box(0, 0, 300, 900))
        assert source.damage == [LOST]
        source.read(source.frame.box)
        assert source.damage == [LOST, Box(640, 896, 700, 900)]
        assert pickle.loads(pickle.dumps(source)).damage == source.damage


@pytest.mark.parametrize(
    ("objective", "mpp", "good"),
    [
        (20, 0.5, True),
        (20, 0.25, True),
        (40, 0.23, True),
        (40, 0.5, True),
        (1.25, 8.0, True),
        (20, 0.05, False),
        (20, 5.0, False),
        (40, 2.5, False),
        (2, 0.5, False),
    ],
)
def test_an_objective_that_contradicts_the_mpp_is_refused_unless_the_user_states_the_mpp(
    tmp_path: Path, objective: float, mpp: float, good: bool
) -> None:
    note = f"Aperio Image Library v1\n64x64 [0,0 64x64] (32x32)|AppMag = {objective}|MPP = {mpp}"
    file = tmp_path / "a.svs"
    options = {"photometric": "rgb", "compression": "jpeg", "tile": (32, 32), "metadata": None}
    tifffile.imwrite(file, np.full((64, 64, 3), 200, np.uint8), description=note, **options)
    if good:
        open_source(file, mpp=mpp).close()
    else:
        with pytest.raises(SlideError, match=rf"{mpp:g} um/px and a {objective:g}x objective"):
            open_source(file, mpp=mpp)
    open_source(file, mpp=mpp, slide_mpp=mpp).close()
