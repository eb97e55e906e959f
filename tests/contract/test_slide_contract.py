"""What every slide keeps to, whatever its file: one test a promise, every reader in turn."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.geometry import Box
from quadrat.slides import ArraySlide, Slide, open_slide

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
        tifffile.imwrite(folder / "flat.ome.tif", picture(), metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
        return open_slide(folder / "flat.ome.tif")
    tifffile.imwrite(folder / "tiled.tif", picture(), tile=(64, 64), compression="zlib", photometric="rgb")
    return open_slide(folder / "tiled.tif", mpp=0.5)


@pytest.fixture(params=["array", "png", "ome", "tiled", *REAL])
def slide(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Slide]:
    kind: str = request.param
    if kind not in REAL:
        found = made(kind, tmp_path)
    elif DATA is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    else:
        found = open_slide(Path(DATA) / kind, mpp=0.5)
    with found:
        yield found


def regions(slide: Slide) -> Iterator[tuple[int, Box]]:
    """Boxes inside, across an edge and outside, at every level large enough."""
    rng = np.random.default_rng(1)
    for index, level in enumerate(slide.levels[:4]):
        for _ in range(3):
            row, col = (int(rng.integers(-40, side)) for side in level.box.shape)
            yield index, Box(row, col, row + int(rng.integers(1, 700)), col + int(rng.integers(1, 700)))
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


def test_a_region_is_the_same_whole_or_in_parts(slide: Slide) -> None:
    for index, box in regions(slide):
        whole = slide.read(index, box)
        middle = box.row0 + box.height // 3, box.col0 + box.width // 2
        for part in (
            Box(box.row0, box.col0, middle[0], middle[1]),
            Box(middle[0], middle[1], box.row1, box.col1),
            Box(box.row0, middle[1], middle[0], box.col1),
        ):
            np.testing.assert_array_equal(slide.read(index, part), whole[part.slices_in(box)])


def test_a_region_read_may_be_written_to_without_harm(slide: Slide) -> None:
    box = Box(0, 0, 20, 20)
    first = slide.read(0, box)
    kept = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(slide.read(0, box), kept)


def test_levels_get_smaller_and_agree_with_the_info(slide: Slide) -> None:
    assert slide.levels[0].down_row == slide.levels[0].down_col == 1
    assert slide.info.size == slide.levels[0].box.shape
    assert slide.info.level_sizes == tuple(level.box.shape for level in slide.levels)
    downs = [level.down_row for level in slide.levels]
    assert downs == sorted(downs)


def test_the_override_is_the_mpp(slide: Slide) -> None:
    assert slide.mpp == (0.5, 0.5)


def test_a_slide_survives_pickling(slide: Slide) -> None:
    with pickle.loads(pickle.dumps(slide)) as other:
        assert (other.name, other.levels, other.mpp, other.info) == (slide.name, slide.levels, slide.mpp, slide.info)
        np.testing.assert_array_equal(other.read(0, Box(3, 5, 40, 60)), slide.read(0, Box(3, 5, 40, 60)))
