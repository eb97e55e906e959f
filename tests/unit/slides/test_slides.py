import os
import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box, check_mpp
from quadrat.slides import flat as flat_module
from quadrat.slides import openslide as openslide_module
from quadrat.slides.array import ArraySlide
from quadrat.slides.opening import open_slide
from quadrat.slides.openslide import OpenSlideSlide
from quadrat.slides.protocol import on_white
from quadrat.slides.source import open_source

rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (120, 200, 3), np.uint8)


@pytest.fixture
def wsi() -> Path:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    return Path(folder) / "wsi"


@pytest.mark.parametrize(
    ("file", "sizes", "mpp", "objective", "associated", "reader"),
    [
        (
            "CMU-1-Small-Region.svs",
            [(2967, 2220)],
            (0.499, 0.499),
            20,
            ("label", "macro", "thumbnail"),
            "native tiles",
        ),
        (
            "TCGA-CR-7395-01A-01-TS1.svs",
            [(3567, 4443), (1783, 2221)],
            None,
            None,
            ("thumbnail",),
            "native tiles",
        ),
        (
            "generic_tiff_asap/example.tif",
            [(690, 1472), (345, 736), (172, 368)],
            (0.987,) * 2,
            None,
            (),
            "native tiles",
        ),
        ("dicom_camelyon_jpeg", [(700, 1152)], (28.968, 28.969), None, (), "openslide"),
    ],
)
def test_a_real_slide_is_what_its_source_says(
    wsi: Path,
    file: str,
    sizes: list[tuple[int, int]],
    mpp: tuple[float, float] | None,
    objective: float | None,
    associated: tuple[str, ...],
    reader: str,
) -> None:
    with open_slide(wsi / file) as slide:
        assert [level.box.shape for level in slide.levels] == sizes
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, abs=5e-4))
        assert slide.info.objective == objective
        assert slide.info.associated == associated
        assert slide.info.reader.startswith(reader)
        assert slide.name == Path(file).stem


def test_the_fluorescence_ndpi_has_seven_levels_of_powers_of_two(wsi: Path) -> None:
    with open_slide(wsi / "test3-TRITC-2-560.ndpi") as slide:
        assert [level.down_row for level in slide.levels] == [1, 2, 4, 8, 16, 32, 64]
        assert slide.mpp == pytest.approx((0.2282, 0.2282), abs=1e-4)
        assert (slide.info.objective, slide.info.associated) == (40, ("macro",))


def test_a_dicom_folder_and_a_file_in_it_are_one_slide(wsi: Path) -> None:
    folder = wsi / "dicom_cmu-1-small-region_mistagged_rgb"
    with open_slide(folder) as whole, open_slide(folder / "level-3-frames-0-1.dcm") as one:
        assert whole.levels == one.levels
        assert len(whole.levels) == 12
        assert whole.name == one.name == folder.name
        assert whole.mpp == (0.499, 0.499)


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
        open_source(wsi / "small_HE_levels.tiff", mpp=0.5)


def test_native_tiles_are_openslides_pixels_where_openslide_does_not_shift(wsi: Path) -> None:
    with open_slide(wsi / "CMU-1-Small-Region.svs") as slide:
        theirs = openslide.OpenSlide(str(wsi / "CMU-1-Small-Region.svs"))
        box = Box(1000, 700, 1700, 1650)
        want = np.asarray(theirs.read_region((box.col0, box.row0), 0, (box.width, box.height)))[
            ..., :3
        ]
        np.testing.assert_array_equal(slide.read(0, box), want)


def test_a_level_that_openslide_shifts_is_read_unshifted(wsi: Path) -> None:
    file = wsi / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(file) as slide, tifffile.TiffFile(file) as tiff:
        want = tiff.pages[2].asarray()
        np.testing.assert_array_equal(slide.read(1, slide.levels[1].box), want)


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


@pytest.mark.parametrize("share", [0.0001, 0.4, 0.9, 0.999])
@pytest.mark.parametrize(
    "file", ["CMU-1-Small-Region.svs", "generic_tiff_asap/example.tif", "test3-TRITC-2-560.ndpi"]
)
def test_a_truncated_file_is_called_truncated(
    wsi: Path, tmp_path: Path, file: str, share: float
) -> None:
    content = (wsi / file).read_bytes()
    short = tmp_path / Path(file).name
    short.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SlideError, match=f"{short.name}: truncated"):
        open_slide(short)


def test_a_truncated_dicom_file_is_refused_in_one_sentence(wsi: Path, tmp_path: Path) -> None:
    content = next((wsi / "dicom_camelyon_jpeg").glob("*.dcm")).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:9000])
    with pytest.raises(SlideError, match=r"truncated|DICOM"):
        open_slide(tmp_path).read(0, Box(0, 0, 600, 600))


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


def test_what_is_not_a_slide_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("not a slide at all")
    (tmp_path / "folder").mkdir()
    for name, reason in [
        ("none.svs", "no such file"),
        ("empty.svs", r"empty \(0 bytes\)"),
        ("text.svs", "neither a slide format"),
        ("folder", "is empty"),
    ]:
        with pytest.raises(SlideError, match=f"{name}: .*{reason}"):
            open_slide(tmp_path / name)


def test_a_file_one_may_not_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret.svs"
    file.write_bytes(b"II*\0")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(SlideError, match="permission"):
        open_slide(file)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_a_png_of_eight_bits_is_read_as_rgb_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, PICTURE.shape[:2], np.uint8)))
    image.save(tmp_path / "flat.png")
    want = on_white(np.asarray(image.convert("RGBA")))
    with open_slide(tmp_path / "flat.png") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), want)
        assert slide.mpp is None


def test_transparent_black_is_white() -> None:
    assert on_white(np.zeros((2, 2, 4), np.uint8)).tolist() == np.full((2, 2, 3), 255).tolist()


def test_other_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(rng.integers(0, 60000, (50, 60), np.uint16)).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "deep.tif", rng.integers(0, 60000, (50, 60, 3), np.uint16))
    tifffile.imwrite(
        tmp_path / "five.tif", rng.integers(0, 255, (5, 50, 60), np.uint8), photometric="minisblack"
    )
    for name in ("deep.png", "deep.tif", "five.tif"):
        with pytest.raises(SlideError, match=f"{name}: .*8-bit|{name}: .*channels"):
            open_slide(tmp_path / name)


def test_a_cut_off_png_or_jpeg_is_refused(tmp_path: Path) -> None:
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(PICTURE).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(SlideError, match=f"{name}: .*truncated"):
            open_slide(tmp_path / name)


def test_a_flat_image_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_module, "MAX_PIXELS", 1000)
    Image.fromarray(PICTURE).save(tmp_path / "big.png")
    with pytest.raises(SlideError, match=r"200 x 120 px is more than the 1000 px"):
        open_slide(tmp_path / "big.png")


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_a_tiff_in_pixels_a_centimetre_states_an_mpp_and_one_in_dots_an_inch_does_not(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    for unit, resolution, want in [
        ("CENTIMETER", 20000, pytest.approx((0.5, 0.5))),
        ("INCH", 300, None),
        ("INCH", 50800, None),
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


def test_an_array_that_is_no_picture_is_refused() -> None:
    with pytest.raises(SlideError, match="uint8"):
        ArraySlide(np.zeros((4, 4), np.uint8))
