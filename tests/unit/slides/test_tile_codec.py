"""Compressed tiles become pixels anywhere as they do in OpenSlide, and damage never does."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from helpers import tiffs
from helpers.tiffs import JPEG, reference
from quadrat.core.errors import DamagedTileError
from quadrat.core.geometry import Box
from quadrat.slides.opening import open_slide
from quadrat.slides.tile_codec import TileCodec, ycbcr_to_rgb

PICTURE = tiffs.picture()


def read(path: Path, level: int, box: Box) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(level, box)


def test_a_codec_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="webp"):
        TileCodec.from_json({"kind": "webp", "colorspace": "rgb", "tables": ""})


@pytest.mark.parametrize("kind", JPEG)
def test_a_stream_cut_short_or_zeroed_raises_and_never_gives_pixels(
    tmp_path: Path, kind: str
) -> None:
    with open_slide(tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)) as slide:
        grid = slide.tiles(0)
        assert grid is not None
        data, codec = grid.data(1, 1), grid.codec
    middle = len(data) // 2
    assert codec.flaw(data) is None
    for bad in (
        b"",
        bytes(len(data)),
        data[:100],
        data[:middle],
        data[:middle] + bytes(len(data) - middle),
    ):
        assert codec.flaw(bad) is not None
        with pytest.raises(ValueError, match=r"\w"):
            codec.decode(bad)


@pytest.mark.parametrize("kind", JPEG)
def test_a_stream_damaged_inside_is_an_error_or_what_openslide_makes_of_it(
    tmp_path: Path, kind: str
) -> None:
    path = tiffs.write(tmp_path / "a.svs", PICTURE, kind=kind)
    offset, nbytes = tiffs.place_of(path, 0, 9)
    sound = path.read_bytes()[offset : offset + nbytes]
    rng = np.random.default_rng(3)
    errors = 0
    for at in rng.integers(nbytes // 3, nbytes - 70, 12):
        bad = sound[:at] + rng.bytes(60) + sound[at + 60 :]
        tiffs.overwrite(path, offset, bad)
        try:
            ours = read(path, 0, Box(128, 128, 256, 256))
        except DamagedTileError:
            errors += 1
        else:  # some damage leaves a valid stream; OpenSlide also passes over some that we find
            np.testing.assert_array_equal(ours, reference(path, 0, Box(128, 128, 256, 256)))
    assert errors > 6 or kind.startswith("jpeg2000")  # a codestream has no check of its own


def test_ycbcr_in_jpeg_2000_is_rgb_as_openslide_has_it_for_all_pairs_of_chroma(
    tmp_path: Path,
) -> None:
    blue, red = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    tiles = [
        np.stack([np.full((256, 256), luma), blue, red], axis=-1).astype(np.uint8)
        for luma in (0, 90, 128, 255)
    ]
    streams = (
        imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=False, reversible=True)
        for tile in tiles
    )
    common = {
        "dtype": np.uint8,
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": 33003,
        "metadata": None,
    }
    note = tiffs.APERIO.format(height=512, width=512, tile=256)
    tifffile.imwrite(tmp_path / "a.svs", streams, shape=(512, 512, 3), description=note, **common)
    for tile, (row, col) in zip(tiles, [(0, 0), (0, 256), (256, 0), (256, 256)], strict=True):
        np.testing.assert_array_equal(
            ycbcr_to_rgb(tile),
            reference(tmp_path / "a.svs", 0, Box(row, col, row + 256, col + 256)),
        )
