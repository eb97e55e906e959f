"""Any slide is opened by the reader that fits, or refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.slide_files import PICTURE, pixels, save, write_pyramid
from quadrat.core.errors import SlideError
from quadrat.slides.opening import open_slide

TRUNCATED: dict[str, Callable[[Path], None]] = {
    "flat.png": save("PNG"),
    "flat.jpg": save("JPEG"),
    "strips.tif": lambda file: tifffile.imwrite(file, PICTURE, compression="zlib", rowsperstrip=20),
    "tiled.tif": lambda file: tifffile.imwrite(
        file, PICTURE, compression="jpeg", tile=(64, 64), photometric="rgb"
    ),
    "pyramid.ome.tif": lambda file: write_pyramid(file, tile=(64, 64), compression="jpeg"),
    "plain.ome.tif": write_pyramid,
}
rng = np.random.default_rng(0)


def check_truncated(content: bytes, short: Path) -> None:
    """At twenty lengths: refused in one sentence, or every pixel as it was."""
    short.write_bytes(content)
    with open_slide(short, mpp=0.5) as slide:
        whole = [pixels(slide, level) for level in range(len(slide.levels))]
    lengths = [
        *(int(len(content) * share) for share in np.linspace(0.01, 0.99, 16)),
        *(len(content) - cut for cut in (1, 2, 9, 60)),
    ]
    for length in lengths:
        short.write_bytes(content[:length])
        refusal = None
        try:
            with open_slide(short, mpp=0.5) as slide:
                for level, want in enumerate(whole):
                    np.testing.assert_array_equal(pixels(slide, level), want)
        except SlideError as error:
            refusal = str(error)
        assert refusal is None or short.name in refusal


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_cut_off_anywhere_is_refused_or_shows_what_it_showed(
    tmp_path: Path, name: str
) -> None:
    TRUNCATED[name](tmp_path / name)
    check_truncated((tmp_path / name).read_bytes(), tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "CMU-1-Small-Region.svs",
        "TCGA-CR-7395-01A-01-TS1.svs",
        "generic_tiff_asap/example.tif",
        "test3-TRITC-2-560.ndpi",
    ],
)
def test_a_real_slide_cut_off_anywhere_is_refused_or_shows_what_it_showed(
    tmp_path: Path, name: str
) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    file = Path(folder) / "wsi" / name
    check_truncated(file.read_bytes(), tmp_path / file.name)


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


def test_other_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(rng.integers(0, 60000, (50, 60), np.uint16)).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "deep.tif", rng.integers(0, 60000, (50, 60, 3), np.uint16))
    tifffile.imwrite(
        tmp_path / "five.tif", rng.integers(0, 255, (5, 50, 60), np.uint8), photometric="minisblack"
    )
    for name in ("deep.png", "deep.tif", "five.tif"):
        with pytest.raises(SlideError, match=f"{name}: .*8-bit|{name}: .*channels"):
            open_slide(tmp_path / name)
