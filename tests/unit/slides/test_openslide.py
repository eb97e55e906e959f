"""Slides that OpenSlide serves, alone or beside native tiles."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides import openslide as openslide_module
from quadrat.slides.opening import open_slide
from quadrat.slides.openslide import OpenSlideSlide


def test_the_fluorescence_ndpi_has_seven_levels_of_powers_of_two(wsi: Path) -> None:
    with open_slide(wsi / "test3-TRITC-2-560.ndpi") as slide:
        assert [level.down_row for level in slide.levels] == [1, 2, 4, 8, 16, 32, 64]
        assert slide.mpp == pytest.approx((0.2282, 0.2282), abs=1e-4)
        assert (slide.info.objective, slide.info.associated) == (40, ("macro",))


def test_openslide_alone_serves_what_the_self_check_refuses(
    wsi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        openslide_module, "refuse_reason", lambda *_, **__: "level 0: the tile differs"
    )
    with open_slide(wsi / "CMU-1-Small-Region.svs") as slide:
        assert slide.info.reader.startswith("openslide 4")
        whole = slide.read(0, Box(100, 100, 1300, 1400))
        np.testing.assert_array_equal(
            slide.read(0, Box(500, 600, 700, 640)), whole[400:600, 500:540]
        )
    with open_slide(wsi / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        whole = slide.read(1, Box(100, 100, 1300, 1400))
        np.testing.assert_array_equal(
            slide.read(1, Box(500, 600, 700, 640)), whole[400:600, 500:540]
        )


def test_a_damaged_tile_fails_alone_and_names_its_place(wsi: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged.svs"
    shutil.copyfile(wsi / "CMU-1-Small-Region.svs", file)
    file.chmod(0o600)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[45], page.databytecounts[45]
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\0" * count)
    place = Box(4 * 240 + 9, 5 * 240 + 9, 4 * 240 + 99, 5 * 240 + 99)  # ten tiles a row
    with open_slide(file) as slide:
        with pytest.raises(SlideError, match=r"damaged\.svs.*row0"):
            slide.read(0, place)
        assert slide.read(0, Box(0, 0, 100, 100)).shape == (100, 100, 3)
    with open_slide(file) as slide:
        assert isinstance(slide, OpenSlideSlide)
        slide._native = None  # the same through OpenSlide, whose handle is spoilt by one bad tile
        with pytest.raises(SlideError, match=r"damaged\.svs.*row0"):
            slide.read(0, place)
        assert slide.read(0, Box(0, 0, 100, 100)).shape == (100, 100, 3)
