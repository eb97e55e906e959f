"""TIFFs and OME-TIFFs that OpenSlide does not open: what they show and what they state."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from helpers.slide_files import PICTURE, pixels, write_pyramid
from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box
from quadrat.slides.opening import open_slide


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 48)},
        {"tile": (64, 48), "compression": "zlib"},
        {"tile": (64, 64), "compression": "jpeg"},
        {"tile": (64, 64), "compression": "jpeg2000"},
        {"tile": (64, 64), "compression": "zstd", "predictor": True},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"rowsperstrip": 13, "compression": "jpeg"},
        {},
        {"axes": "CYX"},
        {"axes": "CYX", "tile": (64, 48), "compression": "zlib"},
        {
            "axes": "CYX",
            "photometric": "rgb",
            "planarconfig": "separate",
            "tile": (64, 64),
            "compression": "jpeg",
        },
    ],
    ids=str,
)
def test_a_pyramidal_ome_tiff_shows_at_every_level_what_tifffile_shows(
    tmp_path: Path, options: dict[str, object]
) -> None:
    write_pyramid(tmp_path / "a.ome.tif", **options)
    planes = "axes" in options
    with (
        tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff,
        open_slide(tmp_path / "a.ome.tif") as slide,
    ):
        want = [level.asarray() for level in tiff.series[0].levels]
        assert [level.down_row for level in slide.levels] == [1, 2]
        assert slide.mpp == pytest.approx((0.251, 0.25))
        assert (slide.info.format, slide.info.associated) == ("OME-TIFF", ("macro",))
        for level in range(2):
            np.testing.assert_array_equal(
                pixels(slide, level), np.moveaxis(want[level], 0, -1) if planes else want[level]
            )
        with pickle.loads(pickle.dumps(slide)) as other:
            np.testing.assert_array_equal(
                other.read(1, Box(-3, 100, 60, 300)), slide.read(1, Box(-3, 100, 60, 300))
            )


def test_jpeg_tiles_of_an_ome_tiff_can_be_moved(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.ome.tif", tile=(64, 64), compression="jpeg")
    with open_slide(tmp_path / "a.ome.tif") as slide:
        grid = slide.tiles(1)
        assert grid is not None
        np.testing.assert_array_equal(
            grid.codec.decode(grid.data(1, 2)), slide.read(1, Box(64, 128, 128, 192))
        )


def test_the_objective_and_the_icc_profile_of_an_ome_tiff_are_told(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument '
        'ID="Instrument:0">'
        '<Objective ID="Objective:1" NominalMagnification="20.0"/></Instrument><Image ID="Image:0">'
        '<ObjectiveSettings ID="Objective:1"/><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        'Type="uint8" SizeX="390" '
        'SizeY="300" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="500" PhysicalSizeXUnit="nm" '
        'PhysicalSizeY="0.5">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        PICTURE,
        description=xml,
        metadata=None,
        iccprofile=profile,
        photometric="rgb",
    )
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.info.objective, slide.mpp) == (20, (0.5, 0.5))
        assert slide.info.icc_profile == "sRGB built-in"


def test_channels_that_are_not_red_green_and_blue_are_refused(tmp_path: Path) -> None:
    meta = {"axes": "CYX", "Channel": {"Color": [65535, 16711935, -16776961]}}  # blue, green, red
    tifffile.imwrite(
        tmp_path / "f.ome.tif", np.moveaxis(PICTURE, 2, 0), metadata=meta, photometric="minisblack"
    )
    with pytest.raises(SlideError, match=r"f\.ome\.tif: .*0000FF, 00FF00, FF0000.*fluorescence"):
        open_slide(tmp_path / "f.ome.tif")


def test_a_tile_missing_from_an_ome_tiff_is_white_and_a_damaged_one_fails_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.ome.tif"
    write_pyramid(file, tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        offset, count, counts = page.dataoffsets[9], page.databytecounts[9], page.tags[325]
        width = counts.valuebytecount // counts.count
    with file.open("r+b") as stream:
        stream.seek(offset + count // 2)
        stream.write(b"\0" * (count - count // 2))
        stream.seek(counts.valueoffset + 3 * width)
        stream.write(b"\0" * width)
    with open_slide(file) as slide:
        assert (slide.read(0, Box(0, 192, 64, 256)) == 255).all()
        with pytest.raises(DamagedTileError) as caught:
            slide.read(0, Box(70, 130, 80, 140))
        assert (caught.value.level, caught.value.box) == (0, (64, 128, 128, 192))
        assert slide.read(0, Box(128, 0, 300, 390)).shape == (172, 390, 3)


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_a_resolution_that_can_be_a_microscopes_is_an_mpp_and_a_printers_is_none(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    for unit, resolution, want in [
        ("CENTIMETER", 20000, pytest.approx((0.5, 0.5))),
        ("INCH", 300, None),
        ("INCH", 50800, pytest.approx((0.5, 0.5))),
        ("NONE", 1, None),
    ]:
        file = tmp_path / f"{unit}{resolution}.tif"
        tifffile.imwrite(
            file,
            PICTURE,
            resolution=(resolution,) * 2,
            resolutionunit=unit,
            tile=tile,
            photometric="rgb",
            metadata=None,
        )
        with open_slide(file) as slide:
            assert slide.mpp == want


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_an_ome_tiff_states_its_mpp_in_its_own_unit(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    for unit, size in [("µm", 0.25), ("nm", 250.0), ("mm", 0.00025)]:
        meta = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size * 1.004}
        meta |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        tifffile.imwrite(
            tmp_path / "a.ome.tif", PICTURE, metadata=meta, tile=tile, photometric="rgb"
        )
        with open_slide(tmp_path / "a.ome.tif") as slide:
            assert slide.mpp == pytest.approx((0.251, 0.25))
            np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), PICTURE)


def test_an_ome_tiff_of_planes_is_one_rgb_picture(tmp_path: Path) -> None:
    planes = np.moveaxis(PICTURE, 2, 0)
    for tile in (None, (64, 64)):
        tifffile.imwrite(
            tmp_path / "c.ome.tif",
            planes,
            metadata={"axes": "CYX"},
            photometric="minisblack",
            tile=tile,
        )
        with open_slide(tmp_path / "c.ome.tif") as slide:
            np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), PICTURE)
