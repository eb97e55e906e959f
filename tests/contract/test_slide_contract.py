"""What every slide keeps to, whatever its file: one test a promise, every reader in turn."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import tiffs
from quadrat.core.geometry import Box
from quadrat.slides import openslide as openslide_module
from quadrat.slides.array import ArraySlide
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.source import source_of

DATA = os.environ.get("QUADRAT_DATA")
REAL = [
    "wsi/CMU-1-Small-Region.svs",
    "wsi/TCGA-CR-7395-01A-01-TS1.svs",
    "wsi/generic_tiff_asap/example.tif",
    "wsi/small_HE_levels.tiff",
    "wsi/test3-TRITC-2-560.ndpi",
    "wsi/dicom_camelyon_jpeg",
    "wsi/dicom_cmu-1-small-region_mistagged_rgb",
]


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (301, 403, 3), np.uint8)


def made(kind: str, folder: Path) -> Slide:
    if kind == "array":
        return ArraySlide(picture(), name="array", mpp=0.5)
    if kind == "png":
        Image.fromarray(picture()).save(folder / "flat.png")
        return open_slide(folder / "flat.png", mpp=0.5)
    if kind == "ome":
        tifffile.imwrite(
            folder / "flat.ome.tif",
            picture(),
            metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
        return open_slide(folder / "flat.ome.tif")
    if kind in ("jpeg", "jpeg2000"):
        return open_slide(tiffs.write(folder / "tiled.svs", tiffs.picture(601, 803), kind=kind))
    if kind == "sparse":
        path = tiffs.write(folder / "sparse.svs", tiffs.picture(601, 803), kind="jpeg")
        tiffs.drop_tile(path, 0, 9)
        return open_slide(path)
    if kind == "openslide":
        return open_slide(tiffs.write(folder / "tiled.svs", tiffs.picture(601, 803), kind="jpeg"))
    tifffile.imwrite(
        folder / "tiled.tif", picture(), tile=(64, 64), compression="zlib", photometric="rgb"
    )
    return open_slide(folder / "tiled.tif", mpp=0.5)


MADE = ["array", "png", "ome", "tiled", "jpeg", "jpeg2000", "sparse", "openslide"]


@pytest.fixture(scope="module", params=[*MADE, *REAL])
def slide(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slide]:
    kind: str = request.param
    patch = pytest.MonkeyPatch()
    if kind == "openslide":  # a slide whose tiles are plain, but which is not read natively
        patch.setattr(openslide_module, "NATIVE_VENDORS", ())
    if kind not in REAL:
        found = made(kind, tmp_path_factory.mktemp(kind))
    elif DATA is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    else:
        found = open_slide(Path(DATA) / kind, mpp=0.5)
    with found:
        yield found
    patch.undo()


def regions(slide: Slide) -> Iterator[tuple[int, Box]]:
    """Boxes inside, across an edge and outside, at every level large enough."""
    rng = np.random.default_rng(1)
    for index, level in enumerate(slide.levels[:4]):
        for _ in range(3):
            row, col = (int(rng.integers(-40, side)) for side in level.box.shape)
            yield (
                index,
                Box(row, col, row + int(rng.integers(1, 700)), col + int(rng.integers(1, 700))),
            )
        yield index, Box(level.height, 0, level.height + 9, 7)


def test_a_region_is_uint8_rgb_of_its_shape_and_white_outside(slide: Slide) -> None:
    for index, box in regions(slide):
        pixels = slide.read(index, box)
        assert (pixels.shape, pixels.dtype) == ((*box.shape, 3), np.uint8)
        outside = np.ones(box.shape, bool)
        inside = box.intersect(slide.levels[index].box)
        if not inside.empty:
            outside[inside.slices_in(box)] = False
        assert (pixels[outside] == 255).all()


def parts_of(box: Box, data: st.DataObject) -> list[Box]:
    """The box cut anyhow, by two lines that need not meet others'."""
    row = data.draw(st.integers(box.row0, box.row1))
    cols = [data.draw(st.integers(box.col0, box.col1)) for _ in range(2)]
    parts = []
    for row0, row1, col in ((box.row0, row, cols[0]), (row, box.row1, cols[1])):
        parts += [Box(row0, box.col0, row1, col), Box(row0, col, row1, box.col1)]
    return [part for part in parts if not part.empty]


def box_near(whole: Box, data: st.DataObject) -> Box:
    """A box of up to 700 px that begins anywhere from 40 px before the picture to its
    last pixel.
    """
    row, col = (data.draw(st.integers(-40, side - 1)) for side in whole.shape)
    return Box(row, col, row + data.draw(st.integers(1, 700)), col + data.draw(st.integers(1, 700)))


ANYHOW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANYHOW
@given(data=st.data())
def test_a_region_is_the_same_whole_or_in_parts(slide: Slide, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, min(4, len(slide.levels)) - 1))
    box = box_near(slide.levels[index].box, data)
    whole = slide.read(index, box)
    for part in parts_of(box, data):
        np.testing.assert_array_equal(slide.read(index, part), whole[part.slices_in(box)])


@ANYHOW
@given(data=st.data(), mpp=st.sampled_from([0.5, 0.73, 1.0, 1.5, 1.9]))
def test_a_region_of_the_grid_is_the_same_whole_or_in_parts(
    slide: Slide, data: st.DataObject, mpp: float
) -> None:
    source = source_of(slide, mpp=mpp)
    box = box_near(source.frame.box, data)
    whole = source.read(box)
    for part in parts_of(box, data):
        np.testing.assert_array_equal(source.read(part), whole[part.slices_in(box)])


def test_tiles_that_can_be_moved_are_what_the_level_shows(slide: Slide) -> None:
    for index, level in enumerate(slide.levels):
        grid = slide.tiles(index)
        if grid is None:
            continue
        height, width = grid.tile
        row, col = (level.height - 1) // height, (level.width - 1) // width
        for place in {(0, 0), (row // 2, col // 2), (row, col)}:
            box = (
                Box(*place, place[0] + 1, place[1] + 1)
                .scale_out(height, width)
                .intersect(level.box)
            )
            pixels = grid.codec.decode(grid.data(*place))
            assert pixels.shape == (height, width, 3)
            np.testing.assert_array_equal(pixels[: box.height, : box.width], slide.read(index, box))


def test_a_region_read_may_be_written_to_without_harm(slide: Slide) -> None:
    box = Box(0, 0, 20, 20)
    first = slide.read(0, box)
    kept = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(slide.read(0, box), kept)


def test_levels_get_smaller(slide: Slide) -> None:
    assert slide.levels[0].down_row == slide.levels[0].down_col == 1
    downs = [level.down_row for level in slide.levels]
    assert downs == sorted(downs)


def test_the_override_is_the_mpp(slide: Slide) -> None:
    assert slide.mpp == (0.5, 0.5)


def test_a_slide_survives_pickling(slide: Slide) -> None:
    with pickle.loads(pickle.dumps(slide)) as other:
        assert (other.name, other.levels, other.mpp, other.info) == (
            slide.name,
            slide.levels,
            slide.mpp,
            slide.info,
        )
        np.testing.assert_array_equal(
            other.read(0, Box(3, 5, 40, 60)), slide.read(0, Box(3, 5, 40, 60))
        )
