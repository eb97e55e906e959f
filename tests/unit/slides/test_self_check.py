"""Native tiles that are not what OpenSlide shows are refused."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import tiffs
from helpers.tiffs import reference
from quadrat.slides import native as native_module
from quadrat.slides.opening import open_slide
from quadrat.slides.tile_codec import TileCodec

PICTURE = tiffs.picture()


def swapped_colours(page: object) -> TileCodec | None:
    codec = original_codec(page)
    return codec and replace(codec, colorspace="rgb" if codec.colorspace == "ycbcr" else "ycbcr")


original_codec = native_module._codec


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000"])
def test_the_self_check_refuses_other_colours_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(native_module, "_codec", swapped_colours)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    with open_slide(path) as slide:
        assert slide.info.reader.startswith("openslide 4")
        assert "native tiles refused: level 0: the tile at" in slide.info.reader
        assert slide.tiles(0) is None
        np.testing.assert_array_equal(
            slide.read(0, slide.levels[0].box), reference(path, 0, slide.levels[0].box)
        )


def test_the_self_check_looks_at_the_last_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = native_module.native_level

    def wrong_at_the_end(page: object) -> native_module.NativeLevel | None:
        level = original(page)
        if level is None:
            return None
        last = len(level.counts) - 1
        return replace(
            level, decode=lambda data, index: level.decode(data, index) ^ np.uint8(index == last)
        )

    monkeypatch.setattr(native_module, "native_level", wrong_at_the_end)
    with open_slide(tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")) as slide:
        assert (
            "native tiles refused: level 0: the tile at Box(row0=640, col0=896" in slide.info.reader
        )


def test_a_level_that_the_self_check_refuses_stays_with_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = native_module.native_level

    def wrong_when_small(page: object) -> native_module.NativeLevel | None:
        level = original(page)
        if level is None or level.size == (700, 900):
            return level
        return replace(level, decode=lambda data, index: level.decode(data, index) ^ np.uint8(1))

    monkeypatch.setattr(native_module, "native_level", wrong_when_small)
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind="jpeg")
    with open_slide(path) as slide:
        assert re.match(
            r"native tiles; openslide 4\S* for level 1 \(native tiles refused: level 1: the tile",
            slide.info.reader,
        )
        assert slide.tiles(0) is not None
        assert slide.tiles(1) is None
        np.testing.assert_array_equal(
            slide.read(1, slide.levels[1].box), reference(path, 1, slide.levels[1].box)
        )
