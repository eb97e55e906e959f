"""Planes of a TIFF in every colour, and large ones piece by piece."""

import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.slide_files import PICTURE, pixels
from helpers.tiffs import picture
from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides.opening import open_slide


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_grey_palette_and_transparent_tiffs_are_shown_in_their_colours(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    grey, alpha = PICTURE[..., 0], PICTURE[..., 1:2]
    table = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    rgba = np.concatenate([PICTURE, alpha], axis=2)
    premultiplied = np.concatenate([np.minimum(PICTURE, alpha), alpha], axis=2)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    for name, data, options, want in [
        ("grey", grey, {"photometric": "minisblack"}, as_rgb),
        ("inverted", grey, {"photometric": "miniswhite"}, 255 - as_rgb),
        ("palette", grey, {"photometric": "palette", "colormap": table * 257}, table.T[grey]),
        ("alpha", rgba, {"extrasamples": "unassalpha"}, None),
        (
            "premultiplied",
            premultiplied,
            {"extrasamples": "assocalpha"},
            premultiplied[..., :3] + (255 - alpha),
        ),
        ("unnamed", rgba, {"extrasamples": "unspecified"}, PICTURE),
    ]:
        options = {
            "photometric": "rgb",
            "compression": "zstd",
            "tile": tile,
            "metadata": None,
        } | options
        tifffile.imwrite(tmp_path / f"{name}.tif", data, **options)
        with open_slide(tmp_path / f"{name}.tif") as slide:
            if name == "premultiplied":  # OpenSlide, which reads the tiled one, rounds twice
                assert np.abs(pixels(slide).astype(int) - want).max() <= 1
            elif want is None:
                want = np.asarray(
                    Image.alpha_composite(
                        Image.new("RGBA", data.shape[1::-1], "white"), Image.fromarray(data)
                    )
                )[..., :3]
                assert np.abs(pixels(slide).astype(int) - want).max() <= 1
            else:
                np.testing.assert_array_equal(pixels(slide), want)


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    cmyk = np.concatenate([PICTURE, PICTURE[..., :1]], axis=2)
    tifffile.imwrite(tmp_path / "cmyk.tif", cmyk, photometric="separated")
    tifffile.imwrite(tmp_path / "lab.tif", PICTURE, photometric="cielab")
    tifffile.imwrite(
        tmp_path / "two.tif",
        PICTURE[..., :2],
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[2],
    )
    for name in ("cmyk.tif", "lab.tif", "two.tif"):
        with pytest.raises(SlideError, match=rf"{name}: .*not (8-bit )?RGB"):
            open_slide(tmp_path / name)


@pytest.mark.parametrize("tiled", [False, True], ids=["one strip", "tiles"])
def test_a_corner_of_a_huge_flat_tiff_takes_little_memory(tmp_path: Path, tiled: bool) -> None:
    side = 30_000  # 2.7 GB of pixels; the file is sparse, or one tile many times
    options: dict[str, object] = {
        "shape": (side, side, 3),
        "dtype": np.uint8,
        "photometric": "rgb",
        "bigtiff": True,
    }
    options["metadata"] = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    file = tmp_path / "huge.ome.tif"
    if tiled:
        tile = imagecodecs.zstd_encode(np.full((512, 512, 3), 7, np.uint8).tobytes())
        tiles = (tile for _ in range((-(-side // 512)) ** 2))
        tifffile.imwrite(file, tiles, tile=(512, 512), compression="zstd", **options)
    else:
        tifffile.imwrite(file, **options)
    tracemalloc.start()
    try:
        with open_slide(file) as slide:
            assert (slide.read(0, Box(20_000, 20_000, 20_600, 20_600)) == (7 if tiled else 0)).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        file.unlink()
    assert peak < 100 << 20


LOSSLESS = ("zlib", "lzw", "packbits", "zstd", "lzma", "lerc", "png", "jpeg2000", "webp", "jpegxl")
PHOTO = picture(96, 128)


@pytest.mark.parametrize("tile", [(32, 64), None])
@pytest.mark.parametrize("codec", [*LOSSLESS, "jpegxr", "jpeg"])
def test_every_compression_that_imagecodecs_decodes_is_read_in_tiles_and_strips(
    tmp_path: Path, codec: str, tile: tuple[int, int] | None
) -> None:
    file = tmp_path / "a.tif"
    options = {"tile": tile} if tile else {"rowsperstrip": 32}
    tifffile.imwrite(file, PHOTO, photometric="rgb", metadata=None, compression=codec, **options)
    with open_slide(file) as slide:
        found = slide.read(0, slide.levels[0].box).astype(int)
    assert np.abs(found - PHOTO).mean() <= (0 if codec in LOSSLESS else 3)


def test_a_compression_that_nobody_decodes_is_refused_with_its_name_and_the_way_out(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, PHOTO, photometric="rgb", metadata=None, compression="lzw")
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages.first.tags[259].overwrite(34676)
    with pytest.raises(
        SlideError, match=r"its TIFF compression 34676 \(SGILOG\) is not read; convert it .*vips"
    ):
        open_slide(file)


@pytest.mark.parametrize("tile", [(32, 64), None])
@pytest.mark.parametrize("factor", [1, 257])
def test_a_palette_of_8_or_of_16_bits_has_the_colours_that_viewers_show(
    tmp_path: Path, tile: tuple[int, int] | None, factor: int
) -> None:
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :9] = np.random.default_rng(1).integers(0, 256, (3, 9))
    index = (PHOTO[..., 0] // 32).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        index,
        photometric="palette",
        colormap=(colours * factor).astype(np.uint16),
        metadata=None,
        tile=tile,
    )
    with open_slide(tmp_path / "a.tif") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), colours.T[index])


@pytest.mark.parametrize("tile", [(32, 64), None])
@pytest.mark.parametrize(
    ("pixels", "photometric", "words"),
    [
        (np.dstack([255 - PHOTO, PHOTO[..., 0]]), "separated", "interpretation 5, SEPARATED"),
        (PHOTO.astype(np.uint16) * 257, "rgb", "of uint16"),
        (PHOTO.astype(np.float32), "rgb", "of float32"),
        (PHOTO[..., 0] > 99, "minisblack", "of bool"),
    ],
)
def test_colours_that_would_have_to_be_guessed_are_refused(
    tmp_path: Path, pixels: np.ndarray, photometric: str, words: str, tile: tuple[int, int] | None
) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, pixels, photometric=photometric, metadata=None, tile=tile)
    with pytest.raises(SlideError, match=words):
        open_slide(file)
